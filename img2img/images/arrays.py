"""Image arrays: their kinds, alpha, depth, channels and size, and Pillow's modes."""

import io
import math
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from img2img.core.errors import UserError
from img2img.core.stored import StoredPath

Array = NDArray[Any]

ROUNDING = 1e-4  # by which floats may miss 0 and 1
GROUP = 4  # channels that OpenCV resizes at a time
PIECE = 2**22  # pixels that are computed at a time
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and OpenCV


class ImageError(UserError):
    """A file can't be read as an image, or an image can't be used here."""


def open_array(path: Path, accept: Callable[[tuple[int, ...]], None] = lambda shape: None) -> Array:
    """What a ``.npy`` holds, or a ``.npz`` of one array; of a ``.npy`` of this machine, nothing is read before it is used.

    Args:
        accept: gets the shape, before a ``.npz`` is unpacked, and may raise.

    Raises:
        ImageError: for a ``.npz`` that holds several arrays, or none.
    """
    if path.suffix.lower() == ".npz":
        return _unpack_array(path, accept)
    if isinstance(path, StoredPath):
        with path.open("rb") as file:
            array: Array = np.load(file, allow_pickle=False)
    else:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    accept(array.shape)
    return array


def measure_array(path: Path) -> tuple[int, ...]:
    """The shape of an array in a file."""
    found: list[tuple[int, ...]] = []

    def stop(shape: tuple[int, ...]) -> None:
        found.append(shape)
        raise ImageError("it is measured")

    with suppress(ImageError):
        open_array(path, stop)
    return found[0]


def _unpack_array(path: Path, accept: Callable[[tuple[int, ...]], None]) -> Array:
    with path.open("rb") as file, zipfile.ZipFile(file) as parts:
        names = parts.namelist()
        if len(names) != 1:
            what = ", ".join(name.removesuffix(".npy") for name in names[:5]) or "none"
            raise ImageError(f"it holds {len(names)} arrays ({what}); an image is a file of one: use .npy")
        with parts.open(names[0]) as member:
            wide = np.lib.format.read_magic(member) != (1, 0)
            read_header = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
            accept(read_header(member)[0])
        with parts.open(names[0]) as member:
            array: Array = np.lib.format.read_array(member, allow_pickle=False)
            return array


def from_pil(image: Image.Image) -> Array:
    """A Pillow image as an array (H, W, C), its orientation left as it is.

    Palette images become RGB, or RGBA if a colour is transparent; 1-bit images 0 and 255; CMYK and LAB become sRGB, by
    the image's profile if it has one; 32-bit integers become 16 bits, and floats stay: both as they are.

    Raises:
        ImageError: for integers beyond 0–65535, and floats beyond 0–1.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        gray = np.asarray(image).astype(np.uint16)[..., None]
        clear = image.info.get("transparency")
        return (
            np.concatenate([gray, np.where(gray == clear, 0, 65535).astype(np.uint16)], 2)
            if isinstance(clear, int)
            else gray
        )
    if mode == "I":
        return check_16_bit_range(np.asarray(image))[..., None]
    if mode == "F":
        return check_unit_range(np.asarray(image))[..., None]
    if mode == "P" or mode == "PA":
        transparent = mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB")
    elif mode in ("1", "L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA" if mode == "RGB" else "LA")
    elif mode in ("CMYK", "LAB"):
        image = _to_srgb(image)
    elif mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert({"1": "L", "La": "LA", "RGBa": "RGBA"}.get(mode, "RGB"))
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def check_16_bit_range(values: Array) -> Array:
    """Integers as uint16, or an `ImageError` if they are beyond its range."""
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError(
            f"its integers go from {values.min()} to {values.max()}; only 0 to 65535 can be read: scale them to 16 bits, or train with --data.range"
        )
    return values.astype(np.uint16)


def check_unit_range(values: Array) -> Array:
    """Floats as float32, or an `ImageError` if they are beyond 0–1."""
    values = values.astype(np.float32)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("some of its floats are infinite, or no numbers (NaN)")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ImageError(
            "its floats go beyond 0 (black) to 1 (white): scale them, or train with their range (--data.range)"
        )
    return values.clip(0, 1)


def _to_srgb(image: Image.Image) -> Image.Image:
    """CMYK or LAB to RGB by the embedded profile, else LAB by its definition and CMYK as 255 − ink."""
    profile = image.info.get("icc_profile")
    try:
        if image.mode == "LAB" or profile:
            source = (
                ImageCms.createProfile("LAB")
                if image.mode == "LAB"
                else ImageCms.getOpenProfile(io.BytesIO(profile or b""))
            )
            done = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if done is not None:
                return done
    except (ImageCms.PyCMSError, OSError, ValueError):  # a profile that is damaged, or of another kind
        pass
    return image.convert("RGB")


def to_pil(array: Array) -> Image.Image:
    """An array (H, W, C) as a Pillow image; colour of more than 8 bits, which Pillow has no mode for, becomes 8-bit."""
    channels = array.shape[2]
    if channels > 4:
        raise ImageError(f"an image file holds at most 4 channels, not {channels}; use .npy, or arrays from Python.")
    if channels > 1:
        array = to_8_bit(array)
    if channels == 1:
        return Image.fromarray(np.ascontiguousarray(array[..., 0]))
    return Image.fromarray(np.ascontiguousarray(array), {2: "LA", 3: "RGB", 4: "RGBA"}[channels])


def to_8_bit(array: Array) -> Array:
    """uint16, or float in [0, 1], → uint8, rounded; uint8 stays."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.rint(array * 255).astype(np.uint8)


def to_16_bit(array: Array) -> Array:
    """Floats in [0, 1] → uint16, rounded; uint8 and uint16 stay."""
    return np.rint(array * 65535).astype(np.uint16) if np.issubdtype(array.dtype, np.floating) else array


def to_unit(image: Array) -> Array:
    """uint16 → float32 in [0, 1], which albumentations takes; uint8 stays."""
    return image if image.dtype == np.uint8 else (image / np.float32(peak(image.dtype))).astype(np.float32)


def peak(dtype: np.dtype[Any]) -> int:
    """The value of white: 255, 65535, or 1 for floats."""
    return int(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1


def _cast(values: Array, dtype: np.dtype[Any]) -> Array:
    return (np.rint(values) if np.issubdtype(dtype, np.integer) else values).astype(dtype)


def apply_by_rows(function: Callable[[slice], Array], height: int, width: int) -> Array:
    """What a function makes of all rows, some at a time: its intermediate results are several times as large as an image."""
    rows = max(1, PIECE // max(1, width))
    return np.concatenate([function(slice(first, first + rows)) for first in range(0, height, rows)])


def split_alpha(array: Array) -> tuple[Array, Array | None]:
    """(H, W, 2 or 4) → colour (H, W, 1 or 3) and alpha (H, W, 1); others have no alpha."""
    return (array[..., :-1], array[..., -1:]) if array.shape[2] in (2, 4) else (array, None)


def composite_over_white(array: Array) -> Array:
    """Composites an image with alpha over white: (H, W, 2 or 4) → (H, W, 1 or 3); others stay."""
    colour, alpha = split_alpha(array)
    if alpha is None:
        return array
    white = peak(array.dtype)

    def compose(band: slice) -> Array:
        share = alpha[band].astype(np.float64) / white
        return _cast(colour[band] * share + white * (1 - share), array.dtype)

    return apply_by_rows(compose, array.shape[0], array.shape[1])


def convert_channels(array: Array, channels: int) -> Array:
    """Changes the number of channels by the usual rules.

    Gray is repeated to RGB; RGB becomes gray by its luma; alpha that isn't wanted goes over white; alpha that is
    missing is opaque.

    Raises:
        ImageError: for any other change.
    """
    if array.shape[2] == channels:
        return array
    if channels in (1, 3):
        array = composite_over_white(array)
        if array.shape[2] == 1 and channels == 3:
            return np.repeat(array, 3, axis=2)
        if array.shape[2] == 3 and channels == 1:
            return apply_by_rows(
                lambda band: _cast(array[band] @ np.array(LUMA), array.dtype)[..., None], *array.shape[:2]
            )
    elif channels in (2, 4) and array.shape[2] < 5:
        colour, alpha = split_alpha(array)
        opaque = np.full((*array.shape[:2], 1), peak(array.dtype), array.dtype)
        return np.concatenate([convert_channels(colour, channels - 1), opaque if alpha is None else alpha], axis=2)
    if array.shape[2] == channels:
        return array
    raise ImageError(f"an image of {array.shape[2]} channels can't become one of {channels}.")


def fit_channels(image: Array, channels: int, path: Path, bands: bool = False) -> Array:
    """As `convert_channels`, with errors that name the file; bands are not converted."""
    if bands and image.shape[2] != channels:
        raise ImageError(f"{path}: it has {image.shape[2]} bands, and the network takes {channels}.")
    try:
        return convert_channels(image, channels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def resize(image: Array, height: int, width: int) -> Array:
    """Resizes (H, W, C) by area averaging when it shrinks, bicubic when it grows; the same image if nothing changes."""
    if image.shape[:2] == (height, width):
        return image
    if image.shape[2] > GROUP:
        groups = [image[..., first : first + GROUP] for first in range(0, image.shape[2], GROUP)]
        return np.concatenate([resize(np.ascontiguousarray(group), height, width) for group in groups], axis=2)
    shrinks = height * width < image.shape[0] * image.shape[1]
    done = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    done = done[..., None] if done.ndim == 2 else done
    return done.clip(0, 1) if done.dtype == np.float32 else done


def resize_with_alpha(image: Array, height: int, width: int) -> Array:
    """As `resized`, but what is transparent lends no colour to its neighbours."""
    colour, alpha = split_alpha(image)
    if alpha is None or image.shape[:2] == (height, width):
        return resize(image, height, width)
    white = peak(image.dtype)
    share = alpha.astype(np.float32) / np.float32(white)
    small = resize(share, height, width)
    visible = resize(colour.astype(np.float32) / np.float32(white) * share, height, width)
    done = np.concatenate([visible / np.maximum(small, 1e-6), small], axis=2).clip(0, 1)
    return _cast(done * white, image.dtype)
