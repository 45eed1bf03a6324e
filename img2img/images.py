"""Files ↔ arrays ↔ tensors: decoding, encoding, orientation, alpha, bit depth, value range, grids.

An image array is (H, W, C), uint8 or uint16, with C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
An image tensor is (C, H, W), or (B, C, H, W), float32 in [-1, 1].
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.utils import make_grid

from img2img.errors import UserError
from img2img.files import write_whole

Array = NDArray[Any]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
DEEP_SUFFIXES = (".png", ".tif", ".tiff")  # formats that hold 16 bits a channel
OPAQUE_SUFFIXES = (".jpg", ".jpeg", ".bmp")  # formats that hold no alpha
ORIENTATION = 0x0112  # the EXIF tag
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and OpenCV


class ImageError(UserError):
    """A file can't be read as an image, or an image can't be used here."""


def read_image(path: Path) -> Array:
    """Decodes a file to (H, W, C), uint8 or uint16, upright by its EXIF orientation.

    Palette images become RGB, or RGBA if a colour is transparent; 1-bit images 0 and 255; CMYK and LAB RGB.

    Raises:
        ImageError: if it can't be decoded whole.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                deep = _deep_colour(image)
                inverted = image.mode == "I;16" and getattr(image, "tag_v2", {}).get(262) == 0  # white is zero
                image.load()  # finds what is damaged, also for OpenCV, which fills it in
                orientation = image.getexif().get(ORIENTATION, 1)
                array = _decode_deep(path, deep) if deep else from_pil(image)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except Exception as error:  # Pillow throws far more than OSError on damaged files
        raise ImageError(f"{path} can't be read as an image: {_reason(error)}.") from None
    return _upright(65535 - array if inverted else array, orientation)


def pixels_of(path: Path) -> int:
    """Height times width by the file's header; 0 if it can't be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return image.width * image.height
    except Exception:  # as in read_image, which says what is wrong
        return 0


def from_pil(image: Image.Image) -> Array:
    """A Pillow image as an array (H, W, C) by the rules of `read_image`, orientation left as it is."""
    mode = image.mode
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None]
    if mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("32-bit integers beyond 0–65535 are not supported; save the image with 16 bits.")
        return values.astype(np.uint16)[..., None]
    if mode == "F":
        raise ImageError("32-bit float images are not supported; save the image with 8 or 16 bits.")
    if mode == "P" or mode == "PA":
        transparent = mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB")
    elif mode in ("L", "RGB") and "transparency" in image.info:
        image = image.convert("LA" if mode == "L" else "RGBA")
    elif mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert({"1": "L", "La": "LA", "RGBa": "RGBA"}.get(mode, "RGB"))
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def to_pil(array: Array) -> Image.Image:
    """An array (H, W, C) as a Pillow image; 16-bit colour, which Pillow has no mode for, becomes 8-bit."""
    channels = array.shape[2]
    if array.dtype == np.uint16:
        if channels == 1:
            return Image.fromarray(np.ascontiguousarray(array[..., 0]))
        array = to_8_bit(array)
    if channels == 1:
        return Image.fromarray(np.ascontiguousarray(array[..., 0]))
    if channels > 4:
        raise ImageError(f"an image file holds at most 4 channels, not {channels}; use arrays or tensors from Python.")
    return Image.fromarray(np.ascontiguousarray(array), {2: "LA", 3: "RGB", 4: "RGBA"}[channels])


def write_image(path: Path, array: Array, quality: int = 95) -> None:
    """Encodes an array to the format that the suffix names; the file appears whole or not at all.

    Formats without 16 bits get 8; formats without alpha get the image over white.

    Args:
        path: ends with one of `SUFFIXES`.
        array: (H, W, C), uint8 or uint16.
        quality: of JPEG and WebP, 1–100.

    Raises:
        ImageError: for a format that isn't known, or can't hold this image.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ImageError(f"{path}: {suffix or 'no ending'} is not a format to write; use one of {', '.join(SUFFIXES)}.")
    if suffix not in DEEP_SUFFIXES:
        array = to_8_bit(array)
    if suffix in OPAQUE_SUFFIXES:
        array = over_white(array)
    if array.dtype == np.uint16 and array.shape[2] > 1:
        data = _encode_deep(suffix, array)
    else:
        buffer = io.BytesIO()
        options: dict[str, Any] = {".png": {"compress_level": 1}, ".jpg": {"quality": quality, "subsampling": 0}}.get(
            suffix.replace("jpeg", "jpg"), {}
        )
        if suffix == ".webp":
            options = {"quality": quality}
        try:
            to_pil(array).save(buffer, Image.registered_extensions()[suffix], **options)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from None
        except (OSError, ValueError, MemoryError) as error:
            raise ImageError(f"{path} can't be encoded: {_reason(error)}.") from None
        data = buffer.getvalue()
    write_whole(path, data)


def to_8_bit(array: Array) -> Array:
    """uint16 in 0–65535 → uint8 in 0–255, rounded; uint8 stays."""
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8) if array.dtype == np.uint16 else array


def peak(dtype: np.dtype[Any]) -> int:
    """The value of white: 255, 65535, or 1 for floats."""
    return int(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1


def _as(values: Array, dtype: np.dtype[Any]) -> Array:
    return (np.rint(values) if np.issubdtype(dtype, np.integer) else values).astype(dtype)


def split_alpha(array: Array) -> tuple[Array, Array | None]:
    """(H, W, 2 or 4) → colour (H, W, 1 or 3) and alpha (H, W, 1); others have no alpha."""
    return (array[..., :-1], array[..., -1:]) if array.shape[2] in (2, 4) else (array, None)


def over_white(array: Array) -> Array:
    """Composites an image with alpha over white: (H, W, 2 or 4) → (H, W, 1 or 3); others stay."""
    colour, alpha = split_alpha(array)
    if alpha is None:
        return array
    white = peak(array.dtype)
    share = alpha.astype(np.float64) / white
    return _as(colour * share + white * (1 - share), array.dtype)


def with_channels(array: Array, channels: int) -> Array:
    """Changes the number of channels by the usual rules.

    Gray is repeated to RGB; RGB becomes gray by its luma; alpha that isn't wanted goes over white; alpha that is
    missing is opaque.

    Raises:
        ImageError: for any other change.
    """
    if array.shape[2] == channels:
        return array
    if channels in (1, 3):
        array = over_white(array)
        if array.shape[2] == 1 and channels == 3:
            return np.repeat(array, 3, axis=2)
        if array.shape[2] == 3 and channels == 1:
            return _as(array @ np.array(LUMA), array.dtype)[..., None]
    elif channels in (2, 4) and array.shape[2] < 5:
        colour, alpha = split_alpha(array)
        opaque = np.full((*array.shape[:2], 1), peak(array.dtype), array.dtype)
        return np.concatenate([with_channels(colour, channels - 1), opaque if alpha is None else alpha], axis=2)
    if array.shape[2] == channels:
        return array
    raise ImageError(f"an image of {array.shape[2]} channels can't become one of {channels}.")


def to_tensor(array: Array) -> Tensor:
    """(H, W, C) uint8, uint16, or float in [0, 1] → (C, H, W) float32 in [-1, 1]."""
    planes = np.ascontiguousarray(array.transpose(2, 0, 1)).astype(np.float32)
    planes *= np.float32(2 / peak(array.dtype))  # with NumPy, for it runs in threads beside the network
    planes -= 1
    return torch.from_numpy(planes)


def to_array(tensor: Tensor, dtype: Any = np.uint8) -> Array:
    """(C, H, W) in [-1, 1] → (H, W, C), uint8 or uint16, rounded; values beyond the range are clipped."""
    white = peak(np.dtype(dtype))
    scaled = np.clip(tensor.detach().to("cpu", torch.float32).numpy(), -1, 1)
    scaled += 1
    scaled *= np.float32(white / 2)
    return np.rint(scaled, out=scaled).transpose(1, 2, 0).astype(dtype)


def grid(columns: Sequence[Tensor]) -> Array:
    """Images side by side for the eye: columns of (B, C, H, W) in [-1, 1] → one RGB array, B rows high."""
    shown = [_shown(column.detach().to("cpu", torch.float32)) for column in columns]
    cells = torch.stack(shown, dim=1).flatten(0, 1)  # (B * columns, 3, H, W)
    return to_array(make_grid(cells, nrow=len(shown), padding=2, pad_value=1.0))


def _shown(images: Tensor) -> Tensor:
    """Any number of channels → 3 that can be looked at: gray repeated, else the first three."""
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is empty, damaged, or no image"
    return (str(error) or type(error).__name__).rstrip(".")


def _deep_colour(image: Image.Image) -> int:
    """The channels of a file that has several of 16 bits, which Pillow hides behind its 8-bit modes; else 0."""
    if image.mode.startswith("I"):
        return 0
    channels = len(image.getbands())
    if image.format == "PNG":
        raw = str(getattr(image, "tile", ""))
        return (2 if "LA;16B" in raw else channels) if ";16B" in raw else 0
    return channels if image.format == "TIFF" and 16 in getattr(image, "tag_v2", {}).get(258, ()) else 0


def _decode_deep(path: Path, channels: int) -> Array:
    array = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ImageError("its 16-bit data can't be decoded.")
    array = np.atleast_3d(array)
    if array.shape[2] == 3:
        return array[..., ::-1]
    if array.shape[2] == 4:
        return array[..., [0, 3]] if channels == 2 else array[..., [2, 1, 0, 3]]
    return array


def _encode_deep(suffix: str, array: Array) -> bytes:
    if array.shape[2] == 2:
        array = with_channels(array, 4)  # OpenCV writes no gray with alpha
    order = [2, 1, 0] if array.shape[2] == 3 else [2, 1, 0, 3]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(array[..., order]))
    if not done:
        raise ImageError(f"a 16-bit image can't be encoded as {suffix}.")
    return data.tobytes()


def _upright(array: Array, orientation: int) -> Array:
    """Undoes an EXIF orientation, 1–8."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)
