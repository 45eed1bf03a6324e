"""People's folder layouts: which folders are the sides and splits of a data set, and which files are images."""

import re
from pathlib import Path
from typing import Literal

from img2img.core.errors import UsageError
from img2img.core.stored import StoredPath, StoreError
from img2img.data.folder_index import load_folder_index
from img2img.data.shards import INSIDE, ShardFolder, find_shards
from img2img.data.video import extract_frames
from img2img.images import READABLE
from img2img.images.video import is_video

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
LAYOUTS = "trainA and trainB, train/A and train/B, train_A and train_B, A and B, or train/ with side-by-side images"
LABEL_LAYOUTS = "train_label, train_inst and train_img; train/label, train/inst and train/img; or label, inst and img"


def check_folder(path: Path) -> Path:
    """The path, if there is a folder; of shards, what looks like the folder that is in them; of a video, a folder of frames.

    Raises:
        UsageError: if there is none, or it can't be reached.
    """
    if is_video(path) and path.is_file() and not isinstance(path, StoredPath):
        return extract_frames(path)
    try:
        if find_shards(path) is not None:
            return ShardFolder(f"{path}{INSIDE}")
        exists = path.exists()
    except (StoreError, OSError) as error:
        raise UsageError(
            str(error) if isinstance(error, StoreError) else f"{path} can't be reached: {error.strerror or error}."
        ) from None
    if not exists:
        raise UsageError(f"{path}: there is no such folder.")
    if not path.is_dir():
        raise UsageError(f"{path} is a file; a data set is a folder.")
    if not isinstance(path, StoredPath):
        load_folder_index(path)
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


def split_sides(source: Path, target: Path) -> dict[Split, tuple[Path, Path]]:
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


def find_sides(path: Path) -> dict[Split, tuple[Path, Path]]:
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
        found = split_sides(path / "A", path / "B")
    if not found and re.fullmatch(r"(train|val|test)?_?[AB]", path.name):
        raise UsageError(f"{path} is one side of a data set; give the folder above it: {path.parent}.")
    return found


def list_image_kinds() -> str:
    """The endings of image files, for a person."""
    return ", ".join(suffix[1:] for suffix in READABLE)
