"""The residual discriminator of StyleGAN2 (Karras et al. 2020, §4.1)."""

import itertools
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from img2img.networks.discriminators.base import NoiseDiscriminatorConfig
from img2img.networks.discriminators.progressive import MinibatchDeviation
from img2img.networks.fir import Smooth
from img2img.networks.generators.progressive import Equalised
from img2img.networks.generators.style import EqualisedLinear, activate, list_style_widths
from img2img.networks.labels import one_hot


class StyleDiscriminatorConfig(NoiseDiscriminatorConfig):
    """What a StyleGAN2 discriminator is made of."""

    compares_images: ClassVar[bool] = True
    scales_weights: ClassVar[bool] = True

    kind: Literal["style"] = "style"
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    conditioning: Literal["projection", "none"] = "projection"
    """How it sees the class. projection: the logit is the product of the image's features and the class' vector (Miyato & Koyama 2018); none: not at all."""
    channels: int = Field(64, ge=1)
    """Channels of the first block; they double per block."""
    most_channels: int = Field(512, ge=1)
    """Where the doubling ends."""
    norm: Literal["none"] = "none"
    """It has none."""
    spectral_norm: Literal[False] = False
    """It has none."""


class ResidualDown(nn.Module):
    """Halves the resolution by two convolutions, and adds a 1×1 convolution of what came in; smoothed before each halving."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = Equalised(in_channels, in_channels, 3, gain=1.0)
        self.smooth = Smooth(2)
        self.second = Equalised(in_channels, out_channels, 3, gain=1.0, padding=0)
        self.halve = Smooth(1, stride=2)
        self.skip = Equalised(in_channels, out_channels, 1, gain=1.0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H / 2, W / 2)."""
        second = self.second
        y = self.smooth(activate(self.first(x)))
        y = activate(F.conv2d(y, second.weight * second.scale, second.bias, stride=2))
        return (y + self.skip(self.halve(x))) * 0.5**0.5


class StyleDiscriminator(nn.Module):
    """Maps images (B, in_channels, size, size), and labels if it looks at them, to logits (B,).

    Args:
        size: their height and width in pixels.
        classes: how many there are; 0 for none.
        outputs: numbers that a second head gives for each image; 0 for no such head.
    """

    def __init__(
        self, config: StyleDiscriminatorConfig, in_channels: int, size: int, classes: int = 0, outputs: int = 0
    ) -> None:
        super().__init__()
        widths = list_style_widths(size, config.channels, config.most_channels)
        classes = classes if config.conditioning == "projection" else 0
        self.classes = classes
        self.stem = Equalised(in_channels, widths[-1], 1, gain=1.0)
        self.down = nn.ModuleList(ResidualDown(width, below) for width, below in itertools.pairwise(reversed(widths)))
        self.last = nn.Sequential(MinibatchDeviation(), Equalised(widths[0] + 1, widths[0], 3, gain=1.0))
        self.dense = EqualisedLinear(16 * widths[0], widths[0])
        self.head = EqualisedLinear(widths[0], widths[0] if classes else 1)
        self.embedding = EqualisedLinear(classes, widths[0]) if classes else None
        self.second = EqualisedLinear(widths[0], outputs) if outputs else None

    def forward(self, images: Tensor, labels: Tensor | None = None, outputs: bool = False) -> Any:
        """(B, in_channels, size, size), and (B,) integers → logits (B,); with `outputs` a list: those, and (B, outputs)."""
        x = activate(self.stem(images))
        for block in self.down:
            x = block(x)
        x = activate(self.dense(activate(self.last(x)).flatten(1)))
        logits = self.head(x)
        if self.embedding is not None:
            assert labels is not None
            vector = self.embedding(one_hot(labels, self.classes, torch.float32))
            vector = vector * torch.rsqrt(vector.square().mean(1, keepdim=True) + 1e-8)
            logits = (logits * vector).sum(1) / vector.shape[1] ** 0.5
        if not outputs:
            return logits.flatten()
        assert self.second is not None
        return [logits.flatten(), self.second(x)]
