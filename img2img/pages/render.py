"""Templates and values → a page; images become a part of it."""

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from img2img.core.files import write_whole
from img2img.images import Array, ImageError, composite_over_white, read_image, resize, to_8_bit, to_pil

SMALL = 128  # pixels a side, up to which a picture is shown exactly
QUALITY = 88
CACHED = 128  # pictures


def write_page(path: Path, template: str, **values: Any) -> None:
    """Writes a page, whole or not at all.

    Raises:
        UserError: if it can't be written.
    """
    write_whole(path, render_template(template, **values).encode("utf-8", "backslashreplace"))


def render_template(template: str, **values: Any) -> str:
    """A template with its values."""
    return _load_templates().get_template(template).render(**values)


@lru_cache(maxsize=1)
def _load_templates() -> Environment:
    """They are compiled once in a process."""
    environment = Environment(
        loader=PackageLoader("img2img.pages"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["as_data"] = embed_file
    return environment


def embed_file(file: Path) -> str:
    """A PNG file as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def embed_scaled(file: Path, longest: int) -> str:
    """An image file as a data URL of at most so many pixels a side; empty if it can't be read."""
    try:
        return _embed_cached(file, longest, file.stat().st_mtime_ns)
    except (OSError, ImageError):
        return ""


@lru_cache(maxsize=CACHED)
def _embed_cached(file: Path, longest: int, _changed: int) -> str:
    return embed_array(read_image(file, longest), longest)


def embed_array(image: Array, longest: int) -> str:
    """An image (H, W, C) of any kind as a data URL of at most so many pixels a side: what a browser shows of it."""
    height, width, channels = image.shape
    bands = channels > 4 or np.issubdtype(image.dtype, np.floating)
    image = to_8_bit(image[..., : 3 if channels >= 3 else 1] if bands else image)
    image = composite_over_white(image) if image.shape[2] in (2, 4) else image
    scale = longest / max(height, width)
    if scale < 1:
        image = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    kind = "PNG" if max(image.shape[:2]) <= SMALL else "JPEG"
    buffer = io.BytesIO()
    to_pil(image).convert("RGB").save(buffer, kind, quality=QUALITY, subsampling=0)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
