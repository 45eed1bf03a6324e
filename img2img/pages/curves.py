"""A run's log as curves, each with what it means."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from img2img.metrics.paired import HIGHER_IS_BETTER

WIDTH, HEIGHT, MARGIN = 420, 170, 44  # of a curve, in pixels
POINTS = 400  # of a curve, at most; more are averaged

MEANINGS = {
    r"val/(.*/)?l1": "Mean absolute difference from the targets, of values in 0 to 1. Lower is better; blur has a low one, too.",
    r"val/(.*/)?psnr": "Peak signal-to-noise ratio to the targets, in dB. Higher is better; blur has a high one, too.",
    r"val/(.*/)?ssim": "Structural similarity to the targets, up to 1. Higher is better.",
    r"val/(.*/)?perceptual": "How different translations and targets look to a network that knows photographs. Lower is better.",
    r"val/(.*/)?kid( of .*)?": "Distance between the set of translations and the set of real images (KID). Lower is better; 0 is as near as chance.",
    r"val/(.*/)?fid( of .*)?": "Distance between the set of translations and the set of real images (FID). Lower is better.",
    r"G/(.*_)?l1": "The generator's L1 loss, with its weight: distance from the target.",
    r"G/(.*_)?perceptual": "The generator's perceptual loss, with its weight.",
    r"G/(.*_)?adversarial": "How well the discriminator sees through the generator. If it only rises, the discriminator has won.",
    r"G/(.*_)?features": "Distance between the discriminator's features of translations and of targets, with its weight.",
    r"G/(.*_)?cycle": "Distance from the source after there and back, with its weight.",
    r"G/(.*_)?identity": "By how much images that are of the target's kind already are changed, with its weight.",
    r"G/nce.*": "How hard it is to find a patch of the source again in the translation.",
    r"G/kl": "How far styles are from a normal distribution, with its weight.",
    r"[GD]/(classes|domain|clustering)": "How badly the class, domain or code of an image is predicted.",
    r"G/orthogonal": "How far weights are from being orthogonal, with its weight.",
    r"G/(.*_)?gradient": "Size of the gradient that reaches the generator's output. Near 0, nothing is learnt any more.",
    r"D/(.*_)?(real|fake)": "The discriminator's loss on real or on generated images. Near 0 for both, it has won. With the Wasserstein loss, only their sum means something: the lower, the further apart are the two kinds of images.",
    r"D/(.*_)?accuracy": "Share of images that the discriminator judges right. One half: it guesses; 1: it has won.",
    r"D/(.*_)?(penalty|r1|r2|drift)": "A penalty on the discriminator, with its weight.",
    r"D/augment": "Probability with which the discriminator's images are changed.",
    r"diagnostics/change.*": "How much the translations differ from their sources, of values in 0 to 1.",
    r"diagnostics/variety.*": "How much the outputs differ from each other, relative to real images. Near 0: all look alike.",
    r"diagnostics/grid.*": "Strength of the finest regular pattern. Above 3: a checkerboard.",
}


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
    meaning: str = ""


@dataclass(frozen=True)
class Log:
    """What a run has logged."""

    curves: Mapping[str, Sequence[tuple[float, float]]]
    """Losses, scores and other numbers by name: (update, value)."""
    warnings: Sequence[tuple[int, str]]
    """What the diagnostics said, and when."""


def read_log(file: Path) -> Log:
    """Reads a log.jsonl, which another process may be writing; lines that are torn are left out."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    warnings: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        try:
            values = json.loads(line)
            update = int(values["step"])
        except (ValueError, KeyError, TypeError):
            continue
        if "warning" in values:
            warnings.append((update, str(values["warning"])))
        for name, value in values.items():
            if "/" in name and isinstance(value, int | float):
                curves[name].append((update, value))
    return Log(curves, warnings)


def draw_curve(name: str, points: Sequence[tuple[float, float]]) -> Curve:
    """Points (update, value), scaled to the picture."""
    last = points[-1][1]
    points = _average([point for point in points if math.isfinite(point[1])] or [(points[-1][0], 0.0)])
    updates, values = zip(*points, strict=True)
    low, high, right = min(values), max(values), max(*updates, 1)
    spread = (high - low) or 1
    line = " ".join(
        f"{MARGIN + x / right * (WIDTH - MARGIN - 8):.1f},{8 + (high - y) / spread * (HEIGHT - 36):.1f}"
        for x, y in points
    )
    dot = line if len(points) > 1 else f"{line} {line}"  # with round ends, a line of no length is a dot
    return Curve(name, dot, low, high, last, right, explain(name))


def explain(name: str) -> str:
    """What a curve means, in a sentence; empty if nobody has said."""
    return next((text for pattern, text in MEANINGS.items() if re.fullmatch(pattern, name)), "")


def find_best(name: str, points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The best score of a curve: (update, value)."""
    higher = name.rpartition("/")[2] in HIGHER_IS_BETTER
    return (max if higher else min)(points, key=lambda point: point[1])


def _average(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    size = -(-len(points) // POINTS)
    parts = [points[first : first + size] for first in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]
