"""Decoding, the network and encoding at the same time; images of equal size share a batch, whatever their files."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from img2img.core.processes import count_cores
from img2img.images import Picture
from img2img.inference.engine import BATCH_PIXELS, Engine
from img2img.models.translator import Carried

Key = TypeVar("Key")

THREADS = 2  # that decode, and as many that encode, where the network runs on a CPU
MOST_THREADS = 16  # of each, beside a GPU
GPU_BATCH_PIXELS = 64 * 256 * 256
BATCH = 64  # images, however small
WAITING_PIXELS = 2**25  # of images that are decoded ahead, about 500 MB; and as many that wait to be encoded
GPU_WAITING_PIXELS = 2**27


def count_threads(device: torch.device) -> int:
    """Threads that decode images, and as many that encode them, beside a network on this device."""
    return THREADS if device.type == "cpu" else max(THREADS, min(MOST_THREADS, count_cores()))


def takes_bytes(device: torch.device) -> bool:
    """Whether 8-bit images go to a device, and come back, as bytes. A processor scales them in other threads, beside the network."""
    return device.type != "cpu"


def stack_images(images: Sequence[Tensor], pinned: bool = False) -> Tensor:
    """(C, H, W) each → (B, C, H, W); pinned, in memory from which a GPU fetches it while the processor goes on."""
    if not pinned:
        return torch.stack(list(images)) if len(images) > 1 else images[0][None]
    batch = torch.empty(len(images), *images[0].shape, dtype=images[0].dtype, pin_memory=True)
    return torch.stack(list(images), out=batch)


@dataclass
class Times:
    """Where the seconds went. Decoding and encoding are summed over threads, and happen while the network computes."""

    decode: float = 0.0
    network: float = 0.0
    encode: float = 0.0
    waiting: float = 0.0
    """While there was nothing for the network to do."""
    total: float = 0.0


@dataclass(eq=False)
class Item(Generic[Key]):
    """One file on its way."""

    key: Key
    picture: Picture | None = None
    """What it is, and then what it becomes."""
    left: int = 0
    """Frames that the network has not seen yet."""
    done: list["Frame[Key]"] = field(default_factory=list)
    """All its frames, in their order."""
    height: int = 0
    width: int = 0
    frames: int = 0
    bits: int = 0
    """Of a channel, in memory."""
    decode: float = 0.0
    network: float = 0.0
    """Its share of the batches' seconds."""
    encode: float = 0.0
    error: Exception | None = None
    """Why it failed."""


Kind = tuple[int, int, np.dtype[Any]]


@dataclass(eq=False)
class Frame(Generic[Key]):
    """One image of a file."""

    item: Item[Key]
    image: Tensor
    """What the network sees, (C, H, W), and then what came out."""
    carried: Carried
    """What of it goes past the network, to the output."""
    dtype: np.dtype[Any]
    """Of the array that it becomes."""

    @property
    def kind(self) -> Kind:
        """What images of a batch have in common: height, width and depth."""
        return *self.image.shape[1:], self.dtype


@dataclass
class Pipeline(Generic[Key]):
    """Sends images through a translator.

    Which images share a batch depends on the lists of keys alone, also when only some of a list are wanted: in another batch, a
    processor may round differently.

    Args:
        engine: runs in the calling thread.
        read: a key → picture; called in other threads.
        write: a key and the picture with the frames that came out; called in other threads.
        pixels: of a key's image, about, before it is read: so many are decoded ahead as memory permits; called in another thread.
        is_skipped: whether a key's picture is not to be written: it only fills its place in batches.
        batch_size: images of equal size that the network gets at once; by default as many as pay.
    """

    engine: Engine
    read: Callable[[Key], Picture]
    write: Callable[[Key, Picture], None]
    pixels: Callable[[Key], int]
    is_skipped: Callable[[Key], bool] = lambda key: False
    seed: int = 0
    tile: int | None = None
    batch_size: int | None = None
    times: Times = field(default_factory=Times)
    written: deque[Future[Item[Key]]] = field(default_factory=deque)
    """What is being written, or has been and was not given out yet."""

    def run(
        self, lists: Iterable[Sequence[Key]], computed: Callable[[int], None] = lambda count: None
    ) -> Iterator[Item[Key]]:
        """Every key that is wanted, as soon as it is done or has failed; images of different lists share no batch.

        `computed` is told how many more keys the network is done with.
        """
        started, written, pixels = time.perf_counter(), self.written, deque[int]()
        threads = count_threads(self.engine.translator.device)
        most = WAITING_PIXELS if self.engine.translator.device.type == "cpu" else GPU_WAITING_PIXELS
        readers, writers = ThreadPoolExecutor(threads, "decode"), ThreadPoolExecutor(threads, "encode")
        headers = ThreadPoolExecutor(1, "headers")  # of its own: behind images that are decoded, they would be late
        try:
            for work in self._batches(self._read_headers(lists, headers), readers, most):
                ended = [work] if isinstance(work, Item) else self._translate(work)
                ended = [item for item in ended if not self.is_skipped(item.key)]
                written += [writers.submit(self._finish, item) for item in ended]
                pixels += [item.height * item.width * item.frames for item in ended]
                computed(len(ended))
                while written and (
                    written[0].done()
                    or len(written) > 2 * threads + len(ended)
                    or (len(written) > 2 * THREADS + len(ended) and sum(pixels) > most)
                ):
                    pixels.popleft()
                    yield self._done(written)
            while written:
                yield self._done(written)
        finally:
            headers.shutdown(wait=True, cancel_futures=True)
            readers.shutdown(wait=True, cancel_futures=True)
            writers.shutdown(wait=True)  # what is computed is kept
            self.times.total += time.perf_counter() - started

    def list_finished(self) -> list[Item[Key]]:
        """What was written before `run` was interrupted, and not given out."""
        return [work.result() for work in self.written if work.done() and not work.cancelled()]

    def _done(self, written: deque[Future[Item[Key]]]) -> Item[Key]:
        item = self._wait_for(written.popleft())
        self.times.encode += item.encode
        return item

    def _batches(
        self, coming: Iterator[tuple[int, int, Key]], readers: ThreadPoolExecutor, most: int
    ) -> Iterator[list[Frame[Key]] | Item[Key]]:
        """Reads ahead, and gives out what has the same size: as soon as it is enough, or too much else is waiting.

        What can't be read is given out as it is.
        """
        reading: deque[tuple[int, int, Future[Item[Key]]]] = deque()
        waiting: dict[Kind, list[Frame[Key]]] = {}  # by kind, the longest waiting first
        following, current = next(coming, None), 0
        while following or reading or waiting:
            ahead = sum(pixels for _, pixels, _ in reading)
            ahead += sum(frame.item.height * frame.item.width for frames in waiting.values() for frame in frames)
            while following and len(reading) < 2 * BATCH and (not ahead or ahead + following[1] <= most):
                reading.append((*following[:2], readers.submit(self._start, following[2])))
                ahead += following[1]
                following = next(coming, None)
            if waiting and (not reading or reading[0][0] != current):  # no more of this list, or no space for it
                yield waiting.pop(next(iter(waiting)))
                continue
            current, _, future = reading.popleft()
            item = self._wait_for(future)
            self.times.decode += item.decode
            if item.error:
                yield item
                continue
            for frame in list(item.done):
                waiting.setdefault(frame.kind, []).append(frame)
                if len(waiting[frame.kind]) >= self._enough(*frame.kind[:2]):
                    yield waiting.pop(frame.kind)
                elif sum(map(len, waiting.values())) >= 2 * BATCH:
                    yield waiting.pop(next(iter(waiting)))

    def _read_headers(
        self, lists: Iterable[Sequence[Key]], headers: ThreadPoolExecutor
    ) -> Iterator[tuple[int, int, Key]]:
        """The number of each key's list, the pixels of its image, and the key; headers are read some keys ahead, in another thread."""
        ahead: deque[tuple[int, Future[int], Key]] = deque()
        for number, keys in enumerate(self._list_needed(lists)):
            for key in keys:
                ahead.append((number, headers.submit(self.pixels, key), key))
                if len(ahead) > BATCH:
                    first, pixels, next_key = ahead.popleft()
                    yield first, pixels.result(), next_key
        for number, pixels, key in ahead:
            yield number, pixels.result(), key

    def _list_needed(self, lists: Iterable[Sequence[Key]]) -> Iterator[Sequence[Key]]:
        """The lists of which anything is wanted; of others' batches nothing is."""
        return (keys for keys in lists if not all(map(self.is_skipped, keys)))

    def _enough(self, height: int, width: int) -> int:
        """How many images of a size go through the network at once."""
        if self.engine.mode == "paper" or not self.engine.translator.fits(height, width, self.tile):
            return 1
        most = BATCH_PIXELS if self.engine.translator.device.type == "cpu" else GPU_BATCH_PIXELS
        return self.batch_size or min(BATCH, max(1, most // (height * width)))

    def _wait_for(self, future: Future[Item[Key]]) -> Item[Key]:
        before = time.perf_counter()
        item = future.result()
        self.times.waiting += time.perf_counter() - before
        return item

    def _start(self, key: Key) -> Item[Key]:
        item, before, translator = Item(key), time.perf_counter(), self.engine.translator
        try:
            item.picture = self.read(key)
            for array in item.picture.frames:
                item.done.append(Frame(item, *translator.prepare(array, as_bytes=takes_bytes(translator.device))))
            item.height, item.width = item.picture.frames[0].shape[:2]
            item.bits = 8 * item.done[0].dtype.itemsize
            item.frames = item.left = len(item.done)
            item.picture.frames = []
        except Exception as error:  # whatever is wrong with a file must not stop the others
            item.error, item.done, item.picture = error, [], None
        item.decode = time.perf_counter() - before
        return item

    def _translate(self, batch: list[Frame[Key]]) -> list[Item[Key]]:
        """Puts what came out in the place of what went in, and gives the files that are complete then.

        If the memory is too small for all at once, they are done one by one.
        """
        before = time.perf_counter()
        if all(self.is_skipped(frame.item.key) for frame in batch):
            return []
        try:
            height, width, dtype = batch[0].kind
            translator = self.engine.choose(8 * dtype.itemsize, height, width, self.tile).translator
            pinned = translator.device.type == "cuda" and batch[0].image.dtype == torch.uint8
            pinned = pinned and translator.fits(height, width, self.tile)
            images = stack_images([frame.image for frame in batch], pinned)
            done = translator(images, mode=self.engine.mode, seed=self.seed, tile=self.tile)
            for frame, image in zip(batch, done, strict=True):
                frame.image = image
        except Exception as error:  # as above
            if len(batch) > 1:
                return [item for frame in batch for item in self._translate([frame])]
            batch[0].item.error = error
        seconds = time.perf_counter() - before
        self.times.network += seconds
        for frame in batch:
            frame.item.network += seconds / len(batch)
            frame.item.left -= 1
        return [item for item in dict.fromkeys(frame.item for frame in batch) if not item.left]

    def _finish(self, item: Item[Key]) -> Item[Key]:
        before = time.perf_counter()
        if item.error is None and item.picture is not None:
            try:
                finish = self.engine.translator.finish
                item.picture.frames = [finish(frame.image, frame.carried, frame.dtype) for frame in item.done]
                self.write(item.key, item.picture)
            except Exception as error:  # as above
                item.error = error
        item.picture, item.done = None, []
        item.encode = time.perf_counter() - before
        return item
