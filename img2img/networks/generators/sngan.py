"""Residual generators of images from noise: SNGAN, SAGAN and BigGAN."""

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from img2img.networks.generators.base import ConditionalBatchNorm, NoiseGeneratorConfig, count_halvings
from img2img.networks.labels import class_shares
from img2img.networks.layers import SelfAttention

WIDEST = 16  # times the narrowest width


class NoiseResNetConfig(NoiseGeneratorConfig):
    """What a residual generator is made of (Miyato et al. 2018, table 4; Zhang et al. 2019, §4)."""

    kind: Literal["resnet"] = "resnet"
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    attention: int | None = Field(None, ge=4)
    """Self-attention where images are so many pixels high (Zhang et al. 2019); none by default."""
    spectral_norm: bool = False
    """Divide each weight by its largest singular value, as in SAGAN and BigGAN."""
    embedding: int | None = Field(None, ge=1)
    """Numbers of a class embedding that all layers share (Brock et al. 2019, §3.1); by default each layer has its own."""
    skip_noise: bool = False
    """Give a part of the noise to every block (Brock et al. 2019, §3.1: skip-z)."""

    @property
    def attention_height(self) -> int | None:
        """As it was chosen."""
        return self.attention

    @property
    def has_spectral_norm(self) -> bool:
        """As it was chosen."""
        return self.spectral_norm

    def has_spectral_norm_at(self, layer: str) -> bool:
        """All but the embedding that layers share."""
        return layer != "embedding"


class BigGANConfig(NoiseResNetConfig):
    """What a BigGAN generator is made of (Brock et al. 2019, appendix B)."""

    kind: Literal["biggan"] = "biggan"  # type: ignore[assignment]
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    channels: int = Field(96, ge=1)
    """Channels of the last block; they double per block towards the noise, up to 16 times this."""
    spectral_norm: bool = True
    """Divide each weight by its largest singular value."""
    embedding: int | None = Field(128, ge=1)
    """Numbers of the class embedding that all layers share."""
    skip_noise: bool = True
    """Give a part of the noise to every block."""


class _Up(nn.Module):
    """Norm, ReLU, doubling, convolution, norm, ReLU, convolution; and the doubled input through a 1×1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, condition: int) -> None:
        super().__init__()
        self.first, self.second = _build_norm(in_channels, condition), _build_norm(out_channels, condition)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, 2 H, 2 W)."""
        y = self.conv1(F.interpolate(F.relu(_normalise(self.first, x, condition)), scale_factor=2.0))
        y = self.conv2(F.relu(_normalise(self.second, y, condition)))
        return y + F.interpolate(self.skip(x), scale_factor=2.0)  # which is the same as the other way round


def _build_norm(channels: int, condition: int) -> nn.Module:
    return ConditionalBatchNorm(channels, condition) if condition else nn.BatchNorm2d(channels)


def _normalise(norm: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    done: Tensor = norm(x, condition) if isinstance(norm, ConditionalBatchNorm) else norm(x)
    return done


class NoiseResNet(nn.Module):
    """Maps noise (B, latent), and labels if it has classes, to images (B, out_channels, size, size) in [-1, 1]."""

    def __init__(self, config: NoiseResNetConfig) -> None:
        super().__init__()
        assert config.out_channels and config.size
        self.config = config
        count = count_halvings(config.size)
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
            known = [class_shares(labels, self.config.classes, noise.dtype)]
            known = known if self.embedding is None else [self.embedding(known[0])]
        x = self.stem(parts[0]).view(len(noise), -1, 4, 4)
        for number, block in enumerate(self.blocks):
            given = [*known, *([parts[number + 1]] if self.config.skip_noise else [])]
            x = block(x, torch.cat(given, dim=1) if given else None)
            if str(number) in self.attention:
                x = self.attention[str(number)](x)
        return self.head(x)
