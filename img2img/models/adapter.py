"""A translator as its difference from another: factors of low rank where convolutions differ, the rest as it is."""

from collections.abc import Mapping

import torch
from torch import Tensor

ADAPTER_FILE = "adapter.safetensors"
UP, DOWN = ".up", ".down"


def factor_difference(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """What turns one state into the other, approximately: the best approximation of that rank of what was added to each convolution.

    Args:
        base: a network's state.
        tuned: another of the same architecture; what `base` lacks, or has in another shape, is kept whole.

    Returns:
        For a convolution of name N: N.up (a, rank) and N.down (rank, b · h · w); for the rest what differs, under its name.
    """
    found = {}
    for name, tensor in tuned.items():
        before, after = base.get(name), tensor.detach().cpu()
        if before is not None and before.shape == after.shape:
            before = before.detach().cpu()
            if torch.equal(before, after):
                continue
            rows, columns = (after.flatten(1).shape) if after.ndim == 4 else (0, 0)
            if rank * (rows + columns) < rows * columns:
                u, s, v = torch.linalg.svd((after - before).flatten(1).double(), full_matrices=False)
                found[f"{name}{UP}"] = (u[:, :rank] * s[:rank]).float()
                found[f"{name}{DOWN}"] = v[:rank].float()
                continue
        found[name] = after.clone()
    return found


def apply_adapter(base: Mapping[str, Tensor], adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undoes `difference`."""
    state = {name: tensor.detach().cpu() for name, tensor in base.items()}
    for name, tensor in adapter.items():
        if name.endswith(UP):
            weight = name.removesuffix(UP)
            state[weight] = state[weight] + (tensor @ adapter[f"{weight}{DOWN}"]).view(state[weight].shape)
        elif not name.endswith(DOWN):
            state[name] = tensor
    return state
