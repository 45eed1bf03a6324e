"""The tab that explores a noise generator: sheets of seeds, children of an image, and the way between two."""

from typing import Any
from urllib.parse import quote

import gradio

from img2img.app.components import Selection, build_picture
from img2img.app.draw import for_browser
from img2img.app.jobs import in_words
from img2img.app.models import Entry
from img2img.app.sheet import MOST, Sheet, name_images, save_sheet
from img2img.app.tab import DEVICE, App, Restoring, Tab, whole_number
from img2img.core.errors import UsageError
from img2img.images import Array
from img2img.models import Latent, NoiseGeneratorModelConfig, draw_latents

MOST_CODES = 8  # sliders
IN_TURN = "all in turn"
PRIVATE: dict[str, Any] = {"api_visibility": "private", **DEVICE}

Shown = list[tuple[Array, str]]
Sent = tuple[Any, ...]
"""What `_Explore.outputs` get."""


def build_explore_tab(app: App, model: gradio.Dropdown) -> Tab:
    """Adds the tab to the page that is being built."""
    with gradio.Tab("Explore", id="explore", visible=False) as tab, gradio.Row():
        built = _Explore(app)
    built.connect(model)
    return Tab([tab, *built.parts], built.adapt, Restoring(built.restore, built.outputs))


class _Explore:
    """The tab's components, and what they do."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.history = gradio.State([])  # sheets, packed, the newest last
        self.chosen, self.second = gradio.State(None), gradio.State(None)  # latents, as JSON
        self.state, self.asking = gradio.Textbox(visible=False), gradio.Button(visible=False)  # of the API alone
        with gradio.Column():
            self.seed = gradio.Number(0, label="First seed", precision=0)
            self.count = gradio.Slider(2, MOST, 24, step=1, label="Images")
            self.label = gradio.Dropdown([IN_TURN], value=IN_TURN, label="Class", visible=False)
            about = "Truncation: smaller is more typical and less varied; 0 is none"
            self.truncation = gradio.Slider(0, 2, 0, step=0.05, label=about)
            self.codes = [
                gradio.Slider(-1, 1, 0, label=f"Code {number}", visible=False, elem_classes="code-slider")
                for number in range(MOST_CODES)
            ]
            self.begin = gradio.Button("New sheet", variant="primary", elem_id="explore-start")
            gradio.Markdown("Click an image to choose it. What was chosen before becomes the second.")
            with gradio.Row():
                self.chosen_picture = build_picture("Chosen", "explore-chosen", 160)
                self.second_picture = build_picture("Second", "explore-second", 160)
            self.distance = gradio.Slider(0.05, 1, 0.3, step=0.05, label="Distance of the children")
            with gradio.Row():
                self.breed = gradio.Button("Children of the chosen")
                self.mix = gradio.Button("Cross the two")
                self.back = gradio.Button("Back")
        with gradio.Column(scale=2):
            self.sheet = gradio.Gallery(
                label="Images", show_label=False, columns=6, height="auto", format="png", object_fit="contain",
                buttons=["download_all", "fullscreen"], allow_preview=False, interactive=False, elem_id="explore-sheet",
            )  # fmt: skip
            self.link = gradio.Textbox(
                label="A link to this sheet", interactive=False, buttons=["copy"], max_lines=1, elem_id="explore-link"
            )
            about = "Latents, for img2img sample --latents; of a cross, the walk as a GIF"
            self.saved = gradio.File(label=about, interactive=False, elem_id="explore-saved")
        self.outputs = [self.sheet, self.link, self.saved, self.history]
        pictures = [self.chosen, self.second, self.chosen_picture, self.second_picture]
        self.parts = [self.label, *self.codes, *self.outputs, *pictures]

    def connect(self, model: gradio.Dropdown) -> None:
        """Says which button does what."""
        inputs = [model, self.seed, self.count, self.label, self.truncation, self.history]
        self.begin.click(self.start_sheet, inputs, self.outputs, **PRIVATE)
        for code in self.codes:
            code.input(
                self.start_sheet, [*inputs, *self.codes], self.outputs, trigger_mode="always_last",
                show_progress="hidden", **PRIVATE,
            )  # fmt: skip
        self.breed.click(
            self.breed_children, [model, self.history, self.chosen, self.distance, self.count], self.outputs, **PRIVATE
        )
        self.mix.click(
            self.cross_two, [model, self.history, self.chosen, self.second, self.count], self.outputs, **PRIVATE
        )
        self.back.click(self.go_back, [model, self.history], self.outputs, **PRIVATE)
        chosen = [self.chosen, self.second, self.chosen_picture, self.second_picture]
        self.sheet.select(self.choose, [model, self.history, self.chosen], chosen, **PRIVATE)
        self.asking.click(self.explore, [model, self.state], self.outputs[:3], api_name="explore", **DEVICE)

    @in_words
    def start_sheet(
        self,
        request: gradio.Request,
        name: str,
        seed: float | None,
        count: float,
        label: str,
        truncation: float,
        history: list[str],
        *codes: float,
    ) -> Sent:
        """A sheet of seeds; with the codes of the sliders, if these were moved."""
        known = _count_codes(self.app.models.entry(name).noise_generator)
        sheet = Sheet(
            count=int(count),
            seed=whole_number(seed, "First seed"),
            label="" if label == IN_TURN else label,
            truncation=truncation or None,
            codes=dict(enumerate(codes[: sum(known)])),
        )
        return self._push(name, request, history, sheet)

    @in_words
    def breed_children(
        self, request: gradio.Request, name: str, history: list[str], chosen: str | None, far: float, count: float
    ) -> Sent:
        """A sheet of children; asked again, of others."""
        if not chosen or not history:
            raise UsageError("choose an image of the sheet first.")
        now, parent = Sheet.unpack(history[-1]), Latent.model_validate_json(chosen)
        again = now.kind == "children" and now.first == parent
        sheet = Sheet(
            kind="children",
            count=int(count),
            seed=now.seed + now.count if again else 0,
            first=parent,
            distance=far,
            truncation=now.truncation,
        )
        return self._push(name, request, history, sheet)

    @in_words
    def cross_two(
        self,
        request: gradio.Request,
        name: str,
        history: list[str],
        chosen: str | None,
        second: str | None,
        count: float,
    ) -> Sent:
        """A sheet of the way from the chosen image to the second."""
        if not chosen or not second or not history:
            raise UsageError("choose two images first: click one, then another.")
        first, last = (Latent.model_validate_json(each) for each in (chosen, second))
        truncation = Sheet.unpack(history[-1]).truncation
        sheet = Sheet(kind="way", count=int(count), first=first, second=last, truncation=truncation)
        return self._push(name, request, history, sheet)

    @in_words
    def go_back(self, request: gradio.Request, name: str, history: list[str]) -> Sent:
        """The sheet before."""
        if len(history) < 2:
            raise UsageError("this is the first sheet.")
        return self._push(name, request, history[:-2], Sheet.unpack(history[-2]))

    @in_words
    def choose(self, event: Selection, name: str, history: list[str], before: str | None) -> Sent:
        """What was clicked, and what had been chosen before: latents, and pictures."""
        if not history:
            raise UsageError("make a sheet first.")
        generator, now = self.app.models.noise_generator(name), Sheet.unpack(history[-1])
        if event.place >= now.count:
            raise UsageError("choose an image of the sheet.")
        latents = [now.list_latents(generator)[event.place]]
        latents += [Latent.model_validate_json(before)] if before else []
        pictures = [for_browser(image) for image in draw_latents(generator, latents, now.truncation)]
        return latents[0].model_dump_json(), before, pictures[0], pictures[1] if before else None

    @in_words
    def explore(self, request: gradio.Request, model: str, state: str | None) -> Sent:
        """The sheet of a link, for programs: `state` is what stands behind ``explore=``."""
        return self._draw(model, request, Sheet.unpack(state))

    @in_words
    def restore(self, request: gradio.Request, name: str, state: str) -> Sent:
        """The sheet of the link that was opened, if there was one."""
        if not state:
            return (gradio.skip(),) * len(self.outputs)
        return self._push(name, request, [], Sheet.unpack(state))

    def _push(self, name: str, request: gradio.Request, history: list[str], sheet: Sheet) -> Sent:
        return *self._draw(name, request, sheet), [*history, sheet.pack()][-100:]

    def _draw(self, name: str, request: gradio.Request, sheet: Sheet) -> tuple[Shown, str, list[str]]:
        generator = self.app.models.noise_generator(name)
        latents = sheet.list_latents(generator)
        images = list(draw_latents(generator, latents, sheet.truncation))
        files = save_sheet(self.app.jobs.make_folder(), sheet, latents, images)
        address = f"{request.headers.get('origin', '')}/?model={quote(name)}&explore={sheet.pack()}"
        return list(zip(map(for_browser, images), name_images(sheet), strict=True)), address, files

    def adapt(self, entry: Entry | None) -> list[Any]:
        """The updates of the tab and its parts for a model."""
        config = entry.noise_generator if entry else None
        names = list(config.classes) if config else []
        return [
            gradio.update(visible=config is not None),
            gradio.update(visible=bool(names), choices=[IN_TURN, *names], value=IN_TURN),
            *adapt_codes(config),
            [], "", None, [], None, None, None, None,
        ]  # fmt: skip


def _count_codes(config: NoiseGeneratorModelConfig | None) -> tuple[int, int]:
    """How many categorical and continuous codes a model has."""
    codes = config.codes if config else None
    return (len(codes.categorical), codes.continuous) if codes else (0, 0)


def adapt_codes(config: NoiseGeneratorModelConfig | None) -> list[Any]:
    """The updates of the sliders: the first codes of a model, categorical ones before the others."""
    categorical, continuous = _count_codes(config)
    updates = []
    for number in range(MOST_CODES):
        values: dict[str, Any] = {"minimum": -1, "maximum": 1, "step": 0.05, "label": f"Code {number}"}
        if config and config.codes and number < categorical:
            last = config.codes.categorical[number] - 1
            values = {"minimum": 0, "maximum": last, "step": 1, "label": f"Code {number}, a category"}
        updates.append(gradio.update(visible=number < categorical + continuous, value=0, **values))
    return updates
