"""pix2pix: image-to-image translation with conditional adversarial networks (Isola et al. 2017)."""

from typing import Annotated, Any, ClassVar, Literal

import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import nn

from img2img.methods.adversary import AdversarialConfig, Adversary
from img2img.methods.base import Batch, Losses, Memory, Outputs, Phase, Role, shown
from img2img.methods.generators import fitting, made
from img2img.networks import AnyEncoder, GeneratorConfig
from img2img.networks.unet import UNetConfig


class Pix2PixConfig(AdversarialConfig):
    """The paper's numbers."""

    paired: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {}

    name: Annotated[Literal["pix2pix"], tyro.conf.Suppress] = "pix2pix"
    generator: GeneratorConfig = UNetConfig()
    """The network that translates."""
    l1_weight: float = Field(100.0, ge=0)
    """λ of eq. 4: the weight of the L1 distance to the target."""

    def build(self, in_channels: int, out_channels: int, size: int) -> "Pix2Pix":
        """The method with fresh networks for square training images of `size` pixels."""
        return Pix2Pix(self, in_channels, out_channels, size)


class Pix2Pix:
    """A generator and a discriminator that sees (source, target) pairs; D is updated before G (§3.3).

    Args:
        config: the settings.
        in_channels: channels of the sources in the data.
        out_channels: channels of the targets in the data.
        size: height and width of the training images in pixels.

    Raises:
        UsageError: if the networks can't take images of that size, or channels that were set differ from the data's.
    """

    generators: ClassVar[dict[Role, str]] = {"": "generator"}
    encoders: ClassVar[dict[Role, tuple[str, AnyEncoder]]] = {}

    def __init__(self, config: Pix2PixConfig, in_channels: int, out_channels: int, size: int) -> None:
        self.config = config
        own_norm = None  # the U-Net's paper has batch norm, the ResNet's instance norm
        self.generator_configs = {"": fitting(config.generator, in_channels, out_channels, size, own_norm)}
        self.adversary = Adversary(config, in_channels + out_channels, size, "batch")
        generator = made(self.generator_configs[""], config.initialisation, config.initialisation_gain)
        discriminator = self.adversary.build()
        self.networks: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator}
        self.memories: dict[str, Memory] = {}
        self.phases = (
            Phase(
                "D",
                ("discriminator",),
                (self.discriminator_losses,),
                config.discriminator_lr or config.lr,
                config.betas,
            ),
            Phase("G", ("generator",), (self.generator_losses,), config.lr, config.betas),
        )

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """The translation, which both phases use."""
        fake = self.networks["generator"](batch["source"])
        return Outputs(update, {"fake": fake}, translations={"": (shown(batch), fake.detach(), batch["target"])})

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 1, on real and generated pairs."""
        network, fake = self.networks["discriminator"], outputs.images["fake"]
        return self.adversary.discriminator_losses(network, batch["target"], fake, outputs, given=batch["source"])

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 4: fool the discriminator, and be near the target."""
        network, fake, target = self.networks["discriminator"], outputs.images["fake"], batch["target"]
        losses = {"G/l1": self.config.l1_weight * F.l1_loss(fake.float(), target)}
        return losses | self.adversary.generator_losses(network, target, fake, outputs, given=batch["source"])
