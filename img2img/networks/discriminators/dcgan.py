"""The discriminator of DCGAN (Radford et al. 2016)."""

import itertools
from typing import Literal

from torch import Tensor, nn

from img2img.networks.discriminators.base import Head, NoiseDiscriminatorConfig, concatenate_label_planes
from img2img.networks.generators.base import count_halvings
from img2img.networks.layers import Norm, has_bias, norm_layer

WIDEST = 8  # times the first width


class DCGANDiscriminatorConfig(NoiseDiscriminatorConfig):
    """What a DCGAN discriminator is made of (Radford et al. 2016, §3)."""

    kind: Literal["dcgan"] = "dcgan"
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    conditioning: Literal["concat", "projection", "none"] = "concat"
    """How it sees the class. concat: a plane a class beside the image (Mirza & Osindero 2014); projection (Miyato & Koyama 2018); none: not at all."""
    norm: Norm | None = None
    """Not applied to the first convolution; by default batch, or group where a gradient penalty forbids it."""


class DCGANDiscriminator(nn.Module):
    """Maps images (B, in_channels, size, size), and labels if it looks at them, to logits (B,).

    Args:
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
        count = count_halvings(size)
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
        images = concatenate_label_planes(images, labels, self.planes)
        return self.head(self.down(self.stem(images)), labels, outputs)
