"""DCGAN: images from noise by transposed convolutions, and their judge (Radford et al. 2016)."""

import itertools
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from img2img.networks.blocks import Norm, Upsampling, has_bias, norm_layer
from img2img.networks.noise import (
    Head,
    NoiseDiscriminatorConfig,
    NoiseGeneratorConfig,
    beside_planes,
    halvings,
    one_hot,
)
from img2img.networks.unet import double

WIDEST = 8  # times the first width


class DCGANConfig(NoiseGeneratorConfig):
    """What a DCGAN generator is made of (Radford et al. 2016, §3 and figure 1)."""

    kind: Literal["dcgan"] = "dcgan"
    """The network: dcgan; resnet (SNGAN, SAGAN), biggan or progressive (whose options `--generator.kind resnet --help` lists)."""
    latent: int = Field(100, ge=1)
    """Random numbers that an image is made from."""
    channels: int = Field(64, ge=1)
    """Channels of the last hidden layer; they double per layer towards the noise, up to 8 times this."""
    norm: Norm = "batch"
    """Normalisation after every convolution but the last."""
    upsampling: Upsampling = "transpose"
    """transpose: 4×4 transposed convolutions, as in the paper; resize: nearest-neighbour and a 3×3 convolution; blur: bilinear and a 3×3 convolution."""


class DCGANDiscriminatorConfig(NoiseDiscriminatorConfig):
    """What a DCGAN discriminator is made of (Radford et al. 2016, §3)."""

    kind: Literal["dcgan"] = "dcgan"
    """The network: dcgan; resnet (SNGAN, SAGAN, BigGAN) or progressive."""
    conditioning: Literal["concat", "projection", "none"] = "concat"
    """How it sees the class. concat: a plane a class beside the image (Mirza & Osindero 2014); projection (Miyato & Koyama 2018); none: not at all."""
    norm: Norm | None = None
    """Not applied to the first convolution; by default batch, or group where a gradient penalty forbids it."""


class DCGAN(nn.Module):
    """Maps noise (B, latent), and labels if it has classes, to images (B, out_channels, size, size) in [-1, 1].

    Labels are one-hot numbers beside the noise (Mirza & Osindero 2014, eq. 2).

    Args:
        config: with everything filled in.
    """

    def __init__(self, config: DCGANConfig) -> None:
        super().__init__()
        assert config.out_channels and config.size
        self.classes, norm = config.classes, config.norm
        count = halvings(config.size)
        widths = [config.channels * min(2 ** (count - 1 - level), WIDEST) for level in range(count)]
        bias = has_bias(norm)
        self.stem = nn.Sequential(
            nn.ConvTranspose2d(config.latent + config.classes, widths[0], 4, bias=bias),
            norm_layer(norm, widths[0]),
            nn.ReLU(),
        )
        self.up = nn.Sequential(
            *(
                nn.Sequential(double(below, width, bias, config.upsampling), norm_layer(norm, width), nn.ReLU())
                for below, width in itertools.pairwise(widths)
            )
        )
        self.head = nn.Sequential(double(widths[-1], config.out_channels, True, config.upsampling), nn.Tanh())

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent), and (B,) integers → (B, out_channels, size, size) in [-1, 1]."""
        if self.classes:
            assert labels is not None
            noise = torch.cat([noise, one_hot(labels, self.classes, noise)], dim=1)
        return self.head(self.up(self.stem(noise[:, :, None, None])))


class DCGANDiscriminator(nn.Module):
    """Maps images (B, in_channels, size, size), and labels if it looks at them, to logits (B,).

    Args:
        config: with everything filled in.
        in_channels: of the images.
        size: their height and width in pixels.
        classes: how many there are; 0 for none.
        outputs: numbers that a second head gives for each image, such as one a class; 0 for no such head.
    """

    def __init__(
        self, config: DCGANDiscriminatorConfig, in_channels: int, size: int, classes: int = 0, outputs: int = 0
    ) -> None:
        super().__init__()
        assert config.norm
        norm: Norm = config.norm
        self.planes = classes if config.conditioning == "concat" else 0
        count = halvings(size)
        widths = [config.channels * min(2**level, WIDEST) for level in range(count)]
        self.stem = nn.Sequential(nn.Conv2d(in_channels + self.planes, widths[0], 4, 2, 1), nn.LeakyReLU(0.2))
        self.down = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(above, width, 4, 2, 1, bias=has_bias(norm)), norm_layer(norm, width), nn.LeakyReLU(0.2)
                )
                for above, width in itertools.pairwise(widths)
            )
        )
        projected = classes if config.conditioning == "projection" else 0
        self.head = Head(nn.Conv2d(widths[-1], 1, 4), widths[-1], projected, outputs, 16 * widths[-1])

    def forward(self, images: Tensor, labels: Tensor | None = None, outputs: bool = False) -> Tensor | list[Tensor]:
        """(B, in_channels, size, size), and (B,) integers → logits (B,); with `outputs` a list: those, and (B, outputs)."""
        images = beside_planes(images, labels, self.planes)
        return self.head(self.down(self.stem(images)), labels, outputs)
