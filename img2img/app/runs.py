"""The tab that watches runs: curves, scores, settings and pictures over time, of one run or two beside each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio

from img2img.app.jobs import in_words
from img2img.app.models import Entry
from img2img.app.tab import App, Tab
from img2img.core.errors import UsageError
from img2img.pages.render import embed_scaled
from img2img.pages.run import LONGEST, list_pictures, render_run
from img2img.training.page import describe_saved_run

EVERY = 5.0  # seconds between two looks at the files
NONE = "none"


@dataclass(frozen=True)
class _Column:
    """The components of one run."""

    run: gradio.Dropdown
    place: gradio.Slider
    picture: gradio.HTML
    text: gradio.HTML
    version: gradio.State
    """Of the log that is shown."""


def build_runs_tab(app: App) -> Tab:
    """Adds the tab to the page that is being built."""
    with gradio.Tab("Runs", id="runs", visible=False) as tab:
        timer = gradio.Timer(EVERY)
        with gradio.Row():
            columns = [_build_column("Run"), _build_column("Beside it")]

    def folder_of(name: str | None) -> Path | None:
        if name in (None, "", NONE):
            return None
        if name not in app.models.runs:
            raise UsageError(f"there is no run {name!r}.")
        return app.models.runs[str(name)]

    @in_words
    def show(name: str | None, place: float) -> tuple[Any, ...]:
        folder = folder_of(name)
        if folder is None:
            return gradio.update(visible=False), gradio.update(value=""), "", None
        pictures = list_pictures(folder)
        slider = gradio.update(visible=len(pictures) > 1, maximum=max(1, len(pictures) - 1), value=len(pictures) - 1)
        return slider, draw_picture(folder, len(pictures) - 1), render(folder), version_of(folder)

    @in_words
    def move(name: str | None, place: float) -> str:
        folder = folder_of(name)
        return "" if folder is None else draw_picture(folder, int(place))

    @in_words
    def refresh(name: str | None, place: float, version: Any) -> tuple[Any, ...]:
        folder = folder_of(name)
        if folder is None or version_of(folder) == version:
            return gradio.skip(), gradio.skip(), gradio.skip(), gradio.skip()
        pictures = list_pictures(folder)
        newest = len(pictures) - 1
        shown = int(place)
        follows = shown >= (version or {}).get("pictures", 0) - 1  # whoever looks at the newest goes on to
        slider = gradio.update(visible=len(pictures) > 1, maximum=max(1, newest), value=newest if follows else shown)
        picture = draw_picture(folder, newest) if follows else gradio.skip()
        return slider, picture, render(folder), version_of(folder)

    for column in columns:
        outputs = [column.place, column.picture, column.text, column.version]
        quiet: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
        column.run.change(show, [column.run, column.place], outputs, **quiet)
        column.place.input(move, [column.run, column.place], column.picture, trigger_mode="always_last", **quiet)
        timer.tick(refresh, [column.run, column.place, column.version], outputs, **quiet)

    def adapt(entry: Entry | None) -> list[Any]:
        names = list(app.models.runs)
        own = next(
            (name for name in names if entry and app.models.runs[name] == entry.path), names[0] if names else NONE
        )
        return [
            gradio.update(visible=bool(names)),
            gradio.update(choices=names, value=own),
            gradio.update(choices=[NONE, *names], visible=len(names) > 1),
        ]

    return Tab([tab, columns[0].run, columns[1].run], adapt)


def _build_column(label: str) -> _Column:
    with gradio.Column():
        return _Column(
            gradio.Dropdown([NONE], value=NONE, label=label),
            gradio.Slider(0, 1, 0, step=1, label="Validation, from the first to the newest", visible=False),
            gradio.HTML(),
            gradio.HTML(),
            gradio.State(None),
        )


def version_of(folder: Path) -> dict[str, float]:
    """What changes when a run goes on."""
    log = folder / "log.jsonl"
    return {"log": log.stat().st_mtime_ns if log.is_file() else 0, "pictures": len(list_pictures(folder))}


def draw_picture(folder: Path, place: int) -> str:
    """The picture of one validation as HTML."""
    pictures = list_pictures(folder)
    if not pictures:
        return "<p>No validation yet.</p>"
    update, files = pictures[min(max(place, 0), len(pictures) - 1)]
    images = "".join(f'<img src="{embed_scaled(file, LONGEST)}" alt="samples at update {update}">' for file in files)
    return f'<figure class="samples"><figcaption>Update {update:,}</figcaption>{images}</figure>'


def render(folder: Path) -> str:
    """A run's page, as far as it is text and curves."""
    return render_run(folder, describe_saved_run(folder))
