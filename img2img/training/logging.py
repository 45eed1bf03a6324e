"""What a run logs: JSON lines and trackers for machines, a progress bar and sentences for people."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from img2img.config import TrackerName
from img2img.core.errors import UserError
from img2img.core.files import write_whole
from img2img.images import Array
from img2img.methods.base import Translations
from img2img.training.trackers import start_trackers

LOG_FILE = "log.jsonl"
SAY_EVERY = 10  # seconds between lines for people where there is no progress bar


class RunLog:
    """Writes only in the main process; elsewhere every call does nothing.

    Lines of a log that is there are dropped from the update `resume_at` on; `quiet`: no progress bar and no sentences;
    `trackers` are told the same, and the run's `settings`.
    """

    def __init__(
        self,
        folder: Path,
        resume_at: int,
        total: int,
        main: bool,
        quiet: bool = False,
        trackers: Sequence[TrackerName] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.main = main
        self.said = 0.0
        self.warnings: list[str] = []
        """What the diagnostics found, also before a resume."""
        self.console = Console(quiet=quiet or not main, stderr=True, highlight=False)
        if not main:
            return
        path = folder / LOG_FILE
        lines = _read_lines_until(path, resume_at) if path.exists() else []
        write_whole(path, "".join(lines).encode())
        with _explaining(path):
            self.file = path.open("a", encoding="utf-8")
        self.warnings = [text for line in lines if (text := json.loads(line).get("warning"))]
        self.trackers = start_trackers(trackers, folder, resume_at, settings or {}, self.say)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=total, completed=resume_at, losses="")

    def __enter__(self) -> Self:
        if self.main:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.main:
            self.bar.stop()
            with suppress(OSError):  # every line was flushed, or has failed
                self.file.close()
            for tracker in self.trackers:
                tracker.close()

    def say(self, sentence: str) -> None:
        """A sentence for a person."""
        self.console.print(sentence, soft_wrap=True, markup=False)

    def advance(self, update: int) -> None:
        """Moves the progress bar."""
        if self.main:
            self.bar.update(self.task, completed=update)

    def losses(self, update: int, values: dict[str, float], extra: dict[str, float]) -> None:
        """One line of the log: losses and other numbers, e.g. the epoch and the speed."""
        if not self.main:
            return
        self._line(update, {**extra, **values})
        text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self.bar.update(self.task, losses=text)
        if self.bar.disable and time.monotonic() - self.said >= SAY_EVERY:
            self.said = time.monotonic()
            speed = f"{extra['images_per_second']:.1f} images/s"
            self.say(f"update {update}  epoch {extra['epoch']:.2f}  {text}  {speed}")

    def warn(self, update: int, sentence: str) -> None:
        """What the diagnostics found: to the person, as a line of the log, to TensorBoard, and kept for the summary."""
        self.say(f"Warning: {sentence}")
        if self.main:
            self.warnings.append(sentence)
            self._write(json.dumps({"step": update, "warning": sentence}, ensure_ascii=False))
            for tracker in self.trackers:
                tracker.log_text("warnings", sentence, update)

    def scores(self, update: int, scores: dict[str, float | None]) -> None:
        """One line of the log: a validation."""
        if self.main:
            self._line(update, {f"val/{name}": value for name, value in scores.items()})

    def picture(self, update: int, image: Array, name: str = "") -> None:
        """A picture (H, W, 3), uint8, for the trackers."""
        if self.main:
            for tracker in self.trackers:
                tracker.log_picture(f"samples/{name}" if name else "samples", image, update)

    def _line(self, update: int, values: dict[str, Any]) -> None:
        self._write(json.dumps({"step": update, **values}))
        known = {name: value for name, value in values.items() if value is not None}
        for tracker in self.trackers:
            tracker.log_scalars(known, update)

    def _write(self, line: str) -> None:
        with _explaining(self.file.name):
            self.file.write(line + "\n")
            self.file.flush()


@contextmanager
def _explaining(path: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror or error}.") from None


def _read_lines_until(path: Path, update: int) -> list[str]:
    """The lines of a log up to an update; what comes after a resume will be written anew, and a torn line is dropped."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= update:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    return kept


class Meter:
    """Sums of losses, images and seconds since the last report, and the last translations; all stay on the device."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.translations: Translations = {}
        self.start()

    def start(self) -> None:
        """Begins to count images and seconds; sums that a resumed run brought with it stay."""
        self.images = 0
        self.idle = 0.0
        self.started = time.perf_counter()

    def add(self, losses: dict[str, Tensor], images: int) -> None:
        """Takes in one batch."""
        self.images += images
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, Tensor]:
        """The mean of each loss over the batches that had it, by name."""
        return {name: self.sums[name] / self.counts[name] for name in sorted(self.sums)}

    def state_dict(self) -> dict[str, Any]:
        """The sums of this process: a resumed run reports, and watches, what an uninterrupted one does."""
        return {"sums": {name: value.cpu() for name, value in self.sums.items()}, "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any], device: Any) -> None:
        """Undoes `state_dict`."""
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])

    def seconds(self) -> float:
        """Seconds of training since the start, without pauses."""
        return time.perf_counter() - self.started - self.idle

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here doesn't count."""
        before = time.perf_counter()
        yield
        self.idle += time.perf_counter() - before
