"""What the canvas of the page is sent, and what it sends: drawings, and label maps pixel by pixel."""

import base64
import binascii
import json
from pathlib import Path
from typing import Any

import numpy as np

from img2img.core.errors import UsageError
from img2img.data.classes import Classes
from img2img.images import Array

LARGEST = 2048  # pixels a side
MOST_CHARACTERS = 2**25  # of what a canvas sends

IGNORED = "no class"


def empty_drawing(height: int, width: int) -> str:
    """What makes a canvas one to draw on, white and empty."""
    return json.dumps({"setup": "drawing", "height": height, "width": width})


def list_labels(classes: Classes) -> Array:
    """The labels that can be painted: the classes, and last the one that says nothing, if there is one."""
    known = [label for label in range(classes.count) if label != classes.ignore]
    return np.array([*known, *([] if classes.ignore is None else [classes.ignore])])


def empty_map(classes: Classes, instances: bool, height: int, width: int) -> str:
    """What makes a canvas one to paint a label map on, of the first class everywhere."""
    labels = np.full((height, width), list_labels(classes)[0])
    return filled_map(classes, labels, np.zeros_like(labels) if instances else None)


def filled_map(classes: Classes, labels: Array, instances: Array | None) -> str:
    """As `empty_map`, with a label map (H, W) on it, and its instances (H, W), if the model knows them.

    The canvas sends places in the list of labels, so that nothing else can be painted.

    Raises:
        UsageError: if the map is too large, or has labels that may not occur.
    """
    if max(labels.shape) > LARGEST:
        raise UsageError(f"the canvas takes at most {LARGEST} pixels a side; translate larger label maps as files.")
    if classes.beyond(labels).any():
        raise UsageError(
            f"label {labels[classes.beyond(labels)][0]} is out of range; this model knows {classes.allowed}."
        )
    colours, known = classes.colours(), list_labels(classes)
    palette = [
        {"name": classes.name(label), "colour": f"#{bytes(colours[label].tolist()).hex()}"}
        for label in known.tolist()
        if label != classes.ignore
    ]
    if classes.ignore is not None:
        palette.append({"name": IGNORED, "colour": "#000000"})
    order = np.argsort(known)
    places = order[np.searchsorted(known, labels, sorter=order)]
    sent = {"setup": "labels", "height": labels.shape[0], "width": labels.shape[1], "palette": palette}
    sent["labels"] = _pack(places)
    if instances is not None:
        sent["instances"] = _pack(np.unique(instances, return_inverse=True)[1].reshape(instances.shape))
    return json.dumps(sent)


def read_drawing(text: str | None) -> bytes:
    """The PNG file of what was drawn, which is not decoded here.

    Raises:
        UsageError: if nothing was drawn.
    """
    image = _read(text).get("image")
    if not isinstance(image, str) or not image.startswith("data:image/png;base64,"):
        raise UsageError("draw something first.")
    return _decode(image.partition(",")[2])


def read_map(text: str | None, classes: Classes) -> tuple[Array, Array | None]:
    """The labels that were painted, (H, W), and the instances, if the canvas has them; int64.

    Raises:
        UsageError: if nothing was painted, or what was sent is no label map.
    """
    sent, known = _read(text), list_labels(classes)
    height, width = sent.get("height"), sent.get("width")
    sides = [side for side in (height, width) if isinstance(side, int) and 1 <= side <= LARGEST]
    if len(sides) != 2 or "labels" not in sent:
        raise UsageError(f"paint something first; a label map has 1 to {LARGEST} pixels a side.")
    places = _read_plane(sent["labels"], *sides)
    if places.max() >= len(known):
        raise UsageError(f"the canvas sent class number {places.max()}, and there are {len(known)}.")
    instances = sent.get("instances")
    return known[places], None if instances is None else _read_plane(instances, *sides)


def _read_plane(text: Any, height: int, width: int) -> Array:
    data = np.frombuffer(_decode(text), np.uint8)
    if data.size != 2 * height * width:
        raise UsageError(f"a label map of {height} × {width} pixels has {data.size} bytes, not {2 * height * width}.")
    return data.view("<u2").reshape(height, width).astype(np.int64)


def _pack(values: Array) -> str:
    if values.max() > 65535:
        raise UsageError("the canvas takes at most 65,536 classes and as many instances.")
    return base64.b64encode(values.astype("<u2").tobytes()).decode()


def _decode(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise UsageError("what the canvas sent is damaged.") from None


def _read(text: str | None) -> dict[str, Any]:
    if text and len(text) > MOST_CHARACTERS:
        raise UsageError(f"what the canvas sent is too large; use at most {LARGEST} pixels a side.")
    try:
        sent = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise UsageError("what the canvas sent is damaged.") from None
    return sent if isinstance(sent, dict) else {}


def save_drawing(text: str | None, folder: Path) -> Path:
    """Writes what was drawn into a folder.

    Raises:
        UsageError: if nothing was drawn.
    """
    file = folder / "drawing.png"
    file.write_bytes(read_drawing(text))
    return file
