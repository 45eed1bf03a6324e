"""Decoding, the network and encoding at the same time; images of equal size share a batch."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from img2img.errors import UserError
from img2img.images import Array
from img2img.inference.engine import Engine

Key = TypeVar("Key")

THREADS = 2  # that decode, and as many that encode
BATCH_PIXELS = 8 * 256 * 256  # larger batches are no faster, measured on a CPU
BATCH = 64  # images, however small
WAITING_PIXELS = 2**25  # of images that are decoded ahead, about 500 MB


@dataclass
class Times:
    """Where the seconds went. Decoding and encoding are summed over threads, and happen while the network computes."""

    decode: float = 0.0
    network: float = 0.0
    encode: float = 0.0
    waiting: float = 0.0
    """While there was nothing for the network to do."""
    total: float = 0.0


@dataclass
class Item(Generic[Key]):
    """One image on its way."""

    key: Key
    image: Tensor | None = None
    """What the network sees, (C, H, W), and then what came out."""
    alpha: Array | None = None
    """To be carried to the output, (H, W, 1)."""
    dtype: Any = None
    """Of the array that it was, and becomes."""
    height: int = 0
    width: int = 0
    decode: float = 0.0
    network: float = 0.0
    """Its share of the batch's seconds."""
    encode: float = 0.0
    error: Exception | None = None
    """Why it failed."""


@dataclass
class Pipeline(Generic[Key]):
    """Sends images through a translator.

    Args:
        engine: runs in the calling thread.
        read: a key → array (H, W, C); called in other threads.
        write: a key and the array that came out; called in other threads.
        pixels: of a key's image, about, before it is read: so many are decoded ahead as memory permits.
        seed: of mode ``paper``.
        tile: as of `Translator.__call__`.
        batch_size: images of equal size that the network gets at once; by default as many as pay.
    """

    engine: Engine
    read: Callable[[Key], Array]
    write: Callable[[Key, Array], None]
    pixels: Callable[[Key], int]
    seed: int = 0
    tile: int | None = None
    batch_size: int | None = None
    times: Times = field(default_factory=Times)

    def run(self, keys: Iterable[Key]) -> Iterator[Item[Key]]:
        """Every key, as soon as it is done or has failed. Which images share a batch depends on their order only."""
        started, written = time.perf_counter(), deque[Future[Item[Key]]]()
        readers, writers = ThreadPoolExecutor(THREADS, "decode"), ThreadPoolExecutor(THREADS, "encode")
        try:
            for batch in self._batches(keys, readers):
                self._translate(batch)
                written += [writers.submit(self._finish, item) for item in batch]
                while written and (written[0].done() or len(written) > 2 * THREADS + len(batch)):
                    yield self._done(written)
            while written:
                yield self._done(written)
        finally:
            for pool in (readers, writers):
                pool.shutdown(wait=True, cancel_futures=True)
            self.times.total += time.perf_counter() - started

    def _done(self, written: deque[Future[Item[Key]]]) -> Item[Key]:
        item = self._waited(written.popleft())
        self.times.encode += item.encode
        return item

    def _batches(self, keys: Iterable[Key], readers: ThreadPoolExecutor) -> Iterator[list[Item[Key]]]:
        """Reads ahead, and gives out what has the same size: as soon as it is enough, or too much else is waiting."""
        reading: deque[tuple[int, Future[Item[Key]]]] = deque()
        waiting: dict[tuple[int, int, Any], list[Item[Key]]] = {}  # by size and dtype, the longest waiting first
        coming = ((key, self.pixels(key)) for key in keys)
        following = next(coming, None)
        while following or reading or waiting:
            ahead = sum(pixels for pixels, _ in reading)
            ahead += sum(height * width * len(items) for (height, width, _), items in waiting.items())
            while following and len(reading) < 2 * BATCH and (not ahead or ahead + following[1] <= WAITING_PIXELS):
                reading.append((following[1], readers.submit(self._start, following[0])))
                ahead += following[1]
                following = next(coming, None)
            kind = next(iter(waiting), None)  # if there is nothing to be read, or no space for it
            if reading:
                item = self._waited(reading.popleft()[1])
                self.times.decode += item.decode
                if item.error:
                    yield [item]
                    continue
                kind = item.height, item.width, item.dtype
                waiting.setdefault(kind, []).append(item)
                if len(waiting[kind]) < self._enough(item.height, item.width):
                    if sum(map(len, waiting.values())) < 2 * BATCH:
                        continue
                    kind = next(iter(waiting))
            assert kind is not None
            yield waiting.pop(kind)

    def _enough(self, height: int, width: int) -> int:
        """How many images of a size go through the network at once."""
        if self.engine.mode == "paper" or not self.engine.translator.fits(height, width, self.tile):
            return 1
        return self.batch_size or min(BATCH, max(1, BATCH_PIXELS // (height * width)))

    def _waited(self, future: Future[Item[Key]]) -> Item[Key]:
        before = time.perf_counter()
        item = future.result()
        self.times.waiting += time.perf_counter() - before
        return item

    def _start(self, key: Key) -> Item[Key]:
        item, before = Item(key), time.perf_counter()
        try:
            array = self.read(key)
            item.image, item.alpha = self.engine.translator.prepare(array)
            item.dtype, (item.height, item.width) = array.dtype, array.shape[:2]
        except Exception as error:  # whatever is wrong with a file must not stop the others
            item.error = error
        item.decode = time.perf_counter() - before
        return item

    def _translate(self, batch: list[Item[Key]]) -> None:
        """Puts what came out in the place of what went in; one by one if the memory is too small for all at once."""
        images = [item.image for item in batch if item.image is not None]
        if not images:
            return
        before = time.perf_counter()
        try:
            translator = self.engine.for_8_bits if batch[0].dtype == np.uint8 else self.engine.for_16_bits
            done = translator(torch.stack(images), mode=self.engine.mode, seed=self.seed, tile=self.tile)
            for item, image in zip(batch, done, strict=True):
                item.image = image
        except UserError as error:
            if len(batch) > 1:
                for item in batch:
                    self._translate([item])
                return
            batch[0].error = error
        seconds = time.perf_counter() - before
        self.times.network += seconds
        for item in batch:
            item.network = seconds / len(batch)

    def _finish(self, item: Item[Key]) -> Item[Key]:
        before = time.perf_counter()
        if item.error is None and item.image is not None:
            try:
                self.write(item.key, self.engine.translator.finish(item.image, item.alpha, item.dtype))
            except Exception as error:  # as above
                item.error = error
        item.image = item.alpha = None
        item.encode = time.perf_counter() - before
        return item
