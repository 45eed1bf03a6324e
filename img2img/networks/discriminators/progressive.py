"""The discriminator that grows with its generator (Karras et al. 2018)."""

import itertools
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from img2img.networks.discriminators.base import NoiseDiscriminatorConfig, concatenate_label_planes
from img2img.networks.generators.progressive import SLOPE, WIDEST, Equalised, Growing

GROUP = 4  # images whose standard deviation is one number


class ProgressiveDiscriminatorConfig(NoiseDiscriminatorConfig):
    """What a discriminator that grows is made of (Karras et al. 2018, table 2)."""

    grows: ClassVar[bool] = True
    compares_images: ClassVar[bool] = True
    scales_weights: ClassVar[bool] = True

    kind: Literal["progressive"] = "progressive"
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    conditioning: Literal["concat", "none"] = "concat"
    """How it sees the class. concat: a plane a class beside the image (Mirza & Osindero 2014); none: not at all."""
    channels: int = Field(16, ge=1)
    """Channels of the first block; they double per block, up to 8 times this."""
    norm: Literal["none"] = "none"
    """It has none."""
    spectral_norm: Literal[False] = False
    """It has none."""


class MinibatchDeviation(nn.Module):
    """One more channel: how much the images of a group differ, one number for all its pixels (§3)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C + 1, H, W)."""
        batch, channels, height, width = x.shape
        size = max(group for group in range(1, GROUP + 1) if batch % group == 0)
        groups = x.float().view(size, batch // size, channels, height, width)
        spread = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # (B / size,)
        plane = spread.repeat(size).view(batch, 1, 1, 1).expand(-1, 1, height, width)
        return torch.cat([x, plane.to(x.dtype)], dim=1)


class ProgressiveDiscriminator(Growing):
    """Maps images as high as it has grown, and labels if it looks at them, to logits (B,).

    Args:
        size: their height and width in the end, in pixels.
        classes: how many there are; 0 for none.
        outputs: numbers that a second head gives for each image; 0 for no such head.
    """

    def __init__(
        self, config: ProgressiveDiscriminatorConfig, in_channels: int, size: int, classes: int = 0, outputs: int = 0
    ) -> None:
        super().__init__(size)
        self.planes = classes if config.conditioning == "concat" else 0
        widths = [config.channels * min(2 ** (self.count - level), WIDEST) for level in range(self.count + 1)]
        self.stems = nn.ModuleList(
            nn.Sequential(Equalised(in_channels + self.planes, width, 1), nn.LeakyReLU(SLOPE)) for width in widths
        )
        self.down = nn.ModuleList(
            nn.Sequential(
                Equalised(width, width, 3), nn.LeakyReLU(SLOPE),
                Equalised(width, below, 3), nn.LeakyReLU(SLOPE), nn.AvgPool2d(2),
            )
            for below, width in itertools.pairwise(widths)
        )  # fmt: skip
        self.last = nn.Sequential(
            MinibatchDeviation(),
            Equalised(widths[0] + 1, widths[0], 3), nn.LeakyReLU(SLOPE),
            Equalised(widths[0], widths[0], 4, padding=0), nn.LeakyReLU(SLOPE),
        )  # fmt: skip
        self.head = Equalised(widths[0], 1, 1, gain=1.0)
        self.second = Equalised(widths[0], outputs, 1, gain=1.0) if outputs else None

    def forward(self, images: Tensor, labels: Tensor | None = None, outputs: bool = False) -> Any:
        """(B, in_channels, H, W), and (B,) integers → logits (B,); with `outputs` a list: those, and (B, outputs)."""
        images = concatenate_label_planes(images, labels, self.planes)
        whole, share = self.stage()
        x = self.stems[whole](images)
        if whole:
            x = self.down[whole - 1](x)
            if share < 1:
                x = torch.lerp(self.stems[whole - 1](F.avg_pool2d(images, 2)), x, share)
        for level in range(whole - 2, -1, -1):
            x = self.down[level](x)
        x = self.last(x)
        logits = self.head(x).flatten()
        if not outputs:
            return logits
        assert self.second is not None
        return [logits, self.second(x).flatten(1)]
