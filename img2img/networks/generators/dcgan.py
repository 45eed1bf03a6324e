"""The generator of DCGAN: images from noise by transposed convolutions (Radford et al. 2016)."""

import itertools
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from img2img.networks.generators.base import NoiseGeneratorConfig, count_halvings
from img2img.networks.generators.unet import build_upsampling
from img2img.networks.labels import class_shares
from img2img.networks.layers import Norm, Upsampling, has_bias, norm_layer

WIDEST = 8  # times the first width


class DCGANConfig(NoiseGeneratorConfig):
    """What a DCGAN generator is made of (Radford et al. 2016, §3 and figure 1)."""

    kind: Literal["dcgan"] = "dcgan"
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    latent: int = Field(100, ge=1)
    """Random numbers that an image is made from."""
    channels: int = Field(64, ge=1)
    """Channels of the last hidden layer; they double per layer towards the noise, up to 8 times this."""
    norm: Norm = "batch"
    """Normalisation after every convolution but the last."""
    upsampling: Upsampling = "transpose"
    """transpose: 4×4 transposed convolutions, as in the paper; resize: nearest-neighbour and a 3×3 convolution; blur: bilinear and a 3×3 convolution."""


class DCGAN(nn.Module):
    """Maps noise (B, latent), and labels if it has classes, to images (B, out_channels, size, size) in [-1, 1].

    Labels are one-hot numbers beside the noise (Mirza & Osindero 2014, eq. 2).
    """

    def __init__(self, config: DCGANConfig) -> None:
        super().__init__()
        assert config.out_channels and config.size
        self.classes, norm = config.classes, config.norm
        count = count_halvings(config.size)
        widths = [config.channels * min(2 ** (count - 1 - level), WIDEST) for level in range(count)]
        bias = has_bias(norm)
        self.stem = nn.Sequential(
            nn.ConvTranspose2d(config.latent + config.classes, widths[0], 4, bias=bias),
            norm_layer(norm, widths[0]),
            nn.ReLU(),
        )
        self.up = nn.Sequential(
            *(
                nn.Sequential(
                    build_upsampling(below, width, bias, config.upsampling), norm_layer(norm, width), nn.ReLU()
                )
                for below, width in itertools.pairwise(widths)
            )
        )
        self.head = nn.Sequential(build_upsampling(widths[-1], config.out_channels, True, config.upsampling), nn.Tanh())

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent), and (B,) integers → (B, out_channels, size, size) in [-1, 1]."""
        if self.classes:
            assert labels is not None
            noise = torch.cat([noise, class_shares(labels, self.classes, noise.dtype)], dim=1)
        return self.head(self.up(self.stem(noise[:, :, None, None])))
