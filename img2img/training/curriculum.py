"""Stages: runs that a method declares to be trained before its own, each in a folder of its own."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from img2img.config import FinetuneConfig, RunConfig, run_type
from img2img.core.errors import UsageError
from img2img.data.base import DataConfig
from img2img.methods.base import Method
from img2img.models import find_translator
from img2img.training.checkpoint import find_checkpoints
from img2img.training.run_folder import CHECKPOINTS


def earlier_config(config: RunConfig) -> RunConfig | None:
    """The config of the run that comes before this one; None if there is none.

    Raises:
        UsageError: if its images can't be that much smaller.
    """
    stage = config.method.earlier_stage()
    if stage is None:
        return None
    assert config.output is not None
    size, width = config.data.size, config.data.width
    for option, side in (("size", size), ("width", width or size)):
        if side % stage.scale or side < 8 * stage.scale:
            raise UsageError(
                f"--{option} {side} can't be divided by {stage.scale} for the {stage.name} stage; use a multiple of "
                f"{stage.scale}, at least {8 * stage.scale}."
            )
    smaller = {"size": size // stage.scale, "width": width and width // stage.scale}
    steps = None if config.steps is None else max(1, round(config.steps * stage.share))
    values = {
        **{name: getattr(config, name) for name in type(config).model_fields},
        "method": stage.method,
        "data": config.data.model_copy(update=smaller),
        "steps": stage.updates or steps,
        "epochs": config.epochs * (stage.share or 1.0),
        "output": config.output / stage.name,
    }
    if stage.updates:  # its own task, of which only the generator is used: what is chosen for the whole run doesn't fit
        values |= {"features": "none", "feature_weights": None, "best": "auto", "finetune": FinetuneConfig()}
    if config.recipe != "auto" and config.recipe not in stage.method.recipes:
        values["recipe"] = "paper"
    found: RunConfig = run_type(stage.method.name).model_validate(values)
    return found


def own_length(config: RunConfig, length: int) -> tuple[int | None, float]:
    """Updates, if they are counted, and epochs, of `length` images, of this run itself, without those of the one before.

    Raises:
        UsageError: if the one before has had them all already.
    """
    earlier, stage = earlier_config(config), config.method.earlier_stage()
    if earlier is None or stage is None or stage.updates:
        return config.steps, config.epochs
    assert earlier.output is not None
    updates, epochs = earlier.steps or 0, earlier.epochs
    if find_checkpoints(earlier.output / CHECKPOINTS):  # what it has really trained, should this run be made longer
        updates, images = _count_trained(earlier)
        epochs = images / length
    if config.steps is not None and updates > max(config.steps, earlier.steps or 0):
        raise UsageError(
            f"--steps {config.steps}: the {stage.name} stage has {updates} updates already, which leaves none for what follows; give more."
        )
    return None if config.steps is None else max(1, config.steps - updates), max(0.0, config.epochs - epochs)


def _count_trained(config: RunConfig) -> tuple[int, int]:
    """Updates and images of a run, and of those before it."""
    assert config.output is not None
    earlier = earlier_config(config)
    updates, images = _count_trained(earlier) if earlier else (0, 0)
    done = find_checkpoints(config.output / CHECKPOINTS)
    progress = json.loads((done[-1] / "progress.json").read_text(encoding="utf-8")) if done else {}
    return updates + progress.get("update", 0), images + progress.get("samples", 0)


def begins_from_stage(config: RunConfig) -> bool:
    """Whether the stage before is done, and this run has not begun."""
    assert config.output is not None
    earlier = earlier_config(config)
    done = earlier is not None and earlier.output is not None and (earlier.output / "latest").is_dir()
    return bool(config.method.begins_with_run or done) and not find_checkpoints(config.output / CHECKPOINTS)


def load_stage_weights(config: RunConfig) -> dict[str, Mapping[str, Tensor]]:
    """The networks by name with which this run begins; none if no run comes before it.

    The generator and the encoder are those of the other run's latest translator, which may be moving averages; the
    discriminators are its last checkpoint's.

    Raises:
        UsageError: if the other run's folder is none, or is damaged.
    """
    earlier = earlier_config(config)
    folder: Path | None = config.method.begins_with_run or (earlier.output if earlier else None)
    if folder is None:
        return {}
    latest = folder / "latest"
    translator = latest if latest.is_dir() else find_translator(folder)
    files = {name: translator / f"{name}.safetensors" for name in ("generator", "encoder")}
    saved = find_checkpoints(folder / CHECKPOINTS)
    if saved:
        files |= {name: saved[-1] / f"{name}.safetensors" for name in config.method.discriminators}
    try:
        return {name: load_file(file) for name, file in files.items() if file.is_file()}
    except (OSError, SafetensorError, ValueError) as error:
        raise UsageError(f"a run can't begin with {folder}: {error}.") from None


def frozen_updates(config: RunConfig, total: int) -> int:
    """Updates for which what was trained before is frozen; `total` are this run's own."""
    begun = config.method.earlier_stage() is not None or config.method.begins_with_run is not None
    return round(total * config.method.share_frozen_after_stage()) if begun else 0


def refuse_sides(method: Method, data: DataConfig) -> None:
    """What was built for the shorter side must take the longer one, too; and so must an encoder.

    Raises:
        UsageError: if not.
    """
    encoders = [name for name, encoder in method.encoders.values() if encoder.needs_size_multiple]
    for name in (*method.generators.values(), *encoders):
        multiple: int = getattr(method.networks[name], "size_multiple", 1)
        for option, side in (("size", data.size), ("width", data.width or data.size)):
            if side % multiple:
                raise UsageError(f"--{option} {side}: this {name} needs a multiple of {multiple}.")


def try_stages(config: RunConfig, in_channels: int, out_channels: int) -> None:
    """Builds what the earlier stages would train.

    Raises:
        UsageError: if one of them can't be built.
    """
    earlier, part = earlier_config(config), 1
    while earlier is not None:
        stage = config.method.earlier_stage()
        assert stage is not None
        part *= stage.scale
        data = earlier.data
        try:
            refuse_sides(earlier.method.build(in_channels, out_channels, data.shorter_side), data)
        except UsageError as error:
            raise UsageError(
                f"at 1/{part} of the size, where training begins (the {stage.name} stage): {error}"
            ) from None
        config, earlier = earlier, earlier_config(earlier)
