"""What users give as an image or a label map, as an array or a tensor."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from img2img.core.errors import UsageError
from img2img.data.classes import Classes
from img2img.images import Array, from_pil
from img2img.images.arrays import check_unit_range


def as_array(image: Any) -> Array:
    """A PIL image or an array → (H, W, C), uint8, uint16, or float32 in [0, 1].

    Raises:
        UsageError: for another kind.
    """
    if isinstance(image, Image.Image):
        return from_pil(image)
    if not isinstance(image, np.ndarray):
        raise UsageError(f"a translator takes a PIL image, an array or a tensor, not {type(image).__name__}.")
    if image.dtype.kind not in "uf" or image.dtype.itemsize > 8 or image.dtype.name in ("uint32", "uint64"):
        raise UsageError(f"an array must be uint8, uint16, or float in [0, 1], not {image.dtype}.")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise UsageError(f"an array must be (H, W) or (H, W, C), not {image.shape}.")
    return np.atleast_3d(check_unit_range(image) if image.dtype.kind == "f" else image)


FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
FAR = 10.0  # which no image reaches that is scaled to [-1, 1]


def check_tensor(image: Tensor, channels: int, dimensions: tuple[int, ...], measured: bool) -> None:
    """Refuses a tensor that is no image.

    Args:
        dimensions: how many it may have.
        measured: whether a translator takes or makes measurements; then uint8 is refused.

    Raises:
        UsageError: if its shape, type or values don't fit. Values on a GPU aren't looked at: that would mean waiting for it.
    """
    if 0 in image.shape:
        raise UsageError(f"a tensor of {tuple(image.shape)} holds no image.")
    known = image.dtype in FLOATS or (image.dtype == torch.uint8 and not measured)
    if not known or image.ndim not in dimensions or image.shape[-3] != channels:
        one = f"({channels}, H, W)"
        shape = f"{one} or (B, {one[1:]}" if 4 in dimensions else one
        kinds = "float in [-1, 1]" if measured else "float in [-1, 1] or uint8"
        raise UsageError(f"a tensor must be {shape}, {kinds}, not {tuple(image.shape)} {image.dtype}.")
    if image.is_floating_point() and image.device.type == "cpu":
        low, high = (float(each) for each in image.detach().aminmax())
        if not -FAR <= low <= high <= FAR:
            found = "holds NaN" if math.isnan(low) else f"has values from {low:g} to {high:g}"
            raise UsageError(f"a tensor of floats must be scaled to [-1, 1]; this one {found}.")


LARGEST = 2**31 - 1
INDEXED = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")


def as_maps(labels: Any, instances: Any, classes: Classes, edges: bool) -> Tensor:
    """Labels, and instances if they are needed, of one kind of input → (B, 1 or 2, H, W), int32, on the input's device.

    Args:
        labels: a PIL image of indices; an array (H, W), (H, W, 1), or with instances (H, W, 2); or a tensor (H, W), (B, H, W), or
            (B, 1 or 2, H, W); of integers.
        instances: the same kind, (H, W) or (B, H, W), if they are not in `labels`.
        classes: what labels may occur.
        edges: whether instances are needed.

    Raises:
        UsageError: for colours or floats, labels out of range, or instances that are missing or of another size.
    """
    maps = _as_batch(labels, "a label map")
    if instances is not None:
        beside = _as_batch(instances, "an instance map")[:, -1:]
        if beside.shape[2:] != maps.shape[2:] or len(beside) != len(maps):
            sizes = [f"{'×'.join(map(str, (*each.shape[:1], *each.shape[2:])))}" for each in (beside, maps)]
            raise UsageError(f"the instance map is {sizes[0]} (images, height, width), the label map {sizes[1]}.")
        maps = torch.cat([maps[:, :1], beside.to(maps.device)], dim=1)
    maps = torch.cat([maps[:, :1].clamp(-LARGEST, LARGEST), _renumber(maps[:, 1:])], dim=1).int()
    if edges and maps.shape[1] == 1:
        raise UsageError(
            "this translator was trained with instance maps, so it needs one beside the label map; the label map itself will do, "
            "if every region of a label is to be one instance."
        )
    wrong = classes.beyond(maps[:, 0].cpu().numpy())
    if wrong.any():
        image, row, column = np.argwhere(wrong)[0].tolist()
        value = int(maps[image, 0, row, column])
        raise UsageError(
            f"label {value} at row {row}, column {column} is out of range; this translator knows {classes.allowed}."
        )
    return maps[:, : 1 + edges]


def _renumber(instances: Tensor) -> Tensor:
    """Identities that 32 bits hold: the same, or numbered anew."""
    if instances.numel() and (instances.max() > LARGEST or instances.min() < -LARGEST):
        return torch.unique(instances, return_inverse=True)[1]
    return instances


def _as_batch(given: Any, what: str) -> Tensor:
    """(B, 1 or 2, H, W), int64."""
    if isinstance(given, Image.Image):
        if given.mode not in INDEXED:
            raise UsageError(
                f"{what} is expected, an image of indices (mode L, P, I or I;16); this one holds colours (mode {given.mode})."
            )
        given = np.asarray(given)
    if isinstance(given, np.ndarray):
        if not (np.issubdtype(given.dtype, np.integer) or given.dtype == bool) or given.ndim not in (2, 3):
            raise UsageError(f"{what} is expected, (H, W) of integers, not {given.shape} of {given.dtype}.")
        if given.ndim == 3 and given.shape[2] > 2:
            raise UsageError(f"{what} is expected, (H, W) of integers; {given.shape} looks like colours.")
        if 0 in given.shape:
            raise UsageError(f"{what} is empty: its shape is {given.shape}.")
        return torch.from_numpy(np.atleast_3d(given).astype(np.int64).transpose(2, 0, 1).copy())[None]
    if not isinstance(given, Tensor):
        raise UsageError(f"{what} is a PIL image, an array or a tensor, not {type(given).__name__}.")
    if (
        given.is_floating_point()
        or given.is_complex()
        or given.ndim not in (2, 3, 4)
        or (given.ndim == 4 and given.shape[1] > 2)
    ):
        raise UsageError(
            f"{what} is expected, (B, H, W) of integers, or (B, 2, H, W) with instances, not {tuple(given.shape)} {given.dtype}."
        )
    if 0 in given.shape:
        raise UsageError(f"{what} is empty: its shape is {tuple(given.shape)}.")
    whole = given[None, None] if given.ndim == 2 else given[:, None] if given.ndim == 3 else given
    return whole.long()
