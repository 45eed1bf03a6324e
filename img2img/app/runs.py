"""The tab that watches runs: curves, scores, settings and pictures over time, of one run or two beside each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio

from img2img.app.components import Choice
from img2img.app.jobs import in_words
from img2img.app.models import Entry
from img2img.app.tab import App, Tab
from img2img.core.errors import UsageError
from img2img.pages.run import list_pictures, render_pictures, render_run
from img2img.training.page import describe_saved_run

EVERY = 5.0  # seconds between two looks at the files
NONE = "none"


@dataclass(frozen=True)
class Version:
    """What changes when a run goes on."""

    log: int
    """When the log was written last, in ns."""
    pictures: int
    """Validations that there is a picture of."""


@dataclass(frozen=True)
class _Column:
    """The components of one run."""

    run: Choice
    place: gradio.Slider
    picture: gradio.HTML
    text: gradio.HTML
    version: gradio.State
    """How far the run was that is shown."""


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
            app.models.scan()  # it may be new
        if name not in app.models.runs:
            raise UsageError(f"there is no run {name!r}.")
        return app.models.runs[str(name)]

    @in_words
    def show(name: str | None) -> tuple[Any, ...]:
        folder = folder_of(name)
        if folder is None:
            return gradio.update(visible=False), "", "", None
        version = version_of(folder)
        newest = max(0, version.pictures - 1)
        return adapt_slider(version, newest), render_pictures(folder, newest), render(folder), version

    @in_words
    def move(name: str | None, place: float) -> str:
        folder = folder_of(name)
        return "" if folder is None else render_pictures(folder, int(place))

    @in_words
    def refresh(name: str | None, place: float, shown: Version | None) -> tuple[Any, ...]:
        folder = folder_of(name)
        version = None if folder is None else version_of(folder)
        if folder is None or version is None or version == shown:
            return (gradio.skip(),) * 4
        newest = max(0, version.pictures - 1)
        follows = shown is None or place >= shown.pictures - 1  # whoever looks at the newest goes on to
        picture = render_pictures(folder, newest) if follows else gradio.skip()
        return adapt_slider(version, newest if follows else int(place)), picture, render(folder), version

    for column in columns:
        outputs = [column.place, column.picture, column.text, column.version]
        quiet: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
        column.run.change(show, column.run, outputs, **quiet)
        column.place.input(move, [column.run, column.place], column.picture, trigger_mode="always_last", **quiet)
        timer.tick(refresh, [column.run, column.place, column.version], outputs, **quiet)

    def adapt(entry: Entry | None) -> list[Any]:
        names = list(app.models.runs)
        own = next(
            (name for name in names if entry and app.models.runs[name] == entry.path), names[0] if names else None
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
            Choice([NONE], value=NONE, label=label),
            gradio.Slider(0, 1, 0, step=1, label="Validation, counted from 0; the last is the newest", visible=False),
            gradio.HTML(apply_default_css=False),
            gradio.HTML(apply_default_css=False),
            gradio.State(None),
        )


def adapt_slider(version: Version, value: int) -> Any:
    """The update of the choice of a validation."""
    return gradio.update(visible=version.pictures > 1, maximum=max(1, version.pictures - 1), value=value)


def version_of(folder: Path) -> Version:
    """How far a run is."""
    log = folder / "log.jsonl"
    return Version(log.stat().st_mtime_ns if log.is_file() else 0, len(list_pictures(folder)))


def render(folder: Path) -> str:
    """A run's page, as far as it is text and curves."""
    return render_run(folder, describe_saved_run(folder))
