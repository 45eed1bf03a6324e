"""DICOM images: measurements such as Hounsfield units, and images derived from others, which say so.

The sections in brackets are of DICOM PS3.3.
"""

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from img2img.images.arrays import Array, ImageError
from img2img.images.bands import STEPS, Bands, avoid_value, restore_values
from img2img.images.formats import DICOM, prepare_format
from img2img.images.tiff import Size

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
STALE = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "FloatPixelPaddingValue", "IconImageSequence", "ModalityLUTSequence",
    "VOILUTSequence", "DigitalSignaturesSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)  # fmt: skip
"""What is only true of the old pixels."""
WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
DOSE = "DoseGridScaling"  # of RT Dose, instead of slope and intercept (C.8.8.3)
OVERLAYS = range(0x6000, 0x6020, 2)
DECODERS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or python-gdcm"
MOST = 65535  # of unsigned pixels
FRAMES = 65535
NAME = 64  # characters of a description
LONGEST = 200  # characters of what a library says


def read_dicom(
    path: Path, first: bool, accept: Callable[[list[Size]], None]
) -> tuple[list[Array], float | None, bytes]:
    """The frames, each (H, W, C), in the units of the modality (C.11.1): those of CT in Hounsfield units.

    Args:
        first: the first frame only.
        accept: gets the sizes, and may raise.

    Returns:
        The frames, the value of pixels that only pad, and what `write_dicom` takes as the header.

    Raises:
        ImageError: if it can't be read.
    """
    with _parse(path) as data:
        sizes = _measure(data, first)
        accept(sizes)
        height, width, bands = sizes[0]
        stored = _decode(data, first).reshape(len(sizes), height, width, bands)
        no_data = None
        padding = _find_padding(data, "PixelPaddingValue", stored.dtype)
        if padding is not None:
            limit = _find_padding(data, "PixelPaddingRangeLimit", stored.dtype)
            least, most = sorted((padding, padding if limit is None else limit))
            stored = np.where((stored >= least) & (stored <= most), stored.dtype.type(padding), stored)
            slope, intercept = _find_rescale(data, 0)
            no_data = padding * slope + intercept
        frames = [_apply_rescale(frame, data, number) for number, frame in enumerate(stored)]
        if no_data is not None and frames[0].dtype == np.float32:
            no_data = float(np.float32(no_data))
        for name in PIXELS:
            if name in data:
                del data[name]
        _name_instance(data)
        header = io.BytesIO()
        _save(data, header)
        return frames, no_data, header.getvalue()


def measure_dicom(path: Path, first: bool) -> list[Size]:
    """The sizes of the frames, by the file's header."""
    with _parse(path, whole=False) as data:
        return _measure(data, first)


def write_dicom(frames: list[Array], bands: Bands) -> bytes:
    """A DICOM image derived from the one whose header is there (C.7.6.1.1.2), with UIDs of its own.

    The UIDs follow from the old ones and from `Bands.maker`, so that images of a series are one again.

    Args:
        frames: (H, W, 1) each, or (H, W, 3) of colours, in [0, 1].

    Raises:
        ImageError: if the header is of no DICOM image, or such an image can't hold these values.
    """
    import pydicom
    from pydicom.pixels import set_pixel_data

    if bands.format != DICOM:
        raise ImageError("only a DICOM image becomes one, for of others nobody knows whom they show; use .tif or .npy")
    data = pydicom.dcmread(io.BytesIO(bands.header))
    channels, colours = frames[0].shape[2], data.SamplesPerPixel == 3
    before, old = (data.Rows, data.Columns), _find_rescale(data, 0)
    if channels == 3 and colours and 0 <= bands.range[0] < bands.range[1] <= 255:
        stored = np.stack([restore_values(frame, bands.range, np.dtype(np.uint8)) for frame in frames])
        kind, bits, padding, scale = "RGB", 8, None, None
    elif channels == 1:
        dtype, bits, scale, padding = _choose_scale(data, bands)
        stored = np.stack([_store(frame, place, bands, dtype, scale, padding) for place, frame in enumerate(frames)])
        kind = "MONOCHROME1" if data.PhotometricInterpretation == "MONOCHROME1" else "MONOCHROME2"
    else:
        raise ImageError(
            f"it has {channels} bands, which a DICOM image that is derived from one of {data.SamplesPerPixel} can't hold; use .tif or .npy"
        )
    for name in STALE:
        if name in data:
            del data[name]
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pixels = stored if channels == 3 else stored[..., 0]
    groups = "PerFrameFunctionalGroupsSequence" in data
    set_pixel_data(data, pixels[0] if len(frames) == 1 else pixels, kind, bits, generate_instance_uid=False)
    if groups:
        data.NumberOfFrames = len(frames)
        data.PerFrameFunctionalGroupsSequence = data.PerFrameFunctionalGroupsSequence[: len(frames)]
    if padding is not None:
        data.add_new("PixelPaddingValue", "SS" if dtype.kind == "i" else "US", padding)
    _set_rescale(data, scale, old)
    _set_window(data, bands.range)
    if (data.Rows, data.Columns) != before:
        _scale_place(data, before)
    _say_origin(data, bands.maker)
    done = io.BytesIO()
    try:
        _save(data, done)
    except MemoryError:
        raise
    except Exception as error:  # some elements are decoded only now, and pydicom throws what its parts throw
        raise ImageError(
            f"the header that it would take over from its source is damaged ({_explain(error)}); give a target of another format"
        ) from None
    return done.getvalue()


@contextmanager
def _parse(path: Path, whole: bool = True) -> Iterator[Any]:
    prepare_format(path)
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            yield pydicom.dcmread(file, stop_before_pixels=not whole)
    except ImageError:
        raise
    except InvalidDicomError:
        raise ImageError("it is no DICOM file") from None
    except (
        BytesLengthException,
        AttributeError,
        KeyError,
        ValueError,
        NotImplementedError,
        EOFError,
        TypeError,
    ) as error:
        raise ImageError(f"it is no DICOM image that can be read ({_explain(error)})") from None


def _explain(error: Exception) -> str:
    said = str(error).partition("Traceback")[0]  # which pydicom adds
    return (" ".join(said.split()) or type(error).__name__)[:LONGEST].rstrip(".")


def _measure(data: Any, first: bool) -> list[Size]:
    if "Rows" not in data or "Columns" not in data:
        raise ImageError("it is a DICOM file without an image")
    if data.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise ImageError("its colours are those of a palette, which is not supported")
    size = int(data.Rows), int(data.Columns), int(data.get("SamplesPerPixel", 1))
    if 0 in size:
        raise ImageError(f"it has {size[1]} × {size[0]} pixels")
    count = max(1, int(data.get("NumberOfFrames") or 1))
    if count > FRAMES and not first:
        raise ImageError(f"it has {count} frames, more than {FRAMES}; --frames first takes one")
    return [size] * (1 if first else count)


def _decode(data: Any, first: bool) -> Array:
    from pydicom.pixels import pixel_array

    if not any(name in data for name in PIXELS):
        raise ImageError("it is a DICOM file without an image")
    syntax = data.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise ImageError("it doesn't say how its pixels are stored (its transfer syntax is missing)")
    try:
        return np.asarray(pixel_array(data, index=0 if first else None))
    except RuntimeError as error:  # of plugins that are missing, or that failed
        if "missing" in str(error):
            raise ImageError(
                f"its pixels are compressed ({syntax.name}) in a way that needs packages: {DECODERS}"
            ) from None
        raise ImageError(
            f"its pixels, {syntax.name}, can't be decoded ({_explain(error)}); more can with {DECODERS}"
        ) from None


def _find_rescale(data: Any, number: int) -> tuple[float, float]:
    """Slope and intercept of a frame (C.11.1.1.2; of enhanced images C.7.6.16.2.9)."""
    per_frame, shared = data.get("PerFrameFunctionalGroupsSequence"), data.get("SharedFunctionalGroupsSequence")
    groups = [per_frame[number]] if per_frame and number < len(per_frame) else []
    for group in (*groups, *(shared or [])):
        if found := group.get("PixelValueTransformationSequence"):
            return float(found[0].RescaleSlope), float(found[0].RescaleIntercept)
    if data.get(DOSE) is not None:
        return float(data.get(DOSE)), 0.0
    slope, intercept = data.get("RescaleSlope"), data.get("RescaleIntercept")
    return (1.0, 0.0) if slope is None or intercept is None else (float(slope), float(intercept))


def _find_padding(data: Any, name: str, dtype: np.dtype[Any]) -> int | None:
    """A stored value of padding, also if the file has it in the other kind of 16 bits, signed or not."""
    value = data.get(name)
    if (
        not isinstance(value, int)
        or dtype.kind not in "iu"
        or "ModalityLUTSequence" in data
        or data.get("SamplesPerPixel", 1) != 1
    ):
        return None
    limits = np.iinfo(dtype)
    return next((each for each in (value, value - 65536, value + 65536) if limits.min <= each <= limits.max), None)


def _name_instance(data: Any) -> None:
    """Fills in the UIDs that every image has, if only the file's own header has them, or nobody."""
    import pydicom

    for name, default in (
        ("SOPClassUID", pydicom.uid.SecondaryCaptureImageStorage),
        ("SOPInstanceUID", pydicom.uid.generate_uid()),
    ):
        if not data.get(name):
            setattr(data, name, data.file_meta.get(f"MediaStorage{name}") or default)


def _apply_rescale(stored: Array, data: Any, number: int) -> Array:
    from pydicom.pixels import apply_modality_lut

    if "ModalityLUTSequence" in data:
        return np.asarray(apply_modality_lut(stored, data))
    slope, intercept = _find_rescale(data, number)
    if (slope, intercept) == (1, 0):
        return np.ascontiguousarray(stored)
    if stored.dtype.kind == "f" or slope != int(slope) or intercept != int(intercept):
        return (stored.astype(np.float64) * slope + intercept).astype(np.float32)
    least, most = _limits(int(data.BitsStored), bool(data.PixelRepresentation))
    ends = sorted((least * int(slope) + int(intercept), most * int(slope) + int(intercept)))
    narrow = np.iinfo(np.int16).min <= ends[0] and ends[1] <= np.iinfo(np.int16).max
    return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(np.int16 if narrow else np.int32)


def _limits(bits: int, signed: bool) -> tuple[int, int]:
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def _choose_scale(data: Any, bands: Bands) -> tuple[np.dtype[Any], int, tuple[float, float], int | None]:
    """The type of stored values, how many bits, slope and intercept, and the stored value of padding.

    They are the source's if these hold the range in steps that are fine enough; else such that 1 is the low end of the range,
    65535 the high one, and 0 padding.
    """
    low, high = bands.range
    slope, intercept = _find_rescale(data, 0)
    bits, signed = int(data.get("BitsStored") or 32), bool(data.get("PixelRepresentation", 0))  # none of floats
    least, most = _limits(min(bits, 16), signed)
    ends = sorted(((low - intercept) / slope, (high - intercept) / slope)) if slope else [-np.inf, np.inf]
    uniform = all(
        _find_rescale(data, number) == (slope, intercept) for number in range(int(data.get("NumberOfFrames") or 1))
    )
    if (
        uniform
        and data.SamplesPerPixel == 1
        and least <= ends[0]
        and ends[1] <= most
        and ends[1] - ends[0] >= STEPS
        and bits <= 16
    ):
        padding = _find_padding(data, "PixelPaddingValue", np.dtype(np.int16 if signed else np.uint16))
        if padding is None:
            padding = least if any(mask.any() for mask in bands.missing) else None
        if padding is not None and not least <= padding <= most:
            bits = 16
        wide = np.dtype(np.int16 if signed else np.uint16)
        return wide if bits > 8 else np.dtype(np.int8 if signed else np.uint8), bits, (slope, intercept), padding
    if data.get(DOSE) is not None:
        if low < 0:
            raise ImageError("an RT Dose holds no values below 0, which the range has; use .tif or .npy")
        return np.dtype(np.uint16), 16, (_round_decimal(high / MOST, up=True), 0.0), None
    step = _round_decimal((high - low) / (MOST - 1), up=True)
    return np.dtype(np.uint16), 16, (step, _round_decimal(low - step)), 0


def _round_decimal(value: float, up: bool = False) -> float:
    """The value as a DICOM file can say it, in 16 characters."""
    said = float(_say(value))
    return said if not up or said >= value else float(_say(value + abs(value) * 1e-9))


def _store(
    frame: Array, place: int, bands: Bands, dtype: np.dtype[Any], scale: tuple[float, float], padding: int | None
) -> Array:
    slope, intercept = scale
    values = np.rint((restore_values(frame, bands.range, np.dtype(np.float64)) - intercept) / slope)
    stored: Array = values.clip(np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    if padding is not None:
        ends = [(each - intercept) / slope for each in bands.range]
        avoid_value(stored, padding, (min(ends), max(ends)))
        if bands.missing:
            stored[bands.missing[place]] = padding
    return stored


def _set_rescale(data: Any, scale: tuple[float, float] | None, before: tuple[float, float]) -> None:
    """Writes another slope and intercept than the source's, and takes away what was said of its stored values."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    if scale == before:
        return
    shared = data.get("SharedFunctionalGroupsSequence") or []
    groups = [*(data.get("PerFrameFunctionalGroupsSequence") or []), *shared]
    for place in (data, *groups):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence", "RealWorldValueMappingSequence"):
            if name in place:
                del place[name]
    if scale is None:
        for name in ("RescaleSlope", "RescaleIntercept", "RescaleType", *WINDOW):
            if name in data:
                del data[name]
        return
    if data.get(DOSE) is not None:
        data.DoseGridScaling = _say(scale[0])
        return
    place = data
    if groups:
        place = Dataset()
        if not shared:
            data.SharedFunctionalGroupsSequence = shared = Sequence([Dataset()])
        shared[0].PixelValueTransformationSequence = Sequence([place])
    place.RescaleSlope, place.RescaleIntercept = (_say(value) for value in scale)
    if "RescaleType" not in place:
        place.RescaleType = "US"  # unspecified


def _set_window(data: Any, limits: tuple[float, float]) -> None:
    """A window (C.11.2) that shows the values, if there was one that doesn't."""
    centres, widths = (np.atleast_1d(data.get(name) or []).astype(float) for name in WINDOW[:2])
    low, high = limits
    if len(centres) and not (((centres > low) & (centres < high)).all() and (widths <= high - low).all()):
        for name in WINDOW:
            if name in data:
                del data[name]
        data.WindowCenter, data.WindowWidth = _say((low + high) / 2), _say(high - low)


def _say(value: float) -> str:
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value))


def _scale_place(data: Any, before: tuple[int, int]) -> None:
    """Sizes of pixels, and where the first one's centre is (C.7.6.2), after scaling; overlays, which lie upon old pixels, go."""
    down, across = before[0] / data.Rows, before[1] / data.Columns
    shared = data.get("SharedFunctionalGroupsSequence") or []
    frames = data.get("PerFrameFunctionalGroupsSequence") or []

    def find(group: Any, sequence: str, name: str) -> Any:
        for place in (group, *shared):
            if place.get(sequence):
                return place.get(sequence)[0].get(name)
        return data.get(name)

    for group in (data, *frames, *shared):
        holder = data if group is data else (group.get("PlanePositionSequence") or [None])[0]
        turn = find(group, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = find(group, "PixelMeasuresSequence", "PixelSpacing")
        if holder is not None and holder.get("ImagePositionPatient") and turn and spacing:
            along, downwards = np.array(turn[:3], float), np.array(turn[3:], float)
            moved = along * float(spacing[1]) * (across - 1) / 2 + downwards * float(spacing[0]) * (down - 1) / 2
            moved += np.array(holder.ImagePositionPatient, float)  # of the first pixel's centre
            holder.ImagePositionPatient = [_say(float(value)) for value in moved]

    def scale(within: Any, element: Any) -> None:
        if element.keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing") and element.value:
            element.value = [_say(float(element.value[0]) * down), _say(float(element.value[1]) * across)]

    data.walk(scale)
    for tag in [tag for tag in data.keys() if tag.group in OVERLAYS]:  # noqa: SIM118 (it is no dict)
        del data[tag]


def _say_origin(data: Any, maker: str) -> None:
    """That it is derived, from which image, and with UIDs of its own (C.7.6.1.1.2, C.12.4)."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    from pydicom.uid import generate_uid

    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    data.SourceImageSequence = Sequence([source])
    old = data.get("ImageType") or []
    data.ImageType = ["DERIVED", "SECONDARY", *([] if isinstance(old, str) else list(old)[2:])]
    data.DerivationDescription = "Translated by img2img"
    data.SeriesDescription = f"{str(data.get('SeriesDescription', ''))[: NAME - 10]} (img2img)".strip()
    pixels = hashlib.blake2b(data.PixelData).hexdigest()
    data.SOPInstanceUID = generate_uid(entropy_srcs=[str(data.SOPInstanceUID), maker, pixels])
    if data.get("SeriesInstanceUID"):
        data.SeriesInstanceUID = generate_uid(entropy_srcs=[str(data.SeriesInstanceUID), maker])
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID


def _save(data: Any, file: io.BytesIO) -> None:
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(file, data, enforce_file_format=True)
