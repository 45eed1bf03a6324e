"""What users give as an image, as an array."""

from typing import Any

import numpy as np
from PIL import Image

from img2img.errors import UsageError
from img2img.images import Array, from_pil
from img2img.images.arrays import within_unit


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
    return np.atleast_3d(within_unit(image) if image.dtype.kind == "f" else image)
