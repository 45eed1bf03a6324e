"""Files → arrays: every frame or page, upright, at full depth, with what belongs to the image."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from img2img.images.arrays import (
    Array,
    ImageError,
    check_16_bit_range,
    check_unit_range,
    convert_channels,
    from_pil,
    measure_array,
    open_array,
    resize,
    resize_with_alpha,
    to_16_bit,
)
from img2img.images.bands import Bands, Range, scale_values
from img2img.images.deep import count_deep_channels, decode_deep, float_pages
from img2img.images.dicom import measure_dicom, read_dicom
from img2img.images.formats import ARRAYS, DICOM, PAGES, VOLUMES, find_suffix, prepare_format
from img2img.images.gif import gif_is_whole
from img2img.images.nifti import Axis, measure_volume, read_volume
from img2img.images.tiff import Size, has_colours, measure_tiff, read_tiff

ANIMATED = ("PNG", "WEBP", "GIF", "AVIF")
ORIENTATION = 0x0112  # the EXIF tag
TAKEN = "to take them, train with their range: --data.range LOW HIGH"
TEXT_TAGS = (270, 271, 272, 305, 306, 315, 33432)  # of EXIF: description, camera, author
IFDS = (34665, 34853)  # of EXIF: exposure, place
KEPT_EXIF = (*TEXT_TAGS, *IFDS, *range(40091, 40096))  # and Windows' texts, but not what says how pixels lie
XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>\s*))\d+(\s*(?:[\"']|<))")
FOR_MACHINES = ('{"shape"', "<?xml", "<OME", "ImageJ=")  # texts that describe the file they were in, not the image


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
    metadata: bool = True
    """Read EXIF and DPI as well, which a converted file keeps."""
    range: Range | None = None
    """The file holds measurements: these values become 0 and 1, and every channel is a band; see `img2img.images.bands`."""
    axis: Axis = "axial"
    """How volumes are cut into slices, of measurements."""
    enough: int | None = None
    """A JPEG may come at a half, a quarter or an eighth of its size, if both sides keep so many pixels; it is decoded faster."""


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
    xmp: bytes = b""
    """A packet of XMP, which says nothing of an orientation."""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical pixels an inch."""
    flat: bool = False
    """An array of shape (H, W)."""
    truncated: bool = False
    """The file ends early."""
    bands: Bands | None = None
    """Of measurements: what 0 and 1 stand for, and how they are stored."""


def read_image(path: Path, enough: int | None = None, range: Range | None = None) -> Array:
    """Decodes a file's first frame to (H, W, C), uint8 or uint16, upright by its EXIF orientation; see `from_pil`.

    Args:
        enough: as of `Rules`.
        range: as of `Rules`; what comes out is float32 in [0, 1] then.

    Raises:
        ImageError: if it can't be decoded whole.
    """
    frame = read_picture(path, Rules(first=True, metadata=False, range=range, enough=enough)).frames[0]
    return frame if range else to_16_bit(frame)


def read_picture(path: Path, rules: Rules | None = None) -> Picture:
    """Decodes a file: all frames of GIF, APNG and WebP, all pages of TIFF, and of others the first image.

    Arrays of ``.npy`` and ``.npz`` are (H, W) or (H, W, C) of any number of channels: bool, integers in 0–65535, or floats in [0, 1].

    Raises:
        ImageError: if it can't be decoded whole, or is too large.
    """
    rules = rules or Rules()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if rules.range is not None:
                return _read_bands(path, rules, rules.range)
            return _read_array(path, rules) if find_suffix(path) in ARRAYS else _read_file(path, rules)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except ImageError as error:
        raise ImageError(f"{path}: {str(error).rstrip('.')}.") from None
    except Exception as error:  # Pillow throws far more than OSError on damaged files
        raise ImageError(f"{path} can't be read as an image: {explain_failure(error)}.") from None


def count_pixels(path: Path, rules: Rules | None = None) -> int:
    """Height times width times frames of what will be read, by the file's header; 0 if it can't be read."""
    rules = rules or Rules()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if find_suffix(path) in ARRAYS:
                height, width = measure_array(path)[:2]
                return math.prod(fit_size(height, width, rules))
            if rules.range is not None and (sizes := _measure_stack(path, rules)):
                return sum(_weigh(size) for size in sizes)
            with _open(path) as image:
                return math.prod(fit_size(image.height, image.width, rules)) * len(_frames(image, rules.first))
    except Exception:  # as in read_picture, which says what is wrong
        return 0


def explain_failure(error: BaseException) -> str:
    """Why Pillow or OpenCV could not, in words."""
    if isinstance(error, UnidentifiedImageError):
        return "it is empty, damaged, or no image of a known format"
    if isinstance(error, MemoryError) or "Insufficient memory" in str(error):
        return "there is not enough memory for it"
    return (str(error).strip() or type(error).__name__).rstrip(".")


@contextmanager
def _open(path: Path) -> Iterator[ImageFile.ImageFile]:
    """A Pillow image of a file that is open: of a path, Pillow maps TIFFs into memory, and then turned ones come out wrong."""
    with path.open("rb") as file, Image.open(file, formats=prepare_format(path)) as image:
        yield image


def _read_file(path: Path, rules: Rules) -> Picture:
    if find_suffix(path) in (DICOM, *VOLUMES):
        raise ImageError(f"it holds measurements; {TAKEN}")
    try:
        with _open(path) as image:
            numbers = _frames(image, rules.first)
            _refuse_bombs([(image.height, image.width)] * len(numbers), rules)
            try:
                if image.format == "GIF" and not rules.first and not gif_is_whole(path.read_bytes()):
                    raise OSError("image file is truncated")  # which Pillow doesn't notice between two frames
                return _read_frames(path, image, numbers, rules)
            except ImageError:
                raise
            except Exception:
                if not rules.accept_truncated:
                    raise
    except UnidentifiedImageError:
        if path.suffix.lower() in PAGES and any(size[2] > 4 for size in measure_tiff(path, first=True)):
            raise ImageError(f"it holds more bands than colours have; {TAKEN}") from None
        pages = float_pages(path, rules.first, lambda sizes: _refuse_bombs(sizes, rules))
        if pages is None and path.suffix.lower() in PAGES and not has_colours(path):
            raise ImageError(f"it holds bands that are no colours; {TAKEN}") from None
        if pages is None:
            raise
        return Picture([_fit(page, rules) for page in pages])
    with _accept_truncated(), _open(path) as image:
        picture = _read_frames(path, image, numbers, rules)
        picture.truncated = True
        return picture


def _read_frames(path: Path, image: ImageFile.ImageFile, numbers: list[int], rules: Rules) -> Picture:
    frames, durations = [], []
    sizes: list[tuple[int, int]] = []
    for number in numbers:
        image.seek(number)
        goal = fit_size(image.height, image.width, rules)
        sizes.append(max((image.height, image.width), goal, key=math.prod))
        _refuse_bombs(sizes, rules)
        if image.format == "JPEG" and goal != (image.height, image.width):
            image.draft(None, goal[::-1])  # decodes at 1/2, 1/4 or 1/8, never below this
        elif image.format == "JPEG" and rules.enough:
            scale = _spare(image.height, image.width, rules.enough)
            goal = image.height // scale, image.width // scale
            image.draft(None, goal[::-1])
        deep = (
            count_deep_channels(image) if image.format == "TIFF" or len(numbers) == 1 else 0
        )  # OpenCV reads no APNG's frames
        inverted = image.mode == "I;16" and getattr(image, "tag_v2", {}).get(262) == 0  # white is zero
        image.load()  # finds what is damaged, also for OpenCV, which fills it in
        array = decode_deep(path, image, deep, number) if deep else from_pil(image)
        orientation = _exif(image).get(ORIENTATION, 1)
        fitting = resize_with_alpha(65535 - array if inverted else array, *goal)
        frames.append(_turn_upright(fitting, orientation))
        durations.append(round(image.info.get("duration", 0)))
    moving = image.format in ANIMATED and len(frames) > 1
    if moving:  # some of Pillow's frames have alpha, and others not
        most = max(frame.shape[2] for frame in frames)
        frames = [convert_channels(frame, most) for frame in frames]
    first = numbers[0]
    image.seek(first)
    icc = image.info.get("icc_profile") or b""
    colour = {b"GRAY": (1, 2), b"RGB ": (3, 4)}.get(icc[16:20], ())
    return Picture(
        frames,
        durations if moving else [],
        int(image.info.get("loop", 1 if image.format == "GIF" else 0)),
        _kept_exif(image) if rules.metadata else b"",
        icc if frames[0].shape[2] in colour and image.mode not in ("CMYK", "LAB") else b"",
        _kept_xmp(image) if rules.metadata else b"",
        _dpi(image) if rules.metadata else None,
    )


def _frames(image: ImageFile.ImageFile, first: bool) -> list[int]:
    """The numbers of the frames to be read."""
    many = image.format in ANIMATED or image.format == "TIFF"
    numbers = list(range(getattr(image, "n_frames", 1) if many else 1))
    if image.info.get("default_image") and len(numbers) > 1:  # an APNG's stand-in for programs that know PNG only
        numbers = numbers[1:]
    return numbers[:1] if first else numbers


def _refuse_bombs(sizes: list[tuple[int, int]], rules: Rules) -> None:
    pixels = sum(map(math.prod, sizes))
    if pixels > rules.max_pixels:
        size = f"{sizes[0][1]} × {sizes[0][0]}" + (f" × {len(sizes)} frames" if len(sizes) > 1 else "")
        millions, most = pixels / 1e6, rules.max_pixels / 1e6
        raise ImageError(
            f"it has {size} = {millions:.4g} million pixels, more than {most:.4g} million; --max-pixels allows more"
        )


def _spare(height: int, width: int, enough: int) -> int:
    """By how much a JPEG may be smaller: by what divides both sides, for else it would end within a pixel."""
    fitting = (scale for scale in (8, 4, 2) if min(height, width) // scale >= enough)
    return next((scale for scale in fitting if height % scale == width % scale == 0), 1)


def fit_size(height: int, width: int, rules: Rules) -> tuple[int, int]:
    """The height and width that an image gets by the rules."""
    scale = rules.size / min(height, width) if rules.size else 1.0
    if rules.max_side:
        scale = min(scale, rules.max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _fit(array: Array, rules: Rules) -> Array:
    height, width = fit_size(array.shape[0], array.shape[1], rules)
    return resize_with_alpha(array, height, width)


@contextmanager
def _accept_truncated() -> Iterator[None]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _exif(image: ImageFile.ImageFile) -> Image.Exif:
    try:
        exif: Image.Exif = image.getexif()
        return exif
    except Exception:  # damaged; the image is what counts
        return Image.Exif()


def _kept_exif(image: ImageFile.ImageFile) -> bytes:
    try:
        exif, kept = _exif(image), Image.Exif()
        for tag in KEPT_EXIF:
            part = exif.get_ifd(tag) if tag in IFDS else exif.get(tag)
            if part and not (isinstance(part, str) and part.startswith(FOR_MACHINES)):
                kept[tag] = part.encode("latin-1") if isinstance(part, str) else part  # Pillow's text, back to bytes
        return kept.tobytes() if len(kept) else b""
    except Exception:  # values that contradict their types
        return b""


def _kept_xmp(image: ImageFile.ImageFile) -> bytes:
    """XMP, whose orientation is that of an upright image."""
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or getattr(image, "tag_v2", {}).get(700)
    if isinstance(packet, str):
        packet = packet.encode()
    if not isinstance(packet, bytes) or not packet.strip():
        return b""
    return XMP_ORIENTATION.sub(rb"\g<1>1\g<2>", packet)


def _dpi(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    usable = all(0 < value < 1e6 for value in (horizontal, vertical))
    return (horizontal, vertical) if usable else None


def _read_array(path: Path, rules: Rules) -> Picture:
    array = open_array(path, lambda shape: _check_shape(shape, rules))
    flat, values = array.ndim == 2, np.atleast_3d(np.asarray(array))
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(values.dtype, np.floating):
        values = check_unit_range(values)
    elif np.issubdtype(values.dtype, np.integer) and values.dtype != np.uint8:
        wide, values = values.dtype != np.uint16, check_16_bit_range(values)
        values = values.astype(np.uint8) if wide and values.max() < 256 else values  # NumPy's own integers are wide
    elif values.dtype != np.uint8:
        raise ImageError(f"its values are {values.dtype}; use integers or floats")
    return Picture([_fit(np.ascontiguousarray(values), rules)], flat=flat)


def _check_shape(shape: tuple[int, ...], rules: Rules) -> None:
    """Refuses arrays that are no images, or too large."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise ImageError(f"its shape is {shape}; an image is (H, W) or (H, W, C)")
    height, width = shape[:2]
    deep = max(1, math.prod(shape[2:]) // 4)  # more channels than an image file has count as more pixels
    _refuse_bombs([max((height, width * deep), fit_size(height, width, rules), key=math.prod)], rules)


def _read_bands(path: Path, rules: Rules, limits: Range) -> Picture:
    """Measurements of any format: frames in [0, 1], with what it takes to write them."""
    suffix = find_suffix(path)
    no_data, header, form = None, b"", suffix

    def accept(sizes: list[Size]) -> None:
        _refuse_bombs([(size[0], _weigh(size) // max(1, size[0])) for size in sizes], rules)

    if suffix in ARRAYS:
        array = open_array(path, lambda shape: _check_shape(shape, rules))
        picture = Picture([np.atleast_3d(np.asarray(array))], flat=array.ndim == 2)
    elif suffix in PAGES:
        frames, no_data, header = read_tiff(path, rules.first, accept)
        picture, form = Picture(frames), PAGES[0]
    elif suffix == DICOM:
        frames, no_data, header = read_dicom(path, rules.first, accept)
        picture = Picture(frames)
    elif suffix in VOLUMES:
        frames, header = read_volume(path, rules.first, accept, rules.axis)
        picture, form = Picture(frames), VOLUMES[0]
    else:
        picture = _read_file(path, replace(rules, range=None, size=None, max_side=None))
    dtype = picture.frames[0].dtype.name
    scaled, missing, found = [], [], []
    for frame in picture.frames:
        unit, nothing, extremes = scale_values(frame, limits, no_data)
        found += list(extremes or ())
        height, width = fit_size(frame.shape[0], frame.shape[1], rules)
        scaled.append(resize(unit, height, width))
        small = cv2.resize(nothing.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        missing.append(small.astype(bool))
    some = missing if any(mask.any() for mask in missing) else []
    extent = (min(found), max(found)) if found else None
    return replace(picture, frames=scaled, bands=Bands(limits, dtype, form, header, "", no_data, some, extent))


def _measure_stack(path: Path, rules: Rules) -> list[Size]:
    """The sizes of the frames of a file, by its header; none of formats that Pillow knows better."""
    suffix = find_suffix(path)
    if suffix in VOLUMES:
        return measure_volume(path, rules.first, rules.axis)
    measure = {**dict.fromkeys(PAGES, measure_tiff), DICOM: measure_dicom}.get(suffix)
    return measure(path, rules.first) if measure else []


def _weigh(size: tuple[int, int, int]) -> int:
    """Pixels; more channels than an image file has count as more."""
    return size[0] * size[1] * max(1, size[2] // 4)


def _turn_upright(array: Array, orientation: int) -> Array:
    """Undoes an EXIF orientation, 1–8."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)
