"""The settings of a run: strict, frozen, YAML in and out; the command line is made from them."""

from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator
from tyro.conf import Suppress, arg

from img2img.data.folders import Derivation, Direction
from img2img.data.transforms import JITTER, Resize
from img2img.errors import Strict, UsageError, explain, listed
from img2img.files import write_whole
from img2img.machine import Precision
from img2img.methods import METHODS
from img2img.metrics.distribution import Features

M = TypeVar("M", bound=Strict)


class DataConfig(Strict):
    """Which images, and how they are prepared. The geometry is the same for source and target."""

    path: Annotated[Path | None, arg(name="data", prefix_name=False)] = None
    """The data set's folder. Known layouts: trainA trainB, train/A train/B, train_A train_B, A B, train/ with pairs side by side; label maps: train_label train_inst train_img; the same with val and test."""
    source: Path | None = None
    """A folder of sources, with `--data.target` instead of `--data`; may have sub-folders train, val, test."""
    target: Path | None = None
    """A folder of targets; for pairs, of the same names."""
    labels: Path | None = None
    """A folder of label maps instead of `--data.source`: gray or palette PNGs of indices."""
    instances: Path | None = None
    """A folder of the instance maps that belong to `--data.labels`."""
    use_instances: bool = True
    """Show the network the edges of instances, if there are instance maps."""
    classes: int | Path | None = None
    """How many labels there are, or a YAML table of their names and colours; by default `classes.yaml` in the data set's folder, else what the labels tell."""
    ignore_label: int | None = Field(None, ge=-1, le=65535)
    """The label of pixels that have no class, such as 255."""
    derive: Derivation | None = None
    """Make the sources from a folder of images: gray (colourisation), edges (Canny), lowres (a quarter of the resolution)."""
    direction: Annotated[Direction, arg(name="direction", prefix_name=False)] = "AtoB"
    """AtoB translates A to B; BtoA the other way; cyclegan learns both."""
    size: Annotated[int, arg(name="size", prefix_name=False)] = Field(256, ge=8, le=8192)
    """Height and width of the training images in pixels."""
    width: Annotated[int | None, arg(name="width", prefix_name=False)] = Field(None, ge=8, le=8192)
    """Width of the training images in pixels, if it is another than --size, which then is their height: --size 512 --width 1024."""
    resize: Resize = "short"
    """short: scale the shorter side, keep the aspect; stretch: scale both sides; none: crop only."""
    jitter: float = Field(JITTER, ge=1, le=4)
    """Scale to this times the size before a random crop: 286/256 in the paper; 1 for no jitter."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    vertical_flip: float = Field(0.0, ge=0, le=1)
    """Probability of a vertical flip."""
    rotate: float = Field(0.0, ge=0, le=180)
    """Largest angle of a random rotation, in degrees."""
    quarter_turns: bool = False
    """Random rotation by 0, 90, 180 or 270 degrees."""
    colour_jitter: float = Field(0.0, ge=0, le=1)
    """Strength of random brightness, contrast, saturation and hue of the source alone."""
    holdout: float = Field(0.0, ge=0, lt=1)
    """Without a val split: the share of the training images kept aside for validation."""
    in_channels: int | None = Field(None, ge=1, le=4)
    """Channels of the source, 1 gray to 4 RGB with alpha; by default what most files have."""
    out_channels: int | None = Field(None, ge=1, le=4)
    """Channels of the target; by default what most files have."""


class TuningConfig(Strict):
    """What a run begins with that was trained before, and what of it is trained on."""

    init: Annotated[tuple[Path, ...], arg(name="init", prefix_name=False)] = ()
    """Begin from this model: a translator's or a run's folder, or another project's file of weights; its architecture is taken, too. For cyclegan perhaps two, A to B and B to A."""
    init_discriminator: Annotated[tuple[Path, ...], arg(name="init-discriminator", prefix_name=False)] = ()
    """Begin the discriminator, too, from that of a run, or from an imported one or its file; else it starts fresh."""
    warmup_discriminator: Annotated[int, arg(name="warmup-discriminator", prefix_name=False)] = Field(0, ge=0)
    """Updates in which a fresh discriminator is trained alone first, so that it doesn't spoil what the generator knows."""
    freeze: Annotated[str | None, arg(name="freeze", prefix_name=False)] = None
    """Leave those weights of the generator as they are whose names begin with this regular expression, such as "stem|down"."""
    freeze_discriminator: Annotated[int, arg(name="freeze-discriminator", prefix_name=False)] = Field(0, ge=0)
    """Leave the discriminator's first so many layers as they are (FreezeD, Mo et al. 2020)."""
    layer_lr: Annotated[float, arg(name="layer-lr", prefix_name=False)] = Field(1.0, gt=0, le=1)
    """The learning rate of each of the generator's layers, as a share of that of the layer after it."""
    lora: Annotated[int, arg(name="lora", prefix_name=False)] = Field(0, ge=0, le=1024)
    """Rank of low-rank adapters (Hu et al. 2022), which are trained instead of the generator's convolutions; 0 for none."""
    lora_scale: Annotated[float, arg(name="lora-scale", prefix_name=False)] = Field(1.0, gt=0)
    """By how much what they add is multiplied."""
    lora_apart: Annotated[bool, arg(name="lora-apart", prefix_name=False)] = False
    """Save only the change, as adapters of that rank: a small file that needs the model of --init; else it is merged."""
    fresh: Annotated[tuple[str, ...], Suppress] = ()
    """Weights that didn't fit, and were initialised; settled when the run begins."""


class RunConfig(Strict, Generic[M]):
    """Everything that a run depends on."""

    method: Annotated[M, arg(name="")]
    """What is trained."""
    data: DataConfig = DataConfig()
    """Which images, and how they are prepared."""
    tuning: TuningConfig = TuningConfig()
    """What was trained before."""
    output: Path | None = None
    """The run's folder; by default checkpoints/METHOD-DATA."""
    epochs: float = Field(200, gt=0)
    """How often to see every training image, or without pairs every one of the larger side."""
    steps: int | None = Field(None, ge=1)
    """How many optimizer updates, instead of epochs."""
    batch_size: int = Field(1, ge=1)
    """Images a process and forward pass."""
    accumulation: int = Field(1, ge=1)
    """Batches whose gradients are added up for one optimizer update."""
    decay: float = Field(0.5, ge=0, le=1)
    """The last share of training in which the learning rate falls linearly to 0."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the generator, which is then what is saved and validated; 0 for none."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Where all random numbers come from."""
    workers: int | None = Field(None, ge=0)
    """Processes that load images; by default up to 8 for a GPU, none beside the training itself for a CPU."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    mixed_precision: Precision = "auto"
    """auto: bf16 where the device computes in it natively, else fp32 (no)."""
    channels_last: Literal["auto", "yes", "no"] = "auto"
    """Memory format of the networks; auto takes what was measured to be faster."""
    compile: bool = False
    """torch.compile the networks: slower to start, faster afterwards; measure whether it pays."""
    memory: Literal["normal", "low"] = "normal"
    """low: gradient checkpointing of generators and encoders: less memory for large images, somewhat more time, the same results."""
    features: Features | Literal["none"] = "auto"
    """For KID and FID at validations. inception: FID's network; random: one with random weights, always at hand; a classifier of torchvision with its --feature-weights; none; auto: for unpaired methods inception if its weights are at hand, else random, for paired ones none."""
    feature_weights: Path | None = None
    """A file of its weights (.pth or .safetensors); of Inception by default PyTorch's cache, else they are downloaded."""
    best: Literal["auto", "l1", "psnr", "ssim", "kid", "fid"] = "auto"
    """The score by which `best` is chosen; auto: l1 for paired methods, kid for unpaired ones."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Updates between checkpoints; by default an epoch, or 500 if that is more."""
    keep_checkpoints: int = Field(1, ge=1)
    """How many checkpoints to keep for a resume."""
    validate_every: int | None = Field(None, ge=1)
    """Updates between validations and sample pictures; by default an epoch, or 500 if that is more."""
    monitor: Literal["warn", "stop"] = "warn"
    """When the discriminator or the generator has won, outputs no longer vary, or copy the input: warn says it; stop also stops, with everything saved."""
    log_every: int = Field(20, ge=1)
    """Updates between lines of the log."""

    @model_validator(mode="before")
    @classmethod
    def _method_defaults(cls, values: Any) -> Any:
        """The method's paper may have trained for another time than most."""
        own: dict[str, Any] = getattr(cls.model_fields["method"].annotation, "defaults", {})
        if not isinstance(values, dict):
            return values
        data = values.get("data", {})
        merged = {**own, **values}
        if "data" in own:
            given = data if isinstance(data, dict) else {name: getattr(data, name) for name in data.model_fields_set}
            merged["data"] = {**own["data"], **given}
        return merged


def run_type(method: str) -> Any:
    """The RunConfig of a method, by its name on the command line.

    Raises:
        UsageError: for a name that isn't known.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}; there are: {', '.join(METHODS)}.")
    return RunConfig.__class_getitem__(METHODS[method])  # a type made at run time


def read_config(path: Path, method: str | None = None) -> RunConfig[Any]:
    """Reads a run's YAML file; what it doesn't say takes the defaults.

    Args:
        path: the file.
        method: the method, if the file needn't say it.

    Raises:
        UsageError: if it can't be read, or has a key or value that isn't allowed.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no settings; {listed(list(RunConfig.model_fields), 20)} are known.")
    settings = values.setdefault("method", {})
    name = settings.get("name", method) if isinstance(settings, dict) else settings
    if method is not None and name != method:
        raise UsageError(f"{path} is for the method {name}, not {method}.")
    if name is None:
        raise UsageError(f"{path} names no method; add method: {{name: pix2pix}}.")
    if not isinstance(settings, dict):
        values["method"] = {"name": name}
    try:
        config: RunConfig[Any] = run_type(str(name)).model_validate(values)
        return config
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error)}.") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def write_config(path: Path, config: RunConfig[Any]) -> None:
    """Writes the whole resolved file."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_whole(path, text.encode())
