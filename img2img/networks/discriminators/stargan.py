"""The discriminator of StarGAN, which also says to which domain an image belongs (Choi et al. 2018)."""

import itertools
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from img2img.networks.discriminators.base import DiscriminatorBaseConfig
from img2img.networks.layers import Norm, has_bias, norm_layer

DEEPEST = 6  # layers, in the paper, for images of 128 pixels
SLOPE = 0.01


class StarGANDiscriminatorConfig(DiscriminatorBaseConfig):
    """What a StarGAN discriminator is made of (Choi et al. 2018, table 5)."""

    kind: Literal["stargan"] = "stargan"
    """The network."""
    layers: int | None = Field(None, ge=1, le=8)
    """Convolutions that halve the image; by default as many as leave 2 pixels a side, but at most the paper's 6."""
    norm: Norm | None = "none"
    """Normalisation after all convolutions but the first; none, as in the paper."""

    @property
    def min_size(self) -> int:
        """Pixels a side that give one logit."""
        return 2 ** (self.layers or 1)

    @property
    def smaller(self) -> str:
        """Options by which it takes smaller images, for a person."""
        return "fewer --discriminator.layers"

    def count_layers(self, size: int) -> int:
        """Convolutions for images of `size` pixels."""
        return self.layers or max(1, min(DEEPEST, size.bit_length() - 2))


class StarGANDiscriminator(nn.Module):
    """Maps images (B, in_channels, size, size) to logits of patches, (B, 1, h, w), and of domains, (B, domains)."""

    def __init__(self, config: StarGANDiscriminatorConfig, in_channels: int, size: int, domains: int) -> None:
        super().__init__()
        layers, norm = config.count_layers(size), config.norm or "none"
        widths = [config.channels * 2**level for level in range(layers)]
        self.stem = nn.Sequential(nn.Conv2d(in_channels, widths[0], 4, 2, 1), nn.LeakyReLU(SLOPE))
        self.down = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(above, width, 4, 2, 1, bias=has_bias(norm, config.bias)),
                    norm_layer(norm, width),
                    nn.LeakyReLU(SLOPE),
                )
                for above, width in itertools.pairwise(widths)
            )
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, 1, 1, bias=False)
        self.domains = nn.Conv2d(widths[-1], domains, size >> layers, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_channels, size, size) → (B, 1, h, w) and (B, domains)."""
        x = self.down(self.stem(images))
        return self.head(x), self.domains(x).flatten(1)

    def layer_names(self) -> list[tuple[str, ...]]:
        """The layers from the first on, each by what the names of its parameters begin with."""
        return [("stem.",), *((f"down.{number}.",) for number in range(len(self.down))), ("head.", "domains.")]
