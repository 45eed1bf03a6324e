"""Arrays → files: the format that the suffix names, at the depth that it holds, with what belongs to the image."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from img2img.core.files import write_whole
from img2img.core.stored import StoredPath, write_stored
from img2img.images.arrays import (
    Array,
    ImageError,
    composite_over_white,
    convert_channels,
    split_alpha,
    to_8_bit,
    to_16_bit,
    to_pil,
)
from img2img.images.bands import ANY, Bands, restore_frames
from img2img.images.dicom import write_dicom
from img2img.images.formats import (
    ARRAYS,
    BARE,
    DEEP,
    DICOM,
    GRAY,
    LOSSY,
    MOVING,
    OPAQUE,
    PAGES,
    READABLE,
    STACKS,
    VOLUMES,
    find_suffix,
    prepare_format,
)
from img2img.images.nifti import HELD, write_volume
from img2img.images.reading import TEXT_TAGS, Picture, explain_failure
from img2img.images.tiff import write_tiff

HAVE_DPI = (".png", ".apng", ".jpg", ".jpeg", ".bmp", *PAGES)
LONGEST_IN_JPEG = 65000  # bytes of EXIF data or XMP
XMP_TAG = 700  # of TIFF


def write_image(path: Path, array: Array, quality: int = 95) -> None:
    """Encodes an array to the format that the suffix names; the file appears whole or not at all.

    Formats without 16 bits get 8; formats without alpha get the image over white.

    Args:
        path: ends with one of `READABLE`.
        array: (H, W, C), uint8, uint16, or float in [0, 1].
        quality: of JPEG and WebP, 1–100.

    Raises:
        ImageError: for a format that isn't known, or can't hold this image.
    """
    write_picture(path, Picture([array]), quality)


def write_picture(path: Path, picture: Picture, quality: int = 95, replace: bool = True, durable: bool = True) -> None:
    """As `write_image`, with frames and metadata; `replace` and `durable` as of `write_whole`."""
    data = encode_picture(path, picture, quality)
    if isinstance(path, StoredPath):
        write_stored(path, data)
    else:
        write_whole(path, data, replace, durable)


def encode_picture(path: Path, picture: Picture, quality: int = 95) -> bytes:
    """The bytes of a file of that name.

    A profile is written where it fits the colours. GIFs get up to 256 colours a frame.

    Raises:
        ImageError: for a format that isn't known, or can't hold this image.
    """
    suffix = find_suffix(path)
    if suffix not in READABLE:
        raise ImageError(f"{path}: {suffix or 'no ending'} is not a format to write; use one of {', '.join(READABLE)}.")
    try:
        refuse_frames(suffix, picture)
        prepare_format(path)
        if picture.bands is not None:
            return _encode_bands(suffix, picture, picture.bands, quality)
        if suffix in (DICOM, *VOLUMES):
            raise ImageError(f"{suffix} holds measurements, and this is an image of colours; use --format png")
        frames = [_fit_format(suffix, frame, len(picture.frames)) for frame in picture.frames]
        return _encode(suffix, frames, picture, quality)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except (OSError, ValueError, MemoryError, cv2.error, struct.error) as error:
        raise ImageError(f"{path} can't be encoded: {explain_failure(error)}.") from None


def _encode_bands(suffix: str, picture: Picture, bands: Bands, quality: int) -> bytes:
    """Measurements, in the values that they had in their file."""
    if suffix == DICOM:
        try:
            return write_dicom(picture.frames, bands)
        except (AttributeError, KeyError, TypeError, NotImplementedError) as error:
            raise ImageError(f"the source's header can't be written ({str(error).splitlines()[0]})") from None
    if suffix in VOLUMES:
        frames, _ = restore_frames(picture.frames, bands, HELD)
        return write_volume(frames, bands.header if bands.format in VOLUMES else b"", suffix)
    deep = suffix == ".png" and len(picture.frames) == 1
    held = ANY if suffix in (*ARRAYS, *PAGES) else ("uint8", "uint16") if deep else ("uint8",)
    frames, no_data = restore_frames(picture.frames, bands, held)
    if suffix in PAGES:
        return write_tiff(frames, bands.header if bands.format in PAGES else b"", no_data)
    channels = frames[0].shape[2]
    several = (1, 3) if suffix != ".png" else (1, 3, 4) if frames[0].dtype != np.uint8 else (1, 2, 3, 4)
    if suffix not in ARRAYS and channels not in several:
        raise ImageError(f"it has {channels} bands, which {suffix} can't hold; --format tif or npy can")
    frames = [_fit_format(suffix, frame, len(frames)) for frame in frames]
    return _encode(suffix, frames, picture, quality)


def refuse_frames(suffix: str, picture: Picture) -> None:
    """Raises an `ImageError` if a format can't hold the frames of a picture."""
    frames, sizes = len(picture.frames), {frame.shape[:2] for frame in picture.frames}
    if len(sizes) > 1 and suffix in MOVING and suffix not in STACKS:
        raise ImageError(
            f"its {frames} pages have several sizes, which only tif can hold; use --frames first, or --format tif."
        )
    if frames > 1 and suffix not in MOVING:
        raise ImageError(
            f"it has {frames} frames, and {suffix} holds one; use --frames first, or --format png, webp, gif or tif."
        )


def _fit_format(suffix: str, frame: Array, frames: int) -> Array:
    """A frame with the depth and channels that a format can hold."""
    if suffix in ARRAYS:
        return frame
    if np.issubdtype(frame.dtype, np.floating) and suffix not in PAGES:
        frame = to_16_bit(frame)
    if suffix not in DEEP or (suffix == ".png" and frames > 1):
        frame = to_8_bit(frame)
    frame = composite_over_white(frame) if suffix in OPAQUE else frame
    if suffix in GRAY and frame.shape[2] > 1:
        raise ImageError(f"{suffix} holds gray, and this image has {frame.shape[2]} channels; use .ppm or .png")
    return frame


def _encode(suffix: str, frames: list[Array], picture: Picture, quality: int) -> bytes:
    buffer = io.BytesIO()
    if suffix in ARRAYS:
        array = frames[0][..., 0] if picture.flat and frames[0].shape[2] == 1 else frames[0]
        if suffix == ".npz":
            np.savez_compressed(buffer, image=array)
        else:
            np.save(buffer, array, allow_pickle=False)
        return buffer.getvalue()
    deep = any(frame.dtype != np.uint8 and frame.shape[2] > 1 for frame in frames)
    icc = _select_profile(picture.icc, frames)
    if deep and suffix in PAGES:
        return _deep_tiff(frames, picture, icc)
    by_opencv = (1, 2, 3, 4) if deep else (1, 3, 4)  # channels
    if suffix in (".png", ".apng") and len(frames) == 1 and frames[0].shape[2] in by_opencv:
        return _encode_png(frames[0], picture, icc)
    images = [to_pil(frame) for frame in frames]
    options: dict[str, Any] = {"quality": quality} if suffix in LOSSY else {}
    more: dict[str, dict[str, Any]] = {
        ".png": {"compress_level": 1},
        ".apng": {"compress_level": 1},
        ".jpg": {"subsampling": 0},
        ".jpeg": {"subsampling": 0},
        ".avif": {"subsampling": "4:4:4"},
        ".heic": {"chroma": 444},
        ".heif": {"chroma": 444},
    }
    options |= more.get(suffix, {})
    if suffix not in BARE:
        options |= _list_metadata(suffix, picture, icc)
    if picture.dpi and suffix in HAVE_DPI:
        options["dpi"] = picture.dpi
    if suffix == ".gif":
        images = [_quantise(image) for image in images]
    if len(images) > 1:
        options |= {"save_all": True, "append_images": images[1:]}
        if suffix not in PAGES:
            durations = picture.durations or [1000] * len(images)
            options |= {"duration": durations, "loop": picture.loop}
            options |= {".gif": {"disposal": 2, "optimize": False}, ".webp": {}, ".avif": {}}.get(
                suffix, {"disposal": 0, "blend": 0}
            )
            if suffix == ".gif" and picture.loop == 1:
                del options["loop"]  # no word of it means once
    images[0].save(buffer, Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def _list_metadata(suffix: str, picture: Picture, icc: bytes) -> dict[str, Any]:
    """Profile, EXIF data and XMP, as Pillow takes them."""
    jpeg = suffix in (".jpg", ".jpeg")
    found: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if suffix in PAGES:
        exif = _encode_texts(picture.exif) if picture.exif else Image.Exif()
        if picture.xmp:
            exif[XMP_TAG] = picture.xmp
        return found | ({"exif": exif} if len(exif) else {})
    if picture.exif and (len(picture.exif) < LONGEST_IN_JPEG or not jpeg):
        found["exif"] = picture.exif
    if picture.xmp and (len(picture.xmp) < LONGEST_IN_JPEG or not jpeg) and suffix not in (".png", ".apng"):
        found["xmp"] = picture.xmp
    return found


def _encode_texts(block: bytes) -> Image.Exif:
    """EXIF data for Pillow's TIFFs, in which it would replace what is not ASCII."""
    exif = Image.Exif()
    exif.load(block)
    for tag in TEXT_TAGS:
        if isinstance(exif.get(tag), str):
            exif[tag] = exif[tag].encode("latin-1", "replace")
    return exif


def _quantise(image: Image.Image) -> Image.Image:
    """At most 256 colours, exact if there are no more; alpha becomes all or nothing."""
    if image.mode == "LA":
        image = image.convert("RGBA")
    if image.mode != "RGBA":
        return image if image.mode == "L" else image.quantize(256, Image.Quantize.MEDIANCUT)
    alpha = image.getchannel("A").point(lambda value: 255 if value >= 128 else 0)
    flat = image.convert("RGB").quantize(255, Image.Quantize.MEDIANCUT)
    flat.paste(255, mask=alpha.point(lambda value: 255 - value))
    flat.info["transparency"] = 255
    return flat


def _select_profile(icc: bytes, frames: list[Array]) -> bytes:
    colours = {split_alpha(frame)[0].shape[2] for frame in frames} if icc else set()
    return icc if colours == {{b"GRAY": 1, b"RGB ": 3}.get(icc[16:20])} else b""


def _encode_png(array: Array, picture: Picture, icc: bytes) -> bytes:
    """By OpenCV, which knows 16-bit colour and is faster than Pillow, with the metadata put between its first chunk and the others (PNG, §5.6)."""
    if array.shape[2] == 2:
        array = convert_channels(array, 4)  # OpenCV writes no gray with alpha
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]
    done, data = cv2.imencode(".png", np.ascontiguousarray(array[..., order]))
    if not done:
        raise ImageError("an image can't be encoded as .png.")
    png, chunks = data.tobytes(), b""
    if icc:
        chunks += _chunk(b"iCCP", b"ICC\0\0" + zlib.compress(icc))
    if picture.dpi:
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in picture.dpi), 1))
    if picture.exif:
        chunks += _chunk(b"eXIf", picture.exif.removeprefix(b"Exif\0\0"))
    if picture.xmp:
        chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + picture.xmp)
    return png[:33] + chunks + png[33:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _deep_tiff(frames: list[Array], picture: Picture, icc: bytes) -> bytes:
    """Colour of 16 bits or floats, which Pillow can't write; of the EXIF data, texts are kept."""
    import tifffile

    exif = _encode_texts(picture.exif) if picture.exif else {}
    tags: list[tuple[Any, ...]] = [
        (tag, "s", 0, exif[tag], True) for tag in TEXT_TAGS if isinstance(exif.get(tag), bytes)
    ]
    if picture.xmp:
        tags.append((XMP_TAG, "B", len(picture.xmp), picture.xmp, True))
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for frame in frames:
            frame = convert_channels(frame, 4) if frame.shape[2] == 2 else frame  # OpenCV reads no gray with alpha
            colour = frame.shape[2] >= 3
            writer.write(
                frame if colour else frame[..., 0], photometric="rgb" if colour else "minisblack", compression="zlib",
                predictor=frame.dtype != np.float32, extrasamples=["unassalpha"] if frame.shape[2] == 4 else None,
                resolution=picture.dpi, resolutionunit="INCH" if picture.dpi else None, iccprofile=icc or None,
                extratags=tags, metadata=None, software=False, contiguous=False,
            )  # fmt: skip
    return buffer.getvalue()
