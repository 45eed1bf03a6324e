"""NIfTI volumes: slices along an axis of the body, upright, and back to a volume that lies where the first one lay."""

import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from img2img.images.arrays import Array, ImageError
from img2img.images.formats import find_suffix, prepare_format
from img2img.images.tiff import Size

Axis = Literal["axial", "coronal", "sagittal"]
"""How a volume is cut: across the body, from side to side, or from front to back."""

NUMBERS: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}  # of a volume whose axes go right, front and up
HELD = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
LONGEST = 65535  # voxels of an axis
AFTER = 2**20  # bytes that may follow the values
UPRIGHT = np.array([[0, 1], [1, 1], [2, 1]])  # the order of axes of such a volume


def read_volume(
    path: Path, first: bool, accept: Callable[[list[Size]], None], axis: Axis = "axial"
) -> tuple[list[Array], bytes]:
    """The slices, each (H, W, C), from left to right, back to front, or foot to head.

    Axial slices have the front at the top and the right side of the body on the right; the others have the head at the
    top. A fourth axis of the file holds bands.

    Args:
        first: the slice in the middle only.
        accept: gets the sizes, and may raise.

    Returns:
        The slices, and what `write_volume` takes as the header.

    Raises:
        ImageError: if it can't be read.
    """
    with _open(path) as image:
        from nibabel.orientations import apply_orientation

        number = NUMBERS[axis]
        order = _find_order(image)
        height, width, count, bands = _measure(image.shape, order, number)
        accept([(height, width, bands)] * (1 if first else count))
        values = np.asarray(image.dataobj)
        if values.dtype.kind not in "uif":
            raise ImageError(f"its values are {values.dtype}; use integers or floats")
        if values.dtype == np.float64 and image.get_data_dtype() != np.float64:  # integers that have been scaled
            values = values.astype(np.float32)
        planes = _cut(apply_orientation(values.reshape(*_complete(image.shape)), order), number)
        chosen = planes[count // 2 :][:1] if first else planes
        header = io.BytesIO()
        image.header.write_to(header)
        about = {"axis": number, "count": count, "size": [height, width]}
        return [np.ascontiguousarray(plane) for plane in chosen], json.dumps(about).encode() + b"\n" + header.getvalue()


def measure_volume(path: Path, first: bool, axis: Axis = "axial") -> list[Size]:
    """The sizes of the slices, by the file's header."""
    with _open(path) as image:
        height, width, count, bands = _measure(image.shape, _find_order(image), NUMBERS[axis])
        return [(height, width, bands)] * (1 if first else count)


def write_volume(slices: list[Array], header: bytes, suffix: str) -> bytes:
    """A volume of what became of the slices that `read_volume` gave; if they have another size, its voxels have, too.

    Args:
        slices: (H, W, C) each, of a type of `HELD`.
        suffix: ``.nii`` or ``.nii.gz``.

    Raises:
        ImageError: if the header is of no volume, or of one with other slices.
    """
    import nibabel

    if not header:
        raise ImageError(
            f"only a NIfTI volume becomes {suffix}, for of others the place in space is unknown; use .tif or .npy"
        )
    first, _, block = header.partition(b"\n")
    about = json.loads(first)
    if len(slices) != about["count"]:
        raise ImageError(
            f"it has {about['count']} slices, and {len(slices)} of them make no volume; use --frames all, or --format tif or npy"
        )
    kind = _choose_kind(block)
    known = kind.header_class.from_fileobj(io.BytesIO(block))
    affine = known.get_best_affine()
    order = nibabel.orientations.io_orientation(affine)
    stack = np.stack(slices)
    back = nibabel.orientations.ornt_transform(UPRIGHT, order)
    values = nibabel.orientations.apply_orientation(_join(stack, about["axis"]), back)
    values = values[..., 0] if values.shape[3] == 1 else values
    image = kind(values, affine, known)
    if stack.shape[1:3] != tuple(about["size"]):
        scale = _scale_voxels(stack.shape[1:3], about, order)
        places = {name: getattr(known, f"get_{name}")(coded=True) for name in ("sform", "qform")}
        image = kind(values, affine @ scale, known)
        for name, (place, code) in places.items():
            if code:
                getattr(image, f"set_{name}")(place @ scale, code=int(code))
    image.header.set_data_dtype(values.dtype)
    image.header.set_slope_inter(1, 0)
    image.header["cal_min"] = image.header["cal_max"] = 0  # between which the old values were shown
    data: bytes = image.to_bytes()
    return gzip.compress(data, 6, mtime=0) if suffix == ".nii.gz" else data


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """A volume whose values are read when they are asked for."""
    prepare_format(path)
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, ImageDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        with path.open("rb") as file:
            packed = find_suffix(path) == ".nii.gz"
            with gzip.GzipFile(fileobj=file) if packed else file as stream:
                start = stream.read(4)
                stream.seek(0)
                yield _choose_kind(start).from_stream(cast(io.IOBase, stream))
                if packed:
                    stream.read(AFTER)  # at its end, gzip compares the checksum
    except ImageError:
        raise
    except FileNotFoundError:
        raise
    except MemoryError:
        raise ImageError("there is not enough memory for it") from None
    except (
        ImageFileError,
        HeaderDataError,
        ImageDataError,
        WrapStructError,
        EOFError,
        ValueError,
        OSError,
        zlib.error,
    ) as error:
        text = str(error).strip() or type(error).__name__
        raise ImageError(f"it is no NIfTI volume that can be read ({text.splitlines()[0]})") from None


def _choose_kind(start: bytes) -> Any:
    """The class of a NIfTI file that begins so: with the size of its header, in either order of bytes."""
    import nibabel

    wide = 540 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
    return nibabel.Nifti2Image if wide else nibabel.Nifti1Image


def _find_order(image: Any) -> Array:
    import nibabel

    order: Array = nibabel.orientations.io_orientation(image.affine)
    if np.isnan(order).any():
        raise ImageError("its affine matrix doesn't say how the volume lies")
    return order


def _complete(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A volume's shape with one axis for bands."""
    if (
        not shape
        or min(shape) < 1
        or max(shape) > LONGEST
        or len(shape) > 5
        or (len(shape) == 5 and 1 not in shape[3:])
    ):
        raise ImageError(
            f"its shape is {shape}; a volume has three axes of at most {LONGEST} voxels, and bands in a fourth"
        )
    x, y, z = (*shape[:3], 1, 1)[:3]
    return x, y, z, math.prod(shape[3:])


def _measure(shape: tuple[int, ...], order: Array, number: int) -> tuple[int, int, int, int]:
    """Height and width of slices along an axis of an upright volume, how many there are, and bands."""
    *sides, bands = _complete(shape)
    upright = [0, 0, 0]
    for place, side in enumerate(sides):
        upright[int(order[place][0])] = side
    across, down = (axis for axis in range(3) if axis != number)
    return upright[down], upright[across], upright[number], bands


def _cut(upright: Array, number: int) -> Array:
    """(right, front, up, C) → slices (N, H, W, C)."""
    across, down = (axis for axis in range(3) if axis != number)
    return upright.transpose(number, down, across, 3)[:, ::-1]


def _join(slices: Array, number: int) -> Array:
    """What `_cut` cut."""
    across, down = (axis for axis in range(3) if axis != number)
    return slices[:, ::-1].transpose(np.argsort((number, down, across, 3)))


def _scale_voxels(size: tuple[int, int], about: dict[str, Any], order: Array) -> Array:
    """From voxels of slices of this size to the file's own: (4, 4)."""
    across, down = (axis for axis in range(3) if axis != about["axis"])
    factors = {down: about["size"][0] / size[0], across: about["size"][1] / size[1]}
    matrix = np.eye(4)
    for place in range(3):
        factor = factors.get(int(order[place][0]), 1.0)
        matrix[place, place], matrix[place, 3] = factor, (factor - 1) / 2  # whose edges stay where they are
    return matrix
