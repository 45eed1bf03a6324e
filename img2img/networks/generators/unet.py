"""The U-Net generator of pix2pix: an encoder and a decoder with a skip connection at every resolution."""

import copy
from typing import Annotated, Literal, Self, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.core.errors import UsageError
from img2img.networks.generators.base import GeneratorBaseConfig, refuse_no_luminance
from img2img.networks.layers import (
    AddColours,
    BlurUpsample,
    ImageNetwork,
    Norm,
    ResizeConv,
    SelfAttention,
    Shift,
    Upsampling,
    has_bias,
    norm_layer,
)


class UNetConfig(GeneratorBaseConfig):
    """What a U-Net is made of (Isola et al. 2017, §6.1.1)."""

    kind: Literal["unet"] = "unet"
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    depth: int | None = Field(None, ge=1, le=12)
    """How often the resolution is halved; by default as often as the training size can be, at most 8 (the paper's, for 256)."""
    channels: int = Field(64, ge=1)
    """Channels of the first level; they double per level, up to 8 times this."""
    norm: Norm | None = None
    """By default the method's: batch in pix2pix, as in its paper, instance in CycleGAN."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout in the decoder's three deepest levels: the paper's source of noise."""
    upsampling: Upsampling = "transpose"
    """transpose: 4×4 transposed convolutions, as in the paper; resize: nearest-neighbour and a 3×3 convolution, no checkerboard; blur: bilinear and a 3×3 convolution."""

    attention: int | None = Field(None, ge=1)
    """Self-attention in the decoder where the resolution is halved so many times: 3 is an eighth of the image's (Zhang et al. 2019); none by default."""
    keep_luminance: bool = False
    """Colour gray images: compute chroma only, and keep the source's luminance. Sources have 1 channel, targets 3."""
    latent: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Numbers that describe a style, if it is given one."""
    dropout_levels: Annotated[tuple[int, ...] | None, Suppress] = None
    """Where the decoder has dropout instead, if others' networks have it elsewhere: levels as of `attention`."""
    bias: Annotated[bool | None, Suppress] = None
    """Whether convolutions before norms have biases, as in weights that others trained; by default only where the norm doesn't cancel them."""

    def resolve(self, in_channels: int, out_channels: int, size: int, norm: Norm | None = None) -> Self:
        """Fills in what was left to the data: channels, and the depth for square images of `size` pixels; and `norm`, the method's, if none was chosen.

        Raises:
            UsageError: if the size can't be halved that often.
        """
        halvings = (size & -size).bit_length() - 1  # the factors of 2 in size
        depth = self.depth or min(8, halvings)
        if halvings < (self.depth or 4):
            multiple = 2 ** (self.depth or 4)
            below, above = size // multiple * multiple, (size // multiple + 1) * multiple
            raise UsageError(
                f"--size {size}: a U-Net that halves {self.depth or 'at least 4'} times needs a multiple of {multiple}; "
                f"use {f'{below} or ' if below else ''}{above}, or --generator.depth {max(1, halvings)}."
            )
        if self.attention and self.attention >= depth:
            raise UsageError(
                f"--generator.attention {self.attention}: this U-Net halves {depth} times, so give 1 to {depth - 1}."
            )
        channels = {"in_channels": self.in_channels or in_channels, "out_channels": self.out_channels or out_channels}
        if self.keep_luminance:
            refuse_no_luminance(**channels)
        return self.model_copy(update={**channels, "depth": depth, "norm": self.norm or norm or "batch"})


class UNet(ImageNetwork):
    """Maps (B, in_channels, H, W) to (B, out_channels, H, W) in [-1, 1]; H and W are multiples of `size_multiple`.

    As in the paper, level 1 and the innermost level have no norm in the encoder, and the decoder's three deepest levels
    have dropout.

    Args:
        config: with channels and depth filled in (`UNetConfig.resolve`).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        assert config.in_channels and config.out_channels and config.depth and config.norm
        self.size_multiple = 2**config.depth
        self.min_size = self.size_multiple
        widths = [config.channels * min(2**level, 8) for level in range(config.depth)]
        last = config.depth - 1
        bias = has_bias(config.norm, config.bias)  # also where the encoder has no norm, as the published network
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            norm: Norm = "none" if level in (0, last) else config.norm
            layers: list[nn.Module] = [] if level == 0 else [nn.LeakyReLU(0.2)]
            below = config.in_channels if level == 0 else widths[level - 1]
            layers += [nn.Conv2d(below, width, 4, 2, 1, bias=bias), norm_layer(norm, width)]
            self.down.append(nn.Sequential(*layers))
        self.up = nn.ModuleList()
        for level in range(last, 0, -1):
            inward = widths[level] * (1 if level == last else 2)  # the skip doubles the channels
            dropped = last - level < 3 if config.dropout_levels is None else level in config.dropout_levels
            dropout = config.dropout if dropped else 0.0
            layers = [nn.ReLU(), build_upsampling(inward, widths[level - 1], bias, config.upsampling)]
            layers += [norm_layer(config.norm, widths[level - 1])]
            layers += [nn.Dropout(dropout)] if dropout else []
            layers += [SelfAttention(widths[level - 1])] if level == config.attention else []
            self.up.append(nn.Sequential(*layers))
        inward = widths[0] * (1 if last == 0 else 2)
        self.head = nn.Sequential(
            nn.ReLU(),
            build_upsampling(inward, 2 if config.keep_luminance else config.out_channels, True, config.upsampling),
            nn.Tanh(),
        )
        self.colours = AddColours() if config.keep_luminance else None
        self.latent = config.latent
        self.shifts = nn.ModuleList(nn.Linear(config.latent, width) for width in widths) if config.latent else None

    def forward(self, source: Tensor, style: Tensor | None = None) -> Tensor:
        """(B, in_channels, H, W) in [-1, 1], and perhaps a style (B, latent) → (B, out_channels, H, W) in [-1, 1].

        The style is added, mapped by a layer of its own, to what each level of the encoder makes; by default it is 0.
        """
        x, skips = source, []
        if self.latent and style is None:
            style = source.new_zeros(source.shape[0], self.latent)
        for level, down in enumerate(self.down):
            x = down(x)
            if self.shifts is not None:
                shift = self.shifts[level]
                x = shift(x) if isinstance(shift, Shift) else x + shift(style)[:, :, None, None]
            skips.append(x)
        skips.pop()
        for up in self.up:
            x = torch.cat([skips.pop(), up(x)], dim=1)
        image = self.head(x)
        return image if self.colours is None else self.colours(source, image)

    def with_style(self, style: Tensor) -> "UNet":
        """As of `ImageNetwork`; what is added is computed once, so that images are computed in strips, too."""
        assert self.shifts is not None
        fixed = copy.copy(self)
        fixed._modules, fixed._compiled_call_impl, fixed.latent = dict(self._modules), None, None
        layers = [cast(nn.Linear, layer) for layer in self.shifts]
        fixed.shifts = nn.ModuleList(Shift(layer(style.to(layer.weight)).detach()) for layer in layers)
        return fixed


def build_upsampling(in_channels: int, out_channels: int, bias: bool, upsampling: Upsampling) -> nn.Module:
    """A layer that doubles the resolution, as decoders do."""
    if upsampling == "resize":
        return ResizeConv(in_channels, out_channels, bias)
    if upsampling == "blur":
        return nn.Sequential(BlurUpsample(), nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=bias))
    return nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=bias)
