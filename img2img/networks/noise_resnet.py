"""Residual networks that make images from noise, and that judge them: SNGAN, SAGAN and BigGAN."""

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from img2img.networks.attention import SelfAttention
from img2img.networks.noise import (
    ConditionalBatchNorm,
    Head,
    NoiseDiscriminatorConfig,
    NoiseGeneratorConfig,
    beside_planes,
    halvings,
    one_hot,
)

WIDEST = 16  # times the narrowest width


class NoiseResNetConfig(NoiseGeneratorConfig):
    """What a residual generator is made of (Miyato et al. 2018, table 4; Zhang et al. 2019, §4)."""

    kind: Literal["resnet"] = "resnet"
    """The network: resnet (SNGAN; with --generator.attention and --generator.spectral-norm SAGAN); or dcgan, biggan, progressive."""
    attention: int | None = Field(None, ge=4)
    """Self-attention where images are so many pixels high (Zhang et al. 2019); none by default."""
    spectral_norm: bool = False
    """Divide each weight by its largest singular value, as in SAGAN and BigGAN."""
    embedding: int | None = Field(None, ge=1)
    """Numbers of a class embedding that all layers share (Brock et al. 2019, §3.1); by default each layer has its own."""
    skip_noise: bool = False
    """Give a part of the noise to every block (Brock et al. 2019, §3.1: skip-z)."""


class BigGANConfig(NoiseResNetConfig):
    """What a BigGAN generator is made of (Brock et al. 2019, appendix B)."""

    kind: Literal["biggan"] = "biggan"  # type: ignore[assignment]
    """The network: biggan; or dcgan, resnet, progressive."""
    channels: int = Field(96, ge=1)
    """Channels of the last block; they double per block towards the noise, up to 16 times this."""
    spectral_norm: bool = True
    """Divide each weight by its largest singular value."""
    embedding: int | None = Field(128, ge=1)
    """Numbers of the class embedding that all layers share."""
    skip_noise: bool = True
    """Give a part of the noise to every block."""


class NoiseResNetDiscriminatorConfig(NoiseDiscriminatorConfig):
    """What a residual discriminator is made of (Miyato et al. 2018, table 4)."""

    kind: Literal["resnet"] = "resnet"
    """The network: resnet (SNGAN, SAGAN, BigGAN); or dcgan, progressive."""
    conditioning: Literal["concat", "projection", "none"] = "projection"
    """How it sees the class. projection (Miyato & Koyama 2018); concat: a plane a class beside the image; none: not at all."""
    spectral_norm: bool = True
    """Divide each weight by its largest singular value (Miyato et al. 2018)."""
    attention: int | None = Field(None, ge=4)
    """Self-attention where images are so many pixels high; none by default."""
    norm: Literal["none"] = "none"
    """It has none."""


class _Up(nn.Module):
    """Norm, ReLU, doubling, convolution, norm, ReLU, convolution; and the doubled input through a 1×1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, condition: int) -> None:
        super().__init__()
        self.first, self.second = _norm(in_channels, condition), _norm(out_channels, condition)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, 2 H, 2 W)."""
        y = self.conv1(F.interpolate(F.relu(_normed(self.first, x, condition)), scale_factor=2.0))
        y = self.conv2(F.relu(_normed(self.second, y, condition)))
        return y + F.interpolate(self.skip(x), scale_factor=2.0)  # which is the same as the other way round


class _Down(nn.Module):
    """ReLU, convolution, ReLU, convolution, halving by the mean; and the input through a 1×1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, first: bool, halve: bool) -> None:
        super().__init__()
        self.is_first, self.halve = first, halve
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if halve or in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H / 2, W / 2), or not halved."""
        y = self.conv2(F.relu(self.conv1(x if self.is_first else F.relu(x))))
        y = y + self.skip(x)
        return F.avg_pool2d(y, 2) if self.halve else y  # the mean of sums is the sum of means


def _norm(channels: int, condition: int) -> nn.Module:
    return ConditionalBatchNorm(channels, condition) if condition else nn.BatchNorm2d(channels)


def _normed(norm: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    done: Tensor = norm(x, condition) if isinstance(norm, ConditionalBatchNorm) else norm(x)
    return done


class NoiseResNet(nn.Module):
    """Maps noise (B, latent), and labels if it has classes, to images (B, out_channels, size, size) in [-1, 1].

    Args:
        config: with everything filled in.
    """

    def __init__(self, config: NoiseResNetConfig) -> None:
        super().__init__()
        assert config.out_channels and config.size
        self.config = config
        count = halvings(config.size)
        widths = [config.channels * min(2 ** (count - level), WIDEST) for level in range(count + 1)]
        parts = count + 1 if config.skip_noise else 1
        self.parts = [config.latent // parts + (part < config.latent % parts) for part in range(parts)]
        embedded = (config.embedding or config.classes) if config.classes else 0
        self.embedding = nn.Linear(config.classes, embedded, bias=False) if embedded and config.embedding else None
        self.stem = nn.Linear(self.parts[0], 16 * widths[0])
        self.blocks = nn.ModuleList(
            _Up(below, width, embedded + (self.parts[number + 1] if config.skip_noise else 0))
            for number, (below, width) in enumerate(itertools.pairwise(widths))
        )
        self.attention = nn.ModuleDict(
            {
                str(number): SelfAttention(widths[number + 1])
                for number in range(count)
                if 8 * 2**number == config.attention
            }
        )
        self.head = nn.Sequential(
            nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.Conv2d(widths[-1], config.out_channels, 3, padding=1), nn.Tanh()
        )

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent), and (B,) integers → (B, out_channels, size, size) in [-1, 1]."""
        parts = noise.split(self.parts, dim=1)
        known: list[Tensor] = []
        if self.config.classes:
            assert labels is not None
            known = [one_hot(labels, self.config.classes, noise)]
            known = known if self.embedding is None else [self.embedding(known[0])]
        x = self.stem(parts[0]).view(len(noise), -1, 4, 4)
        for number, block in enumerate(self.blocks):
            given = [*known, *([parts[number + 1]] if self.config.skip_noise else [])]
            x = block(x, torch.cat(given, dim=1) if given else None)
            if str(number) in self.attention:
                x = self.attention[str(number)](x)
        return self.head(x)


class NoiseResNetDiscriminator(nn.Module):
    """Maps images (B, in_channels, size, size), and labels if it looks at them, to logits (B,).

    Args:
        config: its width.
        in_channels: of the images.
        size: their height and width in pixels.
        classes: how many there are; 0 for none.
        outputs: numbers that a second head gives for each image, such as one a class; 0 for no such head.
    """

    def __init__(
        self, config: NoiseResNetDiscriminatorConfig, in_channels: int, size: int, classes: int = 0, outputs: int = 0
    ) -> None:
        super().__init__()
        self.planes = classes if config.conditioning == "concat" else 0
        count = halvings(size)
        widths = [config.channels * min(2**level, WIDEST) for level in range(count)]
        above = [in_channels + self.planes, *widths]
        self.blocks = nn.Sequential(
            *(_Down(above[level], widths[level], first=level == 0, halve=True) for level in range(count)),
            _Down(widths[-1], widths[-1], first=False, halve=False),
        )
        self.attention = nn.ModuleDict(
            {
                str(level): SelfAttention(widths[level])
                for level in range(count)
                if size // 2 ** (level + 1) == config.attention
            }
        )
        projected = classes if config.conditioning == "projection" else 0
        self.head = Head(_SumAndJudge(widths[-1]), widths[-1], projected, outputs, 16 * widths[-1])

    def forward(self, images: Tensor, labels: Tensor | None = None, outputs: bool = False) -> Tensor | list[Tensor]:
        """(B, in_channels, size, size), and (B,) integers → logits (B,); with `outputs` a list: those, and (B, outputs)."""
        images = beside_planes(images, labels, self.planes)
        x = images
        for level, block in enumerate(self.blocks):
            x = block(x)
            if str(level) in self.attention:
                x = self.attention[str(level)](x)
        return self.head(F.relu(x), labels, outputs)


class _SumAndJudge(nn.Module):
    """The sum over positions, and a linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features.sum((2, 3)))
