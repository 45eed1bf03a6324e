"""The tab that translates one image, with before and after."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio

from img2img.app.components import Photo, build_direction, build_style
from img2img.app.jobs import hide_folders, in_words
from img2img.app.models import Entry
from img2img.app.tab import (
    DEVICE,
    App,
    Tab,
    adapt_direction,
    adapt_style,
    choose_style,
    whole_number,
)
from img2img.app.uploads import Upload
from img2img.core.errors import UsageError, UserError
from img2img.images import READABLE, Array
from img2img.images.formats import split_ending
from img2img.inference.convert import convert
from img2img.inference.report import Report, Stopped
from img2img.models import Translator

AS_INPUT = "as the input"
FORMATS = [AS_INPUT, "png", "jpg", "webp", "tif", "bmp", "gif", "npy"]
DEFAULT = "default"
MODES = [DEFAULT, "eval", "paper"]


def build_translate_tab(app: App, model: gradio.Dropdown) -> Tab:
    """Adds the tab to the page that is being built."""
    with gradio.Tab("Translate", id="translate", visible=False) as tab, gradio.Row():
        with gradio.Column():
            photo = Photo(
                label="Image",
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                height=320,
                elem_id="translate-image",
            )
            instance_photo = Photo(
                label="Its instance map", type="filepath", sources=["upload"], visible=False, height=160
            )
            directions = build_direction()
            styles = build_style()
            style_photo = Photo(
                label="Style from this image", type="filepath", sources=["upload"], visible=False, height=160
            )
            with gradio.Accordion("Options", open=False):
                options = build_options()
            with gradio.Row():
                start = gradio.Button("Translate", variant="primary", elem_id="translate-start")
                stop = gradio.Button("Stop")
        with gradio.Column(scale=2):
            compared = gradio.ImageSlider(label="Before and after", interactive=False, elem_id="translate-compared")
            result = gradio.File(label="Result, of full size and depth", interactive=False, elem_id="translate-result")
            said = gradio.Markdown()

    @in_words
    def translate(
        request: gradio.Request,
        model: str,
        image: Upload | None,
        instances: Upload | None = None,
        direction: str | None = None,
        style: str | None = None,
        style_image: Upload | None = None,
        format: str = AS_INPUT,
        size: float | None = 0,
        mode: str = DEFAULT,
        seed: float | None = 0,
        progress: gradio.Progress = gradio.Progress(),  # noqa: B008 (Gradio finds it by this)
    ) -> tuple[Any, str | None, str]:
        if image is None:
            raise UsageError("give an image first.")
        translator = app.models.translator(model, direction)
        chosen = read_options(format, size, mode, seed)
        wanted = app.jobs.whole.picture(style_image.path).frames[0] if style_image else choose_style(style)
        maps = instances.path if instances else None
        try:
            with app.jobs.run(request, progress) as (folder, watch):
                target = folder / name_result(image.name, format)
                report = run_conversion(
                    app, translator, image.path, target, chosen, watch, instances=maps, style=wanted
                )
        except Stopped:
            return None, None, "Stopped."
        (outcome,) = report.outcomes
        if outcome.status != "done":
            reason = outcome.reason.replace(str(image.path), image.name)
            raise UserError(reason if reason.startswith(image.name) else f"{image.name}: {reason}")
        made = app.jobs.small.picture(target).frames[0]
        before = app.jobs.show(read_shown(app, translator, image.path), made.shape[:2])
        remarks = [
            f"{outcome.width} × {outcome.height} pixels, {outcome.bits} bits a channel, computed in {outcome.dtype}."
        ]
        remarks += [outcome.note] if outcome.note else []
        return (before, app.jobs.show(made)), str(target), as_text([*remarks, *report.notes])

    inputs = [model, photo, instance_photo, directions, styles, style_photo, *options]
    outputs = [compared, result, said]
    cleared = start.click(lambda: (None, None, ""), None, outputs, queue=False, api_visibility="private")
    cleared.then(translate, inputs, outputs, api_name="translate", **DEVICE)
    stop.click(app.jobs.stop, queue=False, api_visibility="private")

    def adapt(entry: Entry | None) -> list[Any]:
        config = entry.translator if entry else None
        with_image = bool(config and config.encoder and config.encoder.kind == "image")
        return [
            gradio.update(visible=config is not None),
            gradio.update(label="Label map" if config and config.classes else "Image"),
            gradio.update(visible=bool(config and config.edges)),
            adapt_direction(entry),
            adapt_style(config),
            gradio.update(visible=with_image, value=None),
        ]

    return Tab([tab, photo, instance_photo, directions, styles, style_photo], adapt)


def build_options() -> list[Any]:
    """The options of a conversion, in the order of `read_options`."""
    return [
        gradio.Dropdown(FORMATS, value=AS_INPUT, label="Format of the result"),
        gradio.Number(0, label="Scale the shorter side to this many pixels first (0: keep the size)", precision=0),
        gradio.Radio(
            MODES,
            value=DEFAULT,
            label="Mode: default is the model's own; eval is without dropout; paper has pix2pix's noise",
        ),
        gradio.Number(0, label="Seed of mode paper", precision=0),
    ]


def read_options(format: str, size: float | None, mode: str, seed: float | None) -> dict[str, Any]:
    """What was chosen, as arguments of `convert`.

    Raises:
        UsageError: for numbers that can't be.
    """
    return {
        "format": None if format == AS_INPUT else format,
        "size": whole_number(size, "The shorter side") or None,
        "mode": None if mode == DEFAULT else mode,
        "seed": whole_number(seed, "Seed"),
    }


def name_result(name: str, format: str) -> str:
    """What the result of a file is called."""
    path = Path(name)
    stem, suffix = split_ending(path.name)
    suffix = suffix if format == AS_INPUT else f".{format}"
    return f"{stem}{suffix if suffix in READABLE else '.png'}"


def run_conversion(
    app: App, translator: Translator, source: Path, target: Path, options: dict[str, Any], watch: Any, **more: Any
) -> Report:
    """As `img2img convert`, within the server's limits.

    Raises:
        Stopped: if the session asked for it.
    """
    limits = app.jobs.limits
    return convert(
        translator,
        source,
        target,
        max_pixels=limits.max_pixels,
        timeout=limits.timeout,
        file_memory=limits.file_memory,
        progress=watch,
        **options,
        **more,
    )


def as_text(lines: Sequence[str]) -> str:
    """Lines as Markdown shows them as they are, without the server's folders."""
    return "  \n".join(escape(hide_folders(line)) for line in lines)


def read_shown(app: App, translator: Translator, file: Path) -> Array:
    """An input as a person sees it: (H, W, C); label maps in their colours."""
    classes = translator.config.classes
    if classes is None:
        return app.jobs.small.picture(file).frames[0]
    return classes.paint(app.jobs.small.indices(file))
