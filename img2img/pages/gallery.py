"""An evaluation's page: scores, their histograms, and the images from worst to best, with maps of where they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from img2img.images import Array, composite_over_white, peak
from img2img.metrics.paired import HIGHER_IS_BETTER
from img2img.pages.render import embed_array, write_page

LONGEST = 192  # pixels a side of a picture
WORST, BEST = 300, 100  # images that are shown, of many
BINS = 24
INFINITE = 1e6  # which JSON has no word for: the PSNR of equal images
WIDTH, HEIGHT = 240, 90  # of a histogram, in pixels
MOST_DIFFERENT = 0.5  # of values in [0, 1]: shown as the brightest


@dataclass
class Entry:
    """One image of the evaluation."""

    name: str
    source: str = ""
    """As a data URL, as are the others; empty if there is none."""
    target: str = ""
    made: dict[str, str] = field(default_factory=dict)
    """By model."""
    differences: dict[str, str] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """By model, by name."""


@dataclass(frozen=True)
class Bar:
    """One bin of a histogram."""

    left: float
    width: float
    height: float
    count: int
    low: float
    high: float


class Gallery:
    """Collects small pictures of what is evaluated; of many images, the worst and the best by the first model.

    Args:
        by: the score that says so.
    """

    def __init__(self, by: str = "perceptual") -> None:
        self.by = by
        self.models: list[str] = []
        self.entries: dict[str, Entry] = {}
        self.scores: list[Mapping[str, float]] = []
        """Of all the first model's images."""

    def add(
        self,
        model: str,
        name: str,
        source: Array | None,
        made: Array,
        target: Array | None,
        scores: Mapping[str, float] | None,
    ) -> None:
        """Takes in one image: arrays (H, W, C) of any kind."""
        if model not in self.models:
            self.models.append(model)
        entry = self.entries.get(name)
        if entry is None:
            if model != self.models[0]:
                return
            self.scores.append(scores or {})
            if scores is None and len(self.entries) >= WORST + BEST:
                return  # none is better than another
            entry = self.entries[name] = Entry(name)
            entry.source = "" if source is None else embed_array(source, LONGEST)
            entry.target = "" if target is None else embed_array(target, LONGEST)
        entry.made[model] = embed_array(made, LONGEST)
        if target is not None and made.shape[:2] == target.shape[:2]:
            entry.differences[model] = embed_array(draw_difference(made, target), LONGEST)
        known = {key: value for key, value in (scores or {}).items() if not np.isnan(value)}
        entry.scores[model] = {key: float(np.clip(value, -INFINITE, INFINITE)) for key, value in known.items()}
        if len(self.entries) >= 2 * (WORST + BEST):
            self._prune()

    def write(self, path: Path, rows: Mapping[str, Mapping[str, float]], about: str) -> None:
        """Writes the page.

        Args:
            rows: scores by what was scored.
            about: what was evaluated, for a person.

        Raises:
            UserError: if it can't be written.
        """
        self._prune()
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        drawn = {name: draw_histogram([each[name] for each in self.scores if name in each]) for name in names}
        histograms = {name: bars for name, bars in drawn.items() if bars}
        sortable = [name for name in names if any(name in each for each in self.scores)]
        write_page(
            path, "evaluation.html", about=about, rows=rows, names=names, histograms=histograms, models=self.models,
            entries=self._sort(), sortable=sortable, higher=list(HIGHER_IS_BETTER), total=len(self.scores), infinite=INFINITE, width=WIDTH, height=HEIGHT,
        )  # fmt: skip

    def _sort(self) -> list[Entry]:
        """From worst to best by the first model, and last what has no score."""

        def badness(entry: Entry) -> float:
            value = entry.scores.get(self.models[0], {}).get(self.by)
            return np.inf if value is None else value if self.by in HIGHER_IS_BETTER else -value

        return sorted(self.entries.values(), key=badness)

    def _prune(self) -> None:
        entries = self._sort()
        if len(entries) > WORST + BEST:
            self.entries = {entry.name: entry for entry in (*entries[:WORST], *entries[-BEST:])}


def draw_difference(image: Array, truth: Array) -> Array:
    """Where two images differ: (H, W, C) twice → (H, W, 3), uint8; dark blue where they are equal, yellow from half the range on."""

    def gray(array: Array) -> Array:
        return (composite_over_white(array) if array.shape[2] in (2, 4) else array).astype(np.float32) / peak(
            array.dtype
        )

    a, b = gray(image), gray(truth)
    apart = np.abs(a - b) if a.shape == b.shape else np.abs(a.mean(2, keepdims=True) - b.mean(2, keepdims=True))
    levels = np.rint(np.clip(apart.mean(2) / MOST_DIFFERENT, 0, 1) * 255).astype(np.uint8)
    return cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1]


def draw_histogram(values: Sequence[float]) -> list[Bar]:
    """How often which values occur, scaled to the picture; nothing of fewer than two."""
    finite = [value for value in values if np.isfinite(value)]
    if len(finite) < 2:
        return []
    counts, edges = np.histogram(finite, min(BINS, len(finite)))
    width = WIDTH / len(counts)
    return [
        Bar(
            place * width,
            width - 1,
            float(HEIGHT * count / counts.max()),
            int(count),
            float(edges[place]),
            float(edges[place + 1]),
        )
        for place, count in enumerate(counts)
    ]
