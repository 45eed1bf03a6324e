"""One self-contained HTML page: input | output | truth, scores, loss curves, and how to do it with one's own folder."""

import base64
import html
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from img2img.files import write_whole

WIDTH, HEIGHT, MARGIN = 420, 170, 34  # of a curve, in pixels


@dataclass(frozen=True)
class Page:
    """What the page shows."""

    triples: Sequence[tuple[Path, ...]]
    """Files of input, output and truth."""
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


def write_page(path: Path, page: Page) -> None:
    """Writes the page; it needs no other file and no network."""
    body = TEMPLATE.format(
        scores="".join(
            f"<tr><td>{html.escape(name)}</td><td>{s['psnr']:.2f}</td><td>{s['ssim']:.3f}</td><td>{s['l1']:.4f}</td></tr>"
            for name, s in page.rows.items()
        ),
        triples="".join(_triple(files) for files in page.triples),
        curves="".join(_curve(name, points) for name, points in sorted(_points(page.log).items())),
        minutes=f"{page.seconds / 60:.1f}",
        size=page.size,
        steps=page.steps,
    )
    write_whole(path, body.encode())


def _triple(files: Sequence[Path]) -> str:
    images = "".join(
        f'<img alt="{label}" src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'
        for file, label in zip(files, ("input", "output", "truth"), strict=True)
    )
    return f"<figure>{images}<figcaption>{html.escape(files[0].stem)}</figcaption></figure>"


def _points(log: Path) -> dict[str, list[tuple[float, float]]]:
    """Losses and validation scores by name: (update, value)."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in log.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        for name, value in values.items():
            if "/" in name and value is not None:
                curves[name].append((values["step"], value))
    return curves


def _curve(name: str, points: list[tuple[float, float]]) -> str:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    right, spread = max(max(xs), 1), (high - low) or 1

    def place(x: float, y: float) -> str:
        return f"{MARGIN + x / right * (WIDTH - MARGIN - 8):.1f},{8 + (high - y) / spread * (HEIGHT - 36):.1f}"

    line = " ".join(place(x, y) for x, y in points)
    dots = "".join('<circle cx="{}" cy="{}" r="2.5"/>'.format(*place(x, y).split(",")) for x, y in points[-1:])
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{name}">'
        f'<text x="{MARGIN - 4}" y="14" text-anchor="end">{high:.3g}</text>'
        f'<text x="{MARGIN - 4}" y="{HEIGHT - 26}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">update {right:.0f}</text>'
        f'<polyline points="{line}"/>{dots}</svg><figcaption>{html.escape(name)}: {ys[-1]:.4g}</figcaption></figure>'
    )


TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>img2img demo</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fafafa }}
 h1 {{ margin-bottom: 0 }} h2 {{ margin-top: 2.2rem }}
 .grid {{ display: flex; flex-wrap: wrap; gap: 14px }}
 figure {{ margin: 0; padding: 8px; background: #fff; border: 1px solid #ddd; border-radius: 8px }}
 figure img {{ width: 112px; height: 112px; margin-right: 4px; border-radius: 3px; vertical-align: top }}
 figcaption {{ font-size: 13px; color: #666; text-align: center }}
 table {{ border-collapse: collapse }} td, th {{ padding: 4px 16px 4px 0; text-align: right }} td:first-child {{ text-align: left }}
 pre {{ background: #1f2430; color: #e6e6e6; padding: 14px 18px; border-radius: 8px; overflow-x: auto; line-height: 1.6 }}
 polyline {{ fill: none; stroke: #3366cc; stroke-width: 1.6 }} circle {{ fill: #3366cc }} text {{ font-size: 11px; fill: #777 }}
</style>
<h1>Outlines to pictures</h1>
<p>pix2pix, trained here from nothing: {steps} updates at {size} pixels; everything on this page took {minutes} minutes.</p>
<table><tr><th></th><th>PSNR in dB ↑</th><th>SSIM ↑</th><th>L1 in [0, 1] ↓</th></tr>{scores}</table>
<h2>Input | output | truth</h2>
<p>Drawings that the network has not seen in training.</p>
<div class="grid">{triples}</div>
<h2>The same with your folder</h2>
<p>Put the inputs into <code>my-data/trainA</code> and the pictures that you want into <code>my-data/trainB</code>, paired by
file name (some of them into <code>valA</code> and <code>valB</code>); then:</p>
<pre>img2img check my-data
img2img train pix2pix --data my-data --output my-run
img2img convert my-inputs my-outputs --model my-run
img2img evaluate --model my-run --data my-data</pre>
<p>Only photos? <code>img2img train pix2pix --data photos --data.derive gray --data.holdout 0.1</code> learns to colourise;
<code>edges</code> draws photos from edges, <code>lowres</code> sharpens small ones.</p>
<h2>Curves</h2>
<div class="grid">{curves}</div>
</html>
"""
