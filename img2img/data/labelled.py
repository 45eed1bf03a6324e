"""Data sets of label maps: the layouts of train_label, train_inst and train_img, and maps as arrays."""

import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from img2img.data.folders import (
    SPLITS,
    Pair,
    PairedFolder,
    Split,
    existing_folder,
    explicit_sides,
    image_files,
)
from img2img.errors import UsageError
from img2img.images import ARRAY_SUFFIX, SUFFIXES, Array, ImageError
from img2img.images.labels import read_indices

ENDINGS = re.compile(  # by which the names of what belongs together differ in data sets that people have
    r"_(gtFine_|gtCoarse_)?(labelIds|labelTrainIds|instanceIds|leftImg8bit|label|labels|inst|instance|img|image)$"
)
Sides = tuple[Path, Path | None, Path]


def label_sides(path: Path) -> dict[Split, Sides]:
    """The folders of label maps, of instance maps, if there are any, and of images, in each split; empty for another layout.

    Raises:
        UsageError: if a split has label maps and no images.
    """
    found: dict[Split, Sides] = {}
    for split in SPLITS:
        for form in (f"{split}_%s", f"{split}/%s", f"%s/{split}"):
            label, inst, img = (path / (form % kind) for kind in ("label", "inst", "img"))
            if label.is_dir() and not img.is_dir() and split not in found:
                raise UsageError(f"{path}: there is no folder {form % 'img'} to match {form % 'label'}.")
            if label.is_dir():
                found.setdefault(split, (label, inst if inst.is_dir() else None, img))
    if not found and (path / "label").is_dir() and (path / "img").is_dir():
        found["train"] = (path / "label", path / "inst" if (path / "inst").is_dir() else None, path / "img")
    return found


def find_labelled(
    path: Path | None,
    *,
    labels: Path | None = None,
    instances: Path | None = None,
    target: Path | None = None,
    with_instances: bool = True,
) -> dict[Split, PairedFolder]:
    """Finds the splits of a data set of label maps; empty if `path` has no such layout.

    Args:
        path: the data set's folder, unless the others are given.
        labels: a folder of label maps, alone or with sub-folders train, val, test.
        instances: the same of instance maps.
        target: the same of images.
        with_instances: whether instance maps are to be used.

    Returns:
        Pairs whose sources are label maps, in the order train, val, test. What lacks its instance map is unmatched.

    Raises:
        UsageError: if there is no such folder, or a part of it is missing.
    """
    sides: dict[Split, Sides]
    if labels is not None:
        if target is None or path is not None:
            raise UsageError("--data.labels needs --data.target, the folder of images, and no --data.")
        sides = {
            k: (a, None, b) for k, (a, b) in explicit_sides(existing_folder(labels), existing_folder(target)).items()
        }
        if instances is not None:
            beside = explicit_sides(labels, existing_folder(instances))
            if beside.keys() != sides.keys():
                raise UsageError(f"{instances} and {labels} must have the same sub-folders.")
            sides = {split: (a, beside[split][1], b) for split, (a, _, b) in sides.items()}
    elif path is None:
        raise UsageError("which data? Give --data FOLDER.")
    else:
        given = {"--data.instances": instances, "--data.target": target}
        for option, folder in given.items():
            if folder is not None:
                raise UsageError(f"{option} belongs to --data.labels; leave --data or it out.")
        sides = label_sides(existing_folder(path))
    return {split: _matched(split, a, inst if with_instances else None, b) for split, (a, inst, b) in sides.items()}


def label_files(folder: Path) -> dict[str, list[Path]]:
    """The image files below a folder by name, without the endings that tell labels, instances and images apart."""
    files: dict[str, list[Path]] = defaultdict(list)
    for name, found in image_files(folder, suffixes=(*SUFFIXES, ARRAY_SUFFIX)).items():
        files[ENDINGS.sub("", name)] += found
    return dict(files)


def _matched(split: Split, label: Path, inst: Path | None, img: Path) -> PairedFolder:
    folders = [folder for folder in (label, inst, img) if folder is not None]
    sides = [label_files(folder) for folder in folders]
    ambiguous = {name for side in sides for name, files in side.items() if len(files) > 1}
    complete = set.intersection(*(set(side) for side in sides)) - ambiguous
    unmatched = [f for side in sides for name in sorted(set(side) - complete - ambiguous) for f in side[name]]
    instances = sides[1] if inst is not None else {}
    pairs = [
        Pair(name, sides[0][name][0], sides[-1][name][0], labels=True, instances=instances.get(name, [None])[0])
        for name in sorted(complete)
    ]
    return PairedFolder(split, pairs, " + ".join(map(str, folders)), unmatched, sorted(ambiguous))


def read_maps(labels: Path, instances: Path | None) -> Array:
    """A label map, and the instance map that belongs to it: (H, W, 1 or 2), int32.

    Instances are numbered anew, from 0: only which pixels have the same matters.

    Raises:
        ImageError: naming the file that can't be read, or is of another size.
    """
    label = read_indices(labels)
    if instances is None:
        return joined_maps(label, None)
    found = label if instances == labels else read_indices(instances)
    try:
        return joined_maps(label, found)
    except ImageError as error:
        raise ImageError(f"{instances} {error}") from None


def joined_maps(label: Array, instances: Array | None) -> Array:
    """As `read_maps`, of two arrays (H, W) of integers.

    Raises:
        ImageError: if their sizes differ.
    """
    maps = [label]
    if instances is not None:
        if instances.shape != label.shape:
            sizes = [f"{array.shape[1]}×{array.shape[0]}" for array in (instances, label)]
            raise ImageError(f"is {sizes[0]} pixels, and its label map {sizes[1]}.")
        maps.append(np.unique(instances, return_inverse=True)[1].reshape(instances.shape))
    return np.stack(maps, axis=2).clip(-(2**31), 2**31 - 1).astype(np.int32)


def instance_folder(labels: Path) -> Path | None:
    """The folder of instance maps beside one of label maps: train_inst for train_label, inst/val for label/val."""
    for place in (labels, *list(labels.parents)[:1]):
        if place.name == "label" or place.name.endswith("_label"):
            beside = place.with_name(place.name.removesuffix("label") + "inst") / labels.relative_to(place)
            return beside if beside.is_dir() else None
    return None


def counts(labels: Array) -> Counter[int]:
    """How many pixels each label has."""
    values, numbers = np.unique(labels, return_counts=True)
    return Counter(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
