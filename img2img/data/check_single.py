"""What is wrong with a data set of one kind of images, found before training starts."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from img2img.data.check import SMALL, DataReport, ImageFacts, Problem, common_channels, counted, read_facts
from img2img.data.folders import Split
from img2img.data.single import SingleFolder
from img2img.errors import listed

FEW = 100  # images from which a generator learns little but themselves
FEW_OF_A_CLASS = 20
UNEQUAL = 10  # times that the largest class may be the smallest
BENT = 1.5  # times that a side may be the other before a square crop loses much


def check_single(
    splits: dict[Split, SingleFolder], progress: Callable[[int], Callable[[], None]] | None = None
) -> DataReport:
    """Reads every file of a data set of one kind, with or without classes, and says what can't work and what may surprise.

    Args:
        splits: what `find_single` found.
        progress: is told the number of files, and gives a function that is called after each.

    Returns:
        The report, with as many `in_channels` as there are classes; nothing is raised for bad files.
    """
    report = DataReport(in_channels=0)
    facts, unreadable = read_facts(sorted({file for folder in splits.values() for file in folder.files}), progress)
    for split, folder in splits.items():
        report.splits[split] = len(folder.files)
        if not folder.files:
            level, text = (
                ("error" if split == "train" else "warning"),
                f"{split}: there are no images in {folder.where}.",
            )
            report.problems.append(Problem(level, text))  # type: ignore[arg-type]
    for _, reason in sorted(unreadable.items()):
        report.problems.append(Problem("error", f"{reason} Repair it, or take it out of the data set."))
    readable = [facts[file] for folder in splits.values() for file in folder.files if file in facts]
    if readable:
        report.problems += [*_counts(splits), *_shapes(readable), *_twice(splits, facts)]
        report.out_channels = common_channels("images", readable, report.problems)
        report.sizes = counted(f"{each.width}×{each.height}" for each in readable)
    report.names = next(iter(splits.values())).classes
    report.in_channels = len(report.names)
    return report


def _counts(splits: dict[Split, SingleFolder]) -> Iterator[Problem]:
    train = splits.get("train")
    if train is None or not train.files:
        return
    if len(train.files) < FEW:
        yield Problem(
            "warning",
            f"train: only {len(train.files)} images, which a discriminator soon knows by heart; --augment colour translation "
            "cutout delays that, more images help.",
        )
    if not train.classes:
        return
    counts = Counter(train.labels)
    few = [f"{name} ({counts[number]})" for number, name in enumerate(train.classes) if counts[number] < FEW_OF_A_CLASS]
    if few:
        yield Problem("warning", f"train: classes with fewer than {FEW_OF_A_CLASS} images: {listed(few)}.")
    most, least = counts.most_common(1)[0], min(counts.items(), key=lambda item: item[1])
    if most[1] >= UNEQUAL * least[1]:
        yield Problem(
            "warning",
            f"train: the classes are unequal: {most[1]} images of {train.classes[most[0]]}, {least[1]} of "
            f"{train.classes[least[0]]}, which is seen so much more seldom.",
        )
    missing = [
        f"{name} in {split}"
        for split, folder in splits.items()
        for number, name in enumerate(folder.classes)
        if split != "train" and number not in folder.labels
    ]
    if missing:
        yield Problem("warning", f"classes without an image: {listed(missing)}.")


def _shapes(facts: list[ImageFacts]) -> Iterator[Problem]:
    bent = sum(max(each.height, each.width) > BENT * min(each.height, each.width) for each in facts)
    if bent:
        yield Problem(
            "warning",
            f"{bent} images are far from square, and are cropped to a square; --data.resize stretch bends them instead.",
        )
    tiny = sum(min(each.height, each.width) < SMALL for each in facts)
    if tiny:
        yield Problem("warning", f"{tiny} images are smaller than {SMALL} pixels.")


def _twice(splits: dict[Split, SingleFolder], facts: dict[Path, ImageFacts]) -> Iterator[Problem]:
    where: dict[str, list[tuple[Split, int, Path]]] = defaultdict(list)
    for split, folder in splits.items():
        for place, file in enumerate(folder.files):
            if file in facts:
                where[facts[file].digest].append((split, folder.labels[place] if folder.labels else 0, file))
    leaks = [
        found for found in where.values() if "train" in {s for s, _, _ in found} and len({s for s, _, _ in found}) > 1
    ]
    if leaks:
        example = " = ".join(str(file) for _, _, file in leaks[0][:2])
        yield Problem(
            "warning",
            f"{len(leaks)} images stand in train and in another split, so scores there are too good ({example}).",
        )
    torn = [found for found in where.values() if len({label for _, label, _ in found}) > 1]
    if torn:
        example = " = ".join(str(file) for _, _, file in torn[0][:2])
        yield Problem("warning", f"{len(torn)} images stand in several classes ({example}).")
    same = sum(len(found) - 1 for found in where.values())
    if same > len(facts) / 10:
        yield Problem("warning", f"{same} of {len(facts)} images are copies of others.")
