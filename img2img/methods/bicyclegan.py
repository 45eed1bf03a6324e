"""BicycleGAN: many translations of one image (Zhu et al. 2017, Toward Multimodal Image-to-Image Translation)."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.data.labelled import LabelledData
from img2img.data.paired import PairedData
from img2img.losses.adversarial import Adversarial
from img2img.losses.features import kl_divergence
from img2img.methods.base import Batch, Losses, Method, Outputs, call_frozen, choose_source, resolve_generator
from img2img.methods.perceptual import Perceptual, PerceptualTranslationConfig
from img2img.networks import DiscriminatorConfig, UNetConfig, build_encoder, initialise
from img2img.networks.discriminators.patchgan import MultiScaleConfig
from img2img.networks.encoders import ImageEncoderConfig, draw_code
from img2img.networks.generators.unet import UNet


class BicycleGANConfig(PerceptualTranslationConfig):
    """The paper's numbers, and those of its code where it gives none."""

    data_kinds = (LabelledData, PairedData)
    discriminators: ClassVar[tuple[str, ...]] = ("discriminator", "discriminator_encoded")
    paper = "1711.11586"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "batch_size": 4,
            "ema": 0.999,
            "method": {
                "generator": {"channels": 32, "upsampling": "resize"},
                "discriminator": {"kind": "projected", "mixing": "cross-channel"},
                "image_encoder": {"channels": 32},
                "adversarial": "hinge",
                "perceptual": {"weight": 10.0},
                "lr": 5e-4,
            },
        }
    }
    discriminator_share = 1.0

    name: Annotated[Literal["bicyclegan"], tyro.conf.Suppress] = "bicyclegan"
    generator: UNetConfig = UNetConfig(dropout=0.0)
    """The network that translates, in a style that is added to what each level of its encoder makes (figure 3b)."""
    image_encoder: ImageEncoderConfig = ImageEncoderConfig(latent=8, norm="batch")
    """The network that reads the style of a target."""
    discriminator: DiscriminatorConfig = MultiScaleConfig(scales=2)
    """The networks that tell real from generated: one for images in random styles, one for those in the targets' styles."""
    adversarial: Adversarial = "lsgan"
    """vanilla: the minimax loss, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; lsgan: least squares, as in the paper; hinge; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    l1_weight: float = Field(10.0, ge=0)
    """λ of eq. 9: the weight of the L1 distance to the target, of images in the targets' styles."""
    latent_weight: float = Field(0.5, ge=0)
    """λ_latent: the weight of the L1 distance between a random style and what the encoder reads from the image made in it; 0 is the cVAE-GAN, whose random styles hardly matter."""
    kl_weight: float = Field(0.01, ge=0)
    """λ_KL: the weight of the styles' distance from a normal distribution."""

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "BicycleGAN":
        """The method with fresh networks."""
        return BicycleGAN(self, in_channels, out_channels, size)


class BicycleGAN(Method):
    """The cVAE-GAN (target → style → target) and the conditional latent regressor (style → image → style) at once; G and E are updated before the Ds."""

    def __init__(self, config: BicycleGANConfig, in_channels: int, out_channels: int, size: int) -> None:
        self.config = config
        encoder = config.image_encoder.resolve(out_channels, size)
        resolved = resolve_generator(config.generator, in_channels, out_channels, size, "instance")
        resolved = resolved.model_copy(update={"latent": encoder.latent})
        self.generator_configs = {"": resolved}
        self.encoders = {"": ("encoder", encoder)}
        how = config.initialisation, config.initialisation_gain
        self.networks: dict[str, nn.Module] = {
            "generator": draw_shifts(config.initialise(resolved)),
            "encoder": initialise(build_encoder(encoder), *how),
        }
        for name in config.discriminators:
            self.networks[name] = config.build_discriminator(out_channels, size, in_channels)
        self.adversarial = config.build_adversarial_loss()
        self.memories = self.adversarial.memories
        self.perceptual = Perceptual(config.perceptual)
        self.phases = (
            config.build_phase("G", ("generator", "encoder"), self.generator_losses),
            config.build_discriminator_phase(self.discriminator_losses, config.discriminators),
        )

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """Each source in its target's style, and in a random one."""
        source, target = batch["source"], batch["target"]
        mean, logvar = (each.float() for each in self.networks["encoder"](target))
        encoded = draw_code(mean, logvar)
        style = torch.randn_like(mean)
        both = self.networks["generator"](torch.cat([source, source]), torch.cat([encoded, style]))
        fakes = both.split(len(source))
        images = {"encoded": fakes[0], "random": fakes[1], "mean": mean, "logvar": logvar, "style": style}
        return Outputs(update, images, translations={"": (choose_source(batch), fakes[1].detach(), target)})

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 9: both GANs, the target from its own style, the style from an image made in it, and styles that are normally distributed."""
        config, target, made = self.config, batch["target"], outputs.images
        losses = {"G/l1": config.l1_weight * F.l1_loss(made["encoded"].float(), target)}
        losses |= self.perceptual.losses(made["encoded"], target)
        for name, fake, discriminator in self._judged(made):
            losses |= self.adversarial.generator_losses(
                self.networks[discriminator], target, fake, outputs, name, batch["source"]
            )
        losses["G/kl"] = config.kl_weight * kl_divergence(made["mean"], made["logvar"])
        if config.latent_weight:
            # this loss is the generator's alone (§3.2)
            found = call_frozen(self.networks["encoder"], made["random"])[0]
            losses["G/latent"] = config.latent_weight * F.l1_loss(found.float(), made["style"])
        return losses

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """On real pairs, and on those of either kind."""
        losses: Losses = {}
        for name, fake, discriminator in self._judged(outputs.images):
            losses |= self.adversarial.discriminator_losses(
                self.networks[discriminator], batch["target"], fake, outputs, name, batch["source"]
            )
        return losses

    def _judged(self, made: dict[str, Tensor]) -> tuple[tuple[str, Tensor, str], ...]:
        """What begins the names of losses, the images, and their discriminator."""
        return ("", made["random"], "discriminator"), ("encoded_", made["encoded"], "discriminator_encoded")


def draw_shifts(generator: nn.Module) -> nn.Module:
    """Lets styles matter from the beginning: what they add has half the deviation of what a norm gives."""
    assert isinstance(generator, UNet) and generator.shifts is not None
    for layer in generator.shifts:
        assert isinstance(layer, nn.Linear)
        nn.init.normal_(layer.weight, std=0.5 / math.sqrt(layer.in_features))
    return generator
