"""pix2pix: image-to-image translation with conditional adversarial networks (Isola et al. 2017)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch.nn.functional as F
import tyro
from pydantic import Field, model_validator
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.data.labelled import LabelledData
from img2img.data.paired import PairedData
from img2img.methods.base import Batch, Losses, Method, Outputs, Stage, call_frozen, choose_source
from img2img.methods.perceptual import Perceptual, PerceptualTranslationConfig
from img2img.networks import GeneratorConfig, UNetConfig
from img2img.networks.layers import Norm
from img2img.networks.weights import load_plain_state


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
    pretrain_generator: float = Field(0.0, ge=0, lt=1)
    """NoGAN: first train the generator alone, for this share of the updates, by L1 and the perceptual loss (Antic et al. 2019, DeOldify)."""
    pretrain_discriminator: float = Field(0.0, ge=0, lt=1)
    """NoGAN: then train the discriminator alone, for this share of the updates, to know what that generator makes."""
    trains: Annotated[Literal["both", "generator", "discriminator"], tyro.conf.Suppress] = "both"
    """What this stage trains."""

    @model_validator(mode="after")
    def _refuse_stages(self) -> Self:
        alone = self.pretrain_generator, self.pretrain_discriminator
        if sum(alone) >= 1:
            raise ValueError(
                f"--pretrain-generator {alone[0]:g} and --pretrain-discriminator {alone[1]:g} leave no updates for both; take "
                "less than 1 in sum."
            )
        if alone[1] and not alone[0]:
            raise ValueError(
                "--pretrain-discriminator needs a trained generator: add --pretrain-generator, or take --init MODEL --warmup-discriminator N."
            )
        if alone[0] and not (self.l1_weight or self.perceptual.weight):
            raise ValueError(
                "--pretrain-generator has nothing to learn from: --l1-weight and --perceptual.weight are 0"
            )
        return self

    def earlier_stage(self) -> Stage | None:
        """The generator alone, and the discriminator alone, if they are asked for."""
        generator, discriminator = self.pretrain_generator, self.pretrain_discriminator
        if self.trains == "both" and discriminator:
            text = "Second stage: the discriminator alone."
            return self._alone("discriminator", generator + discriminator, text)
        if self.trains != "generator" and generator:
            share = generator / (generator + discriminator) if self.trains == "discriminator" else generator
            return self._alone("generator", share, "First stage: the generator alone.")
        return None

    def _alone(self, network: Literal["generator", "discriminator"], share: float, text: str) -> Stage:
        return Stage(network, self.model_copy(update={"trains": network}), share, 1, text)

    def without_stages(self) -> Self:
        """Both trained from the beginning.

        Raises:
            UsageError: if stages were asked for.
        """
        if self.pretrain_generator:
            raise UsageError(
                "--pretrain-generator trains a fresh generator, and --init gives a trained one: leave it out; --warmup-discriminator N trains the discriminator alone first."
            )
        return self

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
        phases = {
            "discriminator": config.build_discriminator_phase(self.discriminator_losses),
            "generator": config.build_phase("G", ("generator",), self.generator_losses),
        }
        self.phases = tuple(phase for network, phase in phases.items() if config.trains in (network, "both"))

    def begin_from(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes over the networks of the stage before."""
        for name, found in weights.items():
            load_plain_state(self.networks[name], found)

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """The translation, which both phases use."""
        generator, source = self.networks["generator"], batch["source"]
        fake = call_frozen(generator, source) if self.config.trains == "discriminator" else generator(source)
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
        if self.config.trains == "generator":
            return losses
        return losses | self.adversarial.generator_losses(network, target, fake, outputs, given=batch["source"])
