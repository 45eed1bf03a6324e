"""Which files belong together: people's folder layouts are recognised, pairs are matched by stem."""

import os
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from img2img.errors import UsageError, listed
from img2img.images import SUFFIXES

Split = Literal["train", "val", "test"]
Direction = Literal["AtoB", "BtoA"]
Derivation = Literal["gray", "edges", "lowres"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

LAYOUTS = "trainA and trainB, train/A and train/B, train_A and train_B, A and B, or train/ with side-by-side images"


LABEL_LAYOUTS = "train_label, train_inst and train_img; train/label, train/inst and train/img; or label, inst and img"


@dataclass(frozen=True)
class Pair:
    """One sample: two files, or one file that holds both halves, or one from which the source is derived."""

    name: str
    """The path below the folder without the suffix; what pairs are matched by."""
    source: Path
    target: Path
    half: Literal["", "AB", "BA"] = ""
    """For one side-by-side file: which half is the source. AB: the left one."""
    derive: Derivation | None = None
    """How the source is made from the target, if it is."""
    labels: bool = False
    """Whether the source is a label map."""
    instances: Path | None = None
    """The instance map that belongs to the label map."""


@dataclass(frozen=True)
class PairedFolder:
    """The pairs of one split, and what was found beside them."""

    split: Split
    pairs: list[Pair]
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
) -> dict[Split, PairedFolder]:
    """Finds the splits of a paired data set, whatever layout it has.

    Args:
        path: the data set's folder, unless `source` and `target` are given.
        source: a folder of source images, alone or with sub-folders train, val, test.
        target: a folder of target images of the same names.
        derive: any folder of images; each source is made from its target.
        direction: AtoB makes A the source.

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
        found = _explicit(existing_folder(source), existing_folder(target))
    elif path is None:
        raise UsageError("which data? Give --data FOLDER.")
    elif derive is not None:
        found = _derived(existing_folder(path), derive)
    else:
        found = _recognised(existing_folder(path))
    if not found:
        refuse_labels(path)
        known = f"{LAYOUTS}; of label maps: {LABEL_LAYOUTS}"
        what = "no images" if derive or source else f"no pairs in a layout that is known: {known}"
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise UsageError(f"{path or source} holds {what} (image files: {kinds}).")
    return {split: _directed(folder, direction) for split, folder in found.items()}


def image_files(folder: Path, recursive: bool = True, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, list[Path]]:
    """The image files below a folder by name: the relative path without the suffix. Hidden files don't count."""
    files: dict[str, list[Path]] = defaultdict(list)
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        for name in sorted(names):
            file = Path(root, name)
            if file.suffix.lower() in suffixes and not name.startswith("."):
                files[file.relative_to(folder).with_suffix("").as_posix()].append(file)
    return dict(files)


def match(source: Path, target: Path, split: Split = "train") -> PairedFolder:
    """Pairs the files of two folders by name, whatever their suffixes."""
    sides = image_files(source), image_files(target)
    ambiguous = sorted({name for side in sides for name, files in side.items() if len(files) > 1})
    names = sorted(set(sides[0]) & set(sides[1]) - set(ambiguous))
    unmatched = [f for side in sides for name in sorted(set(side) - set(names) - set(ambiguous)) for f in side[name]]
    pairs = [Pair(name, sides[0][name][0], sides[1][name][0]) for name in names]
    return PairedFolder(split, pairs, f"{source} + {target}", unmatched, ambiguous)


def hold_out(folder: PairedFolder, share: float) -> tuple[PairedFolder, PairedFolder]:
    """Takes evenly spaced pairs out of a training split for validation: (the rest, the held-out).

    Raises:
        UsageError: if too few pairs are there.
    """
    count = max(1, round(len(folder.pairs) * share))
    if count >= len(folder.pairs):
        raise UsageError(f"--data.holdout {share}: {len(folder.pairs)} pairs are too few to keep some aside.")
    chosen = {round((k + 0.5) * len(folder.pairs) / count - 0.5) for k in range(count)}
    held = [pair for k, pair in enumerate(folder.pairs) if k in chosen]
    rest = [pair for k, pair in enumerate(folder.pairs) if k not in chosen]
    return replace(folder, pairs=rest), replace(folder, split="val", pairs=held, unmatched=[], ambiguous=[])


def existing_folder(path: Path) -> Path:
    """The path, if there is a folder.

    Raises:
        UsageError: if not.
    """
    if not path.exists():
        raise UsageError(f"{path}: there is no such folder.")
    if not path.is_dir():
        raise UsageError(f"{path} is a file; a data set is a folder.")
    return path


def refuse_labels(path: Path | None) -> None:
    """Says what a folder of label maps is for, where something else is wanted.

    Raises:
        UsageError: if it is one.
    """
    for name in ("train_label", "train/label", "label") if path else ():
        if path and (path / name).is_dir():
            raise UsageError(
                f"{path} is a data set of label maps ({name}): spade, pix2pixhd and pix2pix train on it; here images are wanted."
            )


def _splits(make: Callable[[Split], PairedFolder | None]) -> dict[Split, PairedFolder]:
    return {split: folder for split in SPLITS if (folder := make(split))}


def explicit_sides(source: Path, target: Path) -> dict[Split, tuple[Path, Path]]:
    """The splits of two folders: their sub-folders train, val and test, else the folders themselves as train.

    Raises:
        UsageError: if only one of them has such sub-folders.
    """
    found: dict[Split, tuple[Path, Path]] = {
        split: (source / split, target / split)
        for split in SPLITS
        if (source / split).is_dir() and (target / split).is_dir()
    }
    for one, other in ((source, target), (target, source)):
        if not found and (one / "train").is_dir():
            raise UsageError(
                f"{one} has a sub-folder train, and {other} has none; give {one / 'train'}, or make them alike."
            )
    return found or {"train": (source, target)}


def recognised_sides(path: Path) -> dict[Split, tuple[Path, Path]]:
    """The splits of a data set whose sides are folders: (A, B) of each.

    Raises:
        UsageError: if only one side of a train split is there, or the path is a side itself.
    """
    found: dict[Split, tuple[Path, Path]] = {}
    for split in SPLITS:
        for a, b in ((f"{split}A", f"{split}B"), (f"{split}/A", f"{split}/B"), (f"{split}_A", f"{split}_B")):
            there = (path / a).is_dir(), (path / b).is_dir()
            if all(there):
                found.setdefault(split, (path / a, path / b))
            elif any(there) and split == "train" and split not in found:
                raise UsageError(f"{path}: there is no folder {b if there[0] else a} to match the other side.")
    if not found and (path / "A").is_dir() and (path / "B").is_dir():
        found = explicit_sides(path / "A", path / "B")
    if not found and re.fullmatch(r"(train|val|test)?_?[AB]", path.name):
        raise UsageError(f"{path} is one side of a data set; give the folder above it: {path.parent}.")
    return found


def _explicit(source: Path, target: Path) -> dict[Split, PairedFolder]:
    found = {split: match(*sides, split) for split, sides in explicit_sides(source, target).items()}
    empty = all(not image_files(side) for sides in explicit_sides(source, target).values() for side in sides)
    return {} if empty else found


def _derived(path: Path, derive: Derivation) -> dict[Split, PairedFolder]:
    def one(folder: Path, split: Split) -> PairedFolder | None:
        files = image_files(folder)
        pairs = [Pair(name, each[0], each[0], derive=derive) for name, each in sorted(files.items()) if len(each) == 1]
        ambiguous = sorted(name for name, each in files.items() if len(each) > 1)
        return PairedFolder(split, pairs, str(folder), ambiguous=ambiguous) if files else None

    found = _splits(lambda split: one(path / split, split) if (path / split).is_dir() else None)
    if not found and (whole := one(path, "train")):
        found = {"train": whole}
    return found


def _recognised(path: Path) -> dict[Split, PairedFolder]:
    sides = recognised_sides(path)
    found = {split: match(*folders, split) for split, folders in sides.items()}
    beside = _splits(lambda s: _side_by_side(path / s, s) if s not in found and (path / s).is_dir() else None)
    if sides or beside:
        return {split: {**found, **beside}[split] for split in SPLITS if split in found or split in beside}
    alone = _side_by_side(path, "train")
    return {"train": alone} if alone else {}


def _side_by_side(folder: Path, split: Split) -> PairedFolder | None:
    files = image_files(folder, recursive=False)
    pairs = [Pair(name, each[0], each[0], half="AB") for name, each in sorted(files.items()) if len(each) == 1]
    ambiguous = sorted(name for name, each in files.items() if len(each) > 1)
    return PairedFolder(split, pairs, f"{folder} (side by side)", ambiguous=ambiguous) if files else None


def _directed(folder: PairedFolder, direction: Direction) -> PairedFolder:
    if direction == "AtoB" or (folder.pairs and folder.pairs[0].derive):
        return folder
    pairs = [replace(p, source=p.target, target=p.source, half="BA" if p.half else "") for p in folder.pairs]
    return replace(folder, pairs=pairs)


def no_pairs_sentence(folder: PairedFolder) -> str:
    """Why a split without pairs can't be used."""
    if folder.unmatched:
        names = listed([file.name for file in folder.unmatched], 3)
        return f"{folder.where}: no file has a partner of the same name on the other side ({names})."
    return f"{folder.where}: there are no images."
