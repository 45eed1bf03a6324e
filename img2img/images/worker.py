"""The process in which files are decoded: `python -m img2img.images.worker MEMORY SECONDS RULES`.

It says ``{}`` when it is ready. Then it reads a JSON line a file, ``[task, path, place]``, and answers with a JSON line and the bytes of the frames. It knows
nothing of torch, so that it starts fast; and nobody unpickles anything.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

from img2img.core.stored import StoredPath, resolve_path
from img2img.images.arrays import ImageError
from img2img.images.labels import read_indices
from img2img.images.reading import Picture, Rules, count_pixels, read_picture

BLOCKS = ("exif", "icc", "xmp")  # of a picture: bytes


def answer(task: str, path: Path, rules: Rules, out: BinaryIO) -> None:
    """Does one task, ``pixels``, ``picture`` or ``indices``, and writes its answer."""
    if task == "pixels":
        _write(out, {"pixels": count_pixels(path, rules)})
        return
    try:
        picture = read_picture(path, rules) if task == "picture" else Picture([read_indices(path, rules)])
        masks = picture.bands.missing if picture.bands else []
        frames = [np.ascontiguousarray(frame) for frame in (*picture.frames, *masks)]
    except ImageError as error:
        _write(out, {"error": str(error)})
    except MemoryError:
        _write(out, {"error": f"{path}: there is not enough memory for it."})
    else:
        _write(out, header(picture))
        for frame in frames:
            out.write(frame.data)
        out.flush()


def header(picture: Picture) -> dict[str, Any]:
    """What belongs to a picture, for JSON: the frames' shapes and types, those of masks of what is missing, and all the rest."""
    bands = picture.bands
    frames = [(frame.shape, frame.dtype.name) for frame in picture.frames]
    masks = [(mask.shape, mask.dtype.name) for mask in bands.missing] if bands else []
    rest = {name: value for name, value in vars(picture).items() if name not in ("frames", "bands", *BLOCKS)}
    stored = bands and {**vars(bands), "header": bands.header.hex(), "missing": []}
    return {
        "frames": frames,
        "masks": masks,
        "bands": stored,
        **{name: getattr(picture, name).hex() for name in BLOCKS},
        **rest,
    }


def _write(out: BinaryIO, values: dict[str, Any]) -> None:
    out.write(json.dumps(values).encode() + b"\n")
    out.flush()


def parse_rules(text: str) -> Rules:
    """Rules, from JSON, which has no tuples."""
    values = json.loads(text)
    return Rules(**{**values, "range": tuple(values["range"]) if values["range"] else None})


def limit_memory(size: int) -> None:
    """Makes what needs more bytes than this fail with a MemoryError, where the system can do so (Linux)."""
    with suppress(ImportError, OSError, ValueError, OverflowError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size, hard))


def main() -> None:
    """Answers until its input ends, as it does when the process that started it is gone."""
    memory, seconds, rules = int(sys.argv[1]), float(sys.argv[2]), parse_rules(sys.argv[3])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between
    Image.MAX_IMAGE_PIXELS = None  # rules.max_pixels takes its place
    cv2.setNumThreads(1)  # there are several such processes
    limit_memory(memory)
    with suppress(BrokenPipeError, KeyboardInterrupt):
        _write(out, {})
        for line in sys.stdin.buffer:
            task, text, place = json.loads(line)
            path = resolve_path(text)
            if isinstance(path, StoredPath) and place:
                path.place = tuple(place)  # as its shard's index has it, which this process would have to read
            _end_after(seconds)
            answer(task, path, rules, out)
            _end_after(0)


def _end_after(seconds: float) -> None:
    """Ends this process then, if nobody else does because whoever started it is gone; 0 for never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def command(memory: int, seconds: float, rules: Rules) -> list[str]:
    """The command line of such a process; it imports nothing from the current folder, which may be somebody's images."""
    return [sys.executable, "-P", "-m", "img2img.images.worker", str(memory), str(seconds), json.dumps(asdict(rules))]


if __name__ == "__main__":
    main()
