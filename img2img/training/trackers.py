"""Programs that draw a run's curves beside its own log: TensorBoard, and those that Accelerate knows. A run can do without."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from img2img.config import TrackerName
from img2img.core.errors import UsageError
from img2img.core.files import write_whole
from img2img.images import Array

PROJECT = "img2img"
ID = "tracker-id"  # a run's file, by which a tracker knows it again after a resume
PACKAGES = {"comet_ml": "comet-ml"}  # of trackers whose package has another name

Say = Callable[[str], None]


class Tracker(Protocol):
    """What a run tells a tracker."""

    def log_scalars(self, values: Mapping[str, float], update: int) -> None:
        """Losses, scores and other numbers by name."""

    def log_picture(self, name: str, image: Array, update: int) -> None:
        """A picture (H, W, 3), uint8."""

    def log_text(self, name: str, sentence: str, update: int) -> None:
        """A sentence."""

    def close(self) -> None:
        """Writes what is left."""


def refuse_missing(names: Sequence[TrackerName]) -> None:
    """Raises:
    UsageError: if a tracker's package is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise UsageError(f"--trackers {name}: {name} is not installed: pip install {PACKAGES.get(name, name)}.")


def start_trackers(
    names: Sequence[TrackerName], folder: Path, resume_at: int, settings: Mapping[str, str], say: Say
) -> list[Tracker]:
    """The trackers of a run.

    Args:
        folder: the run's.
        resume_at: the update from which the log goes on.
        settings: of the run, by the names of their options.
        say: is told, once, that a tracker failed.
    """
    started: list[Tracker] = []
    for name in names:
        if name == "tensorboard":
            started.append(TensorBoard(folder / "tensorboard", resume_at, say))
        else:
            started.append(AccelerateTracker(name, folder, settings, say))
    return started


class TensorBoard:
    """TensorBoard's log, in the run's folder; lines from an update on are dropped where the run goes on before them."""

    def __init__(self, folder: Path, resume_at: int, say: Say) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.say, self.hook = say, threading.excepthook
        threading.excepthook = self._hear
        self.writer: Any = None
        with self._noticing():
            self.writer = SummaryWriter(str(folder), purge_step=resume_at + 1)

    def log_scalars(self, values: Mapping[str, float], update: int) -> None:
        for name, value in values.items():
            self._add("scalar", name, value, update)

    def log_picture(self, name: str, image: Array, update: int) -> None:
        self._add("image", name, image, update, dataformats="HWC")

    def log_text(self, name: str, sentence: str, update: int) -> None:
        self._add("text", name, sentence, update)

    def close(self) -> None:
        with self._noticing():
            if self.writer is not None:
                self.writer.close()
        threading.excepthook = self.hook

    def _add(self, kind: str, *values: Any, **options: Any) -> None:
        with self._noticing():
            if self.writer is not None:
                getattr(self.writer, f"add_{kind}")(*values, **options)

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.writer = None
            self.say(
                f"Warning: TensorBoard's log can't be written ({error.strerror or error}); the run goes on without."
            )

    def _hear(self, event: threading.ExceptHookArgs) -> None:
        """The writer's own thread would print a traceback; the next call raises the error again."""
        if not isinstance(event.exc_value, OSError):
            self.hook(event)


NOT_IN_NAMES = re.compile(r"[^\w\-./: ]", re.ASCII)
"""What names of values may not hold, at least in MLflow; those of domains are a user's."""


class AccelerateTracker:
    """One of Accelerate's trackers, which mostly need a network or an account: if it fails, that is said once."""

    def __init__(self, name: TrackerName, folder: Path, settings: Mapping[str, str], say: Say) -> None:
        self.name, self.say = name, say
        self.tracker: Any = None
        with self._noticing():
            tracker = _build(name, folder)
            tracker.start()
            tracker.store_init_configuration(dict(settings))
            self.tracker = tracker

    def log_scalars(self, values: Mapping[str, float], update: int) -> None:
        self._call("log", {NOT_IN_NAMES.sub("_", name): value for name, value in values.items()}, update)

    def log_picture(self, name: str, image: Array, update: int) -> None:
        if hasattr(self.tracker, "log_images"):
            self._call("log_images", {name: [image]}, update)

    def log_text(self, name: str, sentence: str, update: int) -> None:
        """They draw numbers; sentences are in the run's own log."""

    def close(self) -> None:
        self._call("finish")

    def _call(self, name: str, *values: Any) -> None:
        with self._noticing():
            if self.tracker is not None:
                getattr(self.tracker, name)(*values)

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each has its own; none may stop a training
            failed, self.tracker = self.tracker, None
            with suppress(Exception):
                if failed is not None:
                    failed.finish()
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            self.say(f"Warning: {self.name} fails ({reason}); the run goes on without.")


def _build(name: TrackerName, folder: Path) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    run = folder.resolve().name
    options: dict[str, dict[str, Any]] = {
        "wandb": {"name": run, "id": _read_id(folder), "resume": "allow", "dir": str(folder)},
        "trackio": {"name": f"{run}-{_read_id(folder)[:6]}", "resume": "allow"},
        "mlflow": {"run_name": run},
        "clearml": {"task_name": run},
        "dvclive": {"dir": str(folder / "dvclive"), "resume": True},
        "swanlab": {"experiment_name": run, "logdir": str(folder / "swanlab")},
    }
    return LOGGER_TYPE_TO_CLASS[name](PROJECT, **options.get(name, {}))


def _read_id(folder: Path) -> str:
    """A name for the run that no other has, made when it is first asked for."""
    file = folder / ID
    if not file.is_file():
        write_whole(file, token_hex(8).encode())
    return file.read_text().strip()
