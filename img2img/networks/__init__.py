"""nn.Modules and their configs, nothing else: no device, no loading, no training."""

from typing import Annotated

from pydantic import Field
from torch import nn

from img2img.networks.blocks import Norm, initialise
from img2img.networks.dcgan import DCGAN, DCGANConfig, DCGANDiscriminator, DCGANDiscriminatorConfig
from img2img.networks.encoders import ImageEncoder, ImageEncoderConfig, InstanceEncoder, InstanceEncoderConfig
from img2img.networks.noise import NoiseGeneratorConfig
from img2img.networks.noise_resnet import (
    BigGANConfig,
    NoiseResNet,
    NoiseResNetConfig,
    NoiseResNetDiscriminator,
    NoiseResNetDiscriminatorConfig,
)
from img2img.networks.patchgan import (
    MultiScale,
    MultiScaleConfig,
    PatchGAN,
    PatchGANConfig,
    PixelGAN,
    PixelGANConfig,
)
from img2img.networks.pix2pixhd import Pix2PixHD, Pix2PixHDConfig
from img2img.networks.progressive import (
    Progressive,
    ProgressiveConfig,
    ProgressiveDiscriminator,
    ProgressiveDiscriminatorConfig,
)
from img2img.networks.resnet import ResNet, ResNetConfig
from img2img.networks.spade import SPADEConfig, SPADEGenerator
from img2img.networks.unet import UNet, UNetConfig

AnyGenerator = UNetConfig | ResNetConfig | Pix2PixHDConfig | SPADEConfig
GeneratorConfig = Annotated[AnyGenerator, Field(discriminator="kind")]
AnyDiscriminator = PatchGANConfig | PixelGANConfig | MultiScaleConfig
DiscriminatorConfig = Annotated[AnyDiscriminator, Field(discriminator="kind")]
AnyEncoder = InstanceEncoderConfig | ImageEncoderConfig
AnyNoiseGenerator = DCGANConfig | NoiseResNetConfig | BigGANConfig | ProgressiveConfig
NoiseGenerator = Annotated[AnyNoiseGenerator, Field(discriminator="kind")]
AnyNoiseDiscriminator = DCGANDiscriminatorConfig | NoiseResNetDiscriminatorConfig | ProgressiveDiscriminatorConfig
NoiseDiscriminator = Annotated[AnyNoiseDiscriminator, Field(discriminator="kind")]
EncoderConfig = Annotated[AnyEncoder, Field(discriminator="kind")]

GENERATORS: dict[str, tuple[type[AnyGenerator], type[nn.Module]]] = {
    "unet": (UNetConfig, UNet),
    "resnet": (ResNetConfig, ResNet),
    "pix2pixhd": (Pix2PixHDConfig, Pix2PixHD),
    "spade": (SPADEConfig, SPADEGenerator),
}
DISCRIMINATORS: dict[str, tuple[type[AnyDiscriminator], type[nn.Module]]] = {
    "patch": (PatchGANConfig, PatchGAN),
    "pixel": (PixelGANConfig, PixelGAN),
    "multiscale": (MultiScaleConfig, MultiScale),
}

NOISE_GENERATORS: dict[str, tuple[type[AnyNoiseGenerator], type[nn.Module]]] = {
    "dcgan": (DCGANConfig, DCGAN),
    "resnet": (NoiseResNetConfig, NoiseResNet),
    "biggan": (BigGANConfig, NoiseResNet),
    "progressive": (ProgressiveConfig, Progressive),
}
NOISE_DISCRIMINATORS: dict[str, tuple[type[AnyNoiseDiscriminator], type[nn.Module]]] = {
    "dcgan": (DCGANDiscriminatorConfig, DCGANDiscriminator),
    "resnet": (NoiseResNetDiscriminatorConfig, NoiseResNetDiscriminator),
    "progressive": (ProgressiveDiscriminatorConfig, ProgressiveDiscriminator),
}


def build_generator(config: AnyGenerator | AnyNoiseGenerator) -> nn.Module:
    """The generator that a resolved config describes, with PyTorch's default initialisation."""
    if isinstance(config, NoiseGeneratorConfig):
        return NOISE_GENERATORS[config.kind][1](config)
    return GENERATORS[config.kind][1](config)


def build_encoder(config: AnyEncoder) -> nn.Module:
    """The encoder that a resolved config describes, with PyTorch's default initialisation."""
    return InstanceEncoder(config) if isinstance(config, InstanceEncoderConfig) else ImageEncoder(config)


def build_discriminator(config: AnyDiscriminator, in_channels: int, norm: Norm = "batch") -> nn.Module:
    """The discriminator that a config describes, for images of `in_channels` channels; `norm` if it chose none."""
    filled = config.model_copy(update={"norm": config.norm or norm})
    return DISCRIMINATORS[filled.kind][1](filled, in_channels)


__all__ = [
    "DCGAN",
    "DISCRIMINATORS",
    "GENERATORS",
    "NOISE_DISCRIMINATORS",
    "NOISE_GENERATORS",
    "AnyEncoder",
    "AnyGenerator",
    "AnyNoiseDiscriminator",
    "AnyNoiseGenerator",
    "BigGANConfig",
    "DCGANConfig",
    "DCGANDiscriminator",
    "DCGANDiscriminatorConfig",
    "DiscriminatorConfig",
    "EncoderConfig",
    "GeneratorConfig",
    "ImageEncoder",
    "ImageEncoderConfig",
    "InstanceEncoder",
    "InstanceEncoderConfig",
    "MultiScale",
    "MultiScaleConfig",
    "NoiseDiscriminator",
    "NoiseGenerator",
    "NoiseGeneratorConfig",
    "NoiseResNet",
    "NoiseResNetConfig",
    "NoiseResNetDiscriminator",
    "NoiseResNetDiscriminatorConfig",
    "PatchGAN",
    "Pix2PixHD",
    "Pix2PixHDConfig",
    "PixelGAN",
    "Progressive",
    "ProgressiveConfig",
    "ProgressiveDiscriminator",
    "ProgressiveDiscriminatorConfig",
    "ResNet",
    "ResNetConfig",
    "SPADEConfig",
    "SPADEGenerator",
    "UNet",
    "UNetConfig",
    "build_discriminator",
    "build_encoder",
    "build_generator",
    "initialise",
]
