"""The generator that grows: images are made at 4 pixels first, then at 8, and so on (Karras et al. 2018)."""

import itertools
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from img2img.networks.generators.base import NoiseGeneratorConfig, count_halvings
from img2img.networks.labels import class_shares
from img2img.networks.layers import NearestUpsample

WIDEST = 8  # times the narrowest width
PARTS = 1000  # of a level, that it is counted in
SLOPE = 0.2


class ProgressiveConfig(NoiseGeneratorConfig):
    """What a generator that grows is made of (Karras et al. 2018, table 2)."""

    grows: ClassVar[bool] = True
    scales_weights: ClassVar[bool] = True

    kind: Literal["progressive"] = "progressive"
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    channels: int = Field(16, ge=1)
    """Channels of the last block; they double per block towards the noise, up to 8 times this."""
    grow_updates: int = Field(1000, ge=1)
    """Updates for which a resolution is trained, and as many for which the next fades in."""


def level_at(update: int, config: ProgressiveConfig) -> float:
    """The level of an update: 0 is 4 pixels, 1 is 8; 0.3 is 8 pixels which are faded in by 0.3."""
    assert config.size
    stage, within = divmod(update, 2 * config.grow_updates)
    fade = max(0, within - config.grow_updates) / config.grow_updates
    return min(float(count_halvings(config.size)), stage + round(fade * PARTS) / PARTS)


def explain_growth(config: object, updates: int) -> str:
    """What to say if a generator won't have grown after so many updates; nothing of others."""
    if not isinstance(config, ProgressiveConfig) or not config.size:
        return ""
    needed = 2 * config.grow_updates * count_halvings(config.size)
    reached = 4 * 2 ** int(level_at(max(0, updates - 1), config))
    return (
        f"after {updates} updates images will have grown to {reached} pixels only; {config.size} take {needed} updates: train longer, or "
        f"lower --generator.grow-updates."
        if updates < needed
        else ""
    )


class Equalised(nn.Module):
    """A convolution whose weights are drawn from N(0, 1) and scaled by He's constant when they are used (§4.1: equalised learning rate).

    Args:
        kernel: pixels a side.
        gain: √2 before a leaky ReLU, 1 elsewhere.
        padding: on each side; by default as much as keeps the size.
        bias: whether there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        gain: float = 2**0.5,
        padding: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = gain / (in_channels * kernel**2) ** 0.5
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H', W')."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class PixelNorm(nn.Module):
    """Scales the features of each pixel to a mean square of 1 (§4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class Growing(nn.Module):
    """What knows how far it has grown."""

    level: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.count = count_halvings(size)
        self.register_buffer("level", torch.tensor(self.count * PARTS))  # an integer, which no average changes
        self.grown: int | None = None
        """The same in training, where to ask a GPU would be to wait for it."""

    def grow(self, level: float) -> None:
        """Sets the level, up to the number of doublings."""
        self.grown = round(level * PARTS)
        self.level.fill_(self.grown)

    def stage(self) -> tuple[int, float]:
        """The number of doublings, and how far the last one is faded in."""
        grown = self.grown if self.training and not torch.compiler.is_compiling() else None  # else each is compiled
        level = (int(self.level) if grown is None else grown) / PARTS
        whole = -int(-level // 1)
        return whole, 1.0 - (whole - level)


class Progressive(Growing):
    """Maps noise (B, latent), and labels if it has classes, to images (B, out_channels, size, size).

    While it grows, in training, images are smaller: 4 · 2^level pixels.
    """

    def __init__(self, config: ProgressiveConfig) -> None:
        assert config.out_channels and config.size
        super().__init__(config.size)
        self.classes, self.size = config.classes, config.size
        widths = [config.channels * min(2 ** (self.count - level), WIDEST) for level in range(self.count + 1)]
        self.normal = PixelNorm()
        self.stem = nn.Sequential(
            Equalised(config.latent + config.classes, widths[0], 4, padding=3), nn.LeakyReLU(SLOPE), PixelNorm(),
            Equalised(widths[0], widths[0], 3), nn.LeakyReLU(SLOPE), PixelNorm(),
        )  # fmt: skip
        self.up = nn.ModuleList(
            nn.Sequential(
                NearestUpsample(),
                Equalised(below, width, 3), nn.LeakyReLU(SLOPE), PixelNorm(),
                Equalised(width, width, 3), nn.LeakyReLU(SLOPE), PixelNorm(),
            )
            for below, width in itertools.pairwise(widths)
        )  # fmt: skip
        self.heads = nn.ModuleList(Equalised(width, config.out_channels, 1, gain=1.0) for width in widths)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent), and (B,) integers → (B, out_channels, H, W); about in [-1, 1]: nothing bounds it, as in the paper."""
        if self.classes:
            assert labels is not None
            noise = torch.cat([noise, class_shares(labels, self.classes, noise.dtype)], dim=1)
        whole, share = self.stage()
        x = self.stem(self.normal(noise[:, :, None, None]))
        for block in self.up[: max(0, whole - 1)]:
            x = block(x)
        image = self.heads[max(0, whole - 1)](x) if whole == 0 or share < 1 else None
        if whole:
            finer = self.heads[whole](self.up[whole - 1](x))
            image = (
                finer
                if image is None
                else torch.lerp(F.interpolate(image.float(), scale_factor=2.0), finer.float(), share)
            )
        assert image is not None
        return image if self.training else F.interpolate(image, size=(self.size, self.size))


def reduce_images(images: Tensor, level: float) -> Tensor:
    """Real images as a generator of this level would make them: (B, C, size, size) → (B, C, H, W), faded like its own."""
    whole = -int(-level // 1)
    small = F.adaptive_avg_pool2d(images, 4 * 2**whole)
    share = 1.0 - (whole - level)
    return small if share == 1 else torch.lerp(F.interpolate(F.avg_pool2d(small, 2), scale_factor=2.0), small, share)
