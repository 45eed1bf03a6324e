"""Files → arrays: every frame or page, upright, at full depth, with what belongs to the image."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from img2img.images.arrays import (
    Array,
    ImageError,
    from_pil,
    resized_with_alpha,
    to_16_bit,
    with_channels,
    within_16_bits,
    within_unit,
)

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF")  # Pillow's others run programs, or are never meant
ANIMATED = ("PNG", "WEBP", "GIF")
ORIENTATION = 0x0112  # the EXIF tag
KEPT_EXIF = (
    270,
    271,
    272,
    305,
    306,
    315,
    33432,
    34665,
    34853,
    *range(40091, 40096),
)  # text, exposure, place: no layout


@dataclass(frozen=True)
class Rules:
    """How files are read."""

    max_pixels: int = 200_000_000
    """An image of more, all frames together, is refused before it is decoded."""
    first: bool = False
    """The first frame or page only."""
    accept_truncated: bool = False
    """A file that ends early is read; what is missing is gray or black."""
    size: int | None = None
    """Scale the shorter side to so many pixels."""
    max_side: int | None = None
    """Scale down to at most so many pixels on the longer side."""


@dataclass
class Picture:
    """What is in an image file."""

    frames: list[Array]
    """Each (H, W, C): uint8, uint16, or float32 in [0, 1]."""
    durations: list[int] = field(default_factory=list)
    """Of each frame of an animation, in milliseconds; none for pages."""
    loop: int = 0
    """How often an animation is played; 0 is for ever."""
    exif: bytes = b""
    """As a block of EXIF data, without orientation and layout."""
    icc: bytes = b""
    """The colour profile of the frames, if they are gray or RGB."""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical pixels an inch."""
    flat: bool = False
    """A .npy of shape (H, W)."""
    truncated: bool = False
    """The file ends early."""


def read_image(path: Path) -> Array:
    """Decodes a file's first frame to (H, W, C), uint8 or uint16, upright by its EXIF orientation; see `from_pil`.

    Raises:
        ImageError: if it can't be decoded whole.
    """
    return to_16_bit(read_picture(path, Rules(first=True)).frames[0])


def read_picture(path: Path, rules: Rules | None = None) -> Picture:
    """Decodes a file: all frames of GIF, APNG and WebP, all pages of TIFF, and of others the first image.

    Arrays of ``.npy`` are (H, W) or (H, W, C) of any number of channels: bool, integers in 0–65535, or floats in [0, 1].

    Raises:
        ImageError: if it can't be decoded whole, or is too large.
    """
    rules = rules or Rules()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read_array(path, rules) if path.suffix.lower() == ".npy" else _read_file(path, rules)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except ImageError as error:
        raise ImageError(f"{path}: {str(error).rstrip('.')}.") from None
    except Exception as error:  # Pillow throws far more than OSError on damaged files
        raise ImageError(f"{path} can't be read as an image: {reason(error)}.") from None


def pixels_of(path: Path) -> int:
    """Height times width times frames by the file's header; 0 if it can't be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix.lower() == ".npy":
                return math.prod(np.load(path, mmap_mode="r", allow_pickle=False).shape[:2])
            with Image.open(path, formats=FORMATS) as image:
                return image.width * image.height * len(_frames(image, False))
    except Exception:  # as in read_picture, which says what is wrong
        return 0


def reason(error: BaseException) -> str:
    """Why Pillow or OpenCV could not, in words."""
    if isinstance(error, UnidentifiedImageError):
        return "it is empty, damaged, or no image of a known format"
    if isinstance(error, MemoryError) or "Insufficient memory" in str(error):
        return "there is not enough memory for it"
    return (str(error).strip() or type(error).__name__).rstrip(".")


def _read_file(path: Path, rules: Rules) -> Picture:
    try:
        opened = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        pages = _float_pages(path, rules)
        if pages is None:
            raise
        return Picture([_fitted(page, rules) for page in pages])
    with opened as image:
        numbers = _frames(image, rules.first)
        _refuse_bombs(image.height, image.width, len(numbers), rules)
        try:
            return _read_frames(path, image, numbers, rules)
        except OSError:
            if not rules.accept_truncated:
                raise
    with _truncated_files(), Image.open(path, formats=FORMATS) as image:
        picture = _read_frames(path, image, numbers, rules)
        picture.truncated = True
        return picture


def _read_frames(path: Path, image: Any, numbers: list[int], rules: Rules) -> Picture:
    frames, durations = [], []
    for number in numbers:
        image.seek(number)
        goal = fitted_size(image.height, image.width, rules)
        if image.format == "JPEG" and goal != (image.height, image.width):
            image.draft(None, goal[::-1])  # decodes at 1/2, 1/4 or 1/8, never below this
        deep = _deep_colour(image)
        inverted = image.mode == "I;16" and getattr(image, "tag_v2", {}).get(262) == 0  # white is zero
        image.load()  # finds what is damaged, also for OpenCV, which fills it in
        array = _decode_deep(path, deep, number) if deep else from_pil(image)
        orientation = image.getexif().get(ORIENTATION, 1)
        fitting = resized_with_alpha(65535 - array if inverted else array, *goal)
        frames.append(_upright(fitting, orientation))
        durations.append(round(image.info.get("duration", 0)))
    moving = image.format in ANIMATED and len(frames) > 1
    if moving:  # some of Pillow's frames have alpha, and others not
        most = max(frame.shape[2] for frame in frames)
        frames = [with_channels(frame, most) for frame in frames]
    first = numbers[0]
    image.seek(first)
    icc = image.info.get("icc_profile") or b""
    colour = {b"GRAY": (1, 2), b"RGB ": (3, 4)}.get(icc[16:20], ())
    return Picture(
        frames,
        durations if moving else [],
        int(image.info.get("loop", 1 if image.format == "GIF" else 0)),
        _exif(image),
        icc if frames[0].shape[2] in colour and image.mode not in ("CMYK", "LAB") else b"",
        _dpi(image),
    )


def _frames(image: Any, first: bool) -> list[int]:
    """The numbers of the frames to be read."""
    many = image.format in ANIMATED or image.format == "TIFF"
    numbers = list(range(getattr(image, "n_frames", 1) if many else 1))
    if image.info.get("default_image") and len(numbers) > 1:  # an APNG's stand-in for programs that know PNG only
        numbers = numbers[1:]
    return numbers[:1] if first else numbers


def _refuse_bombs(height: int, width: int, frames: int, rules: Rules) -> None:
    if height * width * frames > rules.max_pixels:
        size = f"{width} × {height}" + (f" × {frames} frames" if frames > 1 else "")
        millions, most = height * width * frames / 1e6, rules.max_pixels / 1e6
        raise ImageError(
            f"it has {size} = {millions:.4g} million pixels, more than {most:.4g} million; --max-pixels allows more"
        )


def fitted_size(height: int, width: int, rules: Rules) -> tuple[int, int]:
    """The height and width that an image gets by the rules."""
    scale = rules.size / min(height, width) if rules.size else 1.0
    if rules.max_side:
        scale = min(scale, rules.max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _fitted(array: Array, rules: Rules) -> Array:
    height, width = fitted_size(array.shape[0], array.shape[1], rules)
    return resized_with_alpha(array, height, width)


@contextmanager
def _truncated_files() -> Iterator[None]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _exif(image: Any) -> bytes:
    exif, kept = image.getexif(), Image.Exif()
    for tag in KEPT_EXIF:
        if tag in exif:
            part = exif.get_ifd(tag) if tag in (34665, 34853) else exif[tag]
            if part:
                kept[tag] = part
    try:
        return kept.tobytes() if len(kept) else b""
    except Exception:  # values that contradict their types; the image is what counts
        return b""


def _dpi(image: Any) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    usable = all(math.isfinite(value) and value > 0 for value in (horizontal, vertical))
    return (horizontal, vertical) if usable else None


def _read_array(path: Path, rules: Rules) -> Picture:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(f"its shape is {array.shape}; an image is (H, W) or (H, W, C)")
    _refuse_bombs(array.shape[0], array.shape[1], 1, rules)
    flat, values = array.ndim == 2, np.atleast_3d(np.asarray(array))
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(values.dtype, np.floating):
        values = within_unit(values)
    elif np.issubdtype(values.dtype, np.integer) and values.dtype != np.uint8:
        values = within_16_bits(values)
    elif values.dtype != np.uint8:
        raise ImageError(f"its values are {values.dtype}; use integers or floats")
    return Picture([_fitted(np.ascontiguousarray(values), rules)], flat=flat)


def _deep_colour(image: Any) -> int:
    """The channels of a file that has several of 16 bits, which Pillow hides behind its 8-bit modes; else 0."""
    if image.mode.startswith("I"):
        return 0
    channels = len(image.getbands())
    if image.format == "PNG":
        raw = str(getattr(image, "tile", ""))
        return (2 if "LA;16B" in raw else channels) if ";16B" in raw else 0
    return channels if image.format == "TIFF" and 16 in getattr(image, "tag_v2", {}).get(258, ()) else 0


def _decode_deep(path: Path, channels: int, page: int) -> Array:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if page:
        done, pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(page, page + 1))
        array = pages[0] if done and pages else None
    else:
        array = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ImageError("its 16-bit data can't be decoded")
    array = _rgb_order(np.atleast_3d(array))
    return array[..., [0, 3]] if array.shape[2] == 4 and channels == 2 else array


def _float_pages(path: Path, rules: Rules) -> list[Array] | None:
    """The pages of a TIFF of colours in floats, which Pillow doesn't know; None if it is none."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            pages: list[Any] = list(file.pages)[: 1 if rules.first else None]
            if not pages or any(page.dtype != np.float32 or page.samplesperpixel not in (3, 4) for page in pages):
                return None
            _refuse_bombs(pages[0].imagelength, pages[0].imagewidth, len(pages), rules)
    except (tifffile.TiffFileError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        return None
    done, arrays = cv2.imdecodemulti(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if not done:
        raise ImageError("its floats can't be decoded")
    return [within_unit(_rgb_order(array)) for array in arrays[: len(pages)]]


def _rgb_order(array: Array) -> Array:
    """OpenCV's BGR and BGRA to RGB and RGBA."""
    return np.ascontiguousarray(array[..., {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(array.shape[2], slice(None))])


def _upright(array: Array, orientation: int) -> Array:
    """Undoes an EXIF orientation, 1–8."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)
