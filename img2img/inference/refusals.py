"""What a conversion refuses before it begins, in sentences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from img2img.core.errors import UsageError
from img2img.images import READABLE, ImageError, Picture, encode_picture
from img2img.images.bands import Bands
from img2img.images.formats import DICOM, VOLUMES, find_suffix
from img2img.inference.engine import Backend, DType
from img2img.inference.plan import Existing
from img2img.interop import is_onnx
from img2img.interop.onnx import OnnxGenerator
from img2img.models import Mode, Translator

Frames = Literal["all", "first"]

Part = tuple[int, int]
"""The number of a part, from 1, and of how many."""

NEIGHBOURS = 64  # inputs, of which those of equal size share batches
FIRST = 20  # inputs, of which one that can be read decides on bf16; all set the ranges of int8


def explain_format(wanted: Sequence[Path], translator: Translator, target: Path) -> str:
    """Why no output can hold the measurements that are made, if all of these have one format; else empty."""
    limits = translator.config.out_range
    suffixes = {find_suffix(path) for path in wanted}
    if limits is None or len(suffixes) != 1 or suffixes <= {DICOM, *VOLUMES}:  # the last need their sources' headers
        return ""
    frame = np.zeros((1, 1, translator.out_channels), np.float32)
    try:
        encode_picture(wanted[0], Picture([frame], bands=Bands(limits, "uint8")))
        return ""
    except ImageError as error:
        reason = str(error).removeprefix(f"{wanted[0]}: ").partition(";")[0]
    advice = (
        "Give the output a name that ends in .tif or .npy" if list(wanted) == [target] else "Give --format tif, or npy"
    )
    return f"no output can be written as {suffixes.pop()}: {reason}. {advice}."


def refuse_words(suffix: str | None, given: dict[str, str]) -> None:
    """Refuses an unknown format, and unknown words for other options."""
    if suffix and suffix not in READABLE:
        raise UsageError(f"--format {suffix[1:]}: use one of {', '.join(s[1:] for s in READABLE)}.")
    for (name, word), kind in zip(given.items(), (Existing, Frames, Mode, DType), strict=True):
        if word not in get_args(kind):
            raise UsageError(f"{name} {word!r}: there are {', '.join(get_args(kind))}.")


def refuse_engine(translator: Translator | Path | str, engine: str) -> bool:
    """Whether an ONNX file is what translates."""
    if engine not in get_args(Backend):
        raise UsageError(f"engine {engine!r}: there are {', '.join(get_args(Backend))}.")
    loaded = isinstance(translator, Translator)
    by_onnx = isinstance(translator.generator, OnnxGenerator) if loaded else is_onnx(Path(translator))  # type: ignore[union-attr, arg-type]
    if engine == "onnx" and not by_onnx:
        raise UsageError(
            "--engine onnx computes what is in an ONNX file: img2img export MODEL FILE.onnx, then --model FILE.onnx."
        )
    if engine == "torch" and by_onnx:
        raise UsageError(
            "--engine torch: an ONNX file is computed by onnxruntime; leave it out, or give the translator's folder."
        )
    return by_onnx


def refuse_ranges(quality: int, tile: int | None, timeout: float, file_memory: float, shard: Part) -> None:
    """Refuses numbers beyond their ranges."""
    if not 1 <= quality <= 100:
        raise UsageError(f"--quality {quality}: give a number from 1 to 100.")
    if tile is not None and tile < 0:
        raise UsageError(f"--tile {tile}: give the side of a square in pixels, or 0 for never.")
    if not (0 < timeout < 1e6 and 1 <= file_memory < 1e6):
        raise UsageError("--timeout takes a number above 0, in seconds; --file-memory at least 1, in GB.")
    if not 1 <= shard[0] <= shard[1]:
        raise UsageError(f"shard {shard[0]}/{shard[1]}: give the number of a part, from 1, and of how many.")


def refuse_numbers(given: dict[str, int | None]) -> None:
    """Refuses numbers below 1, and batches that are too large."""
    for name, number in given.items():
        if number is not None and number < 1:
            raise UsageError(f"--{name} {number}: give at least 1.")
    if (given["batch-size"] or 1) > NEIGHBOURS:
        raise UsageError(f"--batch-size {given['batch-size']}: give at most {NEIGHBOURS}; more is no faster.")
