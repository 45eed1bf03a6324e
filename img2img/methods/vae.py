"""VAE: a variational autoencoder (Kingma & Welling 2014), the baseline among those that make images from noise."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import tyro
from pydantic import Field
from torch import nn

from img2img.core.errors import UsageError
from img2img.data.class_folders import ClassFolderData
from img2img.losses.features import kl_divergence
from img2img.methods.base import Batch, Beta, Losses, Method, MethodConfig, Outputs
from img2img.methods.gan import NoiseMethodConfig, resolve_noise_generator
from img2img.networks import AnyNoiseGeneratorConfig, DCGANConfig, build_encoder, initialise
from img2img.networks.encoders import ImageEncoderConfig, draw_code
from img2img.networks.layers import Norm


class CodeEncoderConfig(ImageEncoderConfig):
    """What the encoder is made of."""

    latent: Annotated[int, tyro.conf.Suppress] = Field(128, ge=1)
    """Numbers of a code; filled in, as many as the generator's noise."""
    norm: Norm = "batch"
    """Normalisation after every convolution."""


class VAEConfig(MethodConfig):
    """The paper's loss for normally distributed images, of deviation 1 for values in [-1, 1], with DCGAN's generator."""

    data_kinds = (ClassFolderData,)
    model: ClassVar[Literal["translator", "noise_generator"]] = "noise_generator"
    best_by: ClassVar[Literal["perceptual", "kid"]] = "kid"
    paper = "1312.6114"
    run_defaults: ClassVar[Mapping[str, object]] = {**NoiseMethodConfig.run_defaults, "ema": 0.999}

    name: Annotated[Literal["vae"], tyro.conf.Suppress] = "vae"
    generator: AnyNoiseGeneratorConfig = DCGANConfig()
    """The decoder, which makes images."""
    image_encoder: CodeEncoderConfig = CodeEncoderConfig()
    """The encoder."""
    beta: float = Field(1.0, ge=0)
    """Weight of the codes' distance from a normal distribution: more than 1 makes images more typical and less sharp, less than 1 the other way round (Higgins et al. 2017, β-VAE)."""
    unconditional: bool = False
    """Ignore the classes that the folders name."""
    lr: float = Field(1e-3, gt=0)
    """Adam's learning rate, for both networks."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Adam's betas, for both networks."""

    @property
    def uses_classes(self) -> bool:
        """Unless it is told to ignore them."""
        return not self.unconditional

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "VAE":
        """The method with fresh networks."""
        return VAE(self, classes if self.uses_classes else 0, out_channels, size)


class VAE(Method):
    """An encoder and a decoder, trained together; the decoder sees the class, if there are classes."""

    def __init__(self, config: VAEConfig, classes: int, channels: int, size: int) -> None:
        if config.generator.grows:
            raise UsageError(
                "--generator.kind progressive grows with its discriminator, and a VAE has none; use another."
            )
        self.config, self.classes = config, classes
        generator = resolve_noise_generator(config.generator, classes, channels, size)
        encoder = config.image_encoder.resolve(channels, size).model_copy(update={"latent": generator.latent})
        self.generator_configs = {"": generator}
        how = config.initialisation, config.initialisation_gain
        self.networks: dict[str, nn.Module] = {
            "generator": config.initialise(generator),
            "encoder": initialise(build_encoder(encoder), *how),
        }
        self.phases = (config.build_phase("G", ("generator", "encoder"), self.losses),)

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """Each image, from a code that is drawn around what the encoder gives for it (§2.4)."""
        real = batch["target"]
        mean, logvar = self.networks["encoder"](real)
        made = self.networks["generator"](draw_code(mean, logvar), batch["label"] if self.classes else None)
        images = {"made": made, "mean": mean, "logvar": logvar}
        return Outputs(update, images, translations={"": (real, made.detach(), real)})

    def losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Minus eq. 10, per number of an image and without its constant: how improbable the image is, and the code's divergence."""
        real, made = batch["target"], outputs.images["made"].float()
        numbers = real[0].numel()
        improbable = 0.5 * (made - real).square().mean()
        divergence = kl_divergence(outputs.images["mean"], outputs.images["logvar"])
        return {"G/reconstruction": improbable, "G/kl": self.config.beta * divergence / numbers}
