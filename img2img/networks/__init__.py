"""nn.Modules and their configs, nothing else: no device, no loading, no training."""

from typing import Annotated

from pydantic import Field
from torch import nn

from img2img.networks.blocks import Norm, initialise
from img2img.networks.patchgan import PatchGAN, PatchGANConfig, PixelGAN, PixelGANConfig
from img2img.networks.pix2pixhd import Pix2PixHD, Pix2PixHDConfig
from img2img.networks.resnet import ResNet, ResNetConfig
from img2img.networks.unet import UNet, UNetConfig

AnyGenerator = UNetConfig | ResNetConfig | Pix2PixHDConfig
GeneratorConfig = Annotated[AnyGenerator, Field(discriminator="kind")]
DiscriminatorConfig = Annotated[PatchGANConfig | PixelGANConfig, Field(discriminator="kind")]

GENERATORS: dict[str, tuple[type[AnyGenerator], type[nn.Module]]] = {
    "unet": (UNetConfig, UNet),
    "resnet": (ResNetConfig, ResNet),
    "pix2pixhd": (Pix2PixHDConfig, Pix2PixHD),
}
DISCRIMINATORS: dict[str, tuple[type[PatchGANConfig | PixelGANConfig], type[nn.Module]]] = {
    "patch": (PatchGANConfig, PatchGAN),
    "pixel": (PixelGANConfig, PixelGAN),
}


def build_generator(config: AnyGenerator) -> nn.Module:
    """The generator that a resolved config describes, with PyTorch's default initialisation."""
    return GENERATORS[config.kind][1](config)


def build_discriminator(config: PatchGANConfig | PixelGANConfig, in_channels: int, norm: Norm = "batch") -> nn.Module:
    """The discriminator that a config describes, for images of `in_channels` channels; `norm` if it chose none."""
    filled = config.model_copy(update={"norm": config.norm or norm})
    return PatchGAN(filled, in_channels) if isinstance(filled, PatchGANConfig) else PixelGAN(filled, in_channels)


__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "AnyGenerator",
    "DiscriminatorConfig",
    "GeneratorConfig",
    "PatchGAN",
    "Pix2PixHD",
    "Pix2PixHDConfig",
    "PixelGAN",
    "ResNet",
    "ResNetConfig",
    "UNet",
    "UNetConfig",
    "build_discriminator",
    "build_generator",
    "initialise",
]
