"""What a method declares in its settings, and what it promises to the trainer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from img2img.core.errors import UsageError
from img2img.core.settings import Strict
from img2img.data.base import DataModule
from img2img.networks import (
    DiscriminatorConfig,
    EncoderConfig,
    GeneratorConfig,
    NoiseGeneratorConfig,
    build_generator,
    build_noise_generator,
)
from img2img.networks.generators.base import Codes, GeneratorBaseConfig
from img2img.networks.layers import Norm
from img2img.networks.weights import Initialisation, add_spectral_norm, initialise

Batch = Mapping[str, Tensor]
Losses = dict[str, Tensor]
Translations = dict[str, tuple[Tensor, Tensor, Tensor]]
"""By direction: sources, what they were translated to, and real targets, which needn't belong to them; all detached."""
Beta = Annotated[float, Field(ge=0, lt=1)]
Download = Callable[[str], None]
"""Is told what is downloaded."""


class MethodConfig(Strict):
    """The settings that every method has, and what a method declares to the rest of the toolkit.

    The declarations are class variables and methods with the answers that most methods give; a method overrides what differs.
    """

    data_kinds: ClassVar[tuple[type[DataModule], ...]]
    """The kinds of data that it can be trained on; of several, the first that recognises the data is taken."""
    model: ClassVar[Literal["translator", "noise_generator"]] = "translator"
    """What is saved: a model that translates images, or one that makes them from noise."""
    directions: ClassVar[tuple[str, ...]] = ("",)
    """The directions that it learns, as in `Method.generators`: "" for the one that --direction names, or AtoB and BtoA."""
    discriminators: ClassVar[tuple[str, ...]] = ()
    """The names of its discriminators in `Method.networks`."""
    best_by: ClassVar[Literal["perceptual", "kid"]] = "perceptual"
    """The score by which `best` is chosen unless the user says otherwise: perceptual where targets are known, else kid."""
    paper: ClassVar[str] = ""
    """Its number at arXiv."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """By name: settings of the run, and as `method` of the method, for other amounts of data than the paper's."""
    fewest_images: ClassVar[int] = 1
    """Images that a batch of one process has at least."""
    run_defaults: ClassVar[Mapping[str, object]] = {}
    """Defaults of the run's own settings, where the paper has others than most."""

    name: str
    """On the command line."""
    lr: float = Field(2e-4, gt=0)
    """Adam's learning rate, for all networks, or for all but the discriminator."""
    betas: tuple[Beta, Beta] = (0.5, 0.999)
    """Adam's betas, for all networks."""
    initialisation: Initialisation = "normal"
    """How weights are drawn."""
    initialisation_gain: float = Field(0.02, gt=0)
    """Standard deviation of normal; gain of xavier and orthogonal."""

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "Method":
        """The method with fresh networks.

        Args:
            in_channels: of the sources; of label maps the planes that the network sees.
            size: the shorter side of the training images in pixels.
            classes: of the images, if they lie in class folders, or of the sources' label maps, if targets don't belong to them; else 0.

        Raises:
            UsageError: if the settings exclude each other, or the networks can't take such images.
        """
        raise AssertionError(f"{self.name} must say how it is built")

    def suits_recipe(self) -> bool:
        """Whether the recipe for few images was measured with networks and losses like these; else it is used only if it is asked for."""
        return True

    def build_generator(
        self, config: GeneratorConfig, in_channels: int, out_channels: int, size: int, norm: Norm | None = None
    ) -> tuple[GeneratorBaseConfig, nn.Module]:
        """A generator with fresh weights, and its config with all filled in that was left to the data and the method.

        Raises:
            UsageError: if images of `size` pixels don't fit, or channels were set that differ from the data's.
        """
        resolved = resolve_generator(config, in_channels, out_channels, size, norm)
        return resolved, self.initialise(resolved)

    def initialise(self, config: GeneratorBaseConfig | NoiseGeneratorConfig) -> nn.Module:
        """A generator with fresh weights, and spectral norm where its config asks for it."""
        built = build_noise_generator(config) if isinstance(config, NoiseGeneratorConfig) else build_generator(config)
        network = initialise(built, self.initialisation, self.initialisation_gain)
        return add_spectral_norm(network, config.has_spectral_norm_at) if config.has_spectral_norm else network

    def build_phase(
        self,
        name: str,
        trains: tuple[str, ...],
        *parts: Callable[[Batch, "Outputs"], Losses],
        every: int = 1,
        after: Callable[[], None] | None = None,
    ) -> "Phase":
        """A phase with this method's learning rate and betas."""
        return Phase(name, trains, parts, self.lr, self.betas, every, after)

    @property
    def uses_classes(self) -> bool:
        """Whether the classes that folders name matter."""
        return False

    @property
    def freezes_parts(self) -> bool:
        """Whether parts of a network get no gradients for a while, for which processes must not wait."""
        return False

    @property
    def can_checkpoint_gradients(self) -> bool:
        """Whether --gradient-checkpointing applies."""
        return self.model == "translator"

    @property
    def style_count(self) -> int:
        """Styles of each class that are found when a model is saved, by an encoder of instances."""
        return 0

    @property
    def noise_codes(self) -> Codes | None:
        """The codes beside the noise, if there are any."""
        return None

    @property
    def imitates(self) -> str:
        """The model whose translations are the targets; empty if they are anything else."""
        return ""

    def resolve_discriminator(self) -> DiscriminatorConfig | None:
        """The discriminators' architecture, with the method's norm if none was chosen; None if they see no translations."""
        return None

    def refuse_files(self) -> None:
        """Refuses files that are named in the settings and don't exist."""

    def download(self, say: Download) -> None:
        """Downloads weights that the method needs.

        Raises:
            UsageError: if they can't be downloaded.
        """

    def warn_of_length(self, updates: int, size: int) -> str:
        """What to tell the user about a run of so many updates; usually nothing."""
        return ""

    def earlier_stage(self) -> "Stage | None":
        """What is trained before, in a run of its own; None if the method has one stage."""
        return None

    def without_stages(self) -> Self:
        """The same method without earlier stages, for runs that begin with a trained model."""
        return self

    @property
    def begins_with_run(self) -> Path | None:
        """A run whose networks this one begins with, in place of an earlier stage."""
        return None

    def share_frozen_after_stage(self) -> float:
        """Share of the updates after an earlier stage in which what that stage trained is frozen."""
        return 0.0


@dataclass(frozen=True)
class Stage:
    """A run that is trained before the method's own."""

    name: str
    """Of its folder within the run's."""
    method: MethodConfig
    share: float
    """Of the whole run's updates and epochs."""
    scale: int
    """By how much its images are smaller."""
    introduction: str
    """What is told when it begins."""
    updates: int | None = None
    """Before the whole run's, instead of a share of them."""


@dataclass
class Outputs:
    """What the phases of one step share."""

    update: int = 0
    """Optimizer updates done before this one."""
    images: dict[str, Tensor] = field(default_factory=dict)
    """Made once, used by several phases."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Numbers that are logged and watched like losses, but not minimised."""
    translations: Translations = field(default_factory=dict)
    """What the diagnostics look at."""


@dataclass(frozen=True)
class Phase:
    """One kind of update: which networks it trains, by which losses, with which Adam."""

    name: str
    """Shown in logs; the key of its optimizer in a checkpoint."""
    trains: tuple[str, ...]
    """Names in `Method.networks`; all others are frozen meanwhile."""
    parts: Sequence[Callable[[Batch, Outputs], Losses]]
    """Each from a batch and what is shared to weighted losses, which the trainer sums. They are backpropagated one after the
    other, so that only one part's activations are held in memory; if there are several, each must use all the networks
    that are trained."""
    lr: float
    """Adam's learning rate before the schedule."""
    betas: tuple[float, float]
    """Adam's betas."""
    every: int = 1
    """The phase is due at every so many optimizer updates, and first when so many were done."""
    after: Callable[[], None] | None = None
    """Called after each step of the optimizer."""

    def is_due(self, update: int) -> bool:
        """Whether it is, after so many updates."""
        return (update + 1) % self.every == 0


class Memory(Protocol):
    """What a method remembers from step to step beside its networks: saved with them."""

    def state_dict(self) -> dict[str, Tensor]:
        """All of it."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Undoes `state_dict`."""
        ...


class Method(Protocol):
    """One paper. The trainer drives any object of this shape, which the method's settings build."""

    networks: dict[str, nn.Module]
    """All networks by name. The trainer puts its wrapped ones in place; always call through this dict."""
    phases: Sequence[Phase]
    """In the paper's order of updates."""
    generators: Mapping[str, str] = MappingProxyType({"": "generator"})
    """By direction: which networks become models, and are followed by EMA."""
    generator_configs: Mapping[str, Any]
    """By direction: their architectures."""
    encoders: Mapping[str, tuple[str, EncoderConfig]] = MappingProxyType({})
    """By direction: which networks read the styles that a generator is given, with their architectures."""
    memories: Mapping[str, Memory] = MappingProxyType({})
    """What else belongs into a checkpoint; the same in every process."""

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """What several phases share, computed once."""
        ...


@runtime_checkable
class Staged(Protocol):
    """A method that may begin with what an earlier stage trained."""

    def begin_from(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes over networks by name."""
        ...


@runtime_checkable
class FreezesStage(Protocol):
    """A method that leaves what an earlier stage trained as it is for a while."""

    def freeze_until(self, update: int) -> None:
        """Freezes them until then."""
        ...


def resolve_generator(
    config: GeneratorConfig, in_channels: int, out_channels: int, size: int, norm: Norm | None
) -> Any:
    """A generator's config with all filled in that was left to the data and the method.

    Raises:
        UsageError: if images of `size` pixels don't fit, or channels were set that differ from the data's.
    """
    resolved = config.resolve(in_channels, out_channels, size, norm)
    built = resolved.in_channels, resolved.out_channels
    if built != (in_channels, out_channels):
        raise UsageError(
            f"a generator of {built[0]} → {built[1]} channels doesn't fit the data's {in_channels} → {out_channels}."
        )
    return resolved


def unwrap(network: nn.Module) -> Any:
    """The network itself, of one that averages its gradients over processes."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def call_frozen(network: nn.Module, *inputs: Tensor) -> Any:
    """What a network gives, with gradients for its inputs and none for its weights; running statistics of norms stay as they are, too."""
    bare = unwrap(network)
    weights = {name: each.detach() for name, each in bare.named_parameters()}
    statistics = {name: each.clone() for name, each in bare.named_buffers()}
    return functional_call(bare, weights | statistics, inputs)


def choose_source(batch: Batch) -> Tensor:
    """The sources for the eye: images as they are, label maps in their colours."""
    return batch.get("displayed", batch["source"])


def is_independent(norm: str | None) -> bool:
    """Whether images of one batch don't influence each other, so that batches may be merged."""
    return norm not in ("batch", "sync-batch")
