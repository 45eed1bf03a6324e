"""Label and instance maps: files of indices, never of colours."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from img2img.images.arrays import Array, ImageError
from img2img.images.reading import FORMATS, reason

KINDS = {"RGB": "colours", "RGBA": "colours", "LA": "gray with alpha", "CMYK": "colours", "F": "floats"}


def read_indices(path: Path) -> Array:
    """A label or instance map as it stands in its file: (H, W), int64, nothing scaled.

    Gray of 1, 8, 16 or 32 bits are the values; of a palette image the indices, whatever its colours; ``.npy`` holds (H, W) of integers.

    Raises:
        ImageError: if it can't be read, or holds colours.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else _indices(path)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except ImageError as error:
        raise ImageError(f"{path} {error}") from None
    except Exception as error:  # as in read_picture
        raise ImageError(f"{path} can't be read as a label map: {reason(error)}.") from None
    if values.ndim != 2 or not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool) or 0 in values.shape:
        raise ImageError(f"{path} holds {values.dtype} of shape {values.shape}; a label map is (H, W) of integers.")
    return values.astype(np.int64)


def _indices(path: Path) -> Any:
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        if image.format == "JPEG":
            raise ImageError("is a JPEG, which changes values; save label maps as PNG.")
        if image.mode in KINDS:
            raise ImageError(
                f"holds {KINDS[image.mode]}, not indices; a label map is a gray or palette PNG with a number at each pixel."
            )
        return np.asarray(image)
