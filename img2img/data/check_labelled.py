"""What is wrong with a data set of label maps, found before training starts: labels above all."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from img2img.data.check import DataReport, ImageFacts, Problem, common_channels, counted, read_each, read_facts
from img2img.data.classes import Classes
from img2img.data.folders import Pair, PairedFolder, Split, no_pairs_sentence
from img2img.data.labelled import counts, read_maps
from img2img.errors import listed
from img2img.images import Array, ImageError

FEWEST = 10  # pixels in the whole data set, with less of which the highest label is taken for a mistake


@dataclass(frozen=True)
class MapFacts:
    """What a label map and its instance map told."""

    height: int
    width: int
    labels: Counter[int]
    """Pixels of each label."""
    instances: int


def check_labelled(
    splits: dict[Split, PairedFolder],
    classes: Classes | None,
    ignore: int | None = None,
    progress: Callable[[int], Callable[[], None]] | None = None,
) -> DataReport:
    """Reads every file of a data set of label maps and says what can't work and what may surprise.

    Args:
        splits: what `find_labelled` found.
        classes: what labels may occur; None: it is told by those that do.
        ignore: the label of pixels that have no class, if `classes` is None.
        progress: is told the number of files, and gives a function that is called after each.

    Returns:
        The report, with the classes; nothing is raised for bad files.
    """
    report = DataReport()
    pairs = [pair for folder in splits.values() for pair in folder.pairs]
    advance = progress(2 * len(pairs)) if progress else lambda: None
    maps, bad = _read_maps(pairs, advance)
    images, unreadable = read_facts([pair.target for pair in pairs], lambda _: advance)
    add = report.problems.append
    for split, folder in splits.items():
        report.splits[split] = len(folder.pairs)
        if not folder.pairs:
            add(Problem("error" if split == "train" else "warning", f"{split}: {no_pairs_sentence(folder)}"))
        elif folder.unmatched:
            names = listed([str(file) for file in folder.unmatched], 3)
            kinds = (
                "a label map, an instance map and an image" if folder.pairs[0].instances else "a label map and an image"
            )
            add(
                Problem(
                    "warning",
                    f"{split}: {len(folder.unmatched)} files lack a partner and are left out: {names} (of each name there must be {kinds}).",
                )
            )
        if folder.ambiguous:
            names = listed(folder.ambiguous, 3)
            add(Problem("warning", f"{split}: several files share a name and are left out: {names}."))
    for reason in gathered([*bad.values(), *unreadable.values()]):
        add(Problem("error", f"{reason} Repair it, or take it and its partners out of the data set."))
    found = {pair: facts for pair, facts in maps.items() if pair.target in images}
    if not found:
        return report
    training = set(splits["train"].pairs) if "train" in splits else set()
    trained = [facts for pair, facts in found.items() if pair in training]
    report.classes = classes or _guessed(trained or list(found.values()), ignore)
    report.edges = all(pair.instances is not None for pair in training or pairs)
    report.problems += _without_instances(splits) if report.edges else []
    report.problems += [*_beyond(found, report.classes, classes is not None), *_sizes(found, images)]
    report.problems += _seldom(trained, report.classes, classes is not None)
    report.in_channels = report.classes.count + report.edges
    report.out_channels = common_channels("target", list(images.values()), report.problems)
    report.sizes = counted(f"{images[pair.target].width}×{images[pair.target].height}" for pair in found)
    return report


def gathered(reasons: list[str]) -> list[str]:
    """Sentences that begin with a file's path: one for all those that are alike, with the first file, and the names of others."""
    alike: dict[str, list[str]] = {}
    for reason in reasons:
        file, _, rest = reason.partition(" ")
        alike.setdefault(rest, []).append(file.removesuffix(":"))
    found = []
    for rest, files in alike.items():
        others = (
            f" So it is with {len(files) - 1} more: {listed([Path(file).name for file in files[1:]], 3)}."
            if files[1:]
            else ""
        )
        first = next(reason for reason in reasons if reason.endswith(rest))
        found.append(f"{first}{others}")
    return found


def _without_instances(splits: dict[Split, PairedFolder]) -> Iterator[Problem]:
    for split, folder in splits.items():
        if any(pair.instances is None for pair in folder.pairs):
            unused = split == "test" and "val" in splits
            text = f"{split}: there are no instance maps, as the training images have; add them, or train with --data.no-use-instances."
            yield Problem("warning" if unused else "error", text)


def _read_maps(pairs: list[Pair], advance: Callable[[], None]) -> tuple[dict[Pair, MapFacts], dict[Pair, str]]:
    def read(pair: Pair) -> MapFacts | str:
        try:
            maps = read_maps(pair.source, pair.instances)
        except ImageError as error:
            return str(error)
        return MapFacts(maps.shape[0], maps.shape[1], counts(maps[..., 0]), int(maps[..., -1].max()) + 1)

    return read_each(pairs, read, advance)


def _guessed(found: list[MapFacts], ignore: int | None) -> Classes:
    """The classes of which nobody said how many they are: up to the highest label that is no stray.

    A stray is on hardly any pixel, or lies above a gap that is wider than all labels below it.
    """
    total = _total(found)
    labels = sorted(label for label in total if label >= 0 and label != ignore)
    while len(labels) > 1:
        gap = labels[-1] - labels[-2] - 1
        if total[labels[-1]] >= FEWEST and gap <= len(labels) - 1:
            break
        labels.pop()
    return Classes(count=(labels[-1] if labels else 0) + 1, ignore=ignore)


def _total(found: list[MapFacts]) -> Counter[int]:
    total: Counter[int] = Counter()
    for facts in found:
        total.update(facts.labels)
    return total


def _beyond(found: dict[Pair, MapFacts], classes: Classes, declared: bool) -> Iterator[Problem]:
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
    row, column = _place(read_maps(pair.source, None)[..., 0], values[0])
    text = (
        f"{pair.source}: label {values[0]} at row {row}, column {column} is out of range; allowed are {classes.allowed}"
        f"{'' if declared else ', by the labels of the training split'} ({pixels} pixel{'s' if pixels > 1 else ''} of this file"
    )
    text += (
        f"; {len(wrong) - 1} more files have such labels: {listed([p.source.name for p in list(wrong)[1:]], 3)})."
        if len(wrong) > 1
        else ")."
    )
    everything = sorted({value for each in wrong.values() for value in each})
    remedies = (
        [f"--data.ignore-label {everything[0]} leaves such pixels without a class"] if len(everything) == 1 else []
    )
    highest = everything[-1]
    remedies += [f"--data.classes {highest + 1} allows it"] if highest < 2 * classes.count + 8 else []
    yield Problem("error", f"{text} Repair it; or {', or '.join(remedies)}.")


def _place(labels: Array, value: int) -> tuple[int, int]:
    row, column = np.argwhere(labels == value)[0].tolist()
    return row, column


def _sizes(found: dict[Pair, MapFacts], images: dict[Path, ImageFacts]) -> Iterator[Problem]:
    def differ(pair: Pair) -> bool:
        image = images[pair.target]
        return (found[pair].height, found[pair].width) != (image.height, image.width)

    differing = [pair for pair in found if differ(pair)]
    if differing:
        pair = differing[0]
        a, b = found[pair], images[pair.target]
        example = f"{pair.name}: {a.width}×{a.height} and {b.width}×{b.height}"
        yield Problem(
            "warning",
            f"the label maps of {len(differing)} pairs differ in size from their images, and are scaled to them ({example}).",
        )
    whole = [pair for pair, facts in found.items() if pair.instances and facts.instances == 1 and len(facts.labels) > 1]
    if len(whole) > len(found) / 2:
        yield Problem(
            "warning",
            "most instance maps hold one instance only; are they damaged? --data.no-use-instances leaves them out.",
        )


def _seldom(found: list[MapFacts], classes: Classes, declared: bool) -> Iterator[Problem]:
    """Classes that can't be learned."""
    total = _total(found)
    absent = [label for label in range(classes.count) if not total[label]]
    if found and absent and len(absent) < classes.count:
        names = listed([classes.name(label) for label in absent], 8)
        yield Problem("warning", f"train: no pixel is of class {names}, so what they look like can't be learned.")
    files = Counter(label for facts in found for label in facts.labels)
    few = [label for label in range(classes.count) if 0 < files[label] < min(5, len(found) // 20)]
    if few:
        names = listed([f"{classes.name(label)} ({files[label]})" for label in few], 8)
        yield Problem("warning", f"train: some classes are in few images: {names}.")
    if not declared:
        yield Problem(
            "warning",
            f"nobody said how many classes there are; by the labels they are {classes.count} (--data.classes, or a "
            "classes.yaml in the data set's folder).",
        )
