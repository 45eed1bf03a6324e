"""The tab on which people draw, and see the translation when the pen is lifted."""

from typing import Any

import gradio

from img2img.app.canvas import empty_drawing, save_drawing
from img2img.app.components import Canvas, build_direction, build_picture, build_style
from img2img.app.jobs import in_words
from img2img.app.models import Entry
from img2img.app.tab import DEVICE, App, Tab, adapt_direction, adapt_style, choose_style
from img2img.core.errors import UsageError
from img2img.images import Array
from img2img.models import TranslatorConfig

SIDES = [64, 128, 256, 512, 1024]


def build_draw_tab(app: App, model: gradio.Dropdown) -> Tab:
    """Adds the tab to the page that is being built."""
    with gradio.Tab("Draw", id="draw", visible=False) as tab, gradio.Row():
        with gradio.Column():
            canvas = Canvas("Drawing", elem_id="drawing")
            side = gradio.Dropdown(SIDES, label="Size of the canvas in pixels; another choice clears it")
            direction = build_direction()
            style = build_style()
            live = gradio.Checkbox(True, label="Translate whenever the pen is lifted")
            start = gradio.Button("Translate", variant="primary", elem_id="draw-start")
        with gradio.Column():
            made = build_picture("Translation", "draw-made")

    @in_words
    def draw(name: str, drawing: str | None, way: str | None, wanted: str | None) -> Array:
        file = save_drawing(drawing, app.jobs.make_folder())
        image = app.jobs.whole.picture(file).frames[0]
        translator = app.models.translator(name, way)
        return for_browser(translator(image[..., :3], style=choose_style(wanted)))

    def draw_live(name: str, drawing: str | None, way: str | None, wanted: str | None, wished: bool) -> Any:
        return draw(name, drawing, way, wanted) if wished else gradio.skip()

    @in_words
    def resize(name: str, shorter: int) -> str:
        config = app.models.entry(name).translator
        if config is None:
            raise UsageError(f"{name} translates no images.")
        height, width = config.size, config.width or config.size
        return empty_drawing(shorter * height // min(height, width), shorter * width // min(height, width))

    side.input(resize, [model, side], canvas, queue=False, api_visibility="private")
    inputs = [model, canvas, direction, style]
    start.click(draw, inputs, made, api_visibility="private", **DEVICE)
    canvas.input(
        draw_live, [*inputs, live], made, api_visibility="private", trigger_mode="always_last", show_progress="hidden", **DEVICE
    )  # fmt: skip

    def adapt(entry: Entry | None) -> list[Any]:
        config = entry.translator if entry else None
        shown = config is not None and config.classes is None and takes_pictures(config)
        return [
            gradio.update(visible=shown),
            empty_drawing(config.size, config.width or config.size) if shown and config else "",
            gradio.update(**_offer_sides(config)) if shown and config else gradio.skip(),
            adapt_direction(entry),
            adapt_style(config),
            None,
        ]

    return Tab([tab, canvas, side, direction, style, made], adapt)


def _offer_sides(config: TranslatorConfig) -> dict[str, Any]:
    own = min(config.size, config.width or config.size)
    return {"choices": sorted({*SIDES, own}), "value": own}


def takes_pictures(config: TranslatorConfig) -> bool:
    """Whether a translator takes gray or RGB images, which a canvas can hold."""
    return (config.generator.in_channels or 0) // (1 + len(config.domains)) in (1, 3)


def for_browser(image: Array) -> Array:
    """(H, W, C) as Gradio takes it: gray is (H, W), and of more channels than it knows it gets three."""
    return image[..., 0] if image.shape[2] in (1, 2) else image[..., :3]
