"""Weights of networks: how they are drawn, spectral norm, low-rank adapters."""

import copy
import math
from collections.abc import Callable, Container, Mapping
from typing import Any, Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from img2img.networks.layers import ZeroConv2d

Initialisation = Literal["normal", "xavier", "kaiming", "orthogonal"]
M = TypeVar("M", bound=nn.Module)

POWER_ITERATIONS = 30
FIRST_ITERATIONS = 15  # for a new network


def add_spectral_norm(module: M, where: Callable[[str], bool] = lambda layer: True) -> M:
    """Divides the weights of convolutions and linear layers, each by its largest singular value (Miyato et al. 2018, eq. 8).

    The singular value is that of the weight as a matrix (out, in × kernel), by one power iteration a forward pass. To be
    applied after `initialise`.

    Args:
        module: changed in place.
        where: of a layer's name, whether its weight is divided; by default all are.

    Returns:
        The same module.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and where(name):
            dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight.detach(), dim))
    return module


class SpectralNorm(nn.Module):
    """Divides a weight by its largest singular value, which one power iteration a call in training follows (Miyato et al. 2018, algorithm 1).

    PyTorch's own computes it under autocast in bf16 on CUDA, and takes more operations.

    Args:
        weight: (a, b, ...), seen as a matrix whose rows are its dimension `dim`.
        dim: of the output channels.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, dim: int = 0) -> None:
        super().__init__()
        self.dim = dim
        rows, columns = self._as_matrix(weight).shape
        self.register_buffer("_u", F.normalize(weight.new_empty(rows).normal_(), dim=0))
        self.register_buffer("_v", F.normalize(weight.new_empty(columns).normal_(), dim=0))
        for _ in range(FIRST_ITERATIONS):
            self._iterate(self._as_matrix(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """A weight → the same shape."""
        with torch.autocast(weight.device.type, enabled=False):
            matrix = self._as_matrix(weight)
            if self.training:
                self._iterate(matrix.detach())
            return weight / torch.vdot(self._u, torch.mv(matrix, self._v))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight itself: it may be divided again."""
        return weight

    def _as_matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).flatten(1)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        self._u = _to_unit_length(torch.mv(matrix, self._v))  # new tensors: gradients may need those before
        self._v = _to_unit_length(torch.mv(matrix.T, self._u))


def _to_unit_length(vector: Tensor) -> Tensor:
    return vector / torch.linalg.vector_norm(vector).clamp_min(1e-12)


def copy_without_spectral_norm(module: nn.Module) -> nn.Module:
    """A copy of a network that computes the same by plain weights: undoes `add_spectral_norm`."""
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
def collect_plain_state(module: nn.Module) -> dict[str, Tensor]:
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
def load_plain_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts plain weights, some or all, into a network, of which some may have spectral norm: undoes `collect_plain_state`."""
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


def initialise(module: M, method: Initialisation = "normal", gain: float = 0.02) -> M:
    """Draws the weights of every convolution and linear layer anew, and sets biases to 0.

    A `ZeroConv2d` is set to 0. Norm layers with parameters get a scale around 1, N(1, 0.02), and a shift of 0, as DCGAN (Radford et al. 2016) and
    pix2pix (Isola et al. 2017, §6.2) do.

    Args:
        module: changed in place.
        gain: the standard deviation for ``normal``, the gain for ``xavier`` and ``orthogonal``; ``kaiming`` has none.

    Returns:
        The same module.
    """
    for layer in module.modules():
        if isinstance(layer, ZeroConv2d):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(cast(Tensor, layer.bias))
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
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


class LowRank(nn.Module):
    """weight + scale · up · down, which begins as the weight itself (Hu et al. 2022, eq. 3).

    Args:
        weight: of a convolution: (a, b, h, w), seen as a matrix (a, b · h · w).
        rank: of what is added; at most as many as the matrix has rows or columns.
        scale: α / r of the paper.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        rank = min(rank, rows, columns)
        self.scale = scale
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """A weight → the same shape."""
        with torch.autocast(weight.device.type, enabled=False):  # a small change would be lost in bf16
            return weight + self.scale * (self.up @ self.down).view(weight.shape)


def add_adapters(module: nn.Module, rank: int, scale: float, but: Container[str]) -> set[str]:
    """Gives every convolution, except those named in `but`, an adapter that is trained instead of its weight; gives their weights' names."""
    adapted = set()
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and f"{name}.weight" not in but:
            weight = layer.weight
            parametrize.register_parametrization(layer, "weight", LowRank(weight.detach(), rank, scale))
            adapted.add(f"{name}.parametrizations.weight.original")
    return adapted
