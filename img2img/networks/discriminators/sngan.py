"""The residual discriminator of SNGAN, SAGAN and BigGAN."""

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from img2img.networks.discriminators.base import Head, NoiseDiscriminatorConfig, concatenate_label_planes
from img2img.networks.generators.base import count_halvings
from img2img.networks.layers import SelfAttention

WIDEST = 16  # times the narrowest width


class NoiseResNetDiscriminatorConfig(NoiseDiscriminatorConfig):
    """What a residual discriminator is made of (Miyato et al. 2018, table 4)."""

    kind: Literal["resnet"] = "resnet"
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    conditioning: Literal["concat", "projection", "none"] = "projection"
    """How it sees the class. projection (Miyato & Koyama 2018); concat: a plane a class beside the image; none: not at all."""
    spectral_norm: bool = True
    """Divide each weight by its largest singular value (Miyato et al. 2018)."""
    attention: int | None = Field(None, ge=4)
    """Self-attention where images are so many pixels high; none by default."""
    norm: Literal["none"] = "none"
    """It has none."""

    @property
    def attention_height(self) -> int | None:
        """As it was chosen."""
        return self.attention


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


class NoiseResNetDiscriminator(nn.Module):
    """Maps images (B, in_channels, size, size), and labels if it looks at them, to logits (B,).

    Args:
        classes: how many there are; 0 for none.
        outputs: numbers that a second head gives for each image, such as one a class; 0 for no such head.
    """

    def __init__(
        self, config: NoiseResNetDiscriminatorConfig, in_channels: int, size: int, classes: int = 0, outputs: int = 0
    ) -> None:
        super().__init__()
        self.planes = classes if config.conditioning == "concat" else 0
        count = count_halvings(size)
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
        images = concatenate_label_planes(images, labels, self.planes)
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
