"""Checkpoints: what a resume needs, saved whole or not at all."""

import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file
from torch import nn

from img2img.core.errors import UsageError
from img2img.core.files import whole_folder, write_tensors
from img2img.core.processes import run_on_main
from img2img.methods.base import Memory
from img2img.training.diagnostics import Diagnostics
from img2img.training.ema import EMA
from img2img.training.logging import Meter

PREFIX = "step-"


@dataclass
class Progress:
    """Where a run stands."""

    update: int = 0
    """Optimizer updates done."""
    samples: int = 0
    """Training images seen by all processes."""
    best: dict[str, float] = field(default_factory=dict)
    """The validation score of the best so far, for each translator."""
    best_l1: dict[str, float] = field(default_factory=dict)
    """Their L1, if the perceptual distance chooses."""
    lowest_l1: dict[str, float] = field(default_factory=dict)
    """The lowest L1 so far, if the perceptual distance chooses."""
    best_by: str = ""
    """What these scores are."""
    scores: dict[str, float | None] = field(default_factory=dict)
    """The last validation."""
    frozen_until: int | None = None
    """The update until which what an earlier stage trained is frozen; noted when the run begins."""


@dataclass
class RunState:
    """Everything that changes while a run goes on. Networks are unwrapped."""

    networks: dict[str, nn.Module]
    optimizers: dict[str, Any]
    emas: dict[str, EMA]
    """By the name of the network that is followed."""
    memories: Mapping[str, Memory]
    diagnostics: Diagnostics
    meter: Meter
    progress: Progress


def save_checkpoint(folder: Path, state: RunState, accelerator: Accelerator, keep: int) -> None:
    """Writes `folder/step-N`, and then removes all but the latest `keep`. Every process calls it.

    Raises:
        UserError: if it can't be written; older checkpoints stay then.
    """
    own = gather_object([{"random": random_state(), "meter": state.meter.state_dict()}])
    scaler = accelerator.scaler.state_dict() if accelerator.scaler else {}
    run_on_main(accelerator, lambda: _write(folder, state, scaler, own, keep))


def _write(folder: Path, state: RunState, scaler: dict[str, Any], own: list[Any], keep: int) -> None:
    with whole_folder(folder / f"{PREFIX}{state.progress.update:08d}") as new:
        for name, network in state.networks.items():
            write_tensors(new / f"{name}.safetensors", network.state_dict())
        for name, ema in state.emas.items():
            write_tensors(new / f"{name}-ema.safetensors", ema.network.state_dict())
        for name, memory in state.memories.items():
            write_tensors(new / f"{name}.safetensors", memory.state_dict())
        optimizers = {name: optimizer.state_dict() for name, optimizer in state.optimizers.items()}
        try:
            diagnostics = state.diagnostics.state_dict()
            saved = {"optimizers": optimizers, "scaler": scaler, "diagnostics": diagnostics, "processes": own}
            torch.save(saved, new / "state.pt")
        except RuntimeError as error:  # how PyTorch says that a disk is full
            raise OSError(" ".join(str(error).split())[:200]) from None
        progress = {**asdict(state.progress), "ema_updates": {name: ema.updates for name, ema in state.emas.items()}}
        (new / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
    for older in find_checkpoints(folder)[:-keep]:
        shutil.rmtree(older, ignore_errors=True)


def find_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / "progress.json").is_file())


def load_checkpoint(path: Path, state: RunState, accelerator: Accelerator) -> bool:
    """Puts a checkpoint into a state that was built from the same config. Runs no pickle.

    Returns:
        Whether every process found its own random state: not so if their number has changed.

    Raises:
        UsageError: if it is damaged, or was written with other settings.
    """
    try:
        for name, network in state.networks.items():
            weights = load_file(path / f"{name}.safetensors")
            if _shapes(weights) != _shapes(network.state_dict()):
                raise UsageError(
                    f"{path} can't be resumed with these settings: its {name} is another network. "
                    "Leave --size, --generator and --discriminator as the run has them."
                )
            network.load_state_dict(weights)
        for name, ema in state.emas.items():
            ema.network.load_state_dict(load_file(path / f"{name}-ema.safetensors"))
        for name, memory in state.memories.items():
            memory.load_state_dict(load_file(path / f"{name}.safetensors"))
        saved = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        for name, optimizer in state.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        state.diagnostics.load_state_dict(saved["diagnostics"])
        if accelerator.scaler and saved["scaler"]:
            accelerator.scaler.load_state_dict(saved["scaler"])
        progress = json.loads((path / "progress.json").read_text(encoding="utf-8"))
        updates = progress.pop("ema_updates")
        for name, ema in state.emas.items():
            ema.updates = updates[name]
        state.progress = Progress(**progress)
    except UsageError:
        raise
    except Exception as error:  # every part has its own way to say that it doesn't fit
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{path} can't be resumed with these settings, or is of another version of img2img ({type(error).__name__}: {reason})."
        ) from None
    if len(saved["processes"]) != accelerator.num_processes:
        return False
    own = saved["processes"][accelerator.process_index]
    state.meter.load_state_dict(own["meter"], accelerator.device)
    set_random_state(own["random"])
    return True


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def random_state() -> dict[str, Any]:
    """The state of every global random generator of this process, in types that load without a pickle."""
    kind, keys, *rest = np.random.get_state()  # type: ignore[misc]
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": (version, words, gauss),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Undoes `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
