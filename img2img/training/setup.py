"""What a run needs before it starts: its config, its folder, its pairs, Accelerate."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from img2img.config import RunConfig, read_config
from img2img.errors import Strict, UsageError, UserError
from img2img.files import PARTIAL, recover, sweep
from img2img.methods.base import Role
from img2img.methods.perceptual import PerceptualConfig

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"

T = TypeVar("T")
M = TypeVar("M", bound=Strict)


def resolved(config: RunConfig[Any]) -> RunConfig[Any]:
    """With absolute paths, so that a resume may start elsewhere, and the output's default.

    Raises:
        UsageError: for settings that exclude each other.
    """
    data = config.data
    names = ("path", "source", "labels", "target", "instances", "classes")
    paths = {name: path.resolve() for name in names if isinstance(path := getattr(data, name), Path)}
    if not paths.keys() - {"classes"}:
        raise UsageError("which data? Give --data FOLDER.")
    if config.method.from_noise:
        _refuse_what_noise_has_no_use_for(config)
    elif not config.method.paired:
        _refuse_what_needs_pairs(config)
    _check_judges(config)
    if data.derive and data.colour_jitter:
        raise UsageError("--data.colour-jitter changes the source alone, but --data.derive makes it from the target.")
    if data.width not in (None, data.size) and data.quarter_turns:
        raise UsageError("--data.quarter-turns needs square images; leave it or --width out.")
    perceptual: PerceptualConfig | None = getattr(config.method, "perceptual", None)
    if perceptual and perceptual.weight and perceptual.file and not perceptual.file.is_file():
        raise UsageError(f"--perceptual.file {perceptual.file}: there is no such file.")
    if config.memory == "low" and config.compile:
        raise UsageError("--memory low and --compile exclude each other.")
    if config.mixed_precision == "fp16" and config.accumulation > 1:
        raise UsageError("--mixed-precision fp16 and --accumulation exclude each other; use bf16.")
    where = next(path for path in paths.values())
    output = config.output or Path("checkpoints", f"{config.method.name}-{where.name}")
    weights = config.feature_weights and config.feature_weights.resolve()
    begun = {
        name: tuple(path.resolve() if path.exists() else path for path in getattr(config.tuning, name))
        for name in ("init", "init_discriminator")
    }
    return config.model_copy(
        update={
            "method": _with_absolute_paths(config.method),
            "data": data.model_copy(update=paths),
            "output": output,
            "feature_weights": weights,
            "tuning": config.tuning.model_copy(update=begun),
        }
    )


def _with_absolute_paths(settings: M) -> M:
    """The same settings, of a method or a part of one, with absolute paths."""
    found: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path):
            found[name] = value.resolve()
        elif isinstance(value, Strict):
            found[name] = _with_absolute_paths(value)
    return settings.model_copy(update=found)


def _check_judges(config: RunConfig[Any]) -> None:
    if config.best in ("kid", "fid") and config.features == "none":
        raise UsageError(f"--best {config.best} compares features; leave --features none out.")
    if config.feature_weights and not config.feature_weights.is_file():
        raise UsageError(f"--feature-weights {config.feature_weights}: there is no such file.")
    if config.feature_weights and config.features in ("random", "none"):
        raise UsageError(f"--feature-weights are for other features than --features {config.features}; leave one out.")


def _refuse_what_needs_pairs(config: RunConfig[Any]) -> None:
    name, data = config.method.name, config.data
    if data.derive:
        raise UsageError(f"--data.derive makes pairs, but {name} is for images without pairs; use pix2pix.")
    for option in ("labels", "instances", "classes", "ignore_label"):
        if getattr(data, option) is not None:
            raise UsageError(
                f"--data.{option.replace('_', '-')} is about label maps, which {name} has no use for; leave it out."
            )
    if data.colour_jitter:
        raise UsageError(f"--data.colour-jitter changes only sources, which {name} would learn to undo; leave it out.")
    if name == "cyclegan" and data.direction == "BtoA":
        raise UsageError("cyclegan learns both directions; leave --direction out, and give it to convert.")


def _refuse_what_noise_has_no_use_for(config: RunConfig[Any]) -> None:
    name, data = config.method.name, config.data
    given = {
        "source": data.source, "target": data.target, "labels": data.labels, "instances": data.instances, "classes": data.classes,
        "derive": data.derive, "ignore-label": data.ignore_label, "in-channels": data.in_channels,
        "colour-jitter": data.colour_jitter or None,
    }  # fmt: skip
    for option, value in given.items():
        if value is not None:
            raise UsageError(
                f"--data.{option}: {name} makes images from noise, and takes one folder of images, --data FOLDER; leave it out."
            )
    if data.width is not None or data.direction == "BtoA":
        option = "--direction" if data.width is None else "--width"
        raise UsageError(f"{option}: {name} makes square images from noise; leave it out.")
    if config.memory == "low":
        raise UsageError(
            f"--memory low is for translators of large images, not for {name}; take a smaller --batch-size."
        )


def resumed_config(run: Path) -> RunConfig[Any]:
    """The config of a run's folder.

    Raises:
        UsageError: if it is none.
    """
    if not (run / CONFIG).is_file():
        raise UsageError(f"--resume {run}: that is not the folder of a run (no {CONFIG}).")
    return read_config(run / CONFIG)


def prepare_folder(folder: Path, resuming: bool) -> FileLock:
    """Makes the run's folder, or clears what a killed process left unfinished in it.

    Returns:
        The lock that keeps other processes out of it until this one ends, however it ends.

    Raises:
        UsageError: if the folder can't be used.
    """
    try:
        if not resuming and folder.exists() and any(not p.name.startswith((PARTIAL, LOCK)) for p in folder.iterdir()):
            on = f"go on with --resume {folder}, or " if (folder / CONFIG).is_file() else ""
            raise UsageError(f"{folder} is not empty; {on}choose another --output.")
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
        sweep(folder / CHECKPOINTS, of_all=True)
        for role in get_args(Role):
            sweep(folder / role, of_all=True)
            for name in ("best", "newest"):
                recover(folder / role / name)
        return lock
    except Timeout:
        raise UsageError(f"{folder} is in use by another process that trains into it; stop that one first.") from None
    except (NotADirectoryError, FileExistsError):
        raise UsageError(f"--output {folder} is a file; give a folder.") from None
    except OSError as failure:
        raise UsageError(f"--output {folder} can't be used: {failure.strerror}.") from None


def on_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Does something in the main process, and gives its outcome, or raises its error, in every process.

    Raises:
        UserError: what `work` raised.
    """
    if accelerator.num_processes == 1:
        return work()
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [work()]
        except UserError as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], UserError):
        raise outcome[0]
    return outcome[0]


def make_accelerator(device: torch.device, precision: str, accumulation: int, partly: bool = False) -> Accelerator:
    """Accelerate for this run, whatever an earlier run in this process or the environment asked of it.

    Args:
        device: where to compute.
        precision: no, bf16 or fp16.
        accumulation: batches an update.
        partly: whether a part of a network may be frozen for a while, for which processes must not wait.
    """
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
    os.environ.pop("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", None)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # Accelerate passes on no successor yet
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision,
        gradient_accumulation_steps=accumulation,
        kwargs_handlers=[  # buffers: there are two forwards before a backward
            DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=partly)
        ],
    )
