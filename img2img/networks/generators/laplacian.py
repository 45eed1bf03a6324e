"""The generator of LAPGAN: a small image is enlarged step by step, and each step adds what is missing (Denton et al. 2015)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from img2img.networks.generators.base import NoiseGeneratorConfig
from img2img.networks.labels import class_shares
from img2img.networks.layers import BlurUpsample

SMALLEST = 8  # pixels
HIDDEN = 1200  # of the two layers that make the smallest image (§4.1)


class LaplacianConfig(NoiseGeneratorConfig):
    """What a Laplacian pyramid of generators is made of (§4)."""

    sizes: ClassVar[tuple[int, ...]] = (32, 64, 128)

    kind: Literal["laplacian"] = "laplacian"
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    latent: int = Field(100, ge=1)
    """Random numbers that the smallest image is made from; each larger one gets a plane of them beside."""
    channels: int = Field(64, ge=1)
    """Channels of the two hidden layers of each step."""

    def count_numbers(self, size: int) -> int:
        """All random numbers."""
        return self.latent + sum(side**2 for side in list_sides(size)[1:])


def list_sides(size: int) -> list[int]:
    """Heights of the pyramid's images, from the smallest to the whole."""
    return [2**level for level in range(SMALLEST.bit_length() - 1, size.bit_length())]


class Laplacian(nn.Module):
    """Maps noise (B, latent), and labels if it has classes, to images (B, out_channels, size, size); about in [-1, 1]: nothing bounds them."""

    def __init__(self, config: LaplacianConfig) -> None:
        super().__init__()
        assert config.out_channels and config.size
        self.sides, self.classes, self.channels = list_sides(config.size), config.classes, config.out_channels
        planes = [side**2 for side in self.sides[1:]]
        self.numbers = [*planes, config.latent - sum(planes)]
        self.first = nn.Sequential(
            nn.Linear(self.numbers[-1] + config.classes, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, config.out_channels * SMALLEST**2), nn.Tanh(),
        )  # fmt: skip
        width, seen = config.channels, config.out_channels + 1 + config.classes
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(seen, width, 7, padding=3), nn.ReLU(),
                nn.Conv2d(width, width, 7, padding=3), nn.ReLU(),
                nn.Conv2d(width, config.out_channels, 5, padding=2),
            )
            for _ in self.sides[1:]
        )  # fmt: skip
        self.enlarge = BlurUpsample()

    def forward(
        self, noise: Tensor, labels: Tensor | None = None, enlarged: Sequence[Tensor] | None = None
    ) -> Tensor | list[Tensor]:
        """(B, latent), and (B,) integers or shares (B, classes) → (B, out_channels, size, size): the last of the images of §3.2, each made from the one before.

        Args:
            enlarged: instead of those, for training: images (B, C, H, W), from small to large, of half as many pixels a side, and enlarged.

        Returns:
            The image; with `enlarged` an image of each size, each made from one of these, and the smallest from noise.
        """
        if enlarged is not None:
            made = [self._go_on(step, image, noise, labels) for step, image in enumerate(enlarged)]
            return [self._begin(noise, labels), *made]
        image = self._begin(noise, labels)
        for step in range(len(self.steps)):
            image = self._go_on(step, self.enlarge(image), noise, labels)
        return image

    def _begin(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        given = noise[:, -self.numbers[-1] :]
        if self.classes:
            assert labels is not None
            given = torch.cat([given, class_shares(labels, self.classes, given.dtype)], dim=1)
        return self.first(given).view(-1, self.channels, SMALLEST, SMALLEST)

    def _go_on(self, step: int, enlarged: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        side = self.sides[step + 1]
        plane = noise.split(self.numbers, 1)[step].view(-1, 1, side, side)
        seen = [enlarged, plane]
        if self.classes:
            assert labels is not None
            shares = class_shares(labels, self.classes, noise.dtype)[:, :, None, None]
            seen.append(shares.expand(-1, -1, side, side))
        missing: Tensor = self.steps[step](torch.cat([each.to(enlarged.dtype) for each in seen], dim=1))
        return enlarged + missing


def build_pyramid(images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Images of each size, (B, C, size, size) … from the smallest to the whole; and those that are enlarged from half the size (§3.1)."""
    pyramid = [images]
    while pyramid[0].shape[2] > SMALLEST:
        pyramid.insert(0, F.avg_pool2d(pyramid[0], 2))
    enlarged = [F.interpolate(each, scale_factor=2.0, mode="bilinear", align_corners=False) for each in pyramid[:-1]]
    return pyramid, enlarged
