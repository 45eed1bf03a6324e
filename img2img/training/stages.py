"""From coarse to fine: a run that first trains another, of a smaller generator at half the size, in a folder of its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from img2img.config import DataConfig, RunConfig
from img2img.errors import UsageError
from img2img.methods.base import Method
from img2img.training.setup import CHECKPOINTS
from img2img.training.state import checkpoints
from img2img.translator import find_translator

COARSE = "coarse"


def coarse_config(config: RunConfig[Any]) -> RunConfig[Any] | None:
    """The run that comes before this one; None if there is none.

    Raises:
        UsageError: if images of half the size are none.
    """
    method = config.method.coarser()
    if method is None:
        return None
    assert config.output is not None
    size, width = config.data.size, config.data.width
    for option, side in (("size", size), ("width", width or size)):
        if side % 2 or side < 16:
            raise UsageError(
                f"--{option} {side} can't be halved for the coarse stage; use an even number of at least 16."
            )
    share = config.method.coarse_share
    steps = None if config.steps is None else max(1, round(config.steps * share))
    return config.model_copy(
        update={
            "method": method,
            "data": config.data.model_copy(update={"size": size // 2, "width": width and width // 2}),
            "steps": steps,
            "epochs": config.epochs * share,
            "output": config.output / COARSE,
        }
    )


def own_length(config: RunConfig[Any], length: int) -> tuple[int | None, float]:
    """Updates, if they are counted, and epochs of this run itself, without those of the one before.

    Args:
        config: of the run.
        length: images in an epoch.
    """
    coarse = coarse_config(config)
    if coarse is None:
        return config.steps, config.epochs
    assert coarse.output is not None
    updates, epochs = coarse.steps or 0, coarse.epochs
    if checkpoints(coarse.output / CHECKPOINTS):  # what it has really trained, should this run be made longer
        updates, images = _trained(coarse.output)
        epochs = images / length
    return None if config.steps is None else max(1, config.steps - updates), max(0.0, config.epochs - epochs)


def _trained(run: Path) -> tuple[int, int]:
    """Updates and images of a run, and of those before it."""
    updates, images = _trained(run / COARSE) if (run / COARSE).is_dir() else (0, 0)
    done = checkpoints(run / CHECKPOINTS)
    progress = json.loads((done[-1] / "progress.json").read_text(encoding="utf-8")) if done else {}
    return updates + progress.get("update", 0), images + progress.get("samples", 0)


def coarse_weights(config: RunConfig[Any]) -> dict[str, Mapping[str, Tensor]]:
    """The networks by name with which this run begins; none if no run comes before it.

    The generator and the encoder are those of the other run's newest translator, which may be moving averages; the
    discriminator is its last checkpoint's.

    Raises:
        UsageError: if the other run's folder is none, or is damaged.
    """
    folder: Path | None = getattr(config.method, "coarse_run", None)
    if folder is None and coarse_config(config) is not None:
        assert config.output is not None
        folder = config.output / COARSE
    if folder is None:
        return {}
    newest = folder / "newest"
    translator = newest if newest.is_dir() else find_translator(folder)
    files = {name: translator / f"{name}.safetensors" for name in ("generator", "encoder")}
    saved = checkpoints(folder / CHECKPOINTS)
    if saved:
        files["discriminator"] = saved[-1] / "discriminator.safetensors"
    try:
        return {name: load_file(file) for name, file in files.items() if file.is_file()}
    except (OSError, SafetensorError, ValueError) as error:
        raise UsageError(f"{folder} can't be begun from: {error}.") from None


def frozen_updates(config: RunConfig[Any], total: int) -> int:
    """Updates in which what was trained before is left as it is; `total` are this run's own."""
    begun = coarse_config(config) is not None or getattr(config.method, "coarse_run", None) is not None
    return round(total * config.method.frozen_share) if begun else 0


def shorter(data: DataConfig) -> int:
    """The shorter side of the training images."""
    return min(data.size, data.width or data.size)


def refuse_sides(method: Method, data: DataConfig) -> None:
    """What was built for the shorter side must take the longer one, too; and so must an encoder.

    Raises:
        UsageError: if not.
    """
    readers = [name for name, encoder in method.encoders.values() if encoder.kind == "instances"]
    for name in (*method.generators.values(), *readers):
        multiple: int = method.networks[name].size_multiple  # type: ignore[assignment]
        for option, side in (("size", data.size), ("width", data.width or data.size)):
            if side % multiple:
                raise UsageError(f"--{option} {side}: this {name} needs a multiple of {multiple}.")


def try_stages(config: RunConfig[Any], in_channels: int, out_channels: int) -> None:
    """Builds what the stages before would train.

    Raises:
        UsageError: if one of them can't be.
    """
    coarse, part = coarse_config(config), 2
    while coarse is not None:
        try:
            refuse_sides(coarse.method.build(in_channels, out_channels, shorter(coarse.data)), coarse.data)
        except UsageError as error:
            raise UsageError(f"at 1/{part} of the size, where training begins (--coarse-share): {error}") from None
        coarse, part = coarse_config(coarse), 2 * part
