"""pix2pix: image-to-image translation with conditional adversarial networks (Isola et al. 2017)."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.errors import Strict, UsageError
from img2img.losses import adversarial
from img2img.losses.adversarial import Adversarial
from img2img.methods.base import Batch, Losses, Outputs, Phase
from img2img.networks import (
    DiscriminatorConfig,
    GeneratorConfig,
    build_discriminator,
    build_generator,
    initialise,
)
from img2img.networks.blocks import Initialisation
from img2img.networks.patchgan import PatchGANConfig
from img2img.networks.unet import UNetConfig

Beta = Annotated[float, Field(ge=0, lt=1)]


class Pix2PixConfig(Strict):
    """The paper's numbers."""

    name: Annotated[Literal["pix2pix"], tyro.conf.Suppress] = "pix2pix"
    generator: GeneratorConfig = UNetConfig()
    """The network that translates."""
    discriminator: DiscriminatorConfig = PatchGANConfig()
    """The network that tells real pairs from generated ones."""
    adversarial: Adversarial = "vanilla"
    """vanilla: cross-entropy, as in the paper; lsgan: least squares; hinge."""
    l1_weight: float = Field(100.0, ge=0)
    """λ of eq. 4: the weight of the L1 distance to the target."""
    adversarial_weight: float = Field(1.0, ge=0)
    """Weight of the adversarial loss in the generator's; 0 is the paper's L1-only ablation."""
    lr: float = Field(2e-4, gt=0)
    """Adam's learning rate, for both networks."""
    betas: tuple[Beta, Beta] = (0.5, 0.999)
    """Adam's betas, for both networks."""
    initialisation: Initialisation = "normal"
    """How weights are drawn."""
    initialisation_gain: float = Field(0.02, gt=0)
    """Standard deviation of normal; gain of xavier and orthogonal."""

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

    generator = "generator"

    def __init__(self, config: Pix2PixConfig, in_channels: int, out_channels: int, size: int) -> None:
        self.config = config
        self.generator_config = config.generator.resolve(in_channels, out_channels, size)
        built = self.generator_config.in_channels, self.generator_config.out_channels
        if built != (in_channels, out_channels):
            raise UsageError(
                f"a generator of {built[0]} → {built[1]} channels doesn't fit the data's {in_channels} → {out_channels}."
            )
        generator = build_generator(self.generator_config)
        discriminator = build_discriminator(config.discriminator, in_channels + out_channels)
        smallest = config.discriminator.min_size
        if size < smallest:
            raise UsageError(f"--size {size}: this PatchGAN needs {smallest} pixels; use fewer --discriminator.layers.")
        for network in (generator, discriminator):
            initialise(network, config.initialisation, config.initialisation_gain)
        self.networks: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator}
        self.phases = (
            Phase("D", ("discriminator",), self.discriminator_losses, config.lr, config.betas),
            Phase("G", ("generator",), self.generator_losses, config.lr, config.betas),
        )

    def forward(self, batch: Batch) -> Outputs:
        """The translation, which both phases use."""
        return {"fake": self.networks["generator"](batch["source"])}

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 1, on real and generated pairs; halved, which slows D down relative to G (§3.3)."""
        kind = self.config.adversarial
        fake = self._logits(batch["source"], outputs["fake"].detach())
        real = self._logits(batch["source"], batch["target"])
        return {
            "D/fake": 0.5 * adversarial.discriminator_fake(fake, kind),
            "D/real": 0.5 * adversarial.discriminator_real(real, kind),
        }

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 4: fool the discriminator, and be near the target."""
        losses = {"G/l1": self.config.l1_weight * F.l1_loss(outputs["fake"].float(), batch["target"])}
        if self.config.adversarial_weight:
            logits = self._logits(batch["source"], outputs["fake"])
            fooled = adversarial.generator(logits, self.config.adversarial)
            losses["G/adversarial"] = self.config.adversarial_weight * fooled
        return losses

    def _logits(self, source: Tensor, target: Tensor) -> Tensor:
        return self.networks["discriminator"](torch.cat([source, target.to(source.dtype)], dim=1))
