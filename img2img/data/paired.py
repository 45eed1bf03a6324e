"""Pairs of images: found by file name, checked, divided, loaded."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from img2img.core.errors import UsageError, list_some
from img2img.data.base import (
    SMALL,
    BuildDataset,
    DataConfig,
    DataReport,
    Direction,
    ImageFolders,
    Pair,
    Progress,
    ReadPair,
    Sample,
    Samples,
    ValidationSet,
    choose_sample_of_each,
    count_sizes,
    divide_splits,
    report_unreadable,
    warn_of_leaks,
    warn_of_sample,
)
from img2img.data.channels import check_band_counts, common_channels, refuse_jitter_of_bands
from img2img.data.facts import ImageFacts, read_image_facts
from img2img.data.layouts import (
    LABEL_LAYOUTS,
    LAYOUTS,
    SPLITS,
    Split,
    check_folder,
    find_sides,
    list_image_kinds,
    refuse_labels,
    split_sides,
)
from img2img.data.listing import ImageFiles, align, list_images
from img2img.data.packed import divide
from img2img.data.packed_pairs import change_pairs, count_files, join_pairs, list_targets, pack_pairs, turn_pairs
from img2img.data.sampler import Key
from img2img.data.shards import forget_shards
from img2img.data.transforms import Derivation, JointTransform, Resize, derive_source, scale_size
from img2img.data.volumes import choose_held_out_files, expand_pairs
from img2img.images import Array, ImageError, read_image
from img2img.images import resize as resize_image
from img2img.images.arrays import fit_channels, to_unit
from img2img.images.bands import Range
from img2img.images.nifti import Axis
from img2img.images.tensors import to_tensor


@dataclass(frozen=True)
class PairedFolder:
    """The pairs of one split, and what was found beside them."""

    split: Split
    pairs: Sequence[Pair]
    where: str
    """Where the pairs come from, to be shown to a person."""
    unmatched: list[Path] = field(default_factory=list)
    """Files of one side that have no partner on the other."""
    ambiguous: list[str] = field(default_factory=list)
    """Names that stand twice on one side (a.jpg and a.png); they are left out."""


def find_pairs(
    path: Path | None,
    *,
    source: Path | None = None,
    target: Path | None = None,
    derive: Derivation | None = None,
    direction: Direction = "AtoB",
    ranges: tuple[Range | None, Range | None] = (None, None),
    axis: Axis = "axial",
) -> dict[Split, PairedFolder]:
    """Finds the splits of a paired data set, whatever layout it has.

    Args:
        path: the data set's folder, unless `source` and `target` are given.
        source: a folder of source images, alone or with sub-folders train, val, test.
        target: a folder of target images of the same names.
        derive: any folder of images; each source is made from its target.
        direction: which side is the source.
        ranges: of source and target, as of `DataConfig.ranges`.
        axis: how volumes, for which both ranges are needed, are cut into slices, which are the pairs then.

    Returns:
        The splits that are there, in the order train, val, test; none is empty of files.

    Raises:
        UsageError: if there is no such folder, or it holds no layout that is known.
    """
    if source is not None or target is not None:
        if source is None or target is None or path is not None:
            raise UsageError("give either --data FOLDER, or both --data.source FOLDER and --data.target FOLDER.")
        if derive is not None:
            raise UsageError("--data.derive makes the sources from the targets: give one folder with --data.")
        found = _find_in_two_folders(check_folder(source), check_folder(target))
    elif path is None:
        raise UsageError("which data? Give --data FOLDER.")
    elif derive is not None:
        found = _find_derived(check_folder(path), derive)
    else:
        found = _find_by_layout(check_folder(path))
    if not found:
        refuse_labels(path)
        known = f"{LAYOUTS}; of label maps: {LABEL_LAYOUTS}"
        what = "no images" if derive or source else f"no pairs in a layout that is known: {known}"
        raise UsageError(f"{path or source} holds {what} (image files: {list_image_kinds()}).")
    turned = {split: _apply_direction(folder, direction) for split, folder in found.items()}
    return {split: set_ranges(folder, ranges, axis) for split, folder in turned.items()}


def set_ranges(folder: PairedFolder, ranges: tuple[Range | None, Range | None], axis: Axis) -> PairedFolder:
    """The pairs with their ranges, and with those of slices instead of those of volumes; raises as `expand_pairs`."""
    return replace(folder, pairs=change_pairs(expand_pairs(folder.pairs, ranges, axis), ranges=ranges))


def match(source: Path, target: Path, split: Split = "train") -> PairedFolder:
    """Pairs the files of two folders by name, whatever their suffixes."""
    sides = [list_images(source), list_images(target)]
    places, alone, ambiguous = align(sides)
    chosen = [side.take(each) for side, each in zip(sides, places, strict=True)]
    pairs = join_pairs(Pair("", source, target), chosen[0].names, chosen[0].files, chosen[1].files)
    unmatched = [side.files[place] for side, each in zip(sides, alone, strict=True) for place in each.tolist()]
    return PairedFolder(split, pairs, f"{source} + {target}", unmatched, ambiguous)


def _find_splits(make: Callable[[Split], PairedFolder | None]) -> dict[Split, PairedFolder]:
    return {split: folder for split in SPLITS if (folder := make(split))}


def _find_in_two_folders(source: Path, target: Path) -> dict[Split, PairedFolder]:
    found = {split: match(*sides, split) for split, sides in split_sides(source, target).items()}
    return found if any(folder.pairs or folder.unmatched or folder.ambiguous for folder in found.values()) else {}


def _find_derived(path: Path, derive: Derivation) -> dict[Split, PairedFolder]:
    def one(folder: Path, split: Split) -> PairedFolder | None:
        return _pair_with_themselves(list_images(folder), Pair("", path, path, derive=derive), split, str(folder))

    found = _find_splits(lambda split: one(path / split, split) if (path / split).is_dir() else None)
    if not found and (whole := one(path, "train")):
        found = {"train": whole}
    return found


def _find_by_layout(path: Path) -> dict[Split, PairedFolder]:
    sides = find_sides(path)
    found = {split: match(*folders, split) for split, folders in sides.items()}
    beside = _find_splits(lambda s: _find_side_by_side(path / s, s) if s not in found and (path / s).is_dir() else None)
    if sides or beside:
        return {split: {**found, **beside}[split] for split in SPLITS if split in found or split in beside}
    alone = _find_side_by_side(path, "train")
    return {"train": alone} if alone else {}


def _find_side_by_side(folder: Path, split: Split) -> PairedFolder | None:
    files = list_images(folder, recursive=False)
    return _pair_with_themselves(files, Pair("", folder, folder, half="AB"), split, f"{folder} (side by side)")


def _pair_with_themselves(files: ImageFiles, common: Pair, split: Split, where: str) -> PairedFolder | None:
    """Pairs that are in one file each."""
    single, ambiguous = files.take_single()
    pairs = join_pairs(common, single.names, single.files, single.files)
    return PairedFolder(split, pairs, where, ambiguous=ambiguous) if files.names else None


def _apply_direction(folder: PairedFolder, direction: Direction) -> PairedFolder:
    if direction == "AtoB" or (folder.pairs and folder.pairs[0].derive):
        return folder
    return replace(folder, pairs=turn_pairs(folder.pairs))


def explain_no_pairs(folder: PairedFolder) -> str:
    """Why a split without pairs can't be used."""
    if folder.unmatched:
        names = list_some([file.name for file in folder.unmatched], 3)
        return f"{folder.where}: no file has a partner of the same name on the other side ({names})."
    return f"{folder.where}: there are no images."


def hold_out(folder: PairedFolder, share: float) -> tuple[PairedFolder, PairedFolder]:
    """Takes evenly spaced pairs out of a training split for validation: (the rest, the held-out).

    Raises:
        UsageError: if too few pairs are there.
    """
    held = choose_held_out_files(list_targets(folder.pairs), share, "pairs")
    pairs, out = divide(folder.pairs, held)
    return replace(folder, pairs=pairs), replace(folder, split="val", pairs=out, unmatched=[], ambiguous=[])


def check_pairs(
    splits: dict[Split, PairedFolder], progress: Progress | None = None, most: int | None = None
) -> DataReport:
    """Reads the files of a paired data set, all or a sample, and says what can't work and what may surprise."""
    report = DataReport()
    total = sum(count_files(folder.pairs) for folder in splits.values())
    chosen = choose_sample_of_each({split: folder.pairs for split, folder in splits.items()}, most)
    files = sorted({file for _, pair in chosen for file in (pair.source, pair.target)})
    ranges = {file: limits for _, p in chosen for file, limits in zip((p.source, p.target), p.ranges, strict=True)}
    facts, unreadable = read_image_facts(files, progress(len(files)) if progress else lambda: None, ranges)
    count = sum(len(folder.pairs) for folder in splits.values())
    warn_of_sample(report, len(files), total if len(chosen) < count else 0)
    check_partners(splits, report)
    report_unreadable(report, [reason for _, reason in sorted(unreadable.items())], " and its partner")
    pairs = [pair for _, pair in chosen if {pair.source, pair.target} <= facts.keys()]
    if not pairs:
        return report
    _check_sizes(pairs, facts, report)
    for side in ("source", "target"):
        warn_of_leaks(report, f"{side}: ", ((split, getattr(pair, side)) for split, pair in chosen), facts)
        if all(pair.source == pair.target for _, pair in chosen):
            break  # both sides are one file
    report.in_channels, report.out_channels = (
        common_channels(side, [facts[getattr(pair, side)] for pair in pairs], report, limits)
        for side, limits in zip(("source", "target"), pairs[0].ranges, strict=True)
    )
    if pairs[0].derive:
        report.in_channels = report.out_channels if pairs[0].derive == "lowres" else 1
    report.sizes = count_sizes(facts[pair.target] for pair in pairs)
    report.summary = f"{report.in_channels} → {report.out_channels} channels; sizes {report.sizes}"
    return report


def check_partners(splits: dict[Split, PairedFolder], report: DataReport, wanted: str = "") -> None:
    """Counts pairs, and reports files that belong to none; `wanted` says what a pair is of, if it is more than two files."""
    for split, folder in splits.items():
        report.splits[split] = len(folder.pairs)
        if not folder.pairs:
            report.add("error" if split == "train" else "warning", f"{split}: {explain_no_pairs(folder)}")
        elif folder.unmatched:
            names = list_some([str(file) for file in folder.unmatched], 3)
            count = len(folder.unmatched)
            left = "1 file has no partner and is" if count == 1 else f"{count} files have no partner and are"
            report.add("warning", f"{split}: {left} left out: {names}{wanted}.")
        if folder.ambiguous:
            names = list_some(folder.ambiguous, 3)
            report.add("warning", f"{split}: several files have the same name on one side and are left out: {names}.")


def _check_sizes(pairs: list[Pair], facts: dict[Path, ImageFacts], report: DataReport) -> None:
    def shape(file: Path) -> tuple[int, int]:
        return facts[file].height, facts[file].width

    halves = [pair for pair in pairs if pair.half and facts[pair.source].width % 2]
    if halves:
        names = list_some([str(pair.source) for pair in halves], 3)
        report.add("error", f"these side-by-side images have an odd width, so they have no two halves: {names}.")
    wide = [pair for pair in pairs if pair.half and facts[pair.source].width < 1.5 * facts[pair.source].height]
    if len(wide) > len(pairs) / 2:
        report.add(
            "warning",
            "most images are hardly wider than high; are they really pairs side by side? "
            "If each is a single image, --data.derive gray|edges|lowres makes pairs of them.",
        )
    differing = [pair for pair in pairs if not pair.half and shape(pair.source) != shape(pair.target)]
    aspects = {
        file: facts[file].width / facts[file].height for pair in differing for file in (pair.source, pair.target)
    }
    stretched = [pair for pair in differing if abs(aspects[pair.source] / aspects[pair.target] - 1) > 0.02]
    for found, what in (
        (stretched, "also differ in shape, and the source is stretched to the target's"),
        (differing, "differ in size, and the source is scaled to the target's"),
    ):
        if found:
            name, a, b = found[0].name, facts[found[0].source], facts[found[0].target]
            example = f"{name}: {a.width}×{a.height} and {b.width}×{b.height}"
            report.add("warning", f"the images of {len(found)} pairs {what} ({example}).")
    apart = [p for p in pairs if not p.half and not p.derive]
    same = [p for p in apart if facts[p.source].digest == facts[p.target].digest]
    if same:
        names = list_some([pair.name for pair in same], 3)
        report.add("warning", f"source and target of {len(same)} pairs are the same image: {names}.")
    tiny = [pair.name for pair in pairs if min(shape(pair.target)) < SMALL]
    if tiny:
        report.add("warning", f"{len(tiny)} images are smaller than {SMALL} pixels: {list_some(tiny, 3)}.")


class PairedImages(Samples):
    """Pairs, transformed as a function of (seed, epoch, index): whichever worker or process loads them."""

    def __init__(
        self, pairs: Sequence[Pair], transform: JointTransform, in_channels: int, out_channels: int, seed: int
    ) -> None:
        self.pairs, self.transform, self.seed = pairs, transform, seed
        self.in_channels, self.out_channels = in_channels, out_channels

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """``source`` and ``target``: (C, H, W) in [-1, 1]."""
        epoch, index = key
        pair, seed = self.pairs[index], zlib.crc32(f"{self.seed}/{epoch}/{index}".encode())
        source, target = (to_unit(image) for image in read_pair(pair, self.transform.enough))
        source, target = self.transform(source, target, seed)
        if pair.derive:
            source = derive_source(target, pair.derive)
        return {
            "source": to_tensor(fit_channels(source, self.in_channels, pair.source, pair.ranges[0] is not None)),
            "target": to_tensor(_fit_target(target, self.out_channels, pair)),
        }


def read_pair(pair: Pair, enough: int | None = None) -> tuple[Array, Array]:
    """Decodes a pair: two arrays (H, W, C), uint8 or uint16, or float32 in [0, 1] of measurements. For a derived pair both are the target.

    Args:
        enough: as of `Rules`; the halves of a file are decoded whole.

    Raises:
        ImageError: naming the file that can't be read or split.
    """
    source = read_image(pair.source, None if pair.half else enough, pair.ranges[0])
    if pair.half:
        if source.shape[1] % 2:
            raise ImageError(f"{pair.source}: {source.shape[1]} pixels wide, so it can't be two images side by side.")
        left, right = np.split(source, 2, axis=1)
        return (left, right) if pair.half == "AB" else (right, left)
    return source, source if pair.target == pair.source else read_image(pair.target, enough, pair.ranges[1])


def _fit_target(target: Array, channels: int, pair: Pair) -> Array:
    """The target with the channels that the network makes; bands of a source in the place of an unknown target stay."""
    bands, alone = pair.ranges[1] is not None, pair.source == pair.target and not pair.half and not pair.derive
    return target if alone and bands else fit_channels(target, channels, pair.target, bands)


def name_files(pair: Pair) -> dict[str, Path]:
    """The files of a pair by their kinds in a shard."""
    source = "label" if pair.labels else "source"
    return {source: pair.source, **({"inst": pair.instances} if pair.instances else {}), "target": pair.target}


def read_validation_pair(
    pair: Pair,
    size: int | None,
    resize: Resize,
    in_channels: int,
    out_channels: int,
    width: int | None = None,
) -> tuple[Array, Array]:
    """A pair without augmentation, source and target of one size and with the channels that the network wants.

    Args:
        size: the training size, to which the pair is scaled as in training but not cropped; None: the target's own.
        resize: as in `JointTransform`.
        width: the training width, if it is not `size`.

    Returns:
        Two arrays (H, W, C), uint8 or uint16, or float32 in [0, 1] of measurements.
    """
    source, target = read_pair(pair)
    tall, wide = target.shape[:2] if size is None else scale_size(target.shape, size, resize, width)
    target = resize_image(target, tall, wide)
    source = derive_source(target, pair.derive) if pair.derive else resize_image(source, tall, wide)
    return (
        fit_channels(source, in_channels, pair.source, pair.ranges[0] is not None),
        _fit_target(target, out_channels, pair),
    )


class PairedData(ImageFolders):
    """Pairs of images, for methods that learn from known targets."""

    read: ReadPair = staticmethod(read_validation_pair)
    build_dataset: BuildDataset = staticmethod(PairedImages)

    def __init__(self, config: DataConfig, with_classes: bool = True) -> None:
        self.config = config
        self.splits = find_pairs(
            config.path, source=config.source, target=config.target, derive=config.derive, direction=config.direction,
            ranges=config.ranges,
            axis=config.axis,
        )  # fmt: skip

    @classmethod
    def recognises(cls, config: DataConfig) -> bool:
        """Whatever nobody else takes."""
        return True

    @classmethod
    def refuse_options(cls, config: DataConfig, method: str) -> None:
        """Refuses what is about label maps."""
        for name in ("classes", "ignore_label", "instances"):
            if getattr(config, name) is not None:
                raise UsageError(
                    f"--data.{name.replace('_', '-')}: these are no label maps (train_label, train_img); leave it out."
                )
        refuse_jitter_of_bands(config)
        if config.derive in ("gray", "edges") and config.ranges != (None, None):
            raise UsageError(
                f"--data.derive {config.derive} makes sources of colours, and --data.range says that there are none."
            )
        if config.derive and config.ranges[0] != config.ranges[1]:
            raise UsageError(
                "--data.derive makes the sources from the targets, so both have one range: give --data.range."
            )
        if config.derive and config.colour_jitter:
            raise UsageError(
                "--data.colour-jitter changes the source alone, but --data.derive makes it from the target."
            )

    def check(self, progress: Progress | None = None) -> DataReport:
        """See `check_pairs`."""
        report = check_pairs(self.splits, progress, self.config.most_checked)
        check_band_counts(self.config, report)
        halves = any(folder.pairs and folder.pairs[0].half for folder in self.splits.values())
        if self.config.ranges[0] != self.config.ranges[1] and halves:
            raise UsageError("pairs side by side in one file have one range: give --data.range.")
        if self.config.derive in ("gray", "edges") and self.config.in_channels not in (None, 1):
            raise UsageError(
                f"--data.in-channels {self.config.in_channels}: sources derived as {self.config.derive} have 1."
            )
        return report

    def divide(self, holdout: float) -> None:
        """See `divide_splits`."""
        train, validation, name = divide_splits(self.splits, holdout, lambda folder: bool(folder.pairs), hold_out)
        pairs = pack_pairs(validation.pairs) if validation else []
        self.train, self.splits = pack_pairs(train.pairs), {}  # which may be many
        forget_shards()
        targets = list_targets(pairs)
        self.validation = ValidationSet(pairs or self.train, True, targets, name, self.read, self.build_dataset)

    def build_training_set(self, transform: JointTransform, in_channels: int, out_channels: int, seed: int) -> Samples:
        """Pairs, augmented."""
        return self.build_dataset(self.train, transform, in_channels, out_channels, seed)

    def validation_set(self, direction: str) -> ValidationSet:
        """The same for every direction."""
        return self.validation

    @property
    def length(self) -> int:
        """Pairs to train on."""
        return len(self.train)

    def describe(self) -> str:
        """How many pairs there are."""
        return f"{len(self.train)} pairs"

    def list_samples(self) -> dict[str, list[Sample]]:
        """Pairs; of one file, if it holds both sides."""
        return {
            split: [Sample(pair.name, {"": pair.source} if pair.half else name_files(pair)) for pair in folder.pairs]
            for split, folder in self.splits.items()
        }

    def describe_splits(self) -> list[str]:
        """How many pairs were found in each split, and where."""
        return [f"{split}: {len(folder.pairs)} pairs from {folder.where}" for split, folder in self.splits.items()]
