"""The pieces that several networks are made of: normalisation, upsampling, initialisation."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from kornia.filters.kernels import get_pascal_kernel_2d
from torch import Tensor, nn
from torch.distributed import all_reduce, get_world_size, is_initialized
from torch.nn.grad import conv2d_input
from torch.nn.utils import parametrizations, parametrize

Norm = Literal["batch", "instance", "group", "none"]
Downsampling = Literal["stride", "blur"]
Upsampling = Literal["transpose", "resize", "blur"]
Padding = Literal["reflect", "replicate", "zero"]
POWER_ITERATIONS = 30
Initialisation = Literal["normal", "xavier", "kaiming", "orthogonal"]


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
            values = x.float()
            mean = _Mean.apply(values.mean((0, 2, 3)))
            centred = values - mean[:, None, None]
            variance = _Mean.apply(centred.square().mean((0, 2, 3)))
            if (
                self.track_running_stats
                and self.running_mean is not None
                and self.running_var is not None
                and self.momentum is not None
            ):
                count = values.numel() // len(mean) * get_world_size()
                with torch.no_grad():
                    if self.num_batches_tracked is not None:
                        self.num_batches_tracked.add_(1)
                    self.running_mean.lerp_(mean, self.momentum)
                    self.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)
            done = centred * torch.rsqrt(variance + self.eps)[:, None, None]
            if self.weight is not None:
                done = done * self.weight[:, None, None] + self.bias[:, None, None]
            return done.to(x.dtype)


class _Mean(torch.autograd.Function):
    """The mean over all processes; gradients are those of the sum of all processes' losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _averaged(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _averaged(gradients[0])


def _averaged(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    all_reduce(total)
    return total / get_world_size()


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


def memory_format(networks: Iterable[nn.Module], device: torch.device, precision: str) -> torch.memory_format:
    """The memory format in which these networks train faster: channels-last in bf16 and fp16, unless there is instance norm.

    Measured on a CPU: the gradient of instance norm is up to 20 times slower on channels-last tensors, and in fp32 so
    are, slightly, the convolutions.
    """
    has_instance_norm = any(isinstance(layer, InstanceNorm) for network in networks for layer in network.modules())
    if precision == "no" or device.type == "mps" or has_instance_norm:
        return torch.contiguous_format
    return torch.channels_last


class ReflectionPad(nn.Module):
    """Reflection padding that stays in bf16 under autocast, which for PyTorch's own on a CPU takes fp32: half the memory.

    Args:
        pixels: added on each of the four sides.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H + 2 pixels, W + 2 pixels); H and W larger than pixels."""
        with torch.autocast(x.device.type, enabled=False):
            return F.pad(x, (self.pixels,) * 4, "reflect")


def padding_layer(padding: Padding, pixels: int) -> nn.Module:
    """A layer that adds so many pixels on each of the four sides."""
    if padding == "reflect":
        return ReflectionPad(pixels)
    return nn.ReplicationPad2d(pixels) if padding == "replicate" else nn.ZeroPad2d(pixels)


class ResizeConv(nn.Sequential):
    """Doubling by nearest-neighbour resizing and a 3×3 convolution: no checkerboard (Odena et al. 2016)."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__()
        self.add_module("0", nn.Upsample(scale_factor=2, mode="nearest"))
        self.add_module("padding", ReflectionPad(1))
        self.add_module("1", nn.Conv2d(in_channels, out_channels, 3, bias=bias))


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


def with_spectral_norm(module: nn.Module, but: str = "") -> nn.Module:
    """Divides the weight of every convolution and linear layer by its largest singular value (Miyato et al. 2018, eq. 8).

    The singular value is that of the weight as a matrix (out, in × kernel), by one power iteration a forward pass. To be
    applied after `initialise`.

    Args:
        module: changed in place.
        but: the name of a layer that is left as it is, such as BigGAN's shared embedding.

    Returns:
        The same module.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and (not but or name != but):
            parametrizations.spectral_norm(layer)
    return module


def without_spectral_norm(module: nn.Module) -> nn.Module:
    """A copy of a network that computes the same by plain weights: undoes `with_spectral_norm`."""
    plain = copy.deepcopy(module).eval()
    for layer in list(plain.modules()):
        if parametrize.is_parametrized(
            layer
        ):  # remove_parametrizations would change the original, whose class is the same
            weight = cast(Any, layer).weight.detach().clone()
            layer.__class__ = parametrize.type_before_parametrizations(layer)
            del layer._modules["parametrizations"]
            layer.register_parameter("weight", nn.Parameter(weight))
    return plain


@torch.no_grad()
def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """A network's state as it is without spectral norm: weights that are divided already, under their plain names."""
    state = {name: tensor for name, tensor in module.state_dict().items() if ".parametrizations." not in f".{name}"}
    for name, layer in module.named_modules():
        if parametrize.is_parametrized(layer):
            norm = cast(Any, layer).parametrizations["weight"]
            training = norm.training
            norm.eval()  # else the power iteration would go on
            state[f"{name}.weight" if name else "weight"] = cast(Any, layer).weight.detach()
            norm.train(training)
    return state


@torch.no_grad()
def load_plain(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts plain weights into a network, of which some may have spectral norm: undoes `plain_state`.

    Args:
        module: changed in place.
        state: some or all of the network's tensors, under their plain names.
    """
    parametrized = {
        f"{name}.weight": layer for name, layer in module.named_modules() if parametrize.is_parametrized(layer)
    }
    own = module.state_dict()
    module.load_state_dict({**own, **{name: tensor for name, tensor in state.items() if name not in parametrized}})
    for name in parametrized.keys() & state.keys():
        norm = cast(Any, parametrized[name]).parametrizations["weight"]
        norm.original.copy_(state[name])
        training = norm.training
        norm.train()
        for _ in range(POWER_ITERATIONS):  # the singular vectors are another weight's
            _ = cast(Any, parametrized[name]).weight
        norm.train(training)


def initialise(module: nn.Module, method: Initialisation = "normal", gain: float = 0.02) -> nn.Module:
    """Draws the weights of every convolution and linear layer anew, and sets biases to 0.

    Norm layers with parameters get a scale around 1, N(1, 0.02), and a shift of 0, as DCGAN (Radford et al. 2016) and
    pix2pix (Isola et al. 2017, §6.2) do.

    Args:
        module: changed in place.
        method: the distribution.
        gain: the standard deviation for ``normal``, the gain for ``xavier`` and ``orthogonal``; ``kaiming`` has none.

    Returns:
        The same module.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if method == "normal":
                nn.init.normal_(layer.weight, 0.0, gain)
            elif method == "xavier":
                nn.init.xavier_normal_(layer.weight, gain)
            elif method == "kaiming":
                nn.init.kaiming_normal_(layer.weight, a=0, mode="fan_in")
            else:
                nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm) and layer.weight is not None:
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
    return module
