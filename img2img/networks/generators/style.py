"""The generator of StyleGAN2 (Karras et al. 2020): noise is mapped to a style, which modulates the convolutions that make an image."""

import copy
import itertools
from typing import ClassVar, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from img2img.networks.fir import Enlarge, Smooth
from img2img.networks.generators.base import NoiseGeneratorConfig
from img2img.networks.labels import class_shares

SLOPE = 0.2
GAIN = 2**0.5  # of a leaky ReLU, which halves the variance
MAPPING_LR = 0.01  # the mapping network's share of the learning rate (Karras et al. 2019, §C)


class StyleConfig(NoiseGeneratorConfig):
    """What a StyleGAN2 generator is made of; the paper's, of 1024 pixels, has --generator.channels 32, and StyleGAN2-ADA's of 256 pixels the default."""

    scales_weights: ClassVar[bool] = True
    sizes: ClassVar[tuple[int, ...]] = (32, 64, 128, 256, 512, 1024)

    kind: Literal["style"] = "style"
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    latent: int = Field(512, ge=1)
    """Random numbers that an image is made from, and numbers of a style."""
    channels: int = Field(64, ge=1)
    """Channels of the last block; they double per block towards the noise."""
    most_channels: int = Field(512, ge=1)
    """Where the doubling ends."""
    mapping_layers: int = Field(8, ge=1)
    """Layers that map noise to a style."""

    @property
    def layers(self) -> int:
        """Styles that an image takes: one for each convolution, from coarse to fine, and one for the last colours."""
        return 2 * len(list_widths(self))


def list_widths(config: "StyleConfig") -> list[int]:
    """Channels of each block, from 4 pixels up to the size."""
    assert config.size
    return list_style_widths(config.size, config.channels, config.most_channels)


def list_style_widths(size: int, channels: int, most: int) -> list[int]:
    """Channels at 4 pixels, 8, and so on up to `size`, where there are `channels`."""
    return [min(channels * size // 2**level, most) for level in range(2, size.bit_length())]


class EqualisedLinear(nn.Module):
    """A linear layer whose weights are drawn from N(0, 1) and scaled when they are used (Karras et al. 2018, §4.1).

    Args:
        rate: the layer's share of the learning rate.
        bias: at first.
    """

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / inputs**0.5, rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) → (B, outputs), in fp32."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight * self.scale, self.bias * self.rate)


def activate(x: Tensor) -> Tensor:
    """A leaky ReLU that keeps the deviation."""
    return F.leaky_relu(x, SLOPE) * GAIN


class Mapping(nn.Module):
    """Maps noise, and a class, to a style (Karras et al. 2019, §2)."""

    def __init__(self, latent: int, classes: int, layers: int) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = EqualisedLinear(classes, latent) if classes else None
        widths = [latent * (2 if classes else 1), *[latent] * layers]
        self.layers = nn.ModuleList(
            EqualisedLinear(inputs, outputs, MAPPING_LR) for inputs, outputs in itertools.pairwise(widths)
        )

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent), and (B,) integers or shares (B, classes) → (B, latent), in fp32."""
        x = _normalise(noise.float())
        if self.embedding is not None:
            assert labels is not None
            x = torch.cat([x, _normalise(self.embedding(class_shares(labels, self.classes, x.dtype)))], dim=1)
        for layer in self.layers:
            x = activate(layer(x))
        return x


def _normalise(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a style, and whose outputs are scaled back to a deviation of 1 (§2.2, eqs. 1 and 3).

    Images are scaled instead of weights, which is the same, and needs no weights for each image.

    Args:
        kernel: pixels a side.
        demodulates: whether outputs are scaled back.
        doubles: whether the resolution is doubled.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        style: int,
        demodulates: bool = True,
        doubles: bool = False,
    ) -> None:
        super().__init__()
        self.style = EqualisedLinear(style, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = 1 / (in_channels * kernel**2) ** 0.5
        self.padding, self.demodulates = kernel // 2, demodulates
        self.smooth = Smooth(1, gain=4.0) if doubles else None

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, in_channels, H, W) and (B, style) → (B, out_channels, H', W'), without the bias."""
        weight, scales = self.weight * self.scale, self.style(style)
        if self.demodulates:  # which makes their common size meaningless: small ones are safe in fp16
            scales = scales / scales.detach().abs().amax(1, keepdim=True).clamp_min(1e-8)
        x = x * scales[:, :, None, None].to(x.dtype)
        if self.smooth is None:
            x = F.conv2d(x, weight, padding=self.padding)
        else:
            x = self.smooth(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if self.demodulates:
            with torch.autocast(x.device.type, enabled=False):
                back = torch.rsqrt(F.linear(scales.square(), weight.float().square().sum((2, 3))) + 1e-8)
            x = x * back[:, :, None, None].to(x.dtype)
        return x


class StyleLayer(nn.Module):
    """A modulated convolution with noise and a leaky ReLU; the noise is drawn in training, and always the same afterwards."""

    fixed: Tensor

    def __init__(self, in_channels: int, out_channels: int, style: int, size: int, doubles: bool = False) -> None:
        super().__init__()
        self.convolution = ModulatedConv(in_channels, out_channels, 3, style, doubles=doubles)
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("fixed", torch.randn(1, 1, size, size))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, in_channels, H, W) and (B, style) → (B, out_channels, size, size)."""
        x = self.convolution(x, style)
        noise = x.new_empty(len(x), 1, *x.shape[2:]).normal_() if self.training else self.fixed.to(x.dtype)
        x = x + noise * self.strength.to(x.dtype)
        return activate(x + self.convolution.bias[:, None, None].to(x.dtype))


class StyleBlock(nn.Module):
    """All that is done at one resolution, from 8 pixels on."""

    def __init__(self, in_channels: int, width: int, style: int, size: int, out_channels: int) -> None:
        super().__init__()
        self.first = StyleLayer(in_channels, width, style, size, doubles=True)
        self.second = StyleLayer(width, width, style, size)
        self.colours = ModulatedConv(width, out_channels, 1, style, demodulates=False)


class StyleGenerator(nn.Module):
    """Maps noise (B, latent), and labels if it has classes, to images (B, out_channels, size, size), about in [-1, 1]: nothing bounds them, as in the paper.

    Images are sums of what each resolution adds (skip connections, §4.1).
    """

    mean_style: Tensor
    truncation: Tensor | None
    """For each layer how far styles are from their mean, as a share (layers, 1); None for as they are."""

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        assert config.out_channels and config.size
        widths, style = list_widths(config), config.latent
        self.classes, self.layers = config.classes, config.layers
        self.mapping = Mapping(config.latent, config.classes, config.mapping_layers)
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.first = StyleLayer(widths[0], widths[0], style, 4)
        self.colours = ModulatedConv(widths[0], config.out_channels, 1, style, demodulates=False)
        self.blocks = nn.ModuleList(
            StyleBlock(widths[level - 1], width, style, 4 * 2**level, config.out_channels)
            for level, width in enumerate(widths)
            if level
        )
        self.enlarge = Enlarge()
        self.register_buffer("mean_style", torch.zeros(style))
        self.register_buffer("truncation", None)

    def forward(
        self, noise: Tensor, labels: Tensor | None = None, other: Tensor | None = None, crossover: int = 0
    ) -> Tensor:
        """(B, latent), and (B,) integers or shares (B, classes) → (B, out_channels, size, size).

        Args:
            other: more noise (B, latent), from which the styles of the layers from `crossover` on are made: style mixing.
        """
        styles = self.spread(self.mapping(noise, labels))
        if other is not None:
            mixed = self.spread(self.mapping(other, labels))
            styles = torch.cat([styles[:, :crossover], mixed[:, crossover:]], dim=1)
        return self.synthesise(styles)

    def spread(self, style: Tensor) -> Tensor:
        """The same style for all layers, truncated: (B, latent) → (B, layers, latent)."""
        styles = style[:, None].expand(-1, self.layers, -1)
        return styles if self.truncation is None else torch.lerp(self.mean_style, styles, self.truncation)

    def synthesise(self, styles: Tensor) -> Tensor:
        """Images from a style for each layer: (B, layers, latent) → (B, out_channels, size, size)."""
        x = self.first(self.constant.expand(len(styles), -1, -1, -1), styles[:, 0])
        image = self._colour(self.colours, x, styles[:, 1])
        for number, each in enumerate(self.blocks):
            block, layer = cast(StyleBlock, each), 2 * number + 1
            x = block.second(block.first(x, styles[:, layer]), styles[:, layer + 1])
            image = self.enlarge(image) + self._colour(block.colours, x, styles[:, layer + 2])
        return image

    def _colour(self, layer: ModulatedConv, x: Tensor, style: Tensor) -> Tensor:
        return layer(x, style).float() + layer.bias[:, None, None]

    def truncated(self, share: float, layers: range | None = None) -> Self:
        """The same network, with the same weights, whose styles are so far from their mean: 0 gives the mean image, 1 changes nothing.

        Args:
            layers: where; by default everywhere.
        """
        shares = self.mean_style.new_ones(self.layers, 1)
        shares[slice(None) if layers is None else slice(layers.start, layers.stop)] = share
        other = copy.copy(self)
        other._buffers = {**self._buffers, "truncation": shares}
        return other
