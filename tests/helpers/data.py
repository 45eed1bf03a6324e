"""Tiny data sets, drawn."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from img2img.images import write_image


def picture(height: int, width: int, channels: int = 3, seed: int = 0, dtype: Any = np.uint8) -> Any:
    """A smooth random image: (H, W, C)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(6 * (x * random.normal() + y * random.normal()) + random.uniform(0, 6)) for _ in range(channels)]
    return np.rint((np.stack(waves, -1) + 1) / 2 * np.iinfo(dtype).max).astype(dtype)


def write_pairs(folder: Path, count: int, size: int = 16, split: str = "train", first: int = 0) -> Path:
    """trainA and trainB: B is A inverted."""
    for number in range(first, first + count):
        image = picture(size, size, seed=number)
        write_image(folder / f"{split}A" / f"{number}.png", image)
        write_image(folder / f"{split}B" / f"{number}.png", 255 - image)
    return folder


COLOURS = np.array([[20, 20, 60], [200, 60, 40], [60, 180, 60], [240, 220, 80]], np.uint8)


def label_map(size: int, seed: int) -> tuple[Any, Any]:
    """Rectangles of the labels 1 to 3 on 0, and their numbers: two arrays (size, size) of uint8."""
    random = np.random.default_rng(seed)
    labels, instances = np.zeros((2, size, size), np.uint8)
    for number in range(1, 5):
        top, left = random.integers(0, size // 2, 2)
        height, width = random.integers(size // 4, size // 2 + 1, 2)
        labels[top : top + height, left : left + width] = (seed + number) % 3 + 1
        instances[top : top + height, left : left + width] = number
    return labels, instances


def write_labelled(folder: Path, count: int, size: int = 16, split: str = "train", first: int = 0) -> Path:
    """train_label, train_inst and train_img: rectangles of four classes, each in its colour, lighter or darker."""
    for number in range(first, first + count):
        labels, instances = label_map(size, number)
        shade = 0.6 + 0.1 * (instances % 5)
        for kind, array in (("label", labels), ("inst", instances)):
            (folder / f"{split}_{kind}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / f"{split}_{kind}" / f"{number}.png")
        image = np.rint(COLOURS[labels] * shade[..., None]).astype(np.uint8)
        write_image(folder / f"{split}_img" / f"{number}.png", image)
    return folder


def write_classes(folder: Path, count: int = 6, size: int = 32, split: str = "train") -> Path:
    """train/dark and train/light: waves in gray, dark or light."""
    for number in range(count):
        image = picture(size, size, 1, seed=number) // 2
        write_image(folder / split / "dark" / f"{number}.png", image)
        write_image(folder / split / "light" / f"{number}.png", 255 - image)
    return folder


def write_unpaired(folder: Path, sources: int = 5, targets: int = 4, size: int = 16, split: str = "train") -> Path:
    """trainA: waves; trainB: other waves, inverted, of other names."""
    for side, count, first in (("A", sources, 0), ("B", targets, 100)):
        for number in range(first, first + count):
            image = picture(size, size, seed=number)
            write_image(folder / f"{split}{side}" / f"{side}{number}.png", image if side == "A" else 255 - image)
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar file of such members."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def write_bands(folder: Path, count: int = 6, bands: int = 4, size: int = 32) -> Path:
    """Sources of some bands of int16, and targets of one of uint16."""
    drawn = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 2)):
        for side in "AB":
            (folder / f"{split}{side}").mkdir(parents=True)
        for place in range(number):
            values = drawn.integers(-900, 2900, (size, size, bands)).astype(np.int16)
            target = ((values[..., 0] + 1000.0) * 2.5).astype(np.uint16)
            tifffile.imwrite(
                folder / f"{split}A" / f"{place}.tif", values, photometric="minisblack", planarconfig="contig"
            )
            tifffile.imwrite(folder / f"{split}B" / f"{place}.tif", target)
    return folder


def write_volumes(folder: Path, slices: int = 5, train: int = 2) -> Path:
    """Pairs of NIfTI volumes of 32 × 36 × slices, some to train on and one to validate with."""
    import nibabel

    for split, count in (("train", train), ("val", 1)):
        for side in "AB":
            (folder / f"{split}{side}").mkdir(parents=True)
            for number in range(count):
                values = np.random.default_rng(number).integers(-900, 2900, (32, 36, slices)).astype(np.int16)
                image = nibabel.Nifti1Image(values, np.diag([-1.0, 1, 2, 1]))
                nibabel.save(image, folder / f"{split}{side}" / f"p.{number}.nii.gz")
    return folder
