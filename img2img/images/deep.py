"""Colour of more than 8 bits, which Pillow can't hold: by OpenCV, or tifffile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from img2img.images.arrays import Array, ImageError, check_unit_range
from img2img.images.tiff import open_tiff

PLANAR, ALPHA = 284, 338  # TIFF tags: how the channels lie, and what the ones beyond the colour mean
ASSOCIATED, UNASSOCIATED = 1, 2  # alpha that the colour is multiplied with, or not


def count_deep_channels(image: ImageFile.ImageFile) -> int:
    """The channels of a file that has several of 16 bits, which Pillow hides behind its 8-bit modes; else 0."""
    if image.mode.startswith("I"):
        return 0
    channels = len(image.getbands())
    if image.format == "PNG":
        raw = str(getattr(image, "tile", ""))
        return (2 if "LA;16B" in raw else channels) if ";16B" in raw else 0
    return channels if image.format == "TIFF" and 16 in getattr(image, "tag_v2", {}).get(258, ()) else 0


def decode_deep(path: Path, image: ImageFile.ImageFile, channels: int, page: int) -> Array:
    """A 16-bit PNG, or a page of a 16-bit TIFF, that Pillow has opened: (H, W, 2, 3 or 4), uint16.

    Raises:
        ImageError: if OpenCV and tifffile can't.
    """
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if image.mode == "CMYK":
        raise ImageError("CMYK of 16 bits is not supported; save it with 8 bits, or as RGB")
    apart = tags.get(PLANAR) == 2
    array = np.moveaxis(_decode_tifffile(path, page), 0, 2) if apart else _to_rgb_order(_decode_opencv(path, page))
    if array.shape[2] == 4 and tags:
        meaning = (*tags.get(ALPHA, ()), 0)[0]
        if meaning == ASSOCIATED:
            share = np.maximum(array[..., 3:], 1).astype(np.float32) / 65535
            straight = np.rint(np.minimum(array[..., :3] / share, 65535)).astype(np.uint16)
            return np.concatenate([straight, array[..., 3:]], axis=2)
        return array if meaning == UNASSOCIATED else np.ascontiguousarray(array[..., :3])
    return np.ascontiguousarray(array[..., [0, 3]]) if array.shape[2] == 4 and channels == 2 else array


def float_pages(path: Path, first: bool, accept: Callable[[list[tuple[int, int]]], None]) -> list[Array] | None:
    """The pages of a TIFF of colours in floats, or the first only; None if it is none. `accept` gets the pages' sizes, and may raise."""
    import tifffile

    try:
        with open_tiff(path) as file:
            pages: list[Any] = list(file.pages)[: 1 if first else None]
            if not pages or any(page.dtype != np.float32 or page.samplesperpixel not in (3, 4) for page in pages):
                return None
            sizes, planar = (
                [(page.imagelength, page.imagewidth) for page in pages],
                [page.planarconfig == 2 for page in pages],
            )
    except (tifffile.TiffFileError, ValueError):  # an ImageError, too: Pillow will say what is wrong
        return None
    accept(sizes)
    return [
        check_unit_range(
            np.moveaxis(_decode_tifffile(path, n), 0, 2) if apart else _to_rgb_order(_decode_opencv(path, n))
        )
        for n, apart in enumerate(planar)
    ]


def _decode_opencv(path: Path, page: int) -> Array:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if page:
        done, pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(page, page + 1))
        array = pages[0] if done and pages else None
    else:
        array = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ImageError("its colour of more than 8 bits can't be decoded")
    return np.atleast_3d(array)


def _decode_tifffile(path: Path, page: int) -> Array:
    """Channels that lie apart, (C, H, W), which OpenCV mistakes for others."""
    import tifffile

    with path.open("rb") as file:
        return np.asarray(tifffile.imread(file, key=page))


def _to_rgb_order(array: Array) -> Array:
    """OpenCV's BGR and BGRA to RGB and RGBA."""
    return np.ascontiguousarray(array[..., {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(array.shape[2], slice(None))])
