"""Label maps and images: found, checked, divided, loaded."""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from img2img.core.errors import UsageError, list_some
from img2img.data.base import (
    Batch,
    BuildDataset,
    DataConfig,
    DataReport,
    Pair,
    Progress,
    Samples,
    choose_sample_of_each,
    count_sizes,
    report_unreadable,
    warn_of_sample,
)
from img2img.data.channels import check_band_counts, common_channels
from img2img.data.classes import Classes, resolve_classes
from img2img.data.facts import ImageFacts, collect_facts, read_image_facts
from img2img.data.label_maps import Sides, count_labels, label_sides, list_labels
from img2img.data.layouts import LABEL_LAYOUTS, Split, check_folder, split_sides
from img2img.data.listing import align
from img2img.data.packed_pairs import join_pairs
from img2img.data.paired import PairedData, PairedFolder, check_partners
from img2img.data.sampler import Key
from img2img.data.transforms import JointTransform, Resize, scale_size
from img2img.images import Array, ImageError, read_image
from img2img.images import resize as resize_image
from img2img.images.arrays import fit_channels, to_unit
from img2img.images.bands import Range
from img2img.images.labels import read_maps, resize_maps
from img2img.images.tensors import to_tensor
from img2img.networks.labels import encode_label_maps, mask_ignored, paint_labels


def find_labelled(
    path: Path | None,
    *,
    labels: Path | None = None,
    instances: Path | None = None,
    target: Path | None = None,
    with_instances: bool = True,
    limits: Range | None = None,
) -> dict[Split, PairedFolder]:
    """Finds the splits of a data set of label maps; empty if `path` has no such layout.

    Args:
        path: the data set's folder, unless the others are given.
        labels: a folder of label maps, alone or with sub-folders train, val, test.
        instances: the same of instance maps.
        target: the same of images.
        limits: of images that are measurements, the range.

    Returns:
        Pairs whose sources are label maps, in the order train, val, test. What lacks its instance map is unmatched.

    Raises:
        UsageError: if there is no such folder, or a part of it is missing.
    """
    sides: dict[Split, Sides]
    if labels is not None:
        if target is None or path is not None:
            raise UsageError("--data.labels needs --data.target, the folder of images, and no --data.")
        sides = {k: (a, None, b) for k, (a, b) in split_sides(check_folder(labels), check_folder(target)).items()}
        if instances is not None:
            beside = split_sides(labels, check_folder(instances))
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
        sides = label_sides(check_folder(path))
    return {
        split: _match(split, a, inst if with_instances else None, b, limits) for split, (a, inst, b) in sides.items()
    }


def _match(split: Split, label: Path, inst: Path | None, img: Path, limits: Range | None) -> PairedFolder:
    folders = [folder for folder in (label, inst, img) if folder is not None]
    sides = [list_labels(folder) for folder in folders]
    places, alone, ambiguous = align(sides)
    unmatched = [side.files[place] for side, each in zip(sides, alone, strict=True) for place in each.tolist()]
    found = [side.take(each) for side, each in zip(sides, places, strict=True)]
    instances = found[1].files if inst is not None else None
    common = Pair("", label, img, labels=True, ranges=(None, limits))
    pairs = join_pairs(common, found[0].names, found[0].files, found[-1].files, instances)
    return PairedFolder(split, pairs, " + ".join(map(str, folders)), unmatched, ambiguous)


FEWEST = 10  # pixels in the whole data set, with less of which the highest label is taken for a mistake


@dataclass(frozen=True)
class MapFacts:
    """What a label map and its instance map told."""

    height: int
    width: int
    labels: Counter[int]
    """Pixels of each label."""
    instances: int

    def to_json(self) -> str:
        """As `read_map_facts` restores it."""
        return json.dumps({**vars(self), "labels": list(self.labels.items())})  # JSON has no integers as keys


def check_labelled(
    splits: dict[Split, PairedFolder],
    classes: Classes | None,
    ignore: int | None = None,
    progress: Progress | None = None,
    most: int | None = None,
) -> DataReport:
    """Reads the files of a data set of label maps, all or a sample, and says what can't work and what may surprise.

    Without `classes`, they are guessed from the labels that occur, of which `ignore` is that of pixels without a class.
    """
    report = DataReport()
    parts = {split: folder.pairs for split, folder in splits.items()}
    chosen, total = choose_sample_of_each(parts, most), sum(map(len, parts.values()))
    sample = [pair for _, pair in chosen]
    if len(sample) < total and classes is None:
        report.add(
            "error", "--data.check sample doesn't see all labels, so it needs --data.classes, or a classes.yaml."
        )
    advance = progress(2 * len(sample)) if progress else lambda: None
    maps, bad = read_map_facts(sample, advance)
    limits = sample[0].ranges[1] if sample else None
    targets = [pair.target for pair in (*maps, *bad)]
    images, unreadable = read_image_facts(targets, advance, dict.fromkeys(targets, limits))
    warn_of_sample(report, len(images) + len(unreadable), total)
    instances = ", an instance map" if any(pair.instances for pair in sample) else ""
    check_partners(splits, report, f" (of each name there must be a label map{instances} and an image)")
    report_unreadable(report, [*bad.values(), *unreadable.values()], " and its partners")
    found = {pair: facts for pair, facts in maps.items() if pair.target in images}
    if not found:
        return report
    training = {pair for split, pair in chosen if split == "train"}
    trained = [facts for pair, facts in found.items() if pair in training]
    report.classes = classes or _guess_classes(trained or list(found.values()), ignore)
    report.edges = all(pair.instances is not None for pair in training or sample)
    if report.edges:
        _check_instances(splits, report)
    _check_labels(found, report.classes, classes is not None, report)
    _check_sizes(found, images, report)
    _check_rare_classes(trained, report.classes, classes is not None, report)
    report.in_channels = report.classes.count + report.edges
    report.out_channels = common_channels("target", list(images.values()), report, limits)
    report.sizes = count_sizes(images[pair.target] for pair in found)
    report.summary = f"{report.classes.count} classes{' with instances' if report.edges else ''}; sizes {report.sizes}"
    return report


def _check_instances(splits: dict[Split, PairedFolder], report: DataReport) -> None:
    for split, folder in splits.items():
        if folder.pairs and folder.pairs[0].instances is None:
            unused = split == "test" and "val" in splits
            text = f"{split}: there are no instance maps, as the training images have; add them, or train with --data.no-use-instances."
            report.add("warning" if unused else "error", text)


def read_map_facts(pairs: Sequence[Pair], advance: Callable[[], None]) -> tuple[dict[Pair, MapFacts], dict[Pair, str]]:
    """The facts about label maps and their instance maps, and why some can't be read."""

    def files_of(pair: Pair) -> tuple[Path, ...]:
        return (pair.source, pair.instances) if pair.instances else (pair.source,)

    def read(pair: Pair) -> dict[str, Any] | str:
        try:
            maps = read_maps(pair.source, pair.instances)
        except ImageError as error:
            return str(error)
        facts = MapFacts(
            height=maps.shape[0], width=maps.shape[1], labels=count_labels(maps[..., 0]), instances=int(maps[..., -1].max()) + 1
        )  # fmt: skip
        return json.loads(facts.to_json())  # type: ignore[no-any-return]

    def restore(values: dict[str, Any]) -> MapFacts:
        return MapFacts(**{**values, "labels": Counter(dict(map(tuple, values["labels"])))})

    return collect_facts("maps", pairs, files_of, read, restore, advance)


def _guess_classes(found: list[MapFacts], ignore: int | None) -> Classes:
    """The classes of which nobody said how many they are: up to the highest label that is no stray.

    A stray is on hardly any pixel, or lies above a gap that is wider than all labels below it.
    """
    total = _sum_labels(found)
    labels = sorted(label for label in total if label >= 0 and label != ignore)
    while len(labels) > 1:
        gap = labels[-1] - labels[-2] - 1
        if total[labels[-1]] >= FEWEST and gap <= len(labels) - 1:
            break
        labels.pop()
    return Classes(count=(labels[-1] if labels else 0) + 1, ignore=ignore)


def _sum_labels(found: list[MapFacts]) -> Counter[int]:
    total: Counter[int] = Counter()
    for facts in found:
        total.update(facts.labels)
    return total


def _check_labels(found: dict[Pair, MapFacts], classes: Classes, declared: bool, report: DataReport) -> None:
    """Labels that may not occur: each file that has some, the first with its place."""
    wrong: dict[Pair, list[int]] = {}
    for pair, facts in found.items():
        present = np.array(sorted(facts.labels))
        if classes.beyond(present).any():
            wrong[pair] = present[classes.beyond(present)].tolist()
    if not wrong:
        return
    pair, values = next(iter(wrong.items()))
    pixels = sum(found[pair].labels[value] for value in values)
    row, column = np.argwhere(read_maps(pair.source, None)[..., 0] == values[0])[0].tolist()
    text = (
        f"{pair.source}: label {values[0]} at row {row}, column {column} is out of range; allowed are {classes.allowed}"
        f"{'' if declared else ', as the labels of the training split suggest'} ({pixels} pixel{'s' if pixels > 1 else ''} of this file"
    )
    text += (
        f"; {len(wrong) - 1} more files have such labels: {list_some([p.source.name for p in list(wrong)[1:]], 3)})."
        if len(wrong) > 1
        else ")."
    )
    everything = sorted({value for each in wrong.values() for value in each})
    remedies = (
        [f"--data.ignore-label {everything[0]} leaves such pixels without a class"] if len(everything) == 1 else []
    )
    highest = everything[-1]
    remedies += [f"--data.classes {highest + 1} allows it"] if highest < 2 * classes.count + 8 else []
    report.add("error", f"{text} Repair it; or {', or '.join(remedies)}.")


def _check_sizes(found: dict[Pair, MapFacts], images: dict[Path, ImageFacts], report: DataReport) -> None:
    def differ(pair: Pair) -> bool:
        image = images[pair.target]
        return (found[pair].height, found[pair].width) != (image.height, image.width)

    differing = [pair for pair in found if differ(pair)]
    if differing:
        pair = differing[0]
        a, b = found[pair], images[pair.target]
        example = f"{pair.name}: {a.width}×{a.height} and {b.width}×{b.height}"
        report.add(
            "warning",
            f"the label maps of {len(differing)} pairs differ in size from their images, and are scaled to them ({example}).",
        )
    whole = [pair for pair, facts in found.items() if pair.instances and facts.instances == 1 and len(facts.labels) > 1]
    if len(whole) > len(found) / 2:
        report.add(
            "warning",
            "most instance maps hold one instance only; are they damaged? --data.no-use-instances leaves them out.",
        )


def _check_rare_classes(found: list[MapFacts], classes: Classes, declared: bool, report: DataReport) -> None:
    """Classes that can't be learned."""
    total = _sum_labels(found)
    absent = [label for label in range(classes.count) if not total[label]]
    if found and absent and len(absent) < classes.count:
        names = list_some([classes.name(label) for label in absent], 8)
        report.add("warning", f"train: no pixel is of class {names}, so what they look like can't be learned.")
    files = Counter(label for facts in found for label in facts.labels)
    few = [label for label in range(classes.count) if 0 < files[label] < min(5, len(found) // 20)]
    if few:
        names = list_some([f"{classes.name(label)} ({files[label]})" for label in few], 8)
        report.add("warning", f"train: some classes are in few images: {names}.")
    if not declared:
        report.add(
            "warning",
            f"the number of classes is a guess from the labels: {classes.count}; declare it with --data.classes, or a "
            "classes.yaml in the data set's folder.",
        )


def read_labelled_pair(pair: Pair, out_channels: int, enough: int | None = None) -> tuple[Array, Array]:
    """The maps (H, W, 1 or 2), int32, of labels and instances, and the image (H, W, C), float32 in [0, 1], perhaps of another size.

    Args:
        enough: as of `Rules`, for the image.

    Raises:
        ImageError: naming the file that can't be read.
    """
    limits = pair.ranges[1]
    target = fit_channels(read_image(pair.target, enough, limits), out_channels, pair.target, limits is not None)
    return read_maps(pair.source, pair.instances), to_unit(target)


def read_labelled_validation_pair(
    pair: Pair, size: int | None, resize: Resize, in_channels: int, out_channels: int, width: int | None = None
) -> tuple[Array, Array]:
    """As `read_validation_pair`, of a label map: maps (H, W, 1 or 2), int32, and their image (H, W, C)."""
    limits = pair.ranges[1]
    maps, target = read_maps(pair.source, pair.instances), read_image(pair.target, range=limits)
    tall, wide = target.shape[:2] if size is None else scale_size(target.shape, size, resize, width)
    target = fit_channels(resize_image(target, tall, wide), out_channels, pair.target, limits is not None)
    return resize_maps(maps, tall, wide), target


class LabelledImages(Samples):
    """Label maps with their images, transformed as a function of (seed, epoch, index); the samples hold the maps themselves."""

    def __init__(
        self, pairs: Sequence[Pair], transform: JointTransform, in_channels: int, out_channels: int, seed: int
    ) -> None:
        self.pairs, self.transform, self.out_channels, self.seed = pairs, transform, out_channels, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """``source``: maps (1 or 2, H, W), int32; ``target``: (C, H, W) in [-1, 1]."""
        epoch, index = key
        seed = zlib.crc32(f"{self.seed}/{epoch}/{index}".encode())
        maps, target = self.transform.apply_to_labels(
            *read_labelled_pair(self.pairs[index], self.out_channels, self.transform.enough), seed
        )
        return {"source": torch.from_numpy(maps.transpose(2, 0, 1).copy()), "target": to_tensor(target)}


def _refuse_range(config: DataConfig) -> None:
    if config.ranges[0]:
        raise UsageError("label maps hold labels, which have no range; give that of the images: --data.target-range.")


class LabelledData(PairedData):
    """Label maps and their images, for methods that learn from known targets."""

    read = staticmethod(read_labelled_validation_pair)
    build_dataset: BuildDataset = staticmethod(LabelledImages)

    def __init__(self, config: DataConfig, with_classes: bool = True) -> None:
        _refuse_range(config)
        self.config = config
        self.splits = find_labelled(
            config.path,
            labels=config.labels,
            instances=config.instances,
            target=config.target,
            with_instances=config.use_instances,
            limits=config.ranges[1],
        )
        if not self.splits:
            raise UsageError(f"{config.path} holds no label maps in a layout that is known: {LABEL_LAYOUTS}.")

    @classmethod
    def recognises(cls, config: DataConfig) -> bool:
        """By the options, or by the folder's layout."""
        if config.labels or config.instances:
            return True
        return bool(config.path and not config.derive and label_sides(check_folder(config.path)))

    @classmethod
    def refuse_options(cls, config: DataConfig, method: str) -> None:
        """Refuses what is about sources that are images."""
        given = {
            "data.source": config.source, "direction BtoA": config.direction == "BtoA", "data.derive": config.derive,
            "data.in-channels": config.in_channels, "data.colour-jitter": config.colour_jitter,
        }  # fmt: skip
        _refuse_range(config)
        for name, value in given.items():
            if value:
                raise UsageError(f"--{name}: these are label maps; leave it out.")

    def check(self, progress: Progress | None = None) -> DataReport:
        """See `check_labelled`."""
        config = self.config
        classes = resolve_classes(config.classes, config.path, config.ignore_label)
        report = check_labelled(self.splits, classes, config.ignore_label, progress, config.most_checked)
        check_band_counts(config, report)
        report.problems = [
            replace(each, text=each.text.replace("--data.range", "--data.target-range")) for each in report.problems
        ]
        return report

    def learn(self, report: DataReport) -> None:
        """Takes over what a check found, which `encode` needs."""
        self.classes, self.edges = report.classes, report.edges
        self.colours = torch.from_numpy(report.classes.colours()) if report.classes else torch.empty(0, 3)

    def describe_splits(self) -> list[str]:
        """How many label maps were found in each split, and where."""
        return [
            f"{split}: {len(folder.pairs)} label maps and images from {folder.where}"
            for split, folder in self.splits.items()
        ]

    def encode(self, batch: Batch, dtype: torch.dtype) -> Batch:
        """Adds label maps as the planes that the network sees (``source``), as they are (``maps``), and as pictures (``displayed``)."""
        assert self.classes is not None
        maps = mask_ignored(batch["source"], self.classes.ignore)
        self.colours = self.colours.to(maps.device)
        return {
            **batch,
            "maps": maps,
            "source": encode_label_maps(maps, self.classes.count, self.edges, dtype),
            "displayed": paint_labels(maps[:, 0], self.colours),
        }
