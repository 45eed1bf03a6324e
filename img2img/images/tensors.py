"""Arrays ↔ tensors: (C, H, W), or (B, C, H, W), float32 in [-1, 1]; and grids for the eye."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from img2img.images.arrays import Array, peak


def to_tensor(array: Array) -> Tensor:
    """(H, W, C) uint8, uint16, or float in [0, 1] → (C, H, W) float32 in [-1, 1]."""
    planes = np.ascontiguousarray(array.transpose(2, 0, 1)).astype(np.float32)
    planes *= np.float32(2 / peak(array.dtype))  # with NumPy, for it runs in threads beside the network
    planes -= 1
    return torch.from_numpy(planes)


def to_byte_tensor(array: Array) -> Tensor:
    """(H, W, C) uint8 → (C, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def scale_bytes(tensor: Tensor) -> Tensor:
    """uint8 → float32 in [-1, 1], on the tensor's device: the same values as `to_tensor`'s."""
    return tensor.to(torch.float32).mul_(2 / 255).sub_(1)


def round_to_bytes(tensor: Tensor) -> Tensor:
    """In [-1, 1] → uint8, on the tensor's device: the same values as `to_array`'s."""
    return tensor.detach().float().clamp(-1, 1).add_(1).mul_(255 / 2).round_().to(torch.uint8)


def to_array(tensor: Tensor, dtype: Any = np.uint8) -> Array:
    """(C, H, W) in [-1, 1] → (H, W, C), uint8 or uint16, rounded, or float in [0, 1]; values beyond the range are clipped.

    A tensor of uint8 becomes an array of uint8 as it is.
    """
    if tensor.dtype == torch.uint8:
        return tensor.cpu().numpy().transpose(1, 2, 0)
    dtype = np.dtype(dtype)
    scaled = np.clip(tensor.detach().to("cpu", torch.float32).numpy(), -1, 1)
    scaled += 1
    scaled *= np.float32(peak(dtype) / 2)
    if np.issubdtype(dtype, np.integer):
        np.rint(scaled, out=scaled)
    return scaled.transpose(1, 2, 0).astype(dtype)


def build_grid(columns: Sequence[Tensor]) -> Array:
    """Images side by side for the eye: columns of (B, C, H, W) in [-1, 1] → one RGB array, B rows high."""
    from torchvision.utils import make_grid  # slow to import

    shown = [_to_rgb(column.detach().to("cpu", torch.float32)) for column in columns]
    cells = torch.stack(shown, dim=1).flatten(0, 1)  # (B * columns, 3, H, W)
    return to_array(make_grid(cells, nrow=len(shown), padding=2, pad_value=1.0))


def build_sheet(images: Array) -> Array:
    """Images for the eye: (rows, columns, H, W, C), uint8, → one RGB array."""
    return build_grid([torch.stack([to_tensor(image) for image in column]) for column in images.swapaxes(0, 1)])


def _to_rgb(images: Tensor) -> Tensor:
    """Any number of channels → 3 that can be looked at: gray repeated, else the first three."""
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
