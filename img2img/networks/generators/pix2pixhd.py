"""The coarse-to-fine generator of pix2pixHD (Wang et al. 2018): a global generator, and local enhancers around it."""

from typing import Annotated, Literal, Self

from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.core.errors import UsageError
from img2img.networks.generators.base import GeneratorBaseConfig
from img2img.networks.generators.resnet import ResidualBlock, build_upsampling_layers
from img2img.networks.layers import ImageNetwork, Norm, ReflectionPad, Upsampling, has_bias, norm_layer


class Pix2PixHDConfig(GeneratorBaseConfig):
    """What a coarse-to-fine generator is made of (Wang et al. 2018, §3.2 and appendix 6)."""

    kind: Literal["pix2pixhd"] = "pix2pixhd"
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    channels: int = Field(64, ge=1)
    """Channels of the global generator's stem; an enhancer's are half those of the one inside it."""
    downsampling: int = Field(4, ge=1, le=6)
    """Convolutions with stride 2 in the global generator."""
    blocks: int = Field(9, ge=0)
    """Residual blocks of the global generator."""
    enhancers: int = Field(0, ge=0, le=3)
    """Local enhancers: each doubles the resolution."""
    enhancer_blocks: int = Field(3, ge=0)
    """Residual blocks of each enhancer."""
    norm: Norm | None = None
    """Normalisation after every convolution but the last; by default instance."""
    upsampling: Upsampling = "transpose"
    """transpose: 3×3 transposed convolutions, as in the paper; resize: nearest-neighbour and a 3×3 convolution, no checkerboard; blur: bilinear and a 3×3 convolution."""
    bias: Annotated[bool | None, Suppress] = None
    """Whether convolutions before norms have biases, as in weights that others trained; by default only where the norm doesn't cancel them."""

    @property
    def inner(self) -> int:
        """Pixels of the full resolution for one of the global generator's."""
        return int(2**self.enhancers)

    def resolve(self, in_channels: int, out_channels: int, size: int, norm: Norm | None = None) -> Self:
        """Fills in what was left to the data: channels; and `norm`, the method's, if none was chosen.

        Raises:
            UsageError: if images of `size` pixels don't fit, or the enhancers leave no channels.
        """
        multiple = self.inner * 2**self.downsampling
        if size % multiple or size < 2 * multiple:
            raise UsageError(
                f"--size {size}: {self.downsampling} convolutions with stride 2 and {self.enhancers} enhancers need a multiple "
                f"of {multiple}, at least {2 * multiple}; use {max(2 * multiple, size // multiple * multiple)}, or fewer of them "
                "(--generator.downsampling)."
            )
        if self.channels % self.inner:
            raise UsageError(
                f"--generator.channels {self.channels}: {self.enhancers} enhancers need a multiple of {self.inner}."
            )
        filled = {
            "in_channels": self.in_channels or in_channels,
            "out_channels": self.out_channels or out_channels,
            "norm": self.norm or norm or "instance",
        }
        return self.model_copy(update=filled)


class GlobalGenerator(nn.Module):
    """The residual generator with deeper downsampling: (B, in_channels, H, W) to features (B, channels, H, W)."""

    def __init__(self, config: Pix2PixHDConfig) -> None:
        super().__init__()
        assert config.in_channels and config.norm
        width, norm, depth = config.channels, config.norm, config.downsampling
        bias = has_bias(norm, config.bias)
        self.stem = _build_stem(config.in_channels, width, norm, bias)
        self.down = nn.Sequential(*(_build_downsampling(width * 2**level, norm, bias) for level in range(depth)))
        deepest = width * 2**depth
        self.blocks = nn.Sequential(*(ResidualBlock(deepest, norm, bias=bias) for _ in range(config.blocks)))
        widths = [width * 2**level for level in range(depth, 0, -1)]
        self.up = nn.Sequential(*(_build_upsampling(each, norm, bias, config.upsampling) for each in widths))

    def forward(self, source: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, channels, H, W); H and W are multiples of 2**downsampling."""
        return self.up(self.blocks(self.down(self.stem(source))))


class LocalEnhancer(nn.Module):
    """Adds the features of half the resolution to its own, and doubles the resolution (§3.2, figure 3)."""

    def __init__(self, config: Pix2PixHDConfig, channels: int) -> None:
        super().__init__()
        assert config.in_channels and config.norm
        norm, bias = config.norm, has_bias(config.norm, config.bias)
        self.stem = _build_stem(config.in_channels, channels, norm, bias)
        self.down = _build_downsampling(channels, norm, bias)
        blocks = (ResidualBlock(2 * channels, norm, bias=bias) for _ in range(config.enhancer_blocks))
        self.blocks = nn.Sequential(*blocks)
        self.up = _build_upsampling(2 * channels, norm, bias, config.upsampling)

    def forward(self, source: Tensor, inner: Tensor) -> Tensor:
        """(B, in_channels, H, W) and features (B, 2 channels, H/2, W/2) → (B, channels, H, W)."""
        return self.up(self.blocks(self.down(self.stem(source)) + inner))


class Pix2PixHD(ImageNetwork):
    """Maps (B, in_channels, H, W) to (B, out_channels, H, W) in [-1, 1]; H and W are multiples of `size_multiple`."""

    def __init__(self, config: Pix2PixHDConfig) -> None:
        super().__init__()
        assert config.out_channels
        self.size_multiple = config.inner * 2**config.downsampling
        self.min_size = 2 * self.size_multiple  # reflection padding by 1 needs 2 pixels at the deepest
        self.halve = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.inside = GlobalGenerator(config)
        widths = [config.channels // 2**level for level in range(1, config.enhancers + 1)]
        self.enhancers = nn.ModuleList(LocalEnhancer(config, width) for width in widths)  # from the inside out
        width = widths[-1] if widths else config.channels
        self.head = nn.Sequential(ReflectionPad(3), nn.Conv2d(width, config.out_channels, 7), nn.Tanh())

    def forward(self, source: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H, W) in [-1, 1]."""
        pyramid = [source]
        for _ in self.enhancers:
            pyramid.append(self.halve(pyramid[-1]))
        features = self.inside(pyramid.pop())
        for enhancer in self.enhancers:
            features = enhancer(pyramid.pop(), features)
        return self.head(features)


def _build_stem(in_channels: int, channels: int, norm: Norm, bias: bool) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, channels, 7, bias=bias)
    return nn.Sequential(ReflectionPad(3), convolution, norm_layer(norm, channels), nn.ReLU())


def _build_downsampling(channels: int, norm: Norm, bias: bool) -> nn.Sequential:
    convolution = nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=bias)
    return nn.Sequential(convolution, norm_layer(norm, 2 * channels), nn.ReLU())


def _build_upsampling(channels: int, norm: Norm, bias: bool, upsampling: Upsampling) -> nn.Sequential:
    layers = build_upsampling_layers(channels, channels // 2, bias, upsampling)
    return nn.Sequential(*layers, norm_layer(norm, channels // 2), nn.ReLU())
