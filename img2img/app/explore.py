"""The tab that explores a noise generator: sheets of seeds, children of an image, and the way between two."""

import base64
import binascii
import zlib
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

import gradio
import numpy as np
from pydantic import Field, ValidationError, model_validator

from img2img.app.draw import for_browser
from img2img.app.jobs import in_words
from img2img.app.models import Entry
from img2img.app.tab import DEVICE, IMAGE_BUTTONS, App, Restoring, Tab, whole_number
from img2img.core.errors import UsageError
from img2img.core.settings import Strict, explain
from img2img.images import Array, Picture, write_picture
from img2img.inference.sample import FRAME
from img2img.models import Latent, Latents, NoiseGenerator, cross, draw_latents, find_latents, vary
from img2img.models.latents import NARROWEST, SEEDS

MOST = 64  # images of a sheet
MOST_CODES = 8  # sliders
LONGEST = 2**20  # bytes of a link's state, unpacked
IN_TURN = "all in turn"


class Sheet(Strict):
    """What a sheet shows; a link holds it, and so does the history."""

    kind: Literal["seeds", "children", "way"] = "seeds"
    """Images of seeds, variations of one, or the way between two."""
    count: int = Field(24, ge=2, le=MOST)
    """How many images."""
    seed: int = Field(0, ge=0, le=SEEDS - MOST)
    """The first image's seed; of children, that of the first one's noise."""
    label: str = ""
    """Of seeds: the class of all; by default each in turn."""
    codes: dict[int, float] = Field(default_factory=dict)
    """Of seeds: codes of an InfoGAN that have a value."""
    truncation: float | None = Field(None, ge=NARROWEST)
    """As of `NoiseGenerator.sample`."""
    first: Latent | None = None
    """The image whose children these are, or the first of the way."""
    second: Latent | None = None
    """The last of the way."""
    distance: float = Field(0.3, ge=0, le=1)
    """Of children: how far they are, as of `vary`."""

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if (self.kind != "seeds" and self.first is None) or (self.kind == "way" and self.second is None):
            raise ValueError(f"a sheet of {self.kind} needs the images that it begins with")
        return self

    def list_latents(self, generator: NoiseGenerator) -> list[Latent]:
        """What its images are made of. The first child is the image itself."""
        seeds = range(self.seed, self.seed + self.count)
        if self.kind == "seeds":
            return find_latents(generator, seeds, self.label or None, self.truncation, self.codes or None)
        assert self.first is not None
        if self.kind == "children":
            others = [vary(generator, self.first, seed, self.distance, self.truncation) for seed in seeds[:-1]]
            return [self.first, *others]
        assert self.second is not None
        shares = np.linspace(0, 1, self.count)
        return [cross(generator, self.first, self.second, float(share)) for share in shares]

    def pack(self) -> str:
        """As text for a link."""
        return base64.urlsafe_b64encode(zlib.compress(self.model_dump_json(exclude_defaults=True).encode(), 9)).decode()

    @classmethod
    def unpack(cls, text: str) -> Self:
        """What `pack` made.

        Raises:
            UsageError: if it is damaged.
        """
        try:
            unpacking = zlib.decompressobj()
            data = unpacking.decompress(base64.urlsafe_b64decode(text), LONGEST)
            if not unpacking.eof:
                raise ValueError("it ends early")
            return cls.model_validate_json(data)
        except (zlib.error, binascii.Error, ValueError) as error:
            reason = f" ({explain(error)})" if isinstance(error, ValidationError) else ""
            raise UsageError(f"this link is damaged{reason}.") from None


Shown = list[tuple[Array, str]]


def build_explore_tab(app: App, model: gradio.Dropdown) -> Tab:
    """Adds the tab to the page that is being built."""
    with gradio.Tab("Explore", id="explore", visible=False) as tab, gradio.Row():
        sheets = gradio.State([])  # packed, the newest last
        chosen, other = gradio.State(None), gradio.State(None)  # latents, as JSON
        state, again = (
            gradio.Textbox(visible=False),
            gradio.Button(visible=False),
        )  # what stands behind explore= in a link
        with gradio.Column():
            seed = gradio.Number(0, label="First seed", precision=0)
            count = gradio.Slider(2, MOST, 24, step=1, label="Images")
            label = gradio.Dropdown([IN_TURN], value=IN_TURN, label="Class", visible=False)
            truncation = gradio.Slider(
                0, 2, 0, step=0.05, label="Truncation: smaller is more typical and less varied; 0 is none"
            )
            codes = [
                gradio.Slider(-1, 1, 0, label=f"Code {number}", visible=False, elem_classes="code-slider")
                for number in range(MOST_CODES)
            ]
            begin = gradio.Button("New sheet", variant="primary", elem_id="explore-start")
            gradio.Markdown("Click an image to choose it. What was chosen before becomes the second.")
            with gradio.Row():
                first_shown = gradio.Image(
                    label="Chosen",
                    interactive=False,
                    format="png",
                    height=160,
                    buttons=IMAGE_BUTTONS,
                    elem_classes="large",
                    elem_id="explore-chosen",
                )
                second_shown = gradio.Image(
                    label="Second",
                    interactive=False,
                    format="png",
                    height=160,
                    buttons=IMAGE_BUTTONS,
                    elem_classes="large",
                    elem_id="explore-second",
                )
            distance = gradio.Slider(0.05, 1, 0.3, step=0.05, label="Distance of the children")
            with gradio.Row():
                breed = gradio.Button("Children of the chosen")
                mix = gradio.Button("Cross the two")
                back = gradio.Button("Back")
        with gradio.Column(scale=2):
            sheet = gradio.Gallery(
                label="Images", show_label=False, columns=6, height="auto", format="png", buttons=["download_all", "fullscreen"], allow_preview=False, interactive=False,
                object_fit="contain", elem_id="explore-sheet")  # fmt: skip
            link = gradio.Textbox(
                label="A link to this sheet", interactive=False, buttons=["copy"], max_lines=1, elem_id="explore-link"
            )
            saved = gradio.File(
                label="Latents, for img2img sample --latents; of a cross, the walk as a GIF",
                interactive=False,
                elem_id="explore-saved",
            )

    def draw(name: str, wanted: Sheet, request: gradio.Request) -> tuple[Shown, str, list[str]]:
        generator = app.models.noise_generator(name)
        latents = wanted.list_latents(generator)
        images = list(draw_latents(generator, latents, wanted.truncation))
        captions = name_images(wanted)
        folder = app.jobs.make_folder()
        files = save_sheet(folder, wanted, latents, images)
        address = f"{request.headers.get('origin', '')}/?model={quote(name)}&explore={wanted.pack()}"
        return [(for_browser(image), caption) for image, caption in zip(images, captions, strict=True)], address, files

    def push(name: str, request: gradio.Request, history: list[str], wanted: Sheet) -> tuple[Any, ...]:
        shown, address, files = draw(name, wanted, request)
        return shown, address, files, [*history, wanted.pack()][-100:]

    def read_sheet(first: float | None, images: float, wanted: str, limit: float, codes: dict[int, float]) -> Sheet:
        return Sheet(
            count=int(images),
            seed=whole_number(first, "First seed"),
            label="" if wanted == IN_TURN else wanted,
            truncation=limit or None,
            codes=codes,
        )

    @in_words
    def new_sheet(
        request: gradio.Request, name: str, first: float | None, images: float, wanted: str, limit: float, history: Any
    ) -> tuple[Any, ...]:
        return push(name, request, history, read_sheet(first, images, wanted, limit, {}))

    @in_words
    def set_codes(
        request: gradio.Request,
        name: str,
        first: float | None,
        images: float,
        wanted: str,
        limit: float,
        history: Any,
        *values: float,
    ) -> tuple[Any, ...]:
        config = app.models.entry(name).noise_generator
        count = len(config.codes.categorical) + config.codes.continuous if config and config.codes else 0
        codes = dict(enumerate(values[:count]))
        return push(name, request, history, read_sheet(first, images, wanted, limit, codes))

    @in_words
    def breed_children(
        name: str, history: list[str], latent: str | None, far: float, images: float, request: gradio.Request
    ) -> tuple[Any, ...]:
        if not latent or not history:
            raise UsageError("choose an image of the sheet first.")
        now = Sheet.unpack(history[-1])
        again = now.kind == "children" and now.first == Latent.model_validate_json(latent)
        sheet = Sheet(
            kind="children",
            count=int(images),
            seed=now.seed + now.count if again else 0,  # asked again: other ones
            first=Latent.model_validate_json(latent),
            distance=far,
            truncation=now.truncation,
        )
        return push(name, request, history, sheet)

    @in_words
    def cross_two(
        name: str, history: list[str], latent: str | None, latent_2: str | None, images: float, request: gradio.Request
    ) -> tuple[Any, ...]:
        if not latent or not latent_2 or not history:
            raise UsageError("choose two images first: click one, then another.")
        ends = [Latent.model_validate_json(each) for each in (latent, latent_2)]
        sheet = Sheet(
            kind="way",
            count=int(images),
            first=ends[0],
            second=ends[1],
            truncation=Sheet.unpack(history[-1]).truncation,
        )
        return push(name, request, history, sheet)

    @in_words
    def go_back(name: str, history: list[str], request: gradio.Request) -> tuple[Any, ...]:
        if len(history) < 2:
            raise UsageError("this is the first sheet.")
        return push(name, request, history[:-2], Sheet.unpack(history[-2]))

    @in_words
    def choose(name: str, history: list[str], before: str | None, event: gradio.SelectData) -> tuple[Any, ...]:
        if not history:
            raise UsageError("make a sheet first.")
        generator, now = app.models.noise_generator(name), Sheet.unpack(history[-1])
        latent = now.list_latents(generator)[int(event.index)]
        shown = for_browser(draw_latents(generator, [latent], now.truncation)[0])
        earlier = Latent.model_validate_json(before) if before else None
        second = None if earlier is None else for_browser(draw_latents(generator, [earlier], now.truncation)[0])
        return latent.model_dump_json(), before, shown, second

    @in_words
    def explore(name: str, state: str, request: gradio.Request) -> tuple[Shown, str, list[str]]:
        return draw(name, Sheet.unpack(state), request)

    @in_words
    def restore(name: str, asked: str, request: gradio.Request) -> tuple[Any, ...]:
        return push(name, request, [], Sheet.unpack(asked)) if asked else (gradio.skip(),) * 4

    outputs = [sheet, link, saved, sheets]
    inputs = [model, seed, count, label, truncation, sheets]
    private: dict[str, Any] = {"api_visibility": "private", **DEVICE}
    begin.click(new_sheet, inputs, outputs, **private)
    for code in codes:
        code.input(set_codes, [*inputs, *codes], outputs, trigger_mode="always_last", show_progress="hidden", **private)
    breed.click(breed_children, [model, sheets, chosen, distance, count], outputs, **private)
    mix.click(cross_two, [model, sheets, chosen, other, count], outputs, **private)
    back.click(go_back, [model, sheets], outputs, **private)
    sheet.select(choose, [model, sheets, chosen], [chosen, other, first_shown, second_shown], **private)
    again.click(explore, [model, state], [sheet, link, saved], api_name="explore", **DEVICE)

    def adapt(entry: Entry | None) -> list[Any]:
        config = entry.noise_generator if entry else None
        sizes = list(config.codes.categorical) if config and config.codes else []
        continuous = config.codes.continuous if config and config.codes else 0
        sliders = []
        for number in range(MOST_CODES):
            if number < len(sizes):
                sliders.append(
                    gradio.update(
                        visible=True,
                        minimum=0,
                        maximum=sizes[number] - 1,
                        step=1,
                        value=0,
                        label=f"Code {number}, a category",
                    )
                )
            else:
                visible = number < len(sizes) + continuous
                sliders.append(
                    gradio.update(visible=visible, minimum=-1, maximum=1, step=0.05, value=0, label=f"Code {number}")
                )
        names = list(config.classes) if config else []
        return [
            gradio.update(visible=config is not None),
            gradio.update(visible=bool(names), choices=[IN_TURN, *names], value=IN_TURN),
            *sliders,
            [], "", None, [], None, None, None, None,
        ]  # fmt: skip

    parts = [tab, label, *codes, sheet, link, saved, sheets, chosen, other, first_shown, second_shown]
    return Tab(parts, adapt, Restoring(restore, outputs))


def name_images(sheet: Sheet) -> list[str]:
    """What stands below the images of a sheet."""
    if sheet.kind == "seeds":
        return [f"seed {sheet.seed + place}" for place in range(sheet.count)]
    if sheet.kind == "children":
        return ["the image itself", *(f"child {place}" for place in range(1, sheet.count))]
    return [f"{round(100 * place / (sheet.count - 1))} %" for place in range(sheet.count)]


def save_sheet(folder: Path, sheet: Sheet, latents: list[Latent], images: list[Array]) -> list[str]:
    """Writes what can be downloaded of a sheet: the latents, and of a way the walk there and back."""
    Latents(truncation=sheet.truncation, images=tuple(latents)).save(folder / "latents.json")
    files = [folder / "latents.json"]
    if sheet.kind == "way":
        there_and_back = [*images, *images[-2:0:-1]]
        write_picture(folder / "walk.gif", Picture(there_and_back, durations=[FRAME] * len(there_and_back)))
        files.append(folder / "walk.gif")
    return [str(file) for file in files]
