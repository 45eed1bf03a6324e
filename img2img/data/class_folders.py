"""Images of one kind, perhaps in a folder for each class: found, checked, divided, loaded."""

import os
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from img2img.core.errors import UsageError, list_some
from img2img.data.base import (
    SAMPLE,
    SMALL,
    DataConfig,
    DataReport,
    ImageFolders,
    Pair,
    Progress,
    Sample,
    Samples,
    ValidationSet,
    choose_sample,
    choose_sample_of_each,
    count_images,
    count_sizes,
    divide_splits,
    name_keys,
    report_unreadable,
    warn_of_leaks,
    warn_of_sample,
)
from img2img.data.channels import check_band_counts, common_channels
from img2img.data.facts import ImageFacts, read_image_facts
from img2img.data.layouts import SPLITS, Split, check_folder, list_image_kinds
from img2img.data.listing import list_images
from img2img.data.packed import divide, pack_paths
from img2img.data.paired import PairedImages, read_validation_pair
from img2img.data.sampler import Key
from img2img.data.shards import forget_shards
from img2img.data.transforms import JointTransform, Resize
from img2img.data.volumes import choose_held_out_files, expand_files
from img2img.images import Array, read_image
from img2img.images.arrays import fit_channels, to_unit
from img2img.images.bands import Range
from img2img.images.nifti import Axis
from img2img.images.tensors import to_array, to_tensor


@dataclass(frozen=True)
class ClassFolder:
    """The images of one split."""

    split: Split
    files: Sequence[Path]
    where: str
    """Where they come from, to be shown to a person."""
    labels: Sequence[int] = ()
    """The number of each file's class in `classes`; empty if there are no classes."""
    classes: tuple[str, ...] = ()
    """The classes of the data set by name; the same in all splits."""
    limits: Range | None = None
    """Of measurements, the range."""


def find_class_folders(
    path: Path | None, with_classes: bool = True, limits: Range | None = None, axis: Axis = "axial"
) -> dict[Split, ClassFolder]:
    """Finds the splits of a data set of one kind: `train/CLASS/`, `train/`, or any folder of images.

    The sub-folders of a split are classes if all its images lie in one of them, and there are at least two; so are the
    sub-folders of a folder that has no splits.

    Args:
        limits: of measurements, the range.
        axis: how volumes, for which a range is needed, are cut into slices, which are the images then.

    Raises:
        UsageError: if there is no such folder, or no image in it; or if a split has a class that train doesn't have; or if a
            volume can't be cut.
    """
    if path is None:
        raise UsageError("which data? Give --data FOLDER.")
    folder = check_folder(path)
    places: dict[Split, Path] = {split: folder / split for split in SPLITS if (folder / split).is_dir()} or {
        "train": folder
    }
    found = {split: _cut_volumes(_list_files(place), limits, axis) for split, place in places.items()}
    if not any(len(each.files) for each in found.values()):
        raise UsageError(f"{path} holds no images (image files: {list_image_kinds()}).")
    first = next(iter(places))
    classes = _find_classes(found[first]) if with_classes else ()
    return {
        split: replace(_assign_labels(split, place, found[split], classes, first), limits=limits)
        for split, place in places.items()
    }


@dataclass(frozen=True)
class _Found:
    """Images, and the sub-folder that each lies in, as its number in `names`."""

    files: Sequence[Path]
    folders: "array[int]"
    names: tuple[str, ...]
    """Of the sub-folders; empty of what lies in none."""


def _list_files(place: Path) -> _Found:
    found, numbers = list_images(place), dict[bytes, int]()
    tops = (name.rpartition(b"/")[0].partition(b"/")[0] for name in found.names.encode())
    folders = array("I", (numbers.setdefault(top, len(numbers)) for top in tops))
    return _Found(found.files, folders, tuple(map(os.fsdecode, numbers)))


def _cut_volumes(found: _Found, limits: Range | None, axis: Axis) -> _Found:
    """The same, with the slices of each volume instead of it; without a range they stay, and reading them says why."""
    if limits is None:
        return found
    ranges = (limits, limits)
    every = expand_files(found.files, ranges, axis)  # cuts all that is to be cut
    if every is found.files:
        return found
    counts = [len(expand_files([file], ranges, axis)) for file in found.files]
    return replace(found, files=every, folders=array("I", np.repeat(found.folders, counts).tolist()))


def _find_classes(found: _Found) -> tuple[str, ...]:
    """The names of the sub-folders that all the images lie in; none if some lie elsewhere, or in one."""
    return () if "" in found.names or len(found.names) < 2 else tuple(sorted(found.names, key=_natural_order))


def _natural_order(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _assign_labels(split: Split, place: Path, found: _Found, classes: tuple[str, ...], first: Split) -> ClassFolder:
    if not classes:
        return ClassFolder(split, found.files, str(place))
    numbers = {name: number for number, name in enumerate(classes)}
    strange = {name for name in found.names if name not in numbers}
    if strange:
        shown = {
            found.names[folder] or file.name
            for folder, file in zip(found.folders, found.files, strict=True)
            if found.names[folder] in strange
        }
        raise UsageError(
            f"{place}: {list_some(sorted(shown))} is no class of {first}, which has {list_some(classes)}; each class needs a folder there."
        )
    labels = array("I", (numbers[found.names[folder]] for folder in found.folders))
    return ClassFolder(split, found.files, str(place), labels, classes)


def _pack(folder: ClassFolder) -> ClassFolder:
    """The same, in less memory: files may be many."""
    return replace(folder, files=pack_paths(folder.files), labels=array("I", folder.labels))


def hold_out_files(folder: ClassFolder, share: float) -> tuple[ClassFolder, ClassFolder]:
    """Takes evenly spaced images out of a training split for validation: (the rest, the held-out).

    Raises:
        UsageError: if too few images are there.
    """
    chosen = choose_held_out_files(folder.files, share, "images")
    files = divide(folder.files, chosen)
    labels = divide(folder.labels, chosen) if folder.labels else ((), ())
    return (
        replace(folder, files=files[0], labels=labels[0]),
        replace(folder, split="val", files=files[1], labels=labels[1]),
    )


def check_class_folders(
    splits: dict[Split, ClassFolder], progress: Progress | None = None, most: int | None = None
) -> DataReport:
    """Reads the files of a data set of one kind, all or a sample, and says what can't work and what may surprise; `names` of the report are the classes."""
    report = DataReport()
    parts = {split: range(len(folder.files)) for split, folder in splits.items()}
    chosen, total = choose_sample_of_each(parts, most), sum(map(len, parts.values()))
    found = [(split, splits[split].files[place], place) for split, place in chosen]
    files = sorted({file for _, file, _ in found})
    limits = next(iter(splits.values())).limits
    advance = progress(len(files)) if progress else lambda: None
    facts, unreadable = read_image_facts(files, advance, dict.fromkeys(files, limits))
    warn_of_sample(report, len(files), total)
    for split, folder in splits.items():
        report.splits[split] = len(folder.files)
        if not folder.files:
            report.add("error" if split == "train" else "warning", f"{split}: there are no images in {folder.where}.")
    report_unreadable(report, [reason for _, reason in sorted(unreadable.items())], "")
    report.names = next(iter(splits.values())).classes
    readable = [facts[file] for _, file, _ in found if file in facts]
    if readable:
        _check_counts(splits, report)
        _check_shapes(readable, report)
        _check_copies(splits, found, facts, report)
        report.in_channels = report.out_channels = common_channels("images", readable, report, limits)
        report.sizes = count_sizes(readable)
        classes = f"{len(report.names)} classes; " if report.names else ""
        report.summary = (
            f"{classes}{report.out_channels} channel{'s' if report.out_channels > 1 else ''}; sizes {report.sizes}"
        )
    return report


def _check_counts(splits: dict[Split, ClassFolder], report: DataReport) -> None:
    train = splits.get("train")
    if train is None or not train.files:
        return
    if len(train.files) < FEW:
        report.add(
            "warning",
            f"train: only {len(train.files)} images, which networks soon know by heart: more images help"
            + (", and for a discriminator --augment colour translation cutout." if train.limits is None else "."),
        )
    if not train.classes:
        return
    counts = Counter(train.labels)
    few = [f"{name} ({counts[number]})" for number, name in enumerate(train.classes) if counts[number] < FEW_OF_A_CLASS]
    if few:
        report.add("warning", f"train: classes with fewer than {FEW_OF_A_CLASS} images: {list_some(few)}.")
    most, least = counts.most_common(1)[0], min(counts.items(), key=lambda item: item[1])
    if most[1] >= UNEQUAL * least[1]:
        report.add(
            "warning",
            f"train: the classes are unequal: {most[1]} images of {train.classes[most[0]]}, {least[1]} of "
            f"{train.classes[least[0]]}, which is seen much more rarely.",
        )
    missing = [
        f"{name} in {split}"
        for split, folder in splits.items()
        for number, name in enumerate(folder.classes)
        if split != "train" and number not in folder.labels
    ]
    if missing:
        report.add("warning", f"classes without an image: {list_some(missing)}.")


def _check_shapes(facts: list[ImageFacts], report: DataReport) -> None:
    long = sum(max(each.height, each.width) > LONG * min(each.height, each.width) for each in facts)
    if long:
        report.add(
            "warning",
            f"{long} images are far from square, and are cropped to a square; --data.resize stretch stretches them instead.",
        )
    tiny = sum(min(each.height, each.width) < SMALL for each in facts)
    if tiny:
        report.add("warning", f"{tiny} images are smaller than {SMALL} pixels.")


def _check_copies(
    splits: dict[Split, ClassFolder],
    found: Sequence[tuple[Split, Path, int]],
    facts: dict[Path, ImageFacts],
    report: DataReport,
) -> None:
    warn_of_leaks(report, "", ((split, file) for split, file, _ in found), facts)
    where: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for split, file, place in found:
        if file in facts:
            labels = splits[split].labels
            where[facts[file].digest].append((labels[place] if labels else 0, file))
    mixed = [found for found in where.values() if len({label for label, _ in found}) > 1]
    if mixed:
        example = " = ".join(str(file) for _, file in mixed[0][:2])
        report.add("warning", f"{count_images(len(mixed))} in several classes ({example}).")
    copies = sum(len(found) - 1 for found in where.values())
    if copies > len(facts) / 10:
        report.add("warning", f"{copies} of {len(facts)} images are copies of others.")


class ClassImages(Samples):
    """Images with the number of their class, transformed as a function of (seed, epoch, index)."""

    def __init__(self, folder: ClassFolder, transform: JointTransform, channels: int, seed: int) -> None:
        self.folder, self.transform, self.channels, self.seed = folder, transform, channels, seed

    def __len__(self) -> int:
        return len(self.folder.files)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """``target``: (C, H, W) in [-1, 1]; ``label``: () int64, 0 if there are no classes."""
        epoch, index = key
        file, seed = self.folder.files[index], zlib.crc32(f"{self.seed}/{epoch}/{index}".encode())
        limits = self.folder.limits
        read = fit_channels(read_image(file, self.transform.enough, limits), self.channels, file, limits is not None)
        image = self.transform.apply_to_one(to_unit(read), seed)
        label = self.folder.labels[index] if self.folder.labels else 0
        return {"target": to_tensor(np.ascontiguousarray(image)), "label": torch.tensor(label)}


FEW = 100  # images from which a generator learns little but themselves
FEW_OF_A_CLASS = 20
UNEQUAL = 10  # times that the largest class may be the smallest
LONG = 1.5  # a side may be so many times the other before a square crop loses much


def read_plain_images(
    files: Sequence[Path],
    size: int,
    resize: Resize,
    channels: int,
    count: int | None = None,
    limits: Range | None = None,
) -> list[Array]:
    """Images as a discriminator sees them, without augmentation, (size, size, channels), uint8: all, or `count` at even distances.

    Args:
        limits: of measurements, the range, whose ends are 0 and 255.
    """
    folder = ClassFolder("val", files, "", limits=limits)
    images = ClassImages(folder, JointTransform(size, resize=resize, jitter=1, flip=0), channels, seed=0)
    places = np.linspace(0, len(images) - 1, len(images) if count is None else count).round().astype(int)
    return [to_array(images[0, int(place)]["target"]) for place in places]


def _refuse_two_ranges(config: DataConfig) -> None:
    if config.ranges[0] != config.ranges[1]:
        raise UsageError("images of one kind, or in a folder for each class, have one range: give --data.range.")


class ClassFolderData(ImageFolders):
    """Images of one kind, for methods that make such images."""

    def __init__(self, config: DataConfig, with_classes: bool = True) -> None:
        _refuse_two_ranges(config)
        self.config = config
        self.splits = find_class_folders(config.path, with_classes, config.ranges[1], config.axis)

    @classmethod
    def recognises(cls, config: DataConfig) -> bool:
        """Whatever nobody else takes."""
        return True

    @classmethod
    def refuse_options(cls, config: DataConfig, method: str) -> None:
        """Refuses what is about sources."""
        given = {
            "source": config.source, "target": config.target, "labels": config.labels, "instances": config.instances,
            "classes": config.classes, "derive": config.derive, "ignore-label": config.ignore_label,
            "in-channels": config.in_channels, "colour-jitter": config.colour_jitter or None,
        }  # fmt: skip
        for option, value in given.items():
            if value is not None:
                raise UsageError(
                    f"--data.{option}: {method} takes one folder of images, --data FOLDER, which are no pairs; leave it out."
                )
        if config.width is not None or config.direction == "BtoA":
            option = "--direction" if config.width is None else "--width"
            raise UsageError(f"{option}: {method} takes square images of one kind; leave it out.")

    def check(self, progress: Progress | None = None) -> DataReport:
        """See `check_class_folders`."""
        report = check_class_folders(self.splits, progress, self.config.most_checked)
        check_band_counts(self.config, report)
        return report

    def divide(self, holdout: float) -> None:
        """See `divide_splits`."""
        train, validation, self.name = divide_splits(
            self.splits, holdout, lambda folder: bool(folder.files), hold_out_files
        )
        self.splits = {}
        forget_shards()
        self.train = _pack(train)
        self.validation = _pack(validation) if validation else None

    def build_training_set(self, transform: JointTransform, in_channels: int, out_channels: int, seed: int) -> Samples:
        """Images with their classes."""
        return ClassImages(self.train, transform, out_channels, seed)

    def validation_set(self, direction: str) -> ValidationSet:
        """Images of the split, without known targets."""
        split = self.validation or self.train
        most = None if self.validation else SAMPLE  # of what is trained on, which is only looked at
        files, labels = choose_sample(split.files, most), choose_sample(split.labels, most)
        pairs = [Pair(file.stem, file, file, ranges=(split.limits, split.limits)) for file in files]
        return ValidationSet(pairs, False, files, self.name, read_validation_pair, PairedImages, labels)

    @property
    def length(self) -> int:
        """Images to train on."""
        return len(self.train.files)

    def describe(self) -> str:
        """How many images and classes there are."""
        classes = f" of {len(self.train.classes)} classes" if self.train.classes else ""
        return f"{len(self.train.files)} images{classes}"

    def list_samples(self) -> dict[str, list[Sample]]:
        """Images with their classes."""
        return {
            split: [
                Sample(key, {"": file}, folder.classes[folder.labels[place]] if folder.labels else "")
                for place, (key, file) in enumerate(zip(name_keys(folder.files), folder.files, strict=True))
            ]
            for split, folder in self.splits.items()
        }

    def describe_splits(self) -> list[str]:
        """How many images were found in each split, and where."""
        return [
            f"{split}: {len(folder.files)} images{f' of {len(folder.classes)} classes' if folder.classes else ''} from {folder.where}"
            for split, folder in self.splits.items()
        ]
