"""What is wrong with an unpaired data set, found before training starts."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from img2img.data.check import KINDS, SMALL, DataReport, ImageFacts, Problem, common_channels, counted, read_facts
from img2img.data.folders import Split
from img2img.data.unpaired import UnpairedFolder
from img2img.errors import listed

FEW = 20  # images of a side from which a generator and a discriminator learn the images themselves
SIZES_APART = 2.0  # how many times one side's median height may be the other's
SHAPES_APART = 4.0  # the same for the smallest and the largest image of one side


def check_unpaired(
    splits: dict[Split, UnpairedFolder], progress: Callable[[int], Callable[[], None]] | None = None
) -> DataReport:
    """Reads every file of an unpaired data set and says what can't work and what may surprise.

    Args:
        splits: what `find_unpaired` found.
        progress: is told the number of files, and gives a function that is called after each.

    Returns:
        The report; nothing is raised for bad files.
    """
    report = DataReport()
    files = {file for folder in splits.values() for file in (*folder.sources, *folder.targets)}
    facts, unreadable = read_facts(sorted(files), progress)
    for split, folder in splits.items():
        report.splits[split] = max(len(folder.sources), len(folder.targets))
        report.problems += _counts(folder)
    for _, reason in sorted(unreadable.items()):
        report.problems.append(Problem("error", f"{reason} Repair it, or take it out of the data set."))
    sides = {
        side: [facts[file] for folder in splits.values() for file in getattr(folder, f"{side}s") if file in facts]
        for side in ("source", "target")
    }
    if all(sides.values()):
        report.problems += [*_sizes(sides), *_in_both(splits, facts), *_leaks(splits, facts)]
        report.in_channels, report.out_channels = (
            common_channels(side, each, report.problems) for side, each in sides.items()
        )
        if report.in_channels != report.out_channels:
            kinds = KINDS[report.in_channels], KINDS[report.out_channels]
            report.problems.append(
                Problem(
                    "warning",
                    f"the sources are {kinds[0]} and the targets {kinds[1]}: cyclegan then needs --identity-weight 0, cut and "
                    "fastcut need --data.in-channels and --data.out-channels alike.",
                )
            )
        shown = [counted(f"{each.width}×{each.height}" for each in side) for side in sides.values()]
        report.sizes = shown[0] if shown[0] == shown[1] else f"{shown[0]} → {shown[1]}"
    return report


def _counts(folder: UnpairedFolder) -> Iterator[Problem]:
    counts = {"source": len(folder.sources), "target": len(folder.targets)}
    for side, count in counts.items():
        if count == 0:
            text = f"{folder.split}: there are no {side} images in {folder.where}."
            yield Problem("error" if folder.split == "train" else "warning", text)
        elif count < FEW and folder.split == "train":
            yield Problem(
                "warning",
                f"{folder.split}: only {count} {side} images, which a discriminator soon knows by heart; "
                "--augment colour translation cutout delays that, more images help.",
            )
    small, large = sorted(counts.values())
    if small and large >= 10 * small:
        side = min(counts, key=lambda name: counts[name])
        yield Problem(
            "warning",
            f"{folder.split}: {counts['source']} source and {counts['target']} target images; an epoch is as long as the "
            f"larger side, so each {side} image is seen {large // small} times in it.",
        )


def _sizes(sides: dict[str, list[ImageFacts]]) -> Iterator[Problem]:
    medians = {side: statistics.median(min(each.height, each.width) for each in facts) for side, facts in sides.items()}
    small, large = sorted(medians.values())
    if large > SIZES_APART * small:
        yield Problem(
            "warning",
            f"the sources' shorter side is {medians['source']:.0f} pixels in the middle, the targets' {medians['target']:.0f}: "
            "scaled to one size they differ in sharpness, by which alone a discriminator can tell them apart.",
        )
    for side, facts in sides.items():
        shorter = sorted(min(each.height, each.width) for each in facts)
        if shorter[-1] > SHAPES_APART * shorter[0]:
            yield Problem(
                "warning", f"{side}: sizes differ widely, shorter sides from {shorter[0]} to {shorter[-1]} pixels."
            )
        tiny = sum(length < SMALL for length in shorter)
        if tiny:
            yield Problem("warning", f"{side}: {tiny} images are smaller than {SMALL} pixels.")


def _in_both(splits: dict[Split, UnpairedFolder], facts: dict[Path, ImageFacts]) -> Iterator[Problem]:
    """Images that stand in both domains: to the discriminator they are real on either side."""
    where: dict[str, dict[str, Path]] = defaultdict(dict)
    for folder in splits.values():
        for side, files in (("source", folder.sources), ("target", folder.targets)):
            for file in files:
                if file in facts:
                    where[facts[file].digest].setdefault(side, file)
    both = [tuple(found.values()) for found in where.values() if len(found) == 2]
    if both:
        names = listed([f"{a} = {b}" for a, b in both], 2)
        yield Problem("warning", f"{len(both)} images stand on both sides: {names}. Leave them on one.")


def _leaks(splits: dict[Split, UnpairedFolder], facts: dict[Path, ImageFacts]) -> Iterator[Problem]:
    for side in ("sources", "targets"):
        where: dict[str, dict[Split, Path]] = defaultdict(dict)
        for split, folder in splits.items():
            files: list[Path] = getattr(folder, side)
            for file in files:
                if file in facts:
                    where[facts[file].digest].setdefault(split, file)
        leaks = [tuple(found.values()) for found in where.values() if "train" in found and len(found) > 1]
        if leaks:
            example = " = ".join(str(file) for file in leaks[0])
            yield Problem(
                "warning",
                f"{side}: {len(leaks)} images stand in train and in another split, so scores there are too good ({example}).",
            )
