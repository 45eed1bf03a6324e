"""pix2pix: image-to-image translation with conditional adversarial networks (Isola et al. 2017)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import nn

from img2img.data.labelled import LabelledData
from img2img.data.paired import PairedData
from img2img.methods.base import Batch, Losses, Method, Outputs, choose_source
from img2img.methods.perceptual import Perceptual, PerceptualTranslationConfig
from img2img.networks import GeneratorConfig, UNetConfig
from img2img.networks.layers import Norm


class Pix2PixConfig(PerceptualTranslationConfig):
    """The paper's numbers."""

    data_kinds = (LabelledData, PairedData)
    discriminator_norm: ClassVar[Norm] = "batch"
    paper = "1611.07004"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "batch_size": 4,
            "ema": 0.999,
            "method": {
                "generator": {"kind": "unet", "channels": 32, "upsampling": "resize", "dropout": 0.0},
                "discriminator": {"kind": "projected", "mixing": "cross-channel"},
                "adversarial": "hinge",
                "perceptual": {"weight": 20.0},
                "lr": 1e-3,
            },
        }
    }

    name: Annotated[Literal["pix2pix"], tyro.conf.Suppress] = "pix2pix"
    generator: GeneratorConfig = UNetConfig()
    """The network that translates."""
    l1_weight: float = Field(100.0, ge=0)
    """λ of eq. 4: the weight of the L1 distance to the target."""

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "Pix2Pix":
        """The method with fresh networks."""
        return Pix2Pix(self, in_channels, out_channels, size)


class Pix2Pix(Method):
    """A generator and a discriminator that sees (source, target) pairs; D is updated before G (§3.3)."""

    def __init__(self, config: Pix2PixConfig, in_channels: int, out_channels: int, size: int) -> None:
        self.config = config
        # the generator's own norm: the U-Net's paper has batch norm, the ResNet's instance norm
        resolved, generator = config.build_generator(config.generator, in_channels, out_channels, size)
        discriminator = config.build_discriminator(out_channels, size, in_channels)
        self.generator_configs = {"": resolved}
        self.networks: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator}
        self.adversarial = config.build_adversarial_loss()
        self.memories = self.adversarial.memories
        self.perceptual = Perceptual(config.perceptual)
        self.phases = (
            config.build_discriminator_phase(self.discriminator_losses),
            config.build_phase("G", ("generator",), self.generator_losses),
        )

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """The translation, which both phases use."""
        fake = self.networks["generator"](batch["source"])
        translations = {"": (choose_source(batch), fake.detach(), batch["target"])}
        return Outputs(update, {"fake": fake}, translations=translations)

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 1, on real and generated pairs."""
        network, fake = self.networks["discriminator"], outputs.images["fake"]
        return self.adversarial.discriminator_losses(network, batch["target"], fake, outputs, given=batch["source"])

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 4: fool the discriminator, and be near the target; by features, too, if they have a weight."""
        network, fake, target = self.networks["discriminator"], outputs.images["fake"], batch["target"]
        losses = {"G/l1": self.config.l1_weight * F.l1_loss(fake.float(), target)}
        losses |= self.perceptual.losses(fake, target)
        return losses | self.adversarial.generator_losses(network, target, fake, outputs, given=batch["source"])
