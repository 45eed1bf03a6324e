"""Generators that fit the data."""

from typing import TypeVar

from torch import nn

from img2img.errors import UsageError
from img2img.networks import (
    AnyGenerator,
    Pix2PixHDConfig,
    ResNetConfig,
    SPADEConfig,
    UNetConfig,
    build_generator,
    initialise,
)
from img2img.networks.blocks import Initialisation, Norm, with_spectral_norm

G = TypeVar("G", UNetConfig, ResNetConfig, Pix2PixHDConfig, SPADEConfig, AnyGenerator)


def made(config: AnyGenerator, initialisation: Initialisation, gain: float) -> nn.Module:
    """A fresh generator, with spectral norm if its config asks for it."""
    network = initialise(build_generator(config), initialisation, gain)
    return with_spectral_norm(network) if isinstance(config, SPADEConfig) and config.spectral_norm else network


def fitting(config: G, in_channels: int, out_channels: int, size: int, norm: Norm | None) -> G:
    """A generator's config with all filled in that was left to the data and the method.

    Raises:
        UsageError: if images of `size` pixels don't fit, or channels were set that differ from the data's.
    """
    resolved = config.resolve(in_channels, out_channels, size, norm)
    built = resolved.in_channels, resolved.out_channels
    if built != (in_channels, out_channels):
        raise UsageError(
            f"a generator of {built[0]} → {built[1]} channels doesn't fit the data's {in_channels} → {out_channels}."
        )
    return resolved
