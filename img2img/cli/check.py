"""`img2img check`: what is wrong with a data set."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from img2img.cli.usage import run_command
from img2img.errors import UsageError


def check(arguments: list[str]) -> int:
    """`img2img check`."""
    from tyro.conf import Positional

    def command(
        path: Annotated[Path | None, Positional] = None,
        source: Path | None = None,
        target: Path | None = None,
        labels: Path | None = None,
        instances: Path | None = None,
        derive: Literal["gray", "edges", "lowres"] | None = None,
        kind: Literal["auto", "paired", "unpaired", "labels", "images"] = "auto",
        classes: int | Path | None = None,
        ignore_label: int | None = None,
    ) -> int:
        """Reads every image of a data set, paired or not, of label maps, or of one kind, and says what can't work and what may surprise.

        Args:
            path: The data set's folder.
            source: A folder of sources, with --target instead of a path.
            target: A folder of targets.
            labels: A folder of label maps, with --target, their images, instead of a path.
            instances: A folder of the instance maps that belong to --labels.
            derive: The sources would be derived from any folder of images: gray, edges or lowres.
            kind: paired, for pix2pix; unpaired, for cyclegan, cut and fastcut; labels, for spade and pix2pixhd; images, of one kind, for gan and infogan; auto goes by the names of folders and files.
            classes: Of label maps: how many labels there are, or a YAML table of their names; by default classes.yaml in the folder, else what the labels tell.
            ignore_label: Of label maps: the label of pixels that have no class.
        """
        if kind == "labels" or labels or (kind == "auto" and path and not derive and _has_labels(path)):
            return _told(_check_labels(path, labels, instances, target, classes, ignore_label), "labels")
        if kind == "images" or (kind == "auto" and path and not derive and _has_no_pairs(path)):
            if kind == "auto":
                print(
                    "(No pairs in a layout that is known, so these are images of one kind; --kind paired says which layouts there are.)"
                )
            return _told(_check_single(path), "images")
        unpaired = kind == "unpaired" or (kind == "auto" and derive is None and _looks_unpaired(path, source, target))
        report = _check_unpaired(path, source, target) if unpaired else _check_pairs(path, source, target, derive)
        if unpaired and kind == "auto":
            print("(Most files have no partner of the same name; --kind paired would say which.)")
        if not unpaired and kind == "auto" and derive is None:
            print(
                "(As a set without pairs, for cyclegan, cut and fastcut: --kind unpaired; as one kind, for gan and infogan: --kind images.)"
            )
        return _told(report, "channels")

    same = [re.sub(r"^--data\.", "--", argument) for argument in arguments]  # the names that train has for them
    return run_command(command, "check", same)


def _told(report: Any, what: str) -> int:
    """Prints a report, and gives the exit code."""
    if report.sizes and what == "labels":
        print(f"{report.classes.count} classes{' with instances' if report.edges else ''}; sizes {report.sizes}")
    elif report.sizes and what == "images":
        classes = f"{len(report.names)} classes; " if report.names else ""
        print(f"{classes}{report.out_channels} channels; sizes {report.sizes}")
    elif report.sizes:
        print(f"{report.in_channels} → {report.out_channels} channels; sizes {report.sizes}")
    for problem in report.problems:
        text = problem.text.replace("--data.ignore-label", "--ignore-label").replace("--data.classes", "--classes")
        print(f"{problem.level}: {text}")
    if not report.problems:
        print("No problems were found.")
    return 1 if report.errors else 0


def _has_labels(path: Path) -> bool:
    from img2img.data.labelled import label_sides

    return path.is_dir() and bool(label_sides(path))


def _check_labels(
    path: Path | None,
    labels: Path | None,
    instances: Path | None,
    target: Path | None,
    classes: int | Path | None,
    ignore: int | None,
) -> Any:
    from img2img.data.check_labelled import check_labelled
    from img2img.data.classes import declared
    from img2img.data.folders import LABEL_LAYOUTS
    from img2img.data.labelled import find_labelled

    if path is None and labels is None:
        raise UsageError("--kind labels: give the data set's folder, or --labels and --target.")
    splits = find_labelled(path, labels=labels, instances=instances, target=target)
    if not splits:
        raise UsageError(f"{path} holds no label maps in a layout that is known: {LABEL_LAYOUTS}.")
    report = _watched(lambda started: check_labelled(splits, declared(classes, path, ignore), ignore, started))
    for split, folder in splits.items():
        print(f"{split}: {len(folder.pairs)} label maps and images from {folder.where}")
    return report


def _has_no_pairs(path: Path) -> bool:
    from img2img.data.folders import find_pairs
    from img2img.data.single import find_single

    try:
        find_pairs(path)
        return False
    except UsageError:
        pass
    try:
        return bool(find_single(path))
    except UsageError:
        return False


def _check_single(path: Path | None) -> Any:
    from img2img.data.check_single import check_single
    from img2img.data.single import find_single

    splits = find_single(path)
    report = _watched(lambda started: check_single(splits, started))
    for split, folder in splits.items():
        of = f" of {len(folder.classes)} classes" if folder.classes else ""
        print(f"{split}: {len(folder.files)} images{of} from {folder.where}")
    return report


def _looks_unpaired(path: Path | None, source: Path | None, target: Path | None) -> bool:
    from img2img.data.folders import find_pairs

    splits = find_pairs(path, source=source, target=target)
    train = splits.get("train") or next(iter(splits.values()))
    return 2 * len(train.pairs) < len(train.unmatched)


def _check_pairs(path: Path | None, source: Path | None, target: Path | None, derive: Any) -> Any:
    from img2img.data.check import check_pairs
    from img2img.data.folders import find_pairs

    splits = find_pairs(path, source=source, target=target, derive=derive)
    report = _watched(lambda started: check_pairs(splits, started))
    for split, folder in splits.items():
        print(f"{split}: {len(folder.pairs)} pairs from {folder.where}")
    return report


def _check_unpaired(path: Path | None, source: Path | None, target: Path | None) -> Any:
    from img2img.data.check_unpaired import check_unpaired
    from img2img.data.unpaired import find_unpaired

    splits = find_unpaired(path, source=source, target=target)
    report = _watched(lambda started: check_unpaired(splits, started))
    for split, folder in splits.items():
        print(f"{split}: {len(folder.sources)} and {len(folder.targets)} images, unpaired, from {folder.where}")
    return report


def _watched(work: Callable[[Callable[[int], Callable[[], None]]], Any]) -> Any:
    from rich.progress import Progress

    with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:

        def started(files: int) -> Callable[[], None]:
            task = bar.add_task("reading", total=files)
            return lambda: bar.advance(task)

        return work(started)
