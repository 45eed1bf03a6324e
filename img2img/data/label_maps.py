"""Label maps and their instance maps: which folders and files they are, and what belongs together."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from img2img.core.errors import UsageError
from img2img.data.layouts import SPLITS, Split
from img2img.data.listing import ImageFiles, list_images
from img2img.images import Array

ENDINGS = re.compile(  # by which the names of what belongs together differ in data sets that people have
    r"_(gtFine_|gtCoarse_)?(labelIds|labelTrainIds|instanceIds|leftImg8bit|label|labels|inst|instance|img|image)$"
)
Sides = tuple[Path, Path | None, Path]


def label_folders(path: Path) -> dict[Split, Sides]:
    """The folders of label maps, of instance maps, if there are any, and of images, which may be missing, in each split; empty for another layout."""
    found: dict[Split, Sides] = {}
    for split in SPLITS:
        for form in (f"{split}_%s", f"{split}/%s", f"%s/{split}"):
            label, inst, img = (path / (form % kind) for kind in ("label", "inst", "img"))
            if label.is_dir():
                found.setdefault(split, (label, inst if inst.is_dir() else None, img))
    if not found and (path / "label").is_dir():
        found["train"] = (path / "label", path / "inst" if (path / "inst").is_dir() else None, path / "img")
    return found


def label_sides(path: Path) -> dict[Split, Sides]:
    """As `label_folders`, of a data set that has images.

    Raises:
        UsageError: if a split has label maps and no images.
    """
    found = label_folders(path)
    for label, _, img in found.values():
        if not img.is_dir():
            if label == path / "label":  # which any folder may be called
                return {}
            raise UsageError(f"{path}: there is no folder {img.relative_to(path)} to match {label.relative_to(path)}.")
    return found


def list_labels(folder: Path) -> ImageFiles:
    """The image files below a folder by name, without the endings that tell labels, instances and images apart."""
    return list_images(folder).rename(lambda name: ENDINGS.sub("", name))


def instance_folder(labels: Path) -> Path | None:
    """The folder of instance maps beside one of label maps: train_inst for train_label, inst/val for label/val."""
    for place in (labels, *list(labels.parents)[:1]):
        if place.name == "label" or place.name.endswith("_label"):
            beside = place.with_name(place.name.removesuffix("label") + "inst") / labels.relative_to(place)
            return beside if beside.is_dir() else None
    return None


def count_labels(labels: Array) -> Counter[int]:
    """How many pixels each label has."""
    values, numbers = np.unique(labels, return_counts=True)
    return Counter(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
