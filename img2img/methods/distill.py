"""Distillation: a small generator learns to make what a trained translator, its teacher, makes (Ren et al. 2021, OMGD)."""

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import nn

from img2img.core.errors import UsageError
from img2img.core.settings import Strict
from img2img.data.base import Direction
from img2img.data.distilled import DistilledData
from img2img.data.distilled_labels import DistilledLabels
from img2img.losses.adversarial import Adversarial
from img2img.methods.base import Batch, Losses, Method, Outputs, Phase, choose_source
from img2img.methods.perceptual import Perceptual, PerceptualConfig, PerceptualTranslationConfig
from img2img.networks import DiscriminatorConfig, GeneratorConfig, ProjectedConfig, ResNetConfig


class TeacherConfig(Strict):
    """Whom the generator imitates, and how that translated the photos."""

    model: str
    """As it was given: a folder, a file, or a name on the Hub."""
    direction: Direction | None = None
    """Which translator of a run that learned both ways."""
    style: tuple[str, ...] = ()
    """As of `img2img convert`."""
    max_side: int | None = None
    """Images whose longer side has more pixels were scaled down to it."""


class DistillConfig(PerceptualTranslationConfig):
    """The numbers that were measured to be best; the paper trains on single images with other losses.

    The teacher's translations are made before the training, by `img2img compress`: so an update costs the small generator alone.
    """

    data_kinds = (DistilledLabels, DistilledData)
    paper = "2108.06908"
    run_defaults: ClassVar = {
        "batch_size": 8,
        "ema": 0.999,
        "data": {"resize": "none", "jitter": 1.0, "flip": 0.0},
    }

    name: Annotated[Literal["distill"], tyro.conf.Suppress] = "distill"
    generator: GeneratorConfig = ResNetConfig(channels=16)
    """The network that translates."""
    l1_weight: float = Field(100.0, ge=0)
    """Weight of the L1 distance to the teacher's translation."""
    perceptual: PerceptualConfig = PerceptualConfig(weight=20.0)
    """Nearness by features."""
    adversarial_weight: float = Field(0.0, ge=0)
    """Weight of an adversarial loss; 0 for no discriminator. Real are the images of the data set's other side, if it has one, else the teacher's translations."""
    adversarial: Adversarial = "hinge"
    """vanilla: the minimax loss, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; lsgan: least squares; hinge; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    discriminator: DiscriminatorConfig = ProjectedConfig(mixing="cross-channel")
    """The network that tells real from generated images."""
    lr: float = Field(1e-3, gt=0)
    """Adam's learning rate, for all networks, or for all but the discriminator."""
    teacher: Annotated[TeacherConfig | None, tyro.conf.Suppress] = None
    """Whom the generator imitates, if `img2img compress` began the run."""

    @property
    def uses_classes(self) -> bool:
        """Whether the other side's real images, a class of their own, are loaded: for the discriminator."""
        return self.has_discriminator

    @property
    def imitates(self) -> str:
        """The teacher."""
        return self.teacher.model if self.teacher else ""

    def resolve_discriminator(self) -> DiscriminatorConfig | None:
        """None without an adversarial loss."""
        return super().resolve_discriminator() if self.has_discriminator else None

    @property
    def has_discriminator(self) -> bool:
        """Whether there is an adversarial loss, or a match of the discriminator's features."""
        return bool(self.adversarial_weight or self.feature_matching)

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "Distill":
        """The method with fresh networks."""
        return Distill(self, in_channels, out_channels, size)


class Distill(Method):
    """A generator, and, if it has an adversarial loss, a discriminator."""

    def __init__(self, config: DistillConfig, in_channels: int, out_channels: int, size: int) -> None:
        self.config = config
        if not (config.l1_weight or config.perceptual.weight or config.has_discriminator):
            raise UsageError(
                "--l1-weight and --perceptual.weight are both 0, so the generator has nothing to learn from."
            )
        resolved, generator = config.build_generator(config.generator, in_channels, out_channels, size)
        self.generator_configs = {"": resolved}
        self.networks: dict[str, nn.Module] = {"generator": generator}
        self.perceptual = Perceptual(config.perceptual)
        phases: list[Phase] = []
        self.adversarial = None
        if config.has_discriminator:
            self.networks["discriminator"] = config.build_discriminator(out_channels, size)
            self.adversarial = config.build_adversarial_loss()
            self.memories = self.adversarial.memories
            phases.append(config.build_discriminator_phase(self.discriminator_losses))
        self.phases = (*phases, config.build_phase("G", ("generator",), self.generator_losses))

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """The translation, which all phases use."""
        fake = self.networks["generator"](batch["source"])
        translations = {"": (choose_source(batch), fake.detach(), batch["target"])}
        return Outputs(update, {"fake": fake}, translations=translations)

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """On real images, or the teacher's translations, and the generator's."""
        assert self.adversarial
        real, fake = batch.get("real", batch["target"]), outputs.images["fake"]
        return self.adversarial.discriminator_losses(self.networks["discriminator"], real, fake, outputs)

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Be near the teacher's translation, by pixels and by features; and fool the discriminator, if there is one."""
        fake, target = outputs.images["fake"], batch["target"]
        losses = {"G/l1": self.config.l1_weight * F.l1_loss(fake.float(), target)}
        losses |= self.perceptual.losses(fake, target)
        if self.adversarial:
            real, network = batch.get("real", target), self.networks["discriminator"]
            losses |= self.adversarial.generator_losses(network, real, fake, outputs)
        return losses
