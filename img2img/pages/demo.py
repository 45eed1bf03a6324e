"""The demo's page: input | output | target, scores, loss curves, and how to do it with one's own folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from img2img.pages.curves import draw_curve, read_log
from img2img.pages.render import write_page


@dataclass(frozen=True)
class DemoPage:
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


def write_demo_page(path: Path, page: DemoPage) -> None:
    """Writes the page."""
    curves = [draw_curve(name, points) for name, points in sorted(read_log(page.log).curves.items())]
    write_page(path, "demo.html", page=page, curves=curves)
