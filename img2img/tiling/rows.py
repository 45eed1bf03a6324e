"""Layers that compute any rows of their output from a few rows of their input."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.core.errors import UserError
from img2img.networks.layers import BlurPool


class NotInStripsError(UserError):
    """A network has a layer that needs the whole image at once, or that isn't known here."""

    def __init__(self, layer: str) -> None:
        super().__init__(
            f"this network can't be computed in strips because of {layer}; --tile 0 computes images at "
            "once, if they fit into the memory."
        )


class Rows(ABC):
    """A tensor (B, channels, height, width) of which rows can be asked for, and are computed then."""

    channels: int
    height: int
    width: int
    sources: tuple["Rows", ...] = ()

    @property
    def size(self) -> int:
        """Numbers of an image's tensor."""
        return self.channels * self.height * self.width

    def row_size(self) -> float:
        """Numbers in a row, or in what has to be computed for a row, if that is more."""
        behind = (source.row_size() * source.height / self.height for source in self.sources)
        return max(self.channels * self.width, *behind, 0)

    @abstractmethod
    def rows(self, first: int, last: int) -> Tensor:
        """Rows first to last - 1, (B, channels, last - first, width); not to be changed in place."""


class StoredRows(Rows):
    """A tensor that is there, maybe on another device than the network's."""

    def __init__(self, tensor: Tensor, device: torch.device) -> None:
        self.tensor, self.device = tensor, device
        _, self.channels, self.height, self.width = tensor.shape

    def rows(self, first: int, last: int) -> Tensor:
        """A view of the tensor, or its copy on the device."""
        return self.tensor[:, :, first:last].to(self.device)


class PointwiseRows(Rows):
    """A function of each pixel."""

    def __init__(self, function: Callable[..., Tensor], *sources: Rows, channels: int | None = None) -> None:
        self.function, self.sources = function, sources
        self.channels = channels or sources[0].channels
        self.height, self.width = sources[0].height, sources[0].width

    def rows(self, first: int, last: int) -> Tensor:
        return self.function(*(source.rows(first, last) for source in self.sources))


class PaddedRows(Rows):
    """Padding by what `torch.nn.functional.pad` calls replicate or constant, with zeros."""

    def __init__(self, source: Rows, pixels: int, mode: str) -> None:
        self.source, self.pixels, self.mode, self.channels = source, pixels, mode, source.channels
        self.sources = (source,)
        self.height, self.width = source.height + 2 * pixels, source.width + 2 * pixels

    def rows(self, first: int, last: int) -> Tensor:
        start, end, height = first - self.pixels, last - self.pixels, self.source.height
        lowest = min(max(start, 0), height - 1)
        highest = max(min(end, height), lowest + 1)
        border = (self.pixels, self.pixels, max(0, lowest - start), max(0, end - highest))
        padded = F.pad(self.source.rows(lowest, highest), border, self.mode)
        begin = max(0, start - lowest)
        return padded[:, :, begin : begin + last - first]


class ReflectedRows(Rows):
    """Padding by reflection."""

    def __init__(self, source: Rows, pixels: int) -> None:
        self.source, self.pixels, self.channels = source, pixels, source.channels
        self.sources = (source,)
        self.height, self.width = source.height + 2 * pixels, source.width + 2 * pixels

    def rows(self, first: int, last: int) -> Tensor:
        start, end, height = first - self.pixels, last - self.pixels, self.source.height
        above, below = max(0, -start), max(0, end - height)  # rows that are reflected ones
        lowest = min(max(start, 0), height - 1 - below)
        found = self.source.rows(lowest, max(min(end, height), above + 1))
        padded = F.pad(found, (self.pixels, self.pixels, above, below), "reflect")
        begin = start - (lowest - above)
        return padded[:, :, begin : begin + last - first]


class ConvRows(Rows):
    """A convolution with padding by zeros."""

    def __init__(self, source: Rows, layer: nn.Conv2d) -> None:
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str) or layer.dilation != (1, 1):
            raise NotInStripsError(f"a convolution with padding {layer.padding_mode} {layer.padding}")
        self.source, self.layer, self.channels = source, layer, layer.out_channels
        self.sources = (source,)
        (self.kernel, across), (self.stride, along) = layer.kernel_size, layer.stride
        self.padding, self.side = cast(tuple[int, int], layer.padding)
        self.height = (source.height + 2 * self.padding - self.kernel) // self.stride + 1
        self.width = (source.width + 2 * self.side - across) // along + 1

    def rows(self, first: int, last: int) -> Tensor:
        start = first * self.stride - self.padding
        end = (last - 1) * self.stride - self.padding + self.kernel
        found = self.source.rows(max(start, 0), min(end, self.source.height))
        found = F.pad(found, (0, 0, max(-start, 0), max(end - self.source.height, 0)))
        layer = self.layer
        return F.conv2d(found, layer.weight, layer.bias, layer.stride, (0, self.side), groups=layer.groups)


class BlurRows(Rows):
    """Blur pooling."""

    def __init__(self, source: Rows, layer: BlurPool) -> None:
        self.source, self.layer, self.channels = ReflectedRows(source, 1), layer, source.channels
        self.sources = (self.source,)
        self.height, self.width = (source.height + 1) // 2, (source.width + 1) // 2

    def rows(self, first: int, last: int) -> Tensor:
        return self.layer.blur(self.source.rows(2 * first, 2 * last + 1))


class AveragePoolRows(Rows):
    """Halving by the mean of 3×3 pixels, those beyond the border not counted."""

    def __init__(self, source: Rows, layer: nn.AvgPool2d) -> None:
        if (layer.kernel_size, layer.stride, layer.padding, layer.count_include_pad) != (3, 2, 1, False):
            raise NotInStripsError(f"average pooling of {layer.kernel_size} pixels")
        self.source, self.channels = source, source.channels
        self.sources = (source,)
        self.height, self.width = (source.height + 1) // 2, (source.width + 1) // 2

    def rows(self, first: int, last: int) -> Tensor:
        start, end, height = 2 * first - 1, 2 * last, self.source.height
        found = self.source.rows(max(start, 0), min(end, height))
        border = (1, 1, max(-start, 0), max(end - height, 0))
        counted = F.pad(torch.ones_like(found[:1, :1]), border)
        return F.avg_pool2d(F.pad(found, border), 3, 2) / F.avg_pool2d(counted, 3, 2)


class TransposedConvRows(Rows):
    """A transposed convolution."""

    def __init__(self, source: Rows, layer: nn.ConvTranspose2d) -> None:
        if layer.dilation != (1, 1) or max(layer.output_padding) > min(cast(tuple[int, int], layer.padding)):
            raise NotInStripsError("a transposed convolution with dilation, or more output padding than padding")
        self.source, self.layer, self.channels = source, layer, layer.out_channels
        self.sources = (source,)
        (self.kernel, across), (self.stride, along) = layer.kernel_size, layer.stride
        self.padding, self.side = cast(tuple[int, int], layer.padding)
        below, self.beside = layer.output_padding
        self.height = (source.height - 1) * self.stride - 2 * self.padding + self.kernel + below
        self.width = (source.width - 1) * along - 2 * self.side + across + self.beside

    def rows(self, first: int, last: int) -> Tensor:
        start = max(0, -(-(first + self.padding - self.kernel + 1) // self.stride))
        end = min(self.source.height, (last - 1 + self.padding) // self.stride + 1)
        layer, found = self.layer, self.source.rows(start, end)
        spread = F.conv_transpose2d(
            found, layer.weight, layer.bias, layer.stride, (0, self.side), (0, self.beside), layer.groups
        )
        offset = first - (start * self.stride - self.padding)  # where the first row stands in what came out
        return spread[:, :, offset : offset + last - first]


class UpsampleRows(Rows):
    """Upsampling by 2, nearest or bilinear."""

    def __init__(self, source: Rows, layer: nn.Upsample) -> None:
        if layer.scale_factor not in (2, 2.0) or layer.mode not in ("nearest", "bilinear") or layer.align_corners:
            raise NotInStripsError(f"upsampling {layer.mode} by {layer.scale_factor}")
        self.source, self.layer, self.channels = source, layer, source.channels
        self.sources = (source,)
        self.height, self.width = 2 * source.height, 2 * source.width

    def rows(self, first: int, last: int) -> Tensor:
        start, end = first // 2 - 1, (last - 1) // 2 + 2  # bilinear looks at the rows beside
        found = self.source.rows(max(start, 0), min(end, self.source.height))
        found = F.pad(found, (0, 0, max(-start, 0), max(end - self.source.height, 0)), "replicate")
        return self.layer(found)[:, :, first - 2 * start : last - 2 * start]
