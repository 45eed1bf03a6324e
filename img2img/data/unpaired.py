"""Two folders of images that are not pairs: found, checked, divided, loaded."""

import statistics
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from img2img.core.errors import UsageError, list_some
from img2img.data.base import (
    SAMPLE,
    SMALL,
    DataConfig,
    DataReport,
    Direction,
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
from img2img.data.channels import check_band_counts, common_channels, name_channels
from img2img.data.facts import ImageFacts, read_image_facts
from img2img.data.layouts import (
    LAYOUTS,
    SPLITS,
    Split,
    check_folder,
    find_sides,
    list_image_kinds,
    refuse_labels,
    split_sides,
)
from img2img.data.listing import align, list_images
from img2img.data.packed import divide, pack_paths
from img2img.data.packed_pairs import join_pairs, pack_pairs
from img2img.data.paired import PairedImages, read_validation_pair
from img2img.data.sampler import Key, permutation
from img2img.data.shards import forget_shards
from img2img.data.transforms import JointTransform
from img2img.data.volumes import choose_held_out_files, expand_files, expand_pairs
from img2img.images import read_image
from img2img.images.arrays import fit_channels, to_unit
from img2img.images.bands import Range
from img2img.images.nifti import Axis
from img2img.images.tensors import to_tensor

PARTNERS = 2**20  # apart from the run's seed, so that partners are drawn from another row of numbers than the order


@dataclass(frozen=True)
class UnpairedFolder:
    """The two sides of one split."""

    split: Split
    sources: Sequence[Path]
    targets: Sequence[Path]
    where: str
    """Where they come from, to be shown to a person."""
    roots: tuple[Path, ...] = ()
    """The folders of sources and targets."""
    pairs: Sequence[Pair] = ()
    """If the sides happen to be pairs (every name of the smaller side stands on the other, too): the pairs."""


def find_unpaired(
    path: Path | None,
    *,
    source: Path | None = None,
    target: Path | None = None,
    direction: Direction = "AtoB",
    ranges: tuple[Range | None, Range | None] = (None, None),
    axis: Axis = "axial",
) -> dict[Split, UnpairedFolder]:
    """Finds the splits of an unpaired data set: `trainA trainB testA testB`, `train/A train/B` and the like.

    Args:
        path: the data set's folder, unless `source` and `target` are given.
        source: a folder of images of one kind, alone or with sub-folders train, val, test.
        target: a folder of images of the other kind.
        ranges: of source and target, as of `DataConfig.ranges`.
        axis: how volumes, for which both ranges are needed, are cut into slices, which are the images then.

    Returns:
        The splits that are there, in the order train, val, test.

    Raises:
        UsageError: if there is no such folder, or it holds no layout that is known.
    """
    if source is not None or target is not None:
        if source is None or target is None or path is not None:
            raise UsageError("give either --data FOLDER, or both --data.source FOLDER and --data.target FOLDER.")
        sides = split_sides(check_folder(source), check_folder(target))
    elif path is None:
        raise UsageError("which data? Give --data FOLDER.")
    else:
        sides = find_sides(check_folder(path))
    found = {split: _folder(split, *sides[split], direction) for split in SPLITS if split in sides}
    if not any(folder.sources or folder.targets for folder in found.values()):
        refuse_labels(path)
        layouts = LAYOUTS.rpartition(", or")[0]
        raise UsageError(
            f"{path or source} holds no two folders of images in a layout that is known: {layouts} (image files: {list_image_kinds()})."
        )
    return {
        split: replace(
            folder,
            sources=expand_files(folder.sources, ranges, axis),
            targets=expand_files(folder.targets, ranges, axis),
            pairs=expand_pairs(folder.pairs, ranges, axis),
        )
        for split, folder in found.items()
    }


def _folder(split: Split, a: Path, b: Path, direction: Direction) -> UnpairedFolder:
    sides = (a, b) if direction == "AtoB" else (b, a)
    found = [list_images(side) for side in sides]
    pairs: Sequence[Pair] = ()
    common, _, _ = align(found)
    if len(common[0]) and any(len(side.names) == len(places) for side, places in zip(found, common, strict=True)):
        first, second = (side.take(places) for side, places in zip(found, common, strict=True))
        pairs = join_pairs(Pair("", *sides), first.names, first.files, second.files)
    return UnpairedFolder(split, found[0].files, found[1].files, f"{sides[0]} + {sides[1]}", sides, pairs)


def _pack(folder: UnpairedFolder) -> UnpairedFolder:
    """The same, in less memory: files may be many."""
    sources, targets = pack_paths(folder.sources), pack_paths(folder.targets)
    return replace(folder, sources=sources, targets=targets, pairs=pack_pairs(folder.pairs))


def hold_out_images(folder: UnpairedFolder, share: float) -> tuple[UnpairedFolder, UnpairedFolder]:
    """Takes evenly spaced images of each side out of a training split for validation: (the rest, the held-out).

    Raises:
        UsageError: if too few images are there.
    """
    sources, targets = (
        divide(files, choose_held_out_files(files, share, "images")) for files in (folder.sources, folder.targets)
    )
    return (
        replace(folder, sources=sources[0], targets=targets[0], pairs=()),
        replace(folder, split="val", sources=sources[1], targets=targets[1], pairs=()),
    )


def check_unpaired(
    splits: dict[Split, UnpairedFolder],
    progress: Progress | None = None,
    most: int | None = None,
    ranges: tuple[Range | None, Range | None] = (None, None),
) -> DataReport:
    """Reads the files of an unpaired data set, all or a sample, and says what can't work and what may surprise; `ranges` as of `DataConfig`."""
    report = DataReport()
    parts = {
        (split, side): files
        for split, folder in splits.items()
        for side, files in (("source", folder.sources), ("target", folder.targets))
    }
    chosen, total = choose_sample_of_each(parts, most), sum(map(len, parts.values()))
    files = sorted({file for _, file in chosen})
    targets = {file for (_, side), file in chosen if side == "target"} if ranges[0] != ranges[1] else set()
    of_file = {file: ranges[file in targets] for file in files}
    facts, unreadable = read_image_facts(files, progress(len(files)) if progress else lambda: None, of_file)
    warn_of_sample(report, len(files), total if len(chosen) < total else 0)
    for split, folder in splits.items():
        report.splits[split] = max(len(folder.sources), len(folder.targets))
        _check_counts(folder, report)
    report_unreadable(report, [reason for _, reason in sorted(unreadable.items())], "")
    sides = {
        side: [facts[file] for (_, each), file in chosen if each == side and file in facts]
        for side in ("source", "target")
    }
    if not all(sides.values()):
        return report
    _check_sizes(sides, report)
    _warn_of_images_on_both_sides(chosen, facts, report)
    for side in ("source", "target"):
        sided = ((split, file) for (split, each), file in chosen if each == side)
        warn_of_leaks(report, f"{side}s: ", sided, facts)
    report.in_channels, report.out_channels = (
        common_channels(side, each, report, limits) for (side, each), limits in zip(sides.items(), ranges, strict=True)
    )
    if report.in_channels != report.out_channels:
        kinds = name_channels(report.in_channels), name_channels(report.out_channels)
        report.add(
            "warning",
            f"the sources are {kinds[0]} and the targets {kinds[1]}: cyclegan then needs --identity-weight 0, cut, "
            "fastcut and unsb need equal --data.in-channels and --data.out-channels.",
        )
    shown = [count_sizes(side) for side in sides.values()]
    report.sizes = shown[0] if shown[0] == shown[1] else f"{shown[0]} → {shown[1]}"
    report.summary = f"{report.in_channels} → {report.out_channels} channels; sizes {report.sizes}"
    return report


def _check_counts(folder: UnpairedFolder, report: DataReport) -> None:
    counts = {"source": len(folder.sources), "target": len(folder.targets)}
    for side, count in counts.items():
        if count == 0:
            level: Literal["error", "warning"] = "error" if folder.split == "train" else "warning"
            report.add(level, f"{folder.split}: there are no {side} images in {folder.where}.")
        elif count < FEW and folder.split == "train":
            report.add(
                "warning",
                f"{folder.split}: only {count} {side} images, which a discriminator soon knows by heart; "
                "--augment colour translation cutout delays that, more images help.",
            )
    small, large = sorted(counts.values())
    if small and large >= 10 * small:
        side = min(counts, key=lambda name: counts[name])
        report.add(
            "warning",
            f"{folder.split}: {counts['source']} source and {counts['target']} target images; an epoch is as long as the "
            f"larger side, so each {side} image is seen {large // small} times in it.",
        )


def _check_sizes(sides: dict[str, list[ImageFacts]], report: DataReport) -> None:
    medians = {side: statistics.median(min(each.height, each.width) for each in facts) for side, facts in sides.items()}
    small, large = sorted(medians.values())
    if large > SIZES_APART * small:
        report.add(
            "warning",
            f"the median of the sources' shorter sides is {medians['source']:.0f} pixels, of the targets' {medians['target']:.0f}: "
            "scaled to one size they differ in sharpness, by which alone a discriminator can tell them apart.",
        )
    for side, facts in sides.items():
        shorter = sorted(min(each.height, each.width) for each in facts)
        if shorter[-1] > SHAPES_APART * shorter[0]:
            report.add(
                "warning", f"{side}: sizes differ widely, shorter sides from {shorter[0]} to {shorter[-1]} pixels."
            )
        tiny = sum(length < SMALL for length in shorter)
        if tiny:
            report.add("warning", f"{side}: {tiny} images are smaller than {SMALL} pixels.")


def _warn_of_images_on_both_sides(
    files: Sequence[tuple[tuple[Split, str], Path]], facts: dict[Path, ImageFacts], report: DataReport
) -> None:
    """To the discriminator they are real on either side."""
    where: dict[str, dict[str, Path]] = defaultdict(dict)
    for (_, side), file in files:
        if file in facts:
            where[facts[file].digest].setdefault(side, file)
    both = [tuple(found.values()) for found in where.values() if len(found) == 2]
    if both:
        names = list_some([f"{a} = {b}" for a, b in both], 2)
        report.add("warning", f"{count_images(len(both))} on both sides: {names}. Leave them on one.")


class UnpairedImages(Samples):
    """Images of both kinds, each with a random partner and augmented on its own; an epoch is as long as the larger side.

    What a sample is, is a function of (seed, epoch, index). The larger side's image is the index-th; partners are the
    smaller side in a random order of the epoch, gone through again and again, each time in another order. So all images are
    seen about equally often, and no two stand together because of their names or places.
    """

    def __init__(
        self,
        sources: Sequence[Path],
        targets: Sequence[Path],
        transform: JointTransform,
        in_channels: int,
        out_channels: int,
        seed: int,
        ranges: tuple[Range | None, Range | None] = (None, None),
    ) -> None:
        self.sides = sources, targets
        self.channels = in_channels, out_channels
        self.ranges = ranges
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return max(len(side) for side in self.sides)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """``source`` and ``target``: (C, H, W) in [-1, 1]."""
        found: dict[str, Tensor] = {}
        for side, (files, place) in enumerate(zip(self.sides, self.partners(key), strict=True)):
            seed = zlib.crc32(f"{self.seed}/{key[0]}/{key[1]}/{side}".encode())
            found |= self.read(side, files[place], seed)
        return found

    def read(self, side: int, file: Path, seed: int) -> dict[str, Tensor]:
        """What a sample has of one side, 0 for the sources; its geometry is changed as a function of `seed`."""
        channels, limits = self.channels[side], self.ranges[side]
        read = read_image(file, self.transform.enough, limits)
        image = to_unit(fit_channels(read, channels, file, limits is not None))
        done = np.ascontiguousarray(self.transform.apply_to_one(image, seed))
        return {("source", "target")[side]: to_tensor(done)}

    def partners(self, key: Key) -> tuple[int, int]:
        """The places of a sample's two images on their sides."""
        epoch, index = key
        lengths = [len(side) for side in self.sides]
        smaller = min(lengths)
        turn, place = divmod(index, smaller)
        turns = -(-len(self) // smaller)
        other = int(permutation(smaller, self.seed + PARTNERS, epoch * turns + turn)[place])
        return (index, other) if lengths[0] >= lengths[1] else (other, index)


FEW = 20  # images of a side from which a generator and a discriminator learn the images themselves
SIZES_APART = 2.0  # how many times one side's median height may be the other's
SHAPES_APART = 4.0  # the same for the smallest and the largest image of one side


class UnpairedData(ImageFolders):
    """Two kinds of images, for methods that have no known targets."""

    def __init__(self, config: DataConfig, with_classes: bool = True) -> None:
        self.config = config
        self.splits = find_unpaired(
            config.path,
            source=config.source,
            target=config.target,
            direction=config.direction,
            ranges=config.ranges,
            axis=config.axis,
        )

    @classmethod
    def recognises(cls, config: DataConfig) -> bool:
        """Whatever nobody else takes."""
        return True

    @classmethod
    def refuse_options(cls, config: DataConfig, method: str) -> None:
        """Refuses what is about pairs or label maps."""
        if config.derive:
            raise UsageError(f"--data.derive makes pairs, but {method} is for images without pairs; use pix2pix.")
        for option in ("labels", "instances", "classes", "ignore_label"):
            if getattr(config, option) is not None:
                raise UsageError(
                    f"--data.{option.replace('_', '-')} is about label maps, which {method} doesn't take; leave it out."
                )
        if config.colour_jitter:
            raise UsageError(
                f"--data.colour-jitter changes only sources, which {method} would learn to undo; leave it out."
            )

    def check(self, progress: Progress | None = None) -> DataReport:
        """See `check_unpaired`."""
        report = check_unpaired(self.splits, progress, self.config.most_checked, self.config.ranges)
        check_band_counts(self.config, report)
        return report

    def divide(self, holdout: float) -> None:
        """See `divide_splits`."""
        train, validation, self.name = divide_splits(
            self.splits, holdout, lambda folder: bool(folder.sources and folder.targets), hold_out_images
        )
        self.splits = {}
        forget_shards()
        self.train = _pack(train)
        self.validation = _pack(validation) if validation else None

    def build_training_set(self, transform: JointTransform, in_channels: int, out_channels: int, seed: int) -> Samples:
        """Images of both sides with random partners."""
        return UnpairedImages(
            self.train.sources, self.train.targets, transform, in_channels, out_channels, seed, self.config.ranges
        )

    def validation_set(self, direction: str) -> ValidationSet:
        """The sources of a direction, with those targets that happen to be known."""
        folder = self.validation or self.train
        most = None if self.validation else SAMPLE  # of what is trained on, which is only looked at
        sides = choose_sample(folder.sources, most), choose_sample(folder.targets, most)
        sources, targets = sides if direction != "BtoA" else sides[::-1]
        wanted, partners = set(sources), dict[Path, Path]()
        for pair in folder.pairs:
            for file, partner in ((pair.source, pair.target), (pair.target, pair.source)):
                if file in wanted:
                    partners[file] = partner
        own, other = self.config.ranges if direction != "BtoA" else self.config.ranges[::-1]
        pairs = [
            Pair(file.stem, file, partners.get(file, file), ranges=(own, other if file in partners else own))
            for file in sources
        ]
        return ValidationSet(pairs, False, targets, self.name, read_validation_pair, PairedImages)

    @property
    def length(self) -> int:
        """Images of the larger side."""
        return max(len(self.train.sources), len(self.train.targets))

    def describe(self) -> str:
        """How many images each side has."""
        return f"{len(self.train.sources)} source and {len(self.train.targets)} target images, unpaired"

    def list_samples(self) -> dict[str, list[Sample]]:
        """The images of each side."""
        return {
            f"{split}{side}": [Sample(key, {"": file}) for key, file in zip(name_keys(files), files, strict=True)]
            for split, folder in self.splits.items()
            for side, files in (("A", folder.sources), ("B", folder.targets))
            if files
        }

    def describe_splits(self) -> list[str]:
        """How many images were found in each split, and where."""
        return [
            f"{split}: {len(folder.sources)} and {len(folder.targets)} images, unpaired, from {folder.where}"
            for split, folder in self.splits.items()
        ]
