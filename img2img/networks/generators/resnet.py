"""The residual generator of Johnson et al. 2016, as CycleGAN and pix2pix use it."""

import copy
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.core.errors import UsageError
from img2img.networks.conditioning import Modulate, StepAndNoise
from img2img.networks.generators.base import GeneratorBaseConfig, refuse_no_luminance
from img2img.networks.layers import (
    AddColours,
    Block,
    BlurPool,
    BlurUpsample,
    Downsampling,
    ImageNetwork,
    Limit,
    Norm,
    Padding,
    ReflectionPad,
    ResizeConv,
    SelfAttention,
    SeparableConv,
    Upsampling,
    ZeroConv2d,
    build_padding,
    has_bias,
    norm_layer,
)

CUT_BLOCKS = (0, 4)  # the residual blocks in `depths`
NORMALISED = 2  # the layer of a residual block after which it is modulated


class ResNetConfig(GeneratorBaseConfig):
    """What a ResNet generator is made of (Zhu et al. 2017, appendix 7.2)."""

    kind: Literal["resnet"] = "resnet"
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    blocks: int | None = Field(None, ge=0)
    """Residual blocks; by default the papers' 9 for 256 pixels and more, 6 below."""
    channels: int = Field(64, ge=1)
    """Channels of the stem; four times as many in the residual blocks."""
    norm: Norm | None = None
    """Normalisation after every convolution but the last; by default instance."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the residual blocks."""
    downsampling: Downsampling = "stride"
    """stride: strided convolutions, as in the paper; blur: anti-aliased (stride 1, then blur-pooling), as in CUT."""
    upsampling: Upsampling = "transpose"
    """transpose: 3×3 transposed convolutions, as in the paper; resize: nearest-neighbour and a 3×3 convolution, no checkerboard; blur: anti-aliased, as in CUT."""

    separable: bool = False
    """Depthwise-separable convolutions in the residual blocks: about an eighth of their multiply-adds (Li et al. 2020, GAN Compression, §3.2)."""
    attention: bool = False
    """Self-attention after the residual blocks, at a quarter of the resolution (Zhang et al. 2019)."""
    residual: bool = False
    """Compute the change of the source instead of the image: training begins with a copy (Kupyn et al. 2018, DeblurGAN, §4)."""
    keep_luminance: bool = False
    """Colour gray images: compute chroma only, and keep the source's luminance. Sources have 1 channel, targets 3."""
    steps: Annotated[int | None, Suppress] = Field(None, ge=1)
    """In how many steps it translates, if it is told which one is due (UNSB)."""
    tau: Annotated[float, Suppress] = Field(0.0, ge=0)
    """The variance of the noise that is added between steps."""
    padding: Annotated[Padding, Suppress] = "reflect"
    """Of the residual blocks; others' networks may have another."""
    bias: Annotated[bool | None, Suppress] = None
    """Whether convolutions before norms have biases, as in weights that others trained; by default only where the norm doesn't cancel them."""

    def resolve(self, in_channels: int, out_channels: int, size: int, norm: Norm | None = None) -> Self:
        """Fills in what was left to the data: channels, blocks; and `norm`, the method's, if none was chosen.

        Raises:
            UsageError: if images of `size` pixels don't fit.
        """
        if size % 4 or size < ResNet.min_size:
            raise UsageError(f"--size {size}: a ResNet needs a multiple of 4, at least 8; use {max(8, size // 4 * 4)}.")
        channels = {
            "in_channels": self.in_channels or in_channels,
            "out_channels": self.out_channels or out_channels,
        }
        if self.residual and channels["in_channels"] != channels["out_channels"]:
            raise UsageError(
                f"--generator.residual adds to the source, so source and target need the same channels, not "
                f"{channels['in_channels']} and {channels['out_channels']}; leave it out."
            )
        if self.keep_luminance:
            refuse_no_luminance(**channels)
        filled = channels | {
            "blocks": (9 if size >= 256 else 6) if self.blocks is None else self.blocks,
            "norm": self.norm or norm or "instance",
        }
        return self.model_copy(update=filled)


class ResidualBlock(Block):
    """x + conv(relu(conv(x))), 3×3 with padding and norms; no activation after the sum."""

    def __init__(
        self,
        channels: int,
        norm: Norm,
        dropout: float = 0.0,
        bias: bool = False,
        padding: Padding = "reflect",
        separable: bool = False,
    ) -> None:
        super().__init__()

        def build_convolution() -> nn.Module:
            if separable:
                return SeparableConv(channels, norm, bias)
            return nn.Conv2d(channels, channels, 3, bias=bias)

        self.layers = nn.Sequential(
            build_padding(padding, 1),
            build_convolution(),
            norm_layer(norm, channels),
            nn.ReLU(),
            *([nn.Dropout(dropout)] if dropout else []),
            build_padding(padding, 1),
            build_convolution(),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape; H and W of at least 2."""
        return x + self.layers(x)


class ModulatedBlock(ResidualBlock):
    """A residual block that is modulated after its first norm: x · (1 + scale) + shift, both linear functions of a condition.

    (In the published code of UNSB the step is added before that norm, an instance norm, which takes it away again.)
    """

    def __init__(self, channels: int, condition: int, *how: Any) -> None:
        super().__init__(channels, *how)
        self.modulation: nn.Linear | Modulate = nn.Linear(condition, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, C, H, W) and (B, condition) → (B, C, H, W)."""
        y = x
        for number, layer in enumerate(self.layers):
            y = layer(y)
            if number == NORMALISED and isinstance(self.modulation, Modulate):
                y = self.modulation(y)
            elif number == NORMALISED:
                scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, 1)
                y = y * (1 + scale) + shift
        return x + y

    def fix(self, condition: Tensor) -> "ModulatedBlock":
        """The same block, with the same weights, under this condition (1, condition)."""
        fixed = copy.copy(self)
        fixed._modules = dict(self._modules)
        fixed.modulation = Modulate(cast(nn.Linear, self.modulation)(condition)[0].detach())
        return fixed


class ResNet(ImageNetwork):
    """Maps (B, in_channels, H, W) to (B, out_channels, H, W) in [-1, 1]; H and W are multiples of 4 and at least 8."""

    size_multiple = 4
    min_size = 8  # reflection padding by 1 needs 2 pixels at a quarter of the size

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        assert config.in_channels and config.out_channels and config.norm and config.blocks is not None
        width, norm = config.channels, config.norm
        bias = has_bias(norm, config.bias)
        self.stem = nn.Sequential(
            ReflectionPad(3),
            nn.Conv2d(config.in_channels, width, 7, bias=bias),
            norm_layer(norm, width),
            nn.ReLU(),
        )
        blur = config.downsampling == "blur"
        self.down = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(c, 2 * c, 3, 1 if blur else 2, 1, bias=bias),
                    norm_layer(norm, 2 * c),
                    nn.ReLU(),
                    *([BlurPool()] if blur else []),
                )
                for c in (width, 2 * width)
            )
        )
        how = (norm, config.dropout, bias, config.padding, config.separable)
        condition = 4 * width
        self.conditioning = StepAndNoise(config.steps, condition) if config.steps else None
        self.blocks = nn.Sequential(
            *(
                ModulatedBlock(4 * width, condition, *how) if config.steps else ResidualBlock(4 * width, *how)
                for _ in range(config.blocks)
            )
        )
        self.attention = SelfAttention(4 * width) if config.attention else nn.Identity()
        self.up = nn.Sequential(
            *(
                nn.Sequential(
                    *build_upsampling_layers(c, c // 2, bias, config.upsampling), norm_layer(norm, c // 2), nn.ReLU()
                )
                for c in (4 * width, 2 * width)
            )
        )
        last = ZeroConv2d if config.residual else nn.Conv2d
        self.head = nn.Sequential(
            ReflectionPad(3),
            last(width, 2 if config.keep_luminance else config.out_channels, 7),
            *([] if config.residual else [nn.Tanh()]),
        )
        self.colours = AddColours() if config.keep_luminance else None
        self.limit = Limit() if config.residual else None
        self.adds = config.residual
        """Whether what it computes is added to the source."""

    def forward(
        self,
        source: Tensor,
        at: Sequence[Tensor] | None = None,
        decode: bool = True,
        step: int = 0,
        noise: Tensor | None = None,
        base: Tensor | None = None,
    ) -> Any:
        """(B, in_channels, H, W) in [-1, 1] → (B, out_channels, H, W) in [-1, 1].

        Args:
            at: for each of `depths` the positions (P,), row by row, at which to look into the encoder.
            decode: whether the image is wanted; without, only the encoder runs.
            step: which one is due, of a network that translates in steps.
            noise: (B, 4 channels) that such a network is told; 0 by default.
            base: what is changed, of a network that computes changes; by default the source.

        Returns:
            The image; with `at`: the image, or None, and for each depth the features (B, P, channels).
        """
        conditions: tuple[Tensor, ...] = ()
        if self.conditioning is not None:
            given = source.new_zeros(source.shape[0], self.conditioning.width) if noise is None else noise
            conditions = (self.conditioning(step, given),)
        if at is None:
            x = self.down(self.stem(source))
            for block in self.blocks:
                x = block(x, *conditions)
            return self._decode(x, source if base is None else base)
        seen = [source]
        x = self.stem(source)
        for down in self.down:
            convolution, *rest = cast(nn.Sequential, down)
            x = convolution(x)
            seen.append(x)
            for layer in rest:
                x = layer(x)
        for number, block in enumerate(self.blocks):
            if not decode and len(seen) == len(at):
                break
            x = block(x, *conditions)
            seen += [x] if number in CUT_BLOCKS else []
        features = [
            each.flatten(2).index_select(2, places).transpose(1, 2) for each, places in zip(seen, at, strict=True)
        ]
        return (self._decode(x, source) if decode else None), features

    @torch.no_grad()
    def at_step(self, step: int, noise: Tensor) -> "ResNet":
        """Of a network that translates in steps: the same one, with the same weights, that takes images only, at this step and with this noise (4 channels,).

        If it computes changes, these are what it gives.
        """
        assert self.conditioning is not None
        weight = self.conditioning.step.weight
        condition = self.conditioning(step, noise.to(weight)[None])
        fixed = copy.copy(self)
        fixed._modules, fixed._compiled_call_impl, fixed.conditioning = dict(self._modules), None, None
        fixed.adds = False
        fixed.blocks = nn.Sequential(*(cast(ModulatedBlock, block).fix(condition) for block in self.blocks))
        return fixed

    def _decode(self, x: Tensor, source: Tensor) -> Tensor:
        image = self.head(self.up(self.attention(x)))
        if self.colours is not None:
            return self.colours(source, image)
        return self.limit(source + image) if self.adds and self.limit is not None else image


def encoder_depths(config: ResNetConfig) -> list[tuple[int, int]]:
    """Where CUT looks into the encoder: (channels, pixels a side per position), from the surface down.

    They are the input, the outputs of both downsampling convolutions, and of the first and fifth residual block (Park et
    al. 2020, §4 and appendix C.1).

    Raises:
        UsageError: if there are fewer residual blocks.
    """
    assert config.in_channels and config.blocks is not None
    if config.blocks <= max(CUT_BLOCKS):
        raise UsageError(
            f"--generator.blocks {config.blocks}: cut, fastcut and unsb compare patches at the first and fifth residual block, so "
            f"at least {max(CUT_BLOCKS) + 1} are needed."
        )
    width, coarse = config.channels, 2 if config.downsampling == "stride" else 1  # blurring comes after the convolution
    return [(config.in_channels, 1), (2 * width, coarse), (4 * width, 2 * coarse), (4 * width, 4), (4 * width, 4)]


def build_upsampling_layers(in_channels: int, out_channels: int, bias: bool, upsampling: Upsampling) -> list[nn.Module]:
    """Layers that double the resolution."""
    if upsampling == "resize":
        return [ResizeConv(in_channels, out_channels, bias)]
    if upsampling == "blur":
        return [BlurUpsample(), nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=bias)]
    return [nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, output_padding=1, bias=bias)]
