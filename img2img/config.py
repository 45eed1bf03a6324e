"""The settings of a run: strict, frozen, YAML in and out; the command line is made from them."""

from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self

import yaml
from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator
from typing_extensions import TypeVar
from tyro.conf import Suppress, arg

from img2img.core.device import Precision
from img2img.core.errors import UsageError, list_some
from img2img.core.files import write_whole
from img2img.core.settings import Strict, explain
from img2img.data.base import DataConfig, DataModule
from img2img.methods import METHODS, load_method
from img2img.methods.base import MethodConfig
from img2img.metrics.distribution import Features

M = TypeVar("M", bound=MethodConfig, default=MethodConfig, covariant=True)
S = TypeVar("S", bound=Strict)


TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "clearml", "dvclive", "swanlab"]


class FinetuneConfig(Strict):
    """Which trained model a run begins with, and what of it is trained further."""

    init: Annotated[tuple[Path, ...], arg(name="init", prefix_name=False)] = ()
    """Begin with this model: a translator's or a run's folder, or another project's file of weights; its architecture is used. For cyclegan one or two: A to B, and B to A."""
    init_discriminator: Annotated[tuple[Path, ...], arg(name="init-discriminator", prefix_name=False)] = ()
    """Begin with the discriminator of this run, or with an imported one or its file; otherwise it starts from random weights."""
    warmup_discriminator: Annotated[int, arg(name="warmup-discriminator", prefix_name=False)] = Field(0, ge=0)
    """Updates for which a fresh discriminator is trained alone at first, so that it doesn't spoil the trained generator."""
    freeze: Annotated[str | None, arg(name="freeze", prefix_name=False)] = None
    """Freeze the generator's weights whose names match this regular expression at their beginning, such as "stem|down"."""
    freeze_discriminator: Annotated[int, arg(name="freeze-discriminator", prefix_name=False)] = Field(0, ge=0)
    """Freeze this many of the discriminator's first layers (FreezeD, Mo et al. 2020)."""
    layer_lr: Annotated[float, arg(name="layer-lr", prefix_name=False)] = Field(1.0, gt=0, le=1)
    """Factor of the learning rate from each of the generator's layers to the one before it; 1 for equal rates."""
    lora: Annotated[int, arg(name="lora", prefix_name=False)] = Field(0, ge=0, le=1024)
    """Rank of the low-rank adapters (Hu et al. 2022) that are trained instead of the generator's convolutions; 0 for none."""
    lora_scale: Annotated[float, arg(name="lora-scale", prefix_name=False)] = Field(1.0, gt=0)
    """Factor of what the adapters add to the weights."""
    save_adapter: Annotated[bool, arg(name="save-adapter", prefix_name=False)] = False
    """Save only the adapters, in a small file that needs the model of --init; otherwise they are merged into the weights."""
    fresh: Annotated[tuple[str, ...], Suppress] = ()
    """Weights that didn't fit and were initialised; noted when the run begins."""


class RunConfig(Strict, Generic[M]):
    """Everything that a run depends on."""

    method: Annotated[M, arg(name="")]
    """What is trained."""
    data: DataConfig = DataConfig()
    """Which images, and how they are prepared."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Which trained model the run begins with."""
    recipe: Literal["auto", "paper", "small"] = "auto"
    """Settings that apply unless others are given. paper: the paper's; small: those that were measured to be best for up to a few thousand images and hours; auto: small for fewer than 20,000 training images, if the method has it and no model is fine-tuned."""
    output: Path | None = None
    """The run's folder; by default checkpoints/METHOD-DATA."""
    epochs: float = Field(200, gt=0)
    """Passes over the training images; of unpaired images, over the larger side."""
    steps: int | None = Field(None, ge=1)
    """Optimizer updates; overrides --epochs."""
    batch_size: int = Field(1, ge=1)
    """Images per process in each forward pass."""
    accumulation: int = Field(1, ge=1)
    """Batches whose gradients are accumulated for one optimizer update."""
    decay: float = Field(0.5, ge=0, le=1)
    """Share of the training, at its end, over which the learning rate falls linearly to 0."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the generator's weights, which is then saved and validated; 0 for none."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of all random numbers."""
    workers: int | None = Field(None, ge=0)
    """Processes that load images; by default as many as cores for a GPU, up to 16; on a CPU the training process loads them itself."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    mixed_precision: Precision = "auto"
    """auto: bf16 where the device computes in it natively, else fp32 (no)."""
    channels_last: Literal["auto", "yes", "no"] = "auto"
    """Memory format of the networks; auto takes the one that was measured to be faster."""
    compile: bool = False
    """torch.compile the networks: training starts later and is faster then; measure whether it pays."""
    gradient_checkpointing: bool = False
    """Compute most activations of generators and encoders twice instead of holding them: less memory, somewhat more time, the same results."""
    features: Features | Literal["auto", "none"] = "auto"
    """Network whose features KID and FID compare at validations. lite: EfficientNet-Lite0, always available; inception: FID's network; random: a VGG-16 with random weights; a classifier of torchvision with its --feature-weights; none; auto: lite for unpaired methods and images from noise, none for paired methods."""
    feature_weights: Path | None = None
    """A file of that network's weights (.pth or .safetensors); Inception's are taken from PyTorch's cache, or downloaded."""
    best: Literal["auto", "perceptual", "l1", "psnr", "ssim", "kid", "fid"] = "auto"
    """The score by which `best` is chosen. perceptual: how unlike translations and targets look, as long as their L1 is within 10 % of the lowest so far (which `best-l1` has); auto: perceptual for paired methods, kid for unpaired ones."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Updates between checkpoints; by default an epoch, but at least 500; and one every 15 minutes."""
    keep_checkpoints: int = Field(1, ge=1)
    """How many checkpoints to keep for a resume."""
    validate_every: int | None = Field(None, ge=1)
    """Updates between validations and sample pictures; by default an epoch, but at least 500."""
    diagnostics: Literal["warn", "stop"] = "warn"
    """What to do when the discriminator or the generator has won, when outputs no longer vary, copy the input, or have a fine grid: warn says it; stop also saves everything and stops."""
    log_every: int = Field(20, ge=1)
    """Updates between lines of the log."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """Where curves go, and pictures if it takes them, in addition to the run's own page and log: tensorboard, wandb, trackio, mlflow, comet_ml, clearml, dvclive, swanlab, whose packages must be installed; several, or none. One that fails is left out. After a resume, wandb and trackio continue the same run; others start a new one."""

    @model_validator(mode="wrap")
    @classmethod
    def _method_defaults(cls, values: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        """The method's paper may have trained for another time than most; what it has is no choice of the user's."""
        method: Any = cls.model_fields["method"].annotation
        own: dict[str, Any] = getattr(method, "run_defaults", {})  # none while the type of the method is open
        if not isinstance(values, dict):
            return build(values)
        data = values.get("data", {})
        merged = {**own, **values}
        if "data" in own and isinstance(data, dict | DataConfig):
            given = data if isinstance(data, dict) else {name: getattr(data, name) for name in data.model_fields_set}
            merged["data"] = {**own["data"], **given}
        built = build(merged)
        built.model_fields_set.difference_update(own.keys() - values.keys())
        return built


def run_type(method: str) -> Any:
    """The RunConfig of a method, by its name on the command line.

    Raises:
        UsageError: for a name that isn't known.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}; there are: {', '.join(METHODS)}.")
    return RunConfig.__class_getitem__(load_method(method))  # a type made at run time


def read_config(path: Path, method: str | None = None) -> RunConfig:
    """Reads a run's YAML file, which may leave out the method if it is given; what it doesn't say takes the defaults.

    Raises:
        UsageError: if it can't be read, or has a key or value that isn't allowed.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no settings; {list_some(list(RunConfig.model_fields), 20)} are known.")
    settings = values.setdefault("method", {})
    name = settings.get("name", method) if isinstance(settings, dict) else settings
    if method is not None and name != method:
        raise UsageError(f"{path} is for the method {name}, not {method}.")
    if name is None:
        raise UsageError(f"{path} names no method; add method: {{name: pix2pix}}.")
    if not isinstance(settings, dict):
        values["method"] = {"name": name}
    try:
        config: RunConfig = run_type(str(name)).model_validate(values)
        return config
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error)}.") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def write_config(path: Path, config: RunConfig) -> None:
    """Writes the whole resolved file."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_whole(path, text.encode())


def resolve_config(config: RunConfig) -> RunConfig:
    """A config with absolute paths, so that a resume may start in another folder, and with a default for the output.

    Raises:
        UsageError: for settings that exclude each other.
    """
    data, method = config.data, config.method
    names = ("path", "source", "labels", "target", "instances", "classes")
    paths = {name: path.resolve() for name in names if isinstance(path := getattr(data, name), Path)}
    if not paths.keys() - {"classes"}:
        raise UsageError("which data? Give --data FOLDER.")
    _refuse_combinations(config)
    output = config.output or Path("checkpoints", f"{method.name}-{next(iter(paths.values())).name}")
    begun = {
        name: tuple(path.resolve() if path.exists() else path for path in getattr(config.finetune, name))
        for name in ("init", "init_discriminator")
    }
    return config.model_copy(
        update={
            "method": _resolve_paths(method),
            "data": data.model_copy(update=paths),
            "output": output,
            "feature_weights": config.feature_weights and config.feature_weights.resolve(),
            "finetune": config.finetune.model_copy(update=begun),
        }
    )


def _refuse_combinations(config: RunConfig) -> None:
    data, method = config.data, config.method
    choose_data_kind(config).refuse_options(data, method.name)
    method.refuse_files()
    if config.batch_size < method.fewest_images:
        raise UsageError(
            f"--batch-size {config.batch_size}: {method.name} compares the images of a batch; give at least {method.fewest_images} for each process."
        )
    if len(method.directions) > 1 and data.direction == "BtoA":
        raise UsageError(f"{method.name} learns both directions; leave --direction out, and give it to convert.")
    if data.width not in (None, data.size) and data.quarter_turns:
        raise UsageError("--data.quarter-turns needs square images; leave it or --width out.")
    generator = getattr(method, "generator", None)
    if data.ranges != (None, None) and getattr(generator, "keeps_luminance", False):
        raise UsageError(
            "--generator.keep-luminance colours images, and --data.range says that these are measurements; leave one out."
        )
    if config.best in ("kid", "fid") and config.features == "none":
        raise UsageError(f"--best {config.best} compares features; leave --features none out.")
    if config.feature_weights and not config.feature_weights.is_file():
        raise UsageError(f"--feature-weights {config.feature_weights}: there is no such file.")
    if config.feature_weights and config.features in ("auto", "lite", "random", "none"):
        raise UsageError(f"--feature-weights are for other features than --features {config.features}; leave one out.")
    if config.gradient_checkpointing and not method.can_checkpoint_gradients:
        raise UsageError(
            f"--gradient-checkpointing is for translators of large images, not for {method.name}; take a smaller --batch-size."
        )
    if config.gradient_checkpointing and config.compile:
        raise UsageError("--gradient-checkpointing and --compile exclude each other.")
    if config.mixed_precision == "fp16" and config.accumulation > 1:
        raise UsageError("--mixed-precision fp16 and --accumulation exclude each other; use bf16.")


def choose_data_kind(config: RunConfig) -> type[DataModule]:
    """The first kind of data that the method takes and that recognises the data."""
    kinds: tuple[type[DataModule], ...] = config.method.data_kinds
    return next((kind for kind in kinds[:-1] if kind.recognises(config.data)), kinds[-1])


def _resolve_paths(settings: S) -> S:
    """The same settings, of a method or a part of one, with absolute paths."""
    found: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path):
            found[name] = value.resolve()
        elif isinstance(value, Strict) and (resolved := _resolve_paths(value)) is not value:
            found[name] = resolved
    return settings.model_copy(update=found) if found else settings  # what was not chosen stays so
