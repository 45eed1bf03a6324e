"""SPADE (GauGAN): semantic image synthesis with spatially-adaptive normalisation (Park et al. 2019)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import tyro
from pydantic import Field
from torch import nn

from img2img.data.labelled import LabelledData
from img2img.data.paired import PairedData
from img2img.losses.adversarial import Adversarial
from img2img.losses.features import kl_divergence
from img2img.methods.base import Batch, Beta, Losses, Method, Outputs, choose_source, resolve_generator
from img2img.methods.perceptual import Perceptual, PerceptualConfig, PerceptualTranslationConfig
from img2img.networks import (
    DiscriminatorConfig,
    ImageEncoderConfig,
    MultiScaleConfig,
    SPADEConfig,
    build_encoder,
    initialise,
)
from img2img.networks.encoders import draw_code
from img2img.networks.weights import Initialisation


class SPADEMethodConfig(PerceptualTranslationConfig):
    """The paper's numbers."""

    data_kinds = (LabelledData, PairedData)
    paper = "1903.07291"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "batch_size": 4,
            "ema": 0.999,
            "method": {
                "generator": {"channels": 16, "hidden": 32, "spectral_norm": "all"},
                "discriminator": {"kind": "multiscale", "channels": 32, "plain_ends": False},
                "adversarial_weight": 2.0,
                "feature_matching": 20.0,
                "perceptual": {"network": "lite", "weight": 20.0},
            },
        }
    }

    discriminator_share = 1.0
    mean_of_scales = True

    name: Annotated[Literal["spade"], tyro.conf.Suppress] = "spade"
    generator: SPADEConfig = SPADEConfig()
    """The network that translates."""
    discriminator: DiscriminatorConfig = MultiScaleConfig(scales=2, spectral_norm=True, plain_ends=True)
    """The networks that tell real from generated, at several scales."""
    adversarial: Adversarial = "hinge"
    """hinge, as in the paper; lsgan: least squares; vanilla: the minimax loss, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    feature_matching: float = Field(10.0, ge=0)
    """Weight of matching the discriminators' features; 0 leaves it out."""
    perceptual: PerceptualConfig = PerceptualConfig(weight=10.0, network="vgg19")
    """Nearness by features; the paper's are those of VGG-19."""
    encoder: bool = False
    """Learn styles: an encoder sums up the real image in a few numbers, which the generator is given; they can be drawn at random, too (appendix A: a VAE)."""
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    """That encoder."""
    kl_weight: float = Field(0.05, ge=0)
    """Weight of the styles' distance from a normal distribution."""
    lr: float = Field(1e-4, gt=0)
    """Adam's learning rate, for the generator and the encoder."""
    discriminator_lr: float | None = Field(4e-4, gt=0)
    """Adam's learning rate for the discriminators: two time scales (Heusel et al. 2017)."""
    betas: tuple[Beta, Beta] = (0.0, 0.9)
    """Adam's betas, for all networks."""
    initialisation: Initialisation = "xavier"
    """How weights are drawn."""

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "SPADEMethod":
        """The method with fresh networks."""
        return SPADEMethod(self, in_channels, out_channels, size)


class SPADEMethod(Method):
    """A SPADE generator, discriminators at several scales, and perhaps an encoder of images; G is updated before D."""

    def __init__(self, config: SPADEMethodConfig, in_channels: int, out_channels: int, size: int) -> None:
        self.config = config
        config.refuse_no_losses()
        resolved = resolve_generator(config.generator, in_channels, out_channels, size, None)
        encoder = config.image_encoder.resolve(out_channels, size) if config.encoder else None
        if encoder:
            resolved = resolved.model_copy(update={"latent": encoder.latent, "latent_size": size // resolved.multiple})
        self.generator_configs = {"": resolved}
        self.encoders = {"": ("encoder", encoder)} if encoder else {}
        self.adversarial = config.build_adversarial_loss()
        self.memories = self.adversarial.memories
        self.perceptual = Perceptual(config.perceptual)
        self.networks: dict[str, nn.Module] = {"generator": config.initialise(resolved)}
        if encoder:
            self.networks["encoder"] = initialise(
                build_encoder(encoder), config.initialisation, config.initialisation_gain
            )
        trained = tuple(self.networks)
        self.networks["discriminator"] = config.build_discriminator(out_channels, size, in_channels)
        self.phases = (
            config.build_phase("G", trained, self.generator_losses),
            config.build_discriminator_phase(self.discriminator_losses),
        )

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """The translation, which both phases use; in the style of the real image, if there is an encoder."""
        source, target = batch["source"], batch["target"]
        outputs = Outputs(update)
        if "encoder" in self.networks:
            mean, logvar = self.networks["encoder"](target)
            style = draw_code(mean, logvar)
            outputs.images |= {"mean": mean, "logvar": logvar}
            fake = self.networks["generator"](source, style)
        else:
            fake = self.networks["generator"](source)
        outputs.images["fake"] = fake
        outputs.translations[""] = choose_source(batch), fake.detach(), target
        return outputs

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Fool the discriminators, match their features and those of VGG-19, and keep styles near a normal distribution."""
        fake, target = outputs.images["fake"], batch["target"]
        outputs.images["fake"] = fake.detach()
        losses = self.adversarial.generator_losses(
            self.networks["discriminator"], target, fake, outputs, given=batch["source"]
        )
        losses |= self.perceptual.losses(fake, target)
        if "mean" in outputs.images:
            divergence = kl_divergence(outputs.images.pop("mean"), outputs.images.pop("logvar"))
            losses["G/kl"] = self.config.kl_weight * divergence
        return losses

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """The hinge loss on real and generated pairs."""
        network, fake = self.networks["discriminator"], outputs.images["fake"]
        return self.adversarial.discriminator_losses(network, batch["target"], fake, outputs, given=batch["source"])
