"""What a request may do: files of its own, limits, one job a device, and errors in words."""

import os
import re
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import gradio

from img2img.app.limits import Limits
from img2img.core.errors import UserError
from img2img.images import Array, Rules, composite_over_white, resize, to_8_bit, write_image
from img2img.images.decoder import Decoders
from img2img.inference.progress import Watch
from img2img.inference.report import Report, Stopped

Function = TypeVar("Function", bound=Callable[..., Any])

KEPT = 3600.0  # seconds that files are kept
SWEPT = 300.0  # seconds between two looks for older ones
SHOWN = 1600  # pixels a side of what the browser shows
EXACT = 2**20  # pixels, up to which it is shown without loss


class Jobs:
    """Files and running jobs of a server.

    Args:
        folder: where all files of requests lie.
        limits: of each image.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        rules = Rules(limits.max_pixels, first=True, metadata=False)
        memory = int(limits.file_memory * 2**30)
        self.small = Decoders(1, replace(rules, max_side=SHOWN), memory, limits.timeout)
        """Decodes what is only shown."""
        self.whole = Decoders(1, rules, memory, limits.timeout)
        self._stops: dict[str, threading.Event] = {}
        self._running: set[Path] = set()
        self._closed = threading.Event()
        threading.Thread(target=self._sweep, daemon=True).start()

    def make_folder(self) -> Path:
        """An empty folder for what is done at once."""
        return Path(tempfile.mkdtemp(prefix="job-", dir=self.folder))

    @contextmanager
    def run(self, request: gradio.Request, progress: gradio.Progress) -> Iterator[tuple[Path, Watch]]:
        """A folder for a job that takes long, which stays until an hour after its end; and what shows how far the job is.

        That raises `Stopped` when the job's session has asked for it.
        """
        folder, stop = self.make_folder(), threading.Event()
        session = str(request.session_hash or folder.name)

        def watch(done: float, total: int) -> None:
            if stop.is_set():
                raise Stopped(Report())
            progress(done / max(1, total), desc=f"{int(done)} of {total} images" if total > 1 else "translating")

        self._running.add(folder)
        self._stops[session] = stop
        try:
            yield folder, watch
        finally:
            os.utime(folder)
            self._running.discard(folder)
            del self._stops[session]

    def stop(self, request: gradio.Request) -> None:
        """Stops the running job of a session."""
        if stop := self._stops.get(str(request.session_hash)):
            stop.set()

    def show(self, image: Array, like: tuple[int, int] | None = None) -> str:
        """A file with what a browser shows of an image (H, W, C); `like`: its height and width."""
        image = composite_over_white(to_8_bit(image if image.shape[2] <= 4 else image[..., :3]))
        image = image if like is None else resize(image, *like)
        handle, name = tempfile.mkstemp(
            suffix=".png" if image.shape[0] * image.shape[1] <= EXACT else ".jpg", prefix="shown-", dir=self.folder
        )
        os.close(handle)
        write_image(Path(name), image)
        return name

    def close(self) -> None:
        """Ends the processes that decode, and removes all files."""
        self._closed.set()
        for decoders in (self.small, self.whole):
            decoders.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sweep(self) -> None:
        while not self._closed.wait(SWEPT):
            try:
                remove_old(self.folder, KEPT, frozenset(self._running))
            except Exception:  # the next round may do better
                traceback.print_exc()


def remove_old(folder: Path, seconds: float, kept: Set[Path] = frozenset()) -> None:
    """Removes what lies in a folder, and has not been written to for so long, whole; but for what is kept."""
    before = time.time() - seconds
    for path in folder.iterdir():
        with suppress(OSError):  # gone already
            if path in kept or _find_newest(path) >= before:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _find_newest(path: Path) -> float:
    """When anything below a path was written last."""
    newest = path.lstat().st_mtime
    for root, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                newest = max(newest, Path(root, name).lstat().st_mtime)
    return newest


def in_words(function: Function) -> Function:
    """Shows what a user can mend as a sentence in the page; anything else in the terminal."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise gradio.Error(hide_folders(str(error)), duration=None, print_exception=False) from None
        except (gradio.Error, KeyboardInterrupt):
            raise
        except Exception as error:
            raise report_failure(error) from None

    return call  # type: ignore[return-value]


def report_failure(error: Exception) -> gradio.Error:
    """Prints in the terminal what nobody can mend in the page; gives what the page says."""
    traceback.print_exception(error)
    return gradio.Error(
        f"This failed, and should not have: {type(error).__name__}. The server's terminal says more.",
        duration=None,
        print_exception=False,
    )


def hide_folders(sentence: str) -> str:
    """A sentence that names files without the server's folders."""
    return re.sub(r"(?<![\w.:/])/(?:[^/\s'\"]+/)+", "", sentence)
