"""A run's page: its validation pictures over time, scores and curves, settings, what the diagnostics said, what to type next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from img2img.data.base import choose_sample
from img2img.pages.curves import Curve, draw_curve, explain, find_best, read_log
from img2img.pages.render import embed_scaled, render_template, write_page

PICTURES = 24  # of a direction, evenly spaced; a page with more would be large
LONGEST = 1200  # pixels a side of a picture


@dataclass(frozen=True)
class Frame:
    """The picture of one validation."""

    update: int
    data: str
    """As a data URL."""


@dataclass(frozen=True)
class Score:
    """The best and the newest value of a score."""

    name: str
    meaning: str
    best: float
    best_update: int
    newest: float


@dataclass(frozen=True)
class RunPage:
    """What the page shows beside what is in the run's folder."""

    title: str
    facts: Sequence[tuple[str, str]]
    """What is trained on what, by name."""
    settings: Sequence[tuple[str, str]]
    """Options that differ from the recipe, as they are typed, and the recipe's values."""
    commands: Sequence[tuple[str, str]]
    """What to type next: what it does, and the command."""
    update: int
    """Updates done; pictures of later ones are of before the run was stopped."""


def write_run_page(folder: Path, page: RunPage) -> None:
    """Writes ``index.html`` into a run's folder, from its log and its samples.

    Raises:
        UserError: if it can't be written.
    """
    strips = read_strips(folder / "samples", page.update)
    write_page(folder / "index.html", "run.html", page=page, strips=strips, **_read_values(folder))


def render_run(folder: Path, page: RunPage) -> str:
    """A run's page without its pictures, as a part of another page."""
    return render_template("run_part.html", page=page, **_read_values(folder))


def _read_values(folder: Path) -> dict[str, Any]:
    """What the log says: curves in groups, the rows of the table of scores, and warnings."""
    log = read_log(folder / "log.jsonl")
    scores = {name: points for name, points in log.curves.items() if name.startswith("val/")}
    groups = {
        "Scores": scores,
        "Losses": {name: log.curves[name] for name in sorted(log.curves.keys() - scores.keys())},
    }
    drawn: dict[str, list[Curve]] = {
        title: [draw_curve(name, points) for name, points in curves.items()]
        for title, curves in groups.items()
        if curves
    }
    rows = []
    for name, points in scores.items():
        update, value = find_best(name, points)
        rows.append(Score(name.removeprefix("val/"), explain(name), value, int(update), points[-1][1]))
    return {"groups": drawn, "rows": rows, "warnings": log.warnings}


def list_pictures(folder: Path) -> list[tuple[int, list[Path]]]:
    """The pictures of a run's validations: the update, and a file for each direction."""
    found: dict[int, list[Path]] = {}
    for file in sorted((folder / "samples").glob("*.png")):
        number = file.stem.partition("-")[0]
        if number.isdecimal():
            found.setdefault(int(number), []).append(file)
    return sorted(found.items())


def render_pictures(folder: Path, place: int) -> str:
    """The pictures of one validation, counted from 0 and at most the last one, as a part of another page."""
    pictures = list_pictures(folder)
    update, files = pictures[min(max(place, 0), len(pictures) - 1)] if pictures else (0, [])
    return render_template("pictures_part.html", update=update, images=[embed_scaled(file, LONGEST) for file in files])


def read_strips(samples: Path, until: int) -> dict[str, list[Frame]]:
    """The pictures of a run's validations by direction, which is empty where there is one; of many, some; none after an update."""
    files: dict[str, list[tuple[int, Path]]] = {}
    for file in sorted(samples.glob("*.png")):
        number, _, direction = file.stem.partition("-")
        if number.isdecimal() and int(number) <= until:
            files.setdefault(direction, []).append((int(number), file))
    strips = {}
    for direction, found in files.items():
        chosen = [*choose_sample(found[:-1], PICTURES - 1), found[-1]]  # the newest is always there
        frames = [Frame(update, embed_scaled(file, LONGEST)) for update, file in chosen]
        strips[direction] = [frame for frame in frames if frame.data]
    return {direction: frames for direction, frames in strips.items() if frames}
