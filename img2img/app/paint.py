"""The tab on which people paint label maps: every colour is a class, and nothing else can be painted."""

from pathlib import Path
from typing import Any

import gradio
import numpy as np

from img2img.app.canvas import empty_map, filled_map, read_map
from img2img.app.components import Canvas, Photo, Selection, build_picture, build_style
from img2img.app.draw import for_browser
from img2img.app.jobs import in_words
from img2img.app.models import Entry
from img2img.app.tab import DEVICE, App, Tab, adapt_style, choose_style
from img2img.app.uploads import Upload
from img2img.core.errors import UsageError
from img2img.images import Array, write_image
from img2img.models import Translator

SHOWN_STYLES = 8  # as small pictures


def build_paint_tab(app: App, model: gradio.Dropdown) -> Tab:
    """Adds the tab to the page that is being built."""
    with gradio.Tab("Paint labels", id="paint", visible=False) as tab, gradio.Row():
        with gradio.Column():
            canvas = Canvas("Label map", elem_id="label-map")
            live = gradio.Checkbox(True, label="Translate whenever the brush is lifted")
            start = gradio.Button("Translate", variant="primary", elem_id="paint-start")
            saved = gradio.File(
                label="The label map as a file, and its instance map", interactive=False, elem_id="paint-saved"
            )
            with gradio.Accordion("Begin with a label map", open=False, elem_id="paint-begin"):
                existing = Photo(
                    label="Label map", type="filepath", sources=["upload"], height=160, elem_id="paint-existing"
                )
                instances = Photo(
                    label="Its instance map", type="filepath", sources=["upload"], height=160, visible=False
                )
                load = gradio.Button("Load it")
        with gradio.Column():
            made = build_picture("Translation", "paint-made")
            style = build_style()
            show = gradio.Button("Show styles", visible=False)
            styles = gradio.Gallery(
                label="Styles",
                show_label=False,
                columns=4,
                format="png",
                allow_preview=False,
                interactive=False,
                visible=False,
                elem_id="paint-styles",
            )

    def read(translator: Translator, painted: str | None) -> tuple[Array, Array | None]:
        if translator.config.classes is None:
            raise UsageError("this model takes no label maps.")
        return read_map(painted, translator.config.classes)

    def translate(translator: Translator, maps: tuple[Array, Array | None], wanted: str | None) -> Array:
        labels, instance_map = maps
        done = translator(labels, instance_map if translator.config.edges else None, style=choose_style(wanted))
        return for_browser(done)

    @in_words
    def paint(name: str, painted: str | None, wanted: str | None) -> tuple[Array, list[str]]:
        translator = app.models.translator(name)
        maps = read(translator, painted)
        return translate(translator, maps, wanted), save_maps(*maps, app.jobs.make_folder())

    def paint_live(name: str, painted: str | None, wanted: str | None, wished: bool) -> Any:
        return paint(name, painted, wanted) if wished else (gradio.skip(), gradio.skip())

    @in_words
    def show_styles(name: str, painted: str | None) -> Any:
        translator = app.models.translator(name)
        maps, known = read(translator, painted), translator.styles
        count = SHOWN_STYLES if known is None else min(SHOWN_STYLES, known.shape[1])
        pictures = [(translate(translator, maps, str(number)), f"Style {number}") for number in range(count)]
        return gradio.update(value=pictures, visible=True)

    @in_words
    def choose(event: Selection) -> str:
        if event.place >= SHOWN_STYLES:
            raise UsageError("choose one of the styles.")
        return str(event.place)

    @in_words
    def begin(name: str, labels: Upload | None, instance_map: Upload | None) -> tuple[str, Any]:
        if labels is None:
            raise UsageError("give a label map first.")
        config = app.models.entry(name).translator
        if config is None or config.classes is None:
            raise UsageError(f"{name} takes no label maps.")
        indices = app.jobs.whole.indices(labels.path)
        beside = app.jobs.whole.indices(instance_map.path) if instance_map else None
        if beside is not None and beside.shape != indices.shape:
            raise UsageError("the instance map has another size than the label map.")
        if config.edges and beside is None:
            beside = indices  # each label is one instance
        return filled_map(config.classes, indices, beside if config.edges else None), gradio.update(visible=False)

    inputs = [model, canvas, style]
    start.click(paint, inputs, [made, saved], api_visibility="private", **DEVICE)
    canvas.input(
        paint_live, [*inputs, live], [made, saved], api_visibility="private", trigger_mode="always_last",
        show_progress="hidden", **DEVICE,
    )  # fmt: skip
    show.click(show_styles, [model, canvas], styles, api_visibility="private", **DEVICE)
    styles.select(choose, None, style, queue=False, api_visibility="private").then(
        paint, inputs, [made, saved], api_visibility="private", **DEVICE
    )
    load.click(begin, [model, existing, instances], [canvas, styles], api_visibility="private", **DEVICE)

    def adapt(entry: Entry | None) -> list[Any]:
        config = entry.translator if entry else None
        classes = config.classes if config else None
        empty = empty_map(classes, config.edges, config.size, config.width or config.size) if config and classes else ""
        has_styles = bool(classes and config and config.encoder)
        return [
            gradio.update(visible=classes is not None),
            empty,
            adapt_style(config if classes else None),
            gradio.update(visible=has_styles),
            gradio.update(visible=False, value=[]),
            gradio.update(visible=bool(config and config.edges)),
            None,
            None,
        ]

    return Tab([tab, canvas, style, show, styles, instances, made, saved], adapt)


def save_maps(labels: Array, instances: Array | None, folder: Path) -> list[str]:
    """Writes a label map (H, W), and its instances (H, W), into a folder, as `img2img convert` reads them."""
    files = []
    for name, values in (("labels", labels), ("instances", instances)):
        if values is None:
            continue
        if values.min() < 0 or values.max() > 65535:  # no image holds these
            files.append(folder / f"{name}.npy")
            np.save(files[-1], values.astype(np.int32), allow_pickle=False)
        else:
            files.append(folder / f"{name}.png")
            write_image(files[-1], values[..., None].astype(np.uint8 if values.max() < 256 else np.uint16))
    return [str(file) for file in files]
