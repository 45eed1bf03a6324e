"""The pieces that several networks are made of: normalisation, padding, upsampling, attention."""

from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from kornia.filters.kernels import get_pascal_kernel_2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed import all_gather, all_reduce, get_world_size, is_initialized
from torch.nn.grad import conv2d_input

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue, by ITU-R BT.601."""
Norm = Literal["batch", "instance", "group", "none"]
Downsampling = Literal["stride", "blur"]
Upsampling = Literal["transpose", "resize", "blur"]
Padding = Literal["reflect", "replicate", "zero"]


class Block(nn.Module):
    """A part of a network of which gradient checkpointing holds only what goes in and comes out."""


class ImageNetwork(nn.Module):
    """A network that takes images."""

    size_multiple: int = 1
    """Height and width must be multiples of it, in pixels,"""
    min_size: int = 1
    """and at least this."""
    only_whole: bool = False
    """Whether images can't be computed in strips or tiles."""
    not_saved: str = ""
    """Why it can't be saved; empty if it can."""

    def with_style(self, style: Tensor) -> "ImageNetwork":
        """Of a network that takes an image and a style: the same one, with the same weights, that takes images only and gives all of them this style (latent,)."""
        return _Styled(self, style)


class _Styled(ImageNetwork):
    def __init__(self, network: ImageNetwork, style: Tensor) -> None:
        super().__init__()
        self.network, self.style = network, style
        self.size_multiple, self.min_size = network.size_multiple, network.min_size

    def forward(self, source: Tensor) -> Tensor:
        return self.network(source, self.style.to(source).expand(source.shape[0], -1))


class Shift(nn.Module):
    """Adds a number to each channel."""

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return x + self.values


class InstanceNorm(nn.Module):
    """Instance normalisation without parameters or running statistics (Ulyanov et al. 2016, eq. 4).

    On a CPU it is computed as group norm with one group per channel: the same mathematics, and much faster than the stock
    instance norm there (but for the gradient of channels-last tensors, which `memory_format` therefore avoids).

    Args:
        epsilon: added to the variance.
    """

    def __init__(self, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.eps = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape, each channel of each image with mean 0 and variance 1."""
        if x.shape[2:].numel() == 1:  # stock norms refuse a single pixel, whose normalised value is 0
            return x * 0
        if x.device.type == "cpu":
            return F.group_norm(x, x.shape[1], eps=self.eps)
        return F.instance_norm(x, eps=self.eps)


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' batches, of equal size; on any device, unlike PyTorch's own."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        alone = not is_initialized() or get_world_size() == 1
        if (
            alone or not self.training or not torch.is_grad_enabled()
        ):  # at test time, each process has images of its own
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            done, mean, variance = _NormaliseTogether.apply(x, self.eps)
            if (
                self.track_running_stats
                and self.running_mean is not None
                and self.running_var is not None
                and self.momentum is not None
            ):
                count = x.numel() // len(mean) * get_world_size()
                with torch.no_grad():
                    if self.num_batches_tracked is not None:
                        self.num_batches_tracked.add_(1)
                    self.running_mean.lerp_(mean, self.momentum)
                    self.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)
            if self.weight is not None:
                done = done * self.weight[:, None, None] + self.bias[:, None, None]
            return done.to(x.dtype)


class _NormaliseTogether(torch.autograd.Function):
    """(B, C, H, W) → the same in fp32, each channel with mean 0 and variance 1 over all processes' batches; and mean and variance.

    Gradients are those of the sum of all processes' losses. One exchange forward and one back; only what came in is held.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        own = torch.stack([mean, variance])
        moments = [torch.empty_like(own) for _ in range(get_world_size())]
        all_gather(moments, own)
        means, variances = torch.stack(moments).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        factor = torch.rsqrt(variance + epsilon)
        ctx.save_for_backward(x, mean, factor)
        ctx.mark_non_differentiable(mean, variance)
        return (x.float() - mean[:, None, None]) * factor[:, None, None], mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, mean, factor = ctx.saved_tensors
        gradient = gradients[0]
        done = (x.float() - mean[:, None, None]) * factor[:, None, None]
        sums = torch.stack([gradient.sum((0, 2, 3)), (gradient * done).sum((0, 2, 3))])
        all_reduce(sums)
        of_mean, of_deviation = sums / (x.numel() // len(mean) * get_world_size())
        found = gradient - of_mean[:, None, None] - done * of_deviation[:, None, None]
        return (found * factor[:, None, None]).to(x.dtype), None


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """A normalisation layer for (B, channels, H, W); ``group`` uses the most groups up to 32 that divide the channels."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return InstanceNorm()
    if norm == "group":
        return nn.GroupNorm(max(g for g in range(1, 33) if channels % g == 0), channels)
    return nn.Identity()


def has_bias(norm: Norm, chosen: bool | None = None) -> bool:
    """Whether a convolution before this norm has a bias: `chosen`, else not if the norm, which subtracts the channel's mean, would cancel it."""
    return norm in ("group", "none") if chosen is None else chosen


def choose_memory_format(networks: Iterable[nn.Module], device: torch.device, precision: str) -> torch.memory_format:
    """The memory format in which these networks train faster: channels-last in bf16 and fp16, unless there is instance norm.

    Measured on a CPU: the gradient of instance norm is up to 20 times slower on channels-last tensors, and in fp32 so
    are, slightly, the convolutions.
    """
    has_instance_norm = any(isinstance(layer, InstanceNorm) for network in networks for layer in network.modules())
    if precision == "no" or device.type == "mps" or has_instance_norm:
        return torch.contiguous_format
    return torch.channels_last


class ReflectionPad(nn.Module):
    """Reflection padding that stays in bf16 under autocast, which for PyTorch's own on a CPU takes fp32: half the memory."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H + 2 pixels, W + 2 pixels); H and W larger than pixels."""
        with torch.autocast(x.device.type, enabled=False):
            return F.pad(x, (self.pixels,) * 4, "reflect")


def build_padding(padding: Padding, pixels: int) -> nn.Module:
    """A layer that adds so many pixels on each of the four sides."""
    if padding == "reflect":
        return ReflectionPad(pixels)
    return nn.ReplicationPad2d(pixels) if padding == "replicate" else nn.ZeroPad2d(pixels)


class SeparableConv(nn.Sequential):
    """A 3×3 convolution of each channel by itself, a norm, and a 1×1 convolution of all channels (Howard et al. 2017, §3.1); unpadded.

    With C channels it computes 1 / C + 1 / 9 of the multiply-adds of a full 3×3 convolution.
    """

    def __init__(self, channels: int, norm: Norm, bias: bool = False) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, bias=bias, groups=channels),
            norm_layer(norm, channels),
            nn.Conv2d(channels, channels, 1, bias=bias),
        )


class NearestUpsample(nn.Upsample):
    """Doubles by nearest neighbour, in the type at hand: autocast on CUDA takes fp32, which holds the same values in twice the memory."""

    def __init__(self) -> None:
        super().__init__(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, 2 H, 2 W)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


def resize_nearest(x: Tensor, height: int, width: int) -> Tensor:
    """(B, C, h, w) → (B, C, height, width) by nearest neighbour, in the type at hand."""
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, (height, width), mode="nearest")


class ResizeConv(nn.Sequential):
    """Doubling by nearest-neighbour resizing and a 3×3 convolution: no checkerboard (Odena et al. 2016)."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__()
        self.add_module("0", NearestUpsample())
        self.add_module("padding", ReflectionPad(1))
        self.add_module("1", nn.Conv2d(in_channels, out_channels, 3, bias=bias))


class AddColours(nn.Module):
    """Colours an image: adds chroma to its luminance, which stays as it is.

    Chroma are Cb and Cr of ITU-R BT.601. Where RGB can't show a colour at this luminance, its saturation is reduced until it can.
    """

    def forward(self, luminance: Tensor, chroma: Tensor) -> Tensor:
        """(B, 1, H, W) and (B, 2, H, W), both in [-1, 1] → RGB (B, 3, H, W) in [-1, 1], in fp32."""
        with torch.autocast(luminance.device.type, enabled=False):
            gray, (blue, red) = luminance.float(), chroma.float().split(1, dim=1)
            red, blue = 2 * (1 - LUMA[0]) * red, 2 * (1 - LUMA[2]) * blue
            change = torch.cat([red, -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1], blue], dim=1)
            room = torch.where(change > 0, 1 - gray, 1 + gray)
            share = (room / change.abs().clamp(min=1e-6)).amin(dim=1, keepdim=True).clamp(0, 1)
            return gray + share * change


class Limit(nn.Hardtanh):
    """Limits values to [-1, 1], and lets gradients through that lead back from the border.

    Hardtanh's gradient is 0 at the border itself: white and black would never change.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → the same."""
        limited: Tensor = _Limit.apply(x) if torch.is_grad_enabled() else super().forward(x)
        return limited


class _Limit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        outward = ((x >= 1) & (gradient < 0)) | ((x <= -1) & (gradient > 0))
        return gradient.masked_fill(outward, 0)


class ZeroConv2d(nn.Conv2d):
    """A convolution whose weights `initialise` sets to 0, so that what it is added to is unchanged at first."""


class BlurPool(nn.Module):
    """Halves the resolution without aliasing: the binomial filter [1 2 1]² and every second pixel (Zhang 2019, §3.2)."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", get_pascal_kernel_2d(3)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, ceil(H / 2), ceil(W / 2)); H and W of at least 2."""
        return self.blur(ReflectionPad(1)(x))

    def blur(self, padded: Tensor) -> Tensor:
        """Of an image that is padded by 1 already: (B, C, H, W) → (B, C, (H - 1) // 2, (W - 1) // 2)."""
        with torch.autocast(padded.device.type, enabled=False):
            return cast(Tensor, _Blur.apply(padded, self.kernel))


class _Blur(torch.autograd.Function):
    """The convolution of `BlurPool`, which is linear and has no weights: unlike the stock one it holds nothing for its gradient."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor) -> Tensor:
        # on a CPU in fp32: there a depthwise convolution is three times slower in bf16
        ctx.computed_in = torch.float32 if padded.device.type == "cpu" else padded.dtype
        ctx.shape = padded.shape
        ctx.save_for_backward(kernel)
        weight = kernel.to(ctx.computed_in).expand(padded.shape[1], 1, -1, -1)
        return F.conv2d(padded.to(ctx.computed_in), weight, stride=2, groups=padded.shape[1]).to(padded.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (kernel,), channels = gradients, ctx.saved_tensors, ctx.shape[1]
        weight = kernel.to(ctx.computed_in).expand(channels, 1, -1, -1)
        found = conv2d_input(ctx.shape, weight, gradient.to(ctx.computed_in), stride=2, groups=channels)
        return found.to(gradient.dtype), None


class BlurUpsample(nn.Upsample):
    """Doubles the resolution without aliasing: the binomial filter [1 3 3 1]², which is bilinear interpolation."""

    def __init__(self) -> None:
        super().__init__(scale_factor=2, mode="bilinear", align_corners=False)


class SelfAttention(nn.Module):
    """y = γ·v(Σᵢ βⱼᵢ h(xᵢ)) + x, where β is the softmax of f(xᵢ)ᵀg(xⱼ) over i (Zhang et al. 2019, eq. 1–3).

    f, g and h have an eighth of the channels, v all of them. γ begins at 0, so that a fresh one changes nothing. Its cost
    grows with the square of the number of pixels; the matrix β itself is not held, but for gradient penalties.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.key, self.query, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))  # f, g, h
        self.out = nn.Conv2d(inner, channels, 1)  # v
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2).contiguous() for layer in (self.query, self.key, self.value)
        )  # (B, H·W, C')
        seen = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]
        seen = seen.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])
        return x + self.gamma * self.out(seen)
