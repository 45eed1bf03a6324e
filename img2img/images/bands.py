"""Measurements instead of colours: what the values of a file stand for, on the way in and out.

Of a picture of bands every channel is a band: none is alpha, and none can be derived from the others.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from img2img.images.arrays import Array, ImageError, apply_by_rows

Range = tuple[float, float]
"""The values that become 0 and 1, and in the network -1 and 1."""

STEPS = 64  # that a range has at least in a type of integers that is to hold it
FLOAT_STEPS = 4096  # the same of floats
ANY = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


@dataclass
class Bands:
    """How a file holds its bands."""

    range: Range
    dtype: str
    """Of the values, as NumPy calls it."""
    format: str = ""
    """The ending of files that `header` is for."""
    header: bytes = b""
    """What else the file says, for a file of the same format."""
    maker: str = ""
    """Tells the model that made these values from others; empty for what was read."""
    no_data: float | None = None
    """The value of pixels where nothing was measured."""
    missing: list[Array] = field(default_factory=list)
    """Of each frame where nothing was measured, (H, W) bool; empty if there is no such place."""
    found: Range | None = None
    """The least and the greatest value in the file; None if nothing was measured."""


def scale_values(values: Array, limits: Range, no_data: float | None = None) -> tuple[Array, Array, Range | None]:
    """Values (H, W, C) → float32 in [0, 1], clipped; where nothing was measured, (H, W) bool; and the least and the greatest value.

    Nothing was measured where all bands are NaN or `no_data`; these become 0.

    Raises:
        ImageError: for values that are no real numbers.
    """
    if values.dtype.kind not in "buif":
        raise ImageError(f"its values are {values.dtype}; use integers or floats")
    low, high = limits
    exact: Any = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    nothing: Array = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if no_data is not None and _holds(values.dtype, no_data):
        nothing |= values == values.dtype.type(no_data)

    def scale(rows: slice) -> Array:
        unit = ((values[rows].astype(exact) - exact(low)) / exact(high - low)).clip(0, 1).astype(np.float32)
        unit[nothing[rows]] = 0
        return unit

    found = None
    if not nothing.all():
        measured = values[~nothing] if nothing.any() else values
        found = float(measured.min()), float(measured.max())
    return apply_by_rows(scale, *values.shape[:2]), np.asarray(nothing.all(axis=2)), found


def restore_values(unit: Array, limits: Range, dtype: np.dtype[Any]) -> Array:
    """Floats in [0, 1] → values (H, W, C) of a type, rounded if it is of integers."""
    low, high = limits

    def restore(rows: slice) -> Array:
        values = low + unit[rows].astype(np.float64) * (high - low)
        return (np.rint(values) if dtype.kind in "ui" else values).astype(dtype)

    return apply_by_rows(restore, *unit.shape[:2])


def choose_type(stored: str, limits: Range, allowed: tuple[str, ...]) -> np.dtype[Any]:
    """The type of values to write: the source's, if it holds the range finely enough, else one that does.

    Args:
        stored: the type in the source's file.
        allowed: the types that a format can hold.

    Raises:
        ImageError: if none does.
    """
    extent, most = limits[1] - limits[0], max(map(abs, limits))
    for name in (stored, "uint8", "uint16", "float32", "float64"):
        dtype = np.dtype(name)
        if dtype.kind == "f":
            fine = most <= float(np.finfo(dtype).max) and float(np.spacing(dtype.type(most))) * FLOAT_STEPS <= extent
        else:
            fine = extent >= STEPS and all(_holds(dtype, each) for each in limits)
        if name in allowed and fine:
            return dtype
    raise ImageError(
        f"its format can't hold values from {limits[0]:g} to {limits[1]:g} in steps that are fine enough; --format tif or npy can"
    )


def restore_frames(frames: list[Array], bands: Bands, allowed: tuple[str, ...]) -> tuple[list[Array], float | None]:
    """Frames in [0, 1] as values of a type that a format can hold; and the value that says that nothing was measured."""
    dtype = choose_type(bands.dtype, bands.range, allowed)
    done = [restore_values(frame, bands.range, dtype) for frame in frames]
    no_data = bands.no_data if bands.no_data is not None and _holds(dtype, bands.no_data) else None
    if no_data is None and any(mask.any() for mask in bands.missing):
        no_data = math.nan if dtype.kind == "f" else float(np.iinfo(dtype).min)
    if no_data is None:
        return done, None
    for place, frame in enumerate(done):
        avoid_value(frame, no_data, bands.range)
        if bands.missing:
            frame[bands.missing[place]] = no_data
    return done, no_data


def avoid_value(values: Array, no_data: float, limits: Range) -> None:
    """Moves values that would read as no data by the least step, into the range."""
    value = values.dtype.type(no_data)
    up = no_data < limits[1]
    if values.dtype.kind == "f":
        values[values == value] = np.nextafter(value, values.dtype.type(np.inf if up else -np.inf))
    else:
        values[values == value] = value + 1 if up else value - 1


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype) if dtype.kind in "ui" else None
    return limits is not None and math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max
