"""Which scores see what people see: spoils the images of a folder in known ways, and scores them against another folder of their kind.

    python tools/compare_scores.py IMAGES TRUTH

Paired scores compare each spoilt image with itself, KID compares sets.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from img2img.images import Array, convert_channels, read_image
from img2img.metrics.distribution import RandomVGG, distances, features
from img2img.metrics.paired import score
from img2img.metrics.perceptual import LiteFeatures, PerceptualDistance


def shift(image: Array) -> Array:
    return np.pad(image, ((2, 0), (2, 0), (0, 0)), "edge")[: len(image), : image.shape[1]]


def draw_dots(image: Array) -> Array:
    random, spoilt = np.random.default_rng(int(image.sum())), image.copy()
    for _ in range(6):
        row, column = (random.integers(0, side - 4) for side in image.shape[:2])
        spoilt[row : row + 4, column : column + 4] = random.integers(0, 255, 3)
    return spoilt


def draw_cloud(image: Array) -> Array:
    rows, columns = np.indices(image.shape[:2])
    row, column = np.random.default_rng(int(image.sum())).uniform(0, image.shape[:2])
    cloud = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * (image.shape[0] / 6) ** 2))
    return (image * (1 - 0.35 * cloud)[..., None]).astype(np.uint8)


def draw_checkerboard(image: Array) -> Array:
    rows, columns = np.indices(image.shape[:2])
    return np.clip(image + np.where((rows + columns) % 2, 6.0, -6.0)[..., None], 0, 255).astype(np.uint8)


def blur(deviation: float) -> Callable[[Array], Array]:
    return lambda image: gaussian_filter(image, (deviation, deviation, 0))


WAYS: dict[str, Callable[[Array], Array]] = {
    "nothing": np.asarray,
    "shift by 2 pixels": shift,
    "six 4-pixel dots": draw_dots,
    "cloud": draw_cloud,
    "checkerboard of ±6": draw_checkerboard,
    "blur, σ = 1": blur(1),
    "blur, σ = 2": blur(2),
}


def main(images: Path, truth: Path) -> None:
    console, cpu = Console(), torch.device("cpu")
    sets = [[convert_channels(read_image(f), 3) for f in sorted(folder.iterdir())] for folder in (images, truth)]
    extractors, distance = (RandomVGG(), LiteFeatures()), PerceptualDistance()
    real = [features(extractor, sets[1], cpu) for extractor in extractors]
    table = Table("spoilt by", "KID, random VGG", "KID, lite", "FID, lite", "L1", "PSNR", "SSIM", "perceptual")
    for name, way in WAYS.items():
        spoilt = [way(image) for image in sets[0]]
        found = [distances(features(e, spoilt, cpu), r) for e, r in zip(extractors, real, strict=True)]
        pairs = [score(a, b, distance) for a, b in zip(spoilt, sets[0], strict=True)]
        means = [np.mean([each[key] for each in pairs]) for key in ("l1", "psnr", "ssim", "perceptual")]  # type: ignore[literal-required]
        sums = [found[0]["kid"], found[1]["kid"], found[1]["fid"]]
        table.add_row(name, *(f"{value:.4f}" for value in (*sums, *means)))
    console.print(table)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
