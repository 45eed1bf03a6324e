"""Decoding in processes of their own, which a file can crash, hang or bloat without harm to the others."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import numpy as np

import img2img
from img2img.core.errors import UserError
from img2img.core.stored import StoredPath
from img2img.images.arrays import Array, ImageError
from img2img.images.bands import Bands
from img2img.images.reading import Picture, Rules
from img2img.images.worker import BLOCKS, command

MEMORY = 4 * 2**30
TIMEOUT = 60.0
STARTING = 120.0  # seconds
GRACE = 10.0  # seconds after the timeout, when the process ends itself, if whoever started it is gone


class Decoder:
    """A process that decodes one file after the other; a new one takes its place when a file has ended it.

    A file may take so many seconds, and on Linux so many bytes of memory, the process' own 0.3 GB counted.
    """

    def __init__(self, rules: Rules, memory: int = MEMORY, timeout: float = TIMEOUT) -> None:
        self.rules, self.memory, self.timeout = rules, memory, timeout
        self.ready = False
        self.process: subprocess.Popen[bytes] | None = self._start()  # at once: it starts while others work

    def pixels(self, path: Path) -> int:
        """As `img2img.images.count_pixels`.

        Raises:
            ImageError: if the file takes too long or too much memory, or crashes the process.
        """
        return int(self._ask("pixels", path, lambda values, _: values["pixels"]))

    def picture(self, path: Path) -> Picture:
        """As `img2img.images.read_picture`.

        Raises:
            ImageError: also if the file takes too long or too much memory, or crashes the process.
        """
        return self._ask("picture", path, _picture)

    def indices(self, path: Path) -> Array:
        """As `img2img.images.labels.read_indices`.

        Raises:
            ImageError: also if the file takes too long or too much memory, or crashes the process.
        """
        return self._ask("indices", path, _picture).frames[0]

    def _ask(self, task: str, path: Path, receive: Callable[[dict[str, Any], IO[bytes]], Any]) -> Any:
        place = path.find() if isinstance(path, StoredPath) and path.member else None
        process, late = self._ensure_started(), threading.Event()
        assert process.stdin and process.stdout

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.timeout, stop)
        timer.start()
        try:
            process.stdin.write(json.dumps([task, str(path), place]).encode() + b"\n")
            process.stdin.flush()
            values = json.loads(process.stdout.readline())
            if "error" in values:
                raise ImageError(values["error"])
            return receive(values, process.stdout)
        except (OSError, ValueError, EOFError) as error:
            if isinstance(error, UserError):
                raise
            self.close()
            if late.is_set():
                raise ImageError(
                    f"{path} takes longer than {self.timeout:g} s to decode; --timeout allows more."
                ) from None
            raise ImageError(f"{path} can't be decoded: it crashed the decoder.") from None
        except BaseException:  # whatever else: the rest of the answer must not be taken for the next one's
            self.close()
            raise
        finally:
            timer.cancel()

    def _ensure_started(self) -> subprocess.Popen[bytes]:
        """The process, ready; a new one if it has ended, or was ended, since the last file."""
        if self.process is not None and self.process.poll() is not None:
            self.close()
        if self.process is None:
            self.process = self._start()
        if not self.ready:
            assert self.process.stdout
            timer = threading.Timer(STARTING, self.process.kill)
            timer.start()
            line = self.process.stdout.readline()
            timer.cancel()
            if not line:
                self.close()
                raise ImageError(
                    f"the process that decodes images doesn't start within {STARTING:g} s and {self.memory / 2**30:.3g} GB "
                    "(--file-memory)."
                )
            self.ready = True
        return self.process

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(img2img.__file__).parent.parent)
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        try:
            return subprocess.Popen(
                command(self.memory, self.timeout + GRACE, self.rules), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"no process can be started to decode images: {error.strerror}.") from None

    def close(self) -> None:
        """Ends the process."""
        process, self.process, self.ready = self.process, None, False
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    assert pipe is not None
                    pipe.close()


def _picture(values: dict[str, Any], file: IO[bytes]) -> Picture:
    frames: list[Array] = []
    count_frames = len(values["frames"])
    for shape, dtype in (*values.pop("frames"), *values.pop("masks")):
        frame = np.empty(shape, dtype)
        left = memoryview(frame.data).cast("B")
        while len(left):
            count = file.readinto(left)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            left = left[count:]
        frames.append(frame)
    blocks: dict[str, Any] = {name: bytes.fromhex(values.pop(name)) for name in BLOCKS}
    dpi = values.pop("dpi")
    stored = values.pop("bands")
    masks = frames[count_frames:]
    bands = stored and Bands(**{**stored, "header": bytes.fromhex(stored["header"]), "missing": masks})
    return Picture(frames[:count_frames], **blocks, dpi=tuple(dpi) if dpi else None, bands=bands, **values)


class Decoders:
    """Several, to be used by as many threads."""

    def __init__(self, count: int, rules: Rules, memory: int = MEMORY, timeout: float = TIMEOUT) -> None:
        self.all = [Decoder(rules, memory, timeout) for _ in range(count)]
        self.idle: SimpleQueue[Decoder] = SimpleQueue()
        for decoder in self.all:
            self.idle.put(decoder)

    def pixels(self, path: Path) -> int:
        """As `Decoder.pixels`, of one that nobody else uses meanwhile."""
        with self._lend() as decoder:
            return decoder.pixels(path)

    def picture(self, path: Path) -> Picture:
        """As `Decoder.picture`."""
        with self._lend() as decoder:
            return decoder.picture(path)

    def indices(self, path: Path) -> Array:
        """As `Decoder.indices`."""
        with self._lend() as decoder:
            return decoder.indices(path)

    @contextmanager
    def _lend(self) -> Iterator[Decoder]:
        decoder = self.idle.get()
        try:
            yield decoder
        finally:
            self.idle.put(decoder)

    def close(self) -> None:
        """Ends all processes."""
        for decoder in self.all:
            decoder.close()
