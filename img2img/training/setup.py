"""What a run needs before it starts: its config, its folder, its pairs, Accelerate."""

import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import broadcast_object_list

from img2img.config import RunConfig, read_config, write_config
from img2img.data.folders import Pair, PairedFolder, Split, hold_out
from img2img.errors import UsageError, UserError, listed
from img2img.files import recover, sweep
from img2img.training.state import checkpoints

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"


def resolved(config: RunConfig[Any]) -> RunConfig[Any]:
    """With absolute paths, so that a resume may start elsewhere, and the output's default."""
    data = config.data
    paths = {name: path.resolve() for name in ("path", "source", "target") if (path := getattr(data, name))}
    if not paths:
        raise UsageError("which data? Give --data FOLDER.")
    where = paths.get("path") or paths.get("source") or paths["target"]
    output = config.output or Path("checkpoints", f"{config.method.name}-{where.name}")
    return config.model_copy(update={"data": data.model_copy(update=paths), "output": output})


def resumed_config(run: Path) -> RunConfig[Any]:
    """The config of a run's folder.

    Raises:
        UsageError: if there is no run with a checkpoint.
    """
    if not (run / CONFIG).is_file():
        raise UsageError(f"--resume {run}: that is not the folder of a run (no {CONFIG}).")
    if not checkpoints(run / CHECKPOINTS):
        raise UsageError(f"--resume {run}: that run has no checkpoint yet; start it again with another --output.")
    return read_config(run / CONFIG)


def prepare_folder(folder: Path, config: RunConfig[Any], resuming: bool, accelerator: Accelerator) -> None:
    """Makes the run's folder, or clears what a killed process left unfinished in it, and writes the config.

    Raises:
        UsageError: in every process, if the folder can't be used.
    """
    error = ""
    if accelerator.is_main_process:
        try:
            if resuming:
                sweep(folder)
                sweep(folder / CHECKPOINTS)
                for name in ("best", "newest"):
                    recover(folder / name)
            elif folder.exists() and any(folder.iterdir()):
                error = f"{folder} is not empty; go on with --resume {folder}, or choose another --output."
            if not error:
                write_config(folder / CONFIG, config)
        except NotADirectoryError:
            error = f"--output {folder} is a file; give a folder."
        except OSError as failure:
            error = f"--output {folder} can't be used: {failure.strerror}."
        except UserError as failure:
            error = str(failure)
    errors = [error]
    if accelerator.num_processes > 1:
        broadcast_object_list(errors)
    if errors[0]:
        raise UsageError(errors[0])


def choose_splits(splits: dict[Split, PairedFolder], holdout: float) -> tuple[list[Pair], list[Pair], str]:
    """Training pairs, validation pairs, and which split the latter are: val, else test, else held out of train.

    Raises:
        UsageError: if there is no train split.
    """
    if "train" not in splits:
        raise UsageError(f"there is no train split, only {listed(list(splits))}.")
    train = splits["train"]
    for name in ("val", "test"):
        if name in splits and splits[name].pairs:
            return train.pairs, splits[name].pairs, name
    if holdout:
        rest, held = hold_out(train, holdout)
        return rest.pairs, held.pairs, "train, held out"
    return train.pairs, [], ""


def make_accelerator(device: torch.device, precision: str, accumulation: int) -> Accelerator:
    """Accelerate for this run, whatever an earlier run in this process asked of it."""
    AcceleratorState._reset_state()
    GradientState._reset_state()
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # Accelerate passes on no successor yet
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision,
        gradient_accumulation_steps=accumulation,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],  # two forwards before a backward
    )
