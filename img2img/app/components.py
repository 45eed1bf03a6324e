"""Gradio components of our own: uploads that stay files, and a canvas whose pixels are exact and whose classes have names."""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import gradio
from gradio import component_meta, processing_utils

from img2img.app.uploads import Upload, clean_name


def _refuse_address(*_: Any, **__: Any) -> NoReturn:
    raise gradio.Error("Upload the file; an address is not taken.", print_exception=False)


component_meta.create_or_modify_pyi = lambda *_: None  # else it writes a .pyi file beside this one
processing_utils.async_ssrf_protected_download = _refuse_address  # else it opens addresses that requests name
processing_utils.save_url_to_cache = _refuse_address


class Photo(gradio.Image):
    """An image to be uploaded. Gradio would decode it in this process; here it stays a file."""

    is_template = True  # to the browser, it is a gradio.Image

    def preprocess(self, payload: Any) -> Upload | None:  # type: ignore[override]
        """The uploaded file."""
        return None if payload is None else _find_upload(payload)


class Files(gradio.File):
    """Files to be uploaded, by their own names."""

    is_template = True

    def preprocess(self, payload: Any) -> list[Upload]:  # type: ignore[override]
        """The uploaded files."""
        files = (
            [] if payload is None else payload if isinstance(payload, Sequence) else getattr(payload, "root", [payload])
        )
        return [_find_upload(file) for file in files]


def _find_upload(payload: Any) -> Upload:
    """A file in the server's own folder; no other path, and no address, is ever opened."""
    folder = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
    path = Path(payload.path or "").resolve()
    if not payload.path or not path.is_relative_to(folder) or not path.is_file():
        raise gradio.Error("Upload the file; a path or an address is not taken.", print_exception=False)
    os.utime(path)  # it is of use, so it stays
    return Upload(path, clean_name(payload.orig_name or path.name))


class Selection(gradio.EventData):
    """Which image of a gallery was clicked: `place`, from 0."""

    def __init__(self, target: Any, data: Any) -> None:
        super().__init__(target, data)
        place = data.get("index") if isinstance(data, dict) else None
        if not isinstance(place, int) or isinstance(place, bool) or place < 0:
            raise gradio.Error("Choose an image first.", print_exception=False)
        self.place = place


class Choice(gradio.Dropdown):
    """A choice whose options come and go while the server runs; what is chosen is checked where it is used."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:  # type: ignore[override]
        """What was chosen."""
        return None if payload is None else str(payload)


class Canvas(gradio.HTML):
    """A canvas that sends what is on it when the pen is lifted, as JSON text; see `canvas.js`.

    Args:
        label: what it is for.
    """

    def __init__(self, label: str, **options: Any) -> None:
        room = files("img2img.app")
        super().__init__(
            value="",
            label=label,
            html_template='<div class="canvas-root"></div>',
            css_template=room.joinpath("canvas.css").read_text(),
            js_on_load=room.joinpath("canvas.js").read_text(),
            apply_default_css=False,
            **options,
        )

    def preprocess(self, payload: Any) -> str | None:
        """What is on the canvas."""
        if payload is not None and not isinstance(payload, str):
            raise gradio.Error("What the canvas sent is damaged.", print_exception=False)
        return payload


def build_picture(label: str, elem_id: str, height: int = 512) -> gradio.Image:
    """An image to look at, as large as there is space, and to download; Gradio's own buttons also share it with the world."""
    return gradio.Image(
        label=label, interactive=False, format="png", height=height, buttons=["download", "fullscreen"],
        elem_classes="large", elem_id=elem_id,
    )  # fmt: skip


def build_direction() -> gradio.Radio:
    """The choice between a model's two directions; hidden until there are two."""
    return gradio.Radio(["AtoB", "BtoA"], value="AtoB", label="Direction", visible=False)


def build_style() -> gradio.Dropdown:
    """The choice of a style or a domain; hidden until there are several."""
    return Choice([], label="Style", allow_custom_value=True, visible=False)
