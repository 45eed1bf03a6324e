"""Gradient checkpointing: most activations are computed again when their gradient is due, instead of being held."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from img2img.networks.layers import Block


def checkpoint_gradients(network: nn.Module) -> None:
    """Makes a network hold only what goes into and comes out of its stages (Chen et al. 2016), and compute the rest again on the way back.

    Results stay the same: dropout draws the same numbers again, and running statistics and power iterations go on once only. In place.
    """
    for stage in find_blocks(network):
        stage.forward = _checkpoint(stage, stage.forward)  # type: ignore[method-assign]


def find_blocks(network: nn.Module) -> list[nn.Module]:
    """The outermost blocks: those that a network declares (`Block`), and rows of layers that hold a convolution themselves."""
    found: list[nn.Module] = []
    for child in network.children():
        row = isinstance(child, nn.Sequential) and any(isinstance(x, nn.Conv2d | nn.ConvTranspose2d) for x in child)
        found += [child] if row or isinstance(child, Block) else find_blocks(child)
    return found


def _checkpoint(stage: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(
            _compute_anew(forward),
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _frozen_statistics(stage)),
        )

    return call


def _compute_anew(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Weights that are computed from others are so within the stage: one that was kept from before would not be computed again."""

    def call(*inputs: Any) -> Any:
        kept, parametrize._cache_enabled = parametrize._cache_enabled, 0
        try:
            return forward(*inputs)
        finally:
            parametrize._cache_enabled = kept

    return call


@contextmanager
def _frozen_statistics(stage: nn.Module) -> Iterator[None]:
    """Nothing that a network remembers goes on in here."""
    norms = [layer for layer in stage.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [
        (norm, norm.momentum, norm.num_batches_tracked.clone())
        for norm in norms
        if norm.num_batches_tracked is not None
    ]
    spectral = [
        part
        for layer in stage.modules()
        if parametrize.is_parametrized(layer)
        for part in layer.parametrizations.values()  # type: ignore[union-attr, operator]
        if part.training
    ]
    for norm, _, _ in before:
        norm.momentum = 0.0
    for part in spectral:
        part.eval()
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
        for part in spectral:
            part.train()
