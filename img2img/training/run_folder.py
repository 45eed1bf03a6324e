"""A run's folder: what it is called, who may write into it, and its config."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from img2img.config import RunConfig, read_config
from img2img.core.errors import UsageError
from img2img.core.files import PARTIAL, recover, remove_leftovers

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
SAMPLES = "samples"
LOCK = ".lock"
DIRECTIONS = ("", "AtoB", "BtoA")
"""Sub-folders in which models may lie."""


def load_run_config(run: Path) -> RunConfig:
    """The config of a run's folder.

    Raises:
        UsageError: if it is none.
    """
    if not run.exists():
        raise UsageError(f"--resume {run}: there is no such folder.")
    if not (run / CONFIG).is_file():
        raise UsageError(f"--resume {run}: that is not the folder of a run (no {CONFIG}).")
    config = read_config(run / CONFIG)
    if "recipe" not in config.model_fields_set:  # of before there were recipes
        return config.model_copy(update={"recipe": "paper"})
    return config


@contextmanager
def claim_folder(folder: Path, resuming: bool) -> Iterator[None]:
    """Makes the run's folder, or clears what a killed process left unfinished in it; keeps other processes out meanwhile.

    Raises:
        UsageError: if the folder can't be used.
    """
    lock = _lock(folder, resuming)
    try:
        yield
    finally:
        lock.release()


def _lock(folder: Path, resuming: bool) -> FileLock:
    try:
        if not resuming and folder.exists() and any(not p.name.startswith((PARTIAL, LOCK)) for p in folder.iterdir()):
            on = f"continue it with --resume {folder}, or " if (folder / CONFIG).is_file() else ""
            raise UsageError(f"{folder} is not empty; {on}choose another --output.")
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
        for part in (CHECKPOINTS, SAMPLES):
            remove_leftovers(folder / part, of_all=True)
        for direction in DIRECTIONS:
            remove_leftovers(folder / direction, of_all=True)
            for name in ("best", "best-l1", "latest"):
                recover(folder / direction / name)
        return lock
    except Timeout:
        raise UsageError(f"{folder} is in use by another process that trains into it; stop that one first.") from None
    except (NotADirectoryError, FileExistsError):
        raise UsageError(f"--output {folder} is a file; give a folder.") from None
    except OSError as failure:
        raise UsageError(f"--output {folder} can't be used: {failure.strerror}.") from None
