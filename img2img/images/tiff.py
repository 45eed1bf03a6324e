"""TIFFs of measurements: any number of bands, any type of numbers, and what places them on the earth."""

import base64
import io
import json
import logging
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import IO, Any

import numpy as np

from img2img.images.arrays import Array, ImageError

KEPT = (
    33550,
    33922,
    34264,
    34735,
    34736,
    34737,
    42112,
)  # GeoTIFF 1.1, §7: scale, tie points, matrix, keys; GDAL's texts
SCALE, MATRIX, NO_DATA = 33550, 34264, 42113
REDUCED, MASK = 1, 4  # kinds of pages that are not images of their own
NO_COLOURS = (0, 1)  # of the tag of colours: white or black is 0
BIG = 2**32 - 2**25  # bytes, from which on a TIFF has wide offsets
Size = tuple[int, int, int]
"""Height, width, bands."""


@contextmanager
def open_tiff(path: Path) -> Iterator[Any]:
    """A TIFF, by tifffile, whose warnings would come beside our error.

    Raises:
        ImageError: if pages are missing, or never end.
        TiffFileError, ValueError, IndexError, KeyError: whatever tifffile says.
    """
    import tifffile

    logger, thread = logging.getLogger("tifffile"), get_ident()

    def is_of_another(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(is_of_another)
    try:
        with path.open("rb") as opened:
            _follow_pages(opened)
            opened.seek(0)
            with tifffile.TiffFile(opened) as file:
                yield file
    finally:
        logger.removeFilter(is_of_another)


def _follow_pages(file: IO[bytes]) -> None:
    """Refuses a chain of directories that is damaged (TIFF 6.0, §2; BigTIFF): tifffile drops what comes after, or never ends."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2], "")
    version = struct.unpack(f"{order}H", start[2:4])[0] if order and len(start) == 16 else 0
    if version not in (42, 43):
        return  # tifffile says what it is
    wide = version == 43
    number, tag, offset = (struct.Struct(order + kind) for kind in (("Q", "HHQQ", "Q") if wide else ("H", "HHII", "I")))
    place, seen = offset.unpack_from(start, 8 if wide else 4)[0], set[int]()
    while place:
        if place in seen:
            raise ImageError("it is no TIFF that can be read (its pages follow one another in a circle)")
        seen.add(place)
        file.seek(place)
        head = file.read(number.size)
        tags = number.unpack(head)[0] if len(head) == number.size else 0
        file.seek(place + number.size + tags * tag.size)
        after = file.read(offset.size)
        if not tags or len(after) < offset.size:
            raise ImageError(f"it is no TIFF that can be read (page {len(seen)} is damaged, or cut off)")
        place = offset.unpack(after)[0]


def read_tiff(path: Path, first: bool, accept: Callable[[list[Size]], None]) -> tuple[list[Array], float | None, bytes]:
    """The pages, each (H, W, C) of any type; the value of pixels without data; and what `write_tiff` takes as the header.

    Pages whose axes have names, such as ImageJ's channels, are bands of one image.

    Args:
        first: the first page only.
        accept: gets the sizes, and may raise.

    Raises:
        ImageError: if it can't be read.
    """
    import tifffile

    try:
        with open_tiff(path) as file:
            series = [each for each in file.series if not int(each.keyframe.subfiletype) & (REDUCED | MASK)]
            if not series:
                raise ImageError("it is no TIFF that can be read (it holds no image)")
            layouts = [_lay_out(each.axes, each.shape) for each in series]
            sizes = [size for count, size, _ in layouts for _ in range(1 if first else count)]
            accept(sizes[:1] if first else sizes)
            frames: list[Array] = []
            for each, (count, _, order) in zip(series, layouts, strict=True):
                values = np.asarray(each.asarray())
                planes = values.transpose(order).reshape(count, *(sizes[len(frames)]))
                frames += [np.ascontiguousarray(plane) for plane in planes[: 1 if first else None]]
                if first:
                    break
            page: Any = file.pages[0]
            return frames, _read_no_data(page), _read_header(page)
    except ImageError:
        raise
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError) as error:
        text = str(error).strip() or type(error).__name__
        if "imagecodecs" in text:
            raise ImageError(
                "it is compressed in a way that needs the package imagecodecs: pip install imagecodecs, or 'img2img[formats]'"
            ) from None
        raise ImageError(f"it is no TIFF that can be read ({text.splitlines()[0]})") from None


def measure_tiff(path: Path, first: bool) -> list[Size]:
    """The sizes of the pages, by the file's header."""
    sizes: list[Size] = []

    def stop(found: list[Size]) -> None:
        sizes.extend(found)
        raise ImageError("it is measured")

    with suppress(ImageError):
        read_tiff(path, first, stop)
    return sizes


def has_colours(path: Path) -> bool:
    """Whether a file's header says that it holds colours; also if it is damaged."""
    with suppress(ImageError, ValueError, IndexError, KeyError, OSError), open_tiff(path) as file:
        return int(file.pages.first.photometric) not in NO_COLOURS
    return True


def _lay_out(axes: str, shape: tuple[int, ...]) -> tuple[int, Size, tuple[int, ...]]:
    """How many images a series holds, the size of each, and the order of its axes: images, height, width, bands."""
    bands = [place for place, axis in enumerate(axes) if axis in "CS"]
    sides = [axes.find("Y"), axes.find("X")]
    if min(sides) < 0:
        raise ImageError(f"its axes are {axes}, of which none are height and width")
    others = [place for place in range(len(axes)) if place not in (*bands, *sides)]
    size = shape[sides[0]], shape[sides[1]], math.prod(shape[place] for place in bands)
    return math.prod(shape[place] for place in others), size, (*others, *sides, *bands)


def _read_no_data(page: Any) -> float | None:
    tag = page.tags.get(NO_DATA)
    with suppress(ValueError):
        return float(str(tag.value).strip("\0 ")) if tag else None
    return None


def _read_header(page: Any) -> bytes:
    tags = [(tag.code, int(tag.dtype), _encode(tag.value)) for code in KEPT if (tag := page.tags.get(code))]
    resolution = [page.tags[code].value for code in (282, 283) if code in page.tags]
    resolution = [value for value in resolution if isinstance(value, tuple) and min(value) > 0]  # of pixels and units
    unit = int(page.tags[296].value) if 296 in page.tags else 1
    about = {
        "size": [page.imagelength, page.imagewidth],
        "bands": page.samplesperpixel,
        "tags": tags,
        "resolution": resolution if len(resolution) == 2 else None,
        "unit": unit,
    }
    return json.dumps(about).encode()


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return list(value) if isinstance(value, tuple) else value


def _decode(value: Any) -> Any:
    return base64.b64decode(value["bytes"]) if isinstance(value, dict) else value


def write_tiff(frames: list[Array], header: bytes, no_data: float | None) -> bytes:
    """A TIFF of pages (H, W, C) of any type, with the place on earth that the header of a TIFF says, scaled to the frames' size."""
    import tifffile

    about = json.loads(header) if header else {}
    tags = [_place_tag(tag, about["size"], frames[0].shape) for tag in about.get("tags", ())]
    if frames[0].shape[2] != about.get("bands"):
        tags = [tag for tag in tags if tag[0] != 42112]  # texts about bands
    if no_data is not None:
        text = f"{no_data:.17g}"
        tags.append((NO_DATA, "s", len(text) + 1, text, True))
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=sum(frame.nbytes for frame in frames) > BIG) as writer:
        for frame in frames:
            several, colour = frame.shape[2] > 1, frame.shape[2] == 3 and frame.dtype in (np.uint8, np.uint16)
            writer.write(
                frame if several else frame[..., 0], photometric="rgb" if colour else "minisblack", planarconfig="contig" if several else None,
                extrasamples=["unspecified"] * (frame.shape[2] - 1) if several and not colour else None, compression="zlib",
                predictor=frame.dtype.kind in "ui", extratags=tags, metadata=None, software=False, contiguous=False,
                resolution=about.get("resolution"), resolutionunit=about.get("unit", 1) if about.get("resolution") else None,
            )  # fmt: skip
            tags = tags if len(frames) == 1 else [tag for tag in tags if tag[0] == NO_DATA]
    return buffer.getvalue()


def _place_tag(tag: tuple[int, int, Any], before: list[int], now: tuple[int, ...]) -> tuple[Any, ...]:
    """A tag as tifffile takes it; a scale or matrix is that of pixels of the new size."""
    code, dtype, value = tag[0], tag[1], _decode(tag[2])
    if isinstance(value, str):  # GDAL writes UTF-8
        value = value.encode() + b"\0"
    down, across = before[0] / now[0], before[1] / now[1]
    if code == SCALE:
        value = [value[0] * across, value[1] * down, *value[2:]]
    elif code == MATRIX:
        value = [each * (across, down, 1, 1)[place % 4] for place, each in enumerate(value)]
    elif code == 33922 and (down, across) != (1, 1):  # the places in the image that are known on earth
        value = [each / (across, down, 1, 1, 1, 1)[place % 6] for place, each in enumerate(value)]
    count = len(value) if isinstance(value, list | bytes) else 1
    return code, dtype, count, tuple(value) if isinstance(value, list) else value, True
