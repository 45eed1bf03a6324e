"""Low-rank adapters: a small part of a convolution's change is trained instead of its weight."""

import math
from collections.abc import Container

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


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


def with_adapters(module: nn.Module, rank: int, scale: float, but: Container[str]) -> set[str]:
    """Gives every convolution an adapter, which is to be trained instead of its weight.

    Args:
        module: changed in place.
        rank: of the adapters.
        scale: of what they add.
        but: names of weights that have none.

    Returns:
        The names of the weights that have adapters now.
    """
    adapted = set()
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and f"{name}.weight" not in but:
            weight = layer.weight
            parametrize.register_parametrization(layer, "weight", LowRank(weight.detach(), rank, scale))
            adapted.add(f"{name}.parametrizations.weight.original")
    return adapted
