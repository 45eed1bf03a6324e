"""The residual generator of Johnson et al. 2016, as CycleGAN and pix2pix use it."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.errors import Strict, UsageError
from img2img.networks.blocks import Norm, ResizeConv, Upsampling, has_bias, norm_layer


class ResNetConfig(Strict):
    """What a ResNet generator is made of (Zhu et al. 2017, appendix 7.2)."""

    kind: Literal["resnet"] = "resnet"
    """The network: resnet, or unet (whose options `--generator.kind unet --help` lists)."""
    in_channels: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Channels of the source; filled in from the data (`--data.in-channels`)."""
    out_channels: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Channels of the target; filled in from the data (`--data.out-channels`)."""
    blocks: int = Field(9, ge=0)
    """Residual blocks; the papers use 9 for 256 pixels and more, 6 below."""
    channels: int = Field(64, ge=1)
    """Channels of the stem; four times as many in the residual blocks."""
    norm: Norm = "instance"
    """Normalisation after every convolution but the last."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the residual blocks."""
    upsampling: Upsampling = "transpose"
    """transpose: 3×3 transposed convolutions, as in the paper; resize: nearest-neighbour and a 3×3 convolution, no checkerboard."""

    def resolve(self, in_channels: int, out_channels: int, size: int) -> "ResNetConfig":
        """Fills in the channels that were left to the data.

        Raises:
            UsageError: if images of `size` pixels don't fit.
        """
        if size % 4 or size < ResNet.min_size:
            raise UsageError(f"--size {size}: a ResNet needs a multiple of 4, at least 8; use {max(8, size // 4 * 4)}.")
        channels = {"in_channels": self.in_channels or in_channels, "out_channels": self.out_channels or out_channels}
        return self.model_copy(update=channels)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3×3 with reflection padding and norms; no activation after the sum."""

    def __init__(self, channels: int, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=has_bias(norm)),
            norm_layer(norm, channels),
            nn.ReLU(),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=has_bias(norm)),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape; H and W of at least 2."""
        return x + self.layers(x)


class ResNet(nn.Module):
    """Maps (B, in_channels, H, W) to (B, out_channels, H, W) in [-1, 1]; H and W are multiples of 4 and at least 8.

    Args:
        config: with channels filled in (`ResNetConfig.resolve`).
    """

    size_multiple = 4
    min_size = 8  # reflection padding by 1 needs 2 pixels at a quarter of the size

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        assert config.in_channels and config.out_channels
        width, norm = config.channels, config.norm
        self.stem = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(config.in_channels, width, 7, bias=has_bias(norm)),
            norm_layer(norm, width),
            nn.ReLU(),
        )
        self.down = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(c, 2 * c, 3, 2, 1, bias=has_bias(norm)), norm_layer(norm, 2 * c), nn.ReLU())
                for c in (width, 2 * width)
            )
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width, norm, config.dropout) for _ in range(config.blocks)))
        self.up = nn.Sequential(
            *(
                nn.Sequential(
                    _double(c, c // 2, has_bias(norm), config.upsampling), norm_layer(norm, c // 2), nn.ReLU()
                )
                for c in (4 * width, 2 * width)
            )
        )
        self.head = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, config.out_channels, 7), nn.Tanh())

    def forward(self, source: Tensor) -> Tensor:
        """(B, in_channels, H, W) in [-1, 1] → (B, out_channels, H, W) in [-1, 1]."""
        return self.head(self.up(self.blocks(self.down(self.stem(source)))))


def _double(in_channels: int, out_channels: int, bias: bool, upsampling: Upsampling) -> nn.Module:
    if upsampling == "resize":
        return ResizeConv(in_channels, out_channels, bias)
    return nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, output_padding=1, bias=bias)
