"""nn.Modules and their configs, with what others must know of them; no device, no loading, no training.

Whoever adds a network writes one file, and one line in one of the dicts below: options, help, saved models and checks follow from it.
"""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from torch import nn

from img2img.networks.discriminators.base import DiscriminatorBaseConfig, NoiseDiscriminatorConfig
from img2img.networks.discriminators.dcgan import DCGANDiscriminator, DCGANDiscriminatorConfig
from img2img.networks.discriminators.patchgan import (
    MultiScale,
    MultiScaleConfig,
    PatchGAN,
    PatchGANConfig,
    PixelGAN,
    PixelGANConfig,
)
from img2img.networks.discriminators.progressive import ProgressiveDiscriminator, ProgressiveDiscriminatorConfig
from img2img.networks.discriminators.projected import Projected, ProjectedConfig, ProjectedNoise, ProjectedNoiseConfig
from img2img.networks.discriminators.sngan import NoiseResNetDiscriminator, NoiseResNetDiscriminatorConfig
from img2img.networks.discriminators.style import StyleDiscriminator, StyleDiscriminatorConfig
from img2img.networks.encoders import ImageEncoder, ImageEncoderConfig, InstanceEncoder, InstanceEncoderConfig
from img2img.networks.generators.base import GeneratorBaseConfig, NoiseGeneratorConfig
from img2img.networks.generators.dcgan import DCGAN, DCGANConfig
from img2img.networks.generators.laplacian import Laplacian, LaplacianConfig
from img2img.networks.generators.pix2pixhd import Pix2PixHD, Pix2PixHDConfig
from img2img.networks.generators.progressive import Progressive, ProgressiveConfig
from img2img.networks.generators.resnet import ResNet, ResNetConfig
from img2img.networks.generators.sngan import BigGANConfig, NoiseResNet, NoiseResNetConfig
from img2img.networks.generators.spade import SPADEConfig, SPADEGenerator
from img2img.networks.generators.style import StyleConfig, StyleGenerator
from img2img.networks.generators.unet import UNet, UNetConfig
from img2img.networks.layers import ImageNetwork, Norm
from img2img.networks.weights import initialise

GENERATORS: dict[str, tuple[type[GeneratorBaseConfig], type[ImageNetwork]]] = {
    "unet": (UNetConfig, UNet),
    "resnet": (ResNetConfig, ResNet),
    "pix2pixhd": (Pix2PixHDConfig, Pix2PixHD),
    "spade": (SPADEConfig, SPADEGenerator),
}
DISCRIMINATORS: dict[str, tuple[type[DiscriminatorBaseConfig], type[nn.Module]]] = {
    "patch": (PatchGANConfig, PatchGAN),
    "pixel": (PixelGANConfig, PixelGAN),
    "multiscale": (MultiScaleConfig, MultiScale),
    "projected": (ProjectedConfig, Projected),
}
ENCODERS: dict[str, tuple[type[Any], type[ImageNetwork]]] = {
    "instances": (InstanceEncoderConfig, InstanceEncoder),
    "image": (ImageEncoderConfig, ImageEncoder),
}
NOISE_GENERATORS: dict[str, tuple[type[NoiseGeneratorConfig], type[nn.Module]]] = {
    "dcgan": (DCGANConfig, DCGAN),
    "resnet": (NoiseResNetConfig, NoiseResNet),
    "biggan": (BigGANConfig, NoiseResNet),
    "progressive": (ProgressiveConfig, Progressive),
    "style": (StyleConfig, StyleGenerator),
    "laplacian": (LaplacianConfig, Laplacian),
}
NOISE_DISCRIMINATORS: dict[str, tuple[type[NoiseDiscriminatorConfig], type[nn.Module]]] = {
    "dcgan": (DCGANDiscriminatorConfig, DCGANDiscriminator),
    "resnet": (NoiseResNetDiscriminatorConfig, NoiseResNetDiscriminator),
    "progressive": (ProgressiveDiscriminatorConfig, ProgressiveDiscriminator),
    "style": (StyleDiscriminatorConfig, StyleDiscriminator),
    "projected": (ProjectedNoiseConfig, ProjectedNoise),
}

if TYPE_CHECKING:
    GeneratorConfig = GeneratorBaseConfig
    DiscriminatorConfig = DiscriminatorBaseConfig
    EncoderConfig = InstanceEncoderConfig | ImageEncoderConfig
    AnyNoiseGeneratorConfig = NoiseGeneratorConfig
    AnyNoiseDiscriminatorConfig = NoiseDiscriminatorConfig
else:

    def _any_of(registered: dict[str, tuple[Any, Any]]) -> Any:
        """The type of a setting that holds any config of a dict, told apart by its kind."""
        return Annotated[reduce(or_, (config for config, _ in registered.values())), Field(discriminator="kind")]

    GeneratorConfig = _any_of(GENERATORS)
    DiscriminatorConfig = _any_of(DISCRIMINATORS)
    EncoderConfig = _any_of(ENCODERS)
    AnyNoiseGeneratorConfig = _any_of(NOISE_GENERATORS)
    AnyNoiseDiscriminatorConfig = _any_of(NOISE_DISCRIMINATORS)


def build_generator(config: GeneratorBaseConfig) -> ImageNetwork:
    """The generator that a resolved config describes, with PyTorch's default initialisation."""
    return GENERATORS[config.kind][1](config)


def build_noise_generator(config: NoiseGeneratorConfig) -> nn.Module:
    """The same of a generator of images from noise."""
    return NOISE_GENERATORS[config.kind][1](config)


def build_encoder(config: EncoderConfig) -> ImageNetwork:
    """The encoder that a resolved config describes, with PyTorch's default initialisation."""
    return ENCODERS[config.kind][1](config)


def build_discriminator(
    config: DiscriminatorConfig, image_channels: int, norm: Norm = "batch", given_channels: int = 0
) -> nn.Module:
    """The discriminator that a config describes, of images and what they are conditioned on; `norm` if it chose none."""
    filled = config.model_copy(update={"norm": config.norm or norm})
    return DISCRIMINATORS[filled.kind][1](filled, image_channels, given_channels)


__all__ = [
    "DCGAN",
    "DISCRIMINATORS",
    "ENCODERS",
    "GENERATORS",
    "NOISE_DISCRIMINATORS",
    "NOISE_GENERATORS",
    "AnyNoiseDiscriminatorConfig",
    "AnyNoiseGeneratorConfig",
    "BigGANConfig",
    "DCGANConfig",
    "DCGANDiscriminator",
    "DCGANDiscriminatorConfig",
    "DiscriminatorBaseConfig",
    "DiscriminatorConfig",
    "EncoderConfig",
    "GeneratorBaseConfig",
    "GeneratorConfig",
    "ImageEncoder",
    "ImageEncoderConfig",
    "ImageNetwork",
    "InstanceEncoder",
    "InstanceEncoderConfig",
    "Laplacian",
    "LaplacianConfig",
    "MultiScale",
    "MultiScaleConfig",
    "NoiseDiscriminatorConfig",
    "NoiseGeneratorConfig",
    "NoiseResNet",
    "NoiseResNetConfig",
    "NoiseResNetDiscriminator",
    "NoiseResNetDiscriminatorConfig",
    "PatchGAN",
    "PatchGANConfig",
    "Pix2PixHD",
    "Pix2PixHDConfig",
    "PixelGAN",
    "PixelGANConfig",
    "Progressive",
    "ProgressiveConfig",
    "ProgressiveDiscriminator",
    "ProgressiveDiscriminatorConfig",
    "Projected",
    "ProjectedConfig",
    "ProjectedNoise",
    "ProjectedNoiseConfig",
    "ResNet",
    "ResNetConfig",
    "SPADEConfig",
    "SPADEGenerator",
    "StyleConfig",
    "StyleDiscriminator",
    "StyleDiscriminatorConfig",
    "StyleGenerator",
    "UNet",
    "UNetConfig",
    "build_discriminator",
    "build_encoder",
    "build_generator",
    "build_noise_generator",
    "initialise",
]  # fmt: skip
