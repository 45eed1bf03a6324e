"""Label and instance maps: files of indices, never of colours."""

import math
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from img2img.images.arrays import Array, ImageError, open_array
from img2img.images.formats import ARRAYS, PAGES, VOLUMES, find_suffix, prepare_format
from img2img.images.reading import Rules, explain_failure, fit_size

KINDS = {"RGB": "colours", "RGBA": "colours", "LA": "gray with alpha", "CMYK": "colours", "F": "floats"}


def read_indices(path: Path, rules: Rules | None = None) -> Array:
    """A label or instance map as it stands in its file: (H, W), int64, no value changed.

    Gray of 1, 8, 16 or 32 bits are the values; of a palette image the indices, whatever its colours; ``.npy`` holds (H, W) of integers.

    Args:
        rules: of its size; what they scale is scaled by nearest neighbour.

    Raises:
        ImageError: if it can't be read, is too large, or holds colours.
    """
    rules = rules or Rules()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if find_suffix(path) in VOLUMES:
                raise ImageError("is a volume, but a label map must be an image: save its slices as PNG or .npy files.")
            values = _array(path, rules) if path.suffix.lower() in ARRAYS else _indices(path, rules)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except ImageError as error:
        raise ImageError(f"{path} {error}") from None
    except Exception as error:  # as in read_picture
        if find_suffix(path) in PAGES:
            raise ImageError(
                f"{path} can't be read as a label map, one channel of integers: it is damaged, or holds several bands or floats."
            ) from None
        raise ImageError(f"{path} can't be read as a label map: {explain_failure(error)}.") from None
    if values.ndim != 2 or not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool) or 0 in values.shape:
        raise ImageError(f"{path} holds {values.dtype} of shape {values.shape}; a label map is (H, W) of integers.")
    height, width = fit_size(values.shape[0], values.shape[1], rules)
    return resize_maps(values.astype(np.int64)[..., None], height, width)[..., 0]


def read_maps(labels: Path, instances: Path | None) -> Array:
    """A label map, and the instance map that belongs to it: (H, W, 1 or 2), int32.

    Instances are numbered anew, from 0: only which pixels have the same matters.

    Raises:
        ImageError: naming the file that can't be read, or is of another size.
    """
    label = read_indices(labels)
    if instances is None:
        return join_maps(label, None)
    found = label if instances == labels else read_indices(instances)
    try:
        return join_maps(label, found)
    except ImageError as error:
        raise ImageError(f"{instances} {error}") from None


def join_maps(label: Array, instances: Array | None) -> Array:
    """As `read_maps`, of two arrays (H, W) of integers.

    Raises:
        ImageError: if their sizes differ.
    """
    maps = [label]
    if instances is not None:
        if instances.shape != label.shape:
            sizes = [f"{array.shape[1]}×{array.shape[0]}" for array in (instances, label)]
            raise ImageError(f"is {sizes[0]} pixels, and its label map {sizes[1]}.")
        maps.append(np.unique(instances, return_inverse=True)[1].reshape(instances.shape))
    return np.stack(maps, axis=2).clip(-(2**31), 2**31 - 1).astype(np.int32)


def resize_maps(maps: Array, height: int, width: int) -> Array:
    """Resizes (H, W, C) of integers by nearest neighbour; the same array if nothing changes."""
    if maps.shape[:2] == (height, width):
        return maps
    exact = maps.astype(np.float64)  # OpenCV takes no wide integers here; these are exact up to 2**53
    done = cv2.resize(exact, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return done.reshape(height, width, -1).astype(maps.dtype)


def _array(path: Path, rules: Rules) -> Array:
    return np.array(open_array(path, lambda shape: _refuse_size(math.prod(shape), rules)))


def _refuse_size(pixels: int, rules: Rules) -> None:
    if pixels > rules.max_pixels:
        raise ImageError(f"has {pixels:,} pixels; --max-pixels allows {rules.max_pixels:,}.")


def _indices(path: Path, rules: Rules) -> Array:
    with path.open("rb") as file, Image.open(file, formats=prepare_format(path)) as image:
        _refuse_size(image.width * image.height, rules)
        if image.format in ("JPEG", "AVIF", "HEIF", "JXL"):
            raise ImageError(f"is a {image.format}, which changes values; save label maps as PNG.")
        if image.mode in KINDS:
            raise ImageError(
                f"holds {KINDS[image.mode]}, not indices; a label map is a gray or palette PNG with a number at each pixel."
            )
        return np.asarray(image)
