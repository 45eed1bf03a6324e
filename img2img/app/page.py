"""The demo's HTML page: input | output | target, scores, loss curves, and how to do it with one's own folder; one file, no network."""

import base64
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader

from img2img.core.files import write_whole

WIDTH, HEIGHT, MARGIN = 420, 170, 34  # of a curve, in pixels


@dataclass(frozen=True)
class Page:
    """What the page shows."""

    triples: Sequence[tuple[Path, ...]]
    """Files of input, output and target."""
    log: Path
    """The run's log.jsonl."""
    rows: Mapping[str, Mapping[str, float]]
    """Scores by what was scored."""
    seconds: float
    """How long all of it took."""
    size: int
    """Training size in pixels."""
    steps: int
    """Optimizer updates."""


@dataclass(frozen=True)
class Curve:
    """One value over the updates, drawn."""

    name: str
    line: str
    """Points of an SVG polyline."""
    low: float
    high: float
    last: float
    last_update: float


def write_page(path: Path, page: Page) -> None:
    """Writes the page."""
    environment = Environment(loader=PackageLoader("img2img.app"), autoescape=True)
    environment.filters["as_data"] = embed_image
    curves = [draw_curve(name, points) for name, points in sorted(read_curves(page.log).items())]
    template = environment.get_template("demo.html")
    text = template.render(page=page, curves=curves, width=WIDTH, height=HEIGHT, margin=MARGIN)
    write_whole(path, text.encode())


def embed_image(file: Path) -> str:
    """A PNG as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def read_curves(log: Path) -> dict[str, list[tuple[float, float]]]:
    """Losses and validation scores by name: (update, value)."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in log.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        for name, value in values.items():
            if "/" in name and value is not None:
                curves[name].append((values["step"], value))
    return curves


def draw_curve(name: str, points: Sequence[tuple[float, float]]) -> Curve:
    """Points (update, value), scaled to the picture."""
    updates, values = zip(*points, strict=True)
    low, high, right = min(values), max(values), max(*updates, 1)
    spread = (high - low) or 1
    line = " ".join(
        f"{MARGIN + x / right * (WIDTH - MARGIN - 8):.1f},{8 + (high - y) / spread * (HEIGHT - 36):.1f}"
        for x, y in points
    )
    return Curve(name, line, low, high, values[-1], right)
