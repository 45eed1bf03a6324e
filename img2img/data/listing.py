"""The image files of a folder, in the order of their names, in a few arrays."""

import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from img2img.core.errors import UsageError
from img2img.core.stored import StoredPath, walk_folder
from img2img.data.packed import PackedPaths, PackedTexts, PathPacker, Places, pack_texts
from img2img.data.shards import ShardFolder
from img2img.images.formats import ARRAYS, READABLE, find_suffix, split_ending

LOST = "lost+found"  # a folder at the root of a disk, which only the system can list


@dataclass(frozen=True)
class ImageFiles:
    """Image files in the order of their names, which several may have, as ``a.jpg`` and ``a.png`` do."""

    names: PackedTexts
    """Of each file: its path below the folder, without the ending."""
    files: PackedPaths

    def group(self) -> Iterator[tuple[bytes, int, int]]:
        """Each name, the place of its first file, and that behind its last."""
        first, previous = 0, None
        for place, name in enumerate(self.names.encode()):
            if name != previous:
                if previous is not None:
                    yield previous, first, place
                first, previous = place, name
        if previous is not None:
            yield previous, first, len(self.names)

    def find(self, name: str) -> list[Path]:
        """The files that have a name."""
        wanted, found = os.fsencode(name), list[Path]()
        place = bisect_left(range(len(self.names)), wanted, key=self.names.encode_one)
        while place < len(self.names) and self.names.encode_one(place) == wanted:
            found.append(self.files[place])
            place += 1
        return found

    def take_single(self) -> tuple["ImageFiles", list[str]]:
        """The files whose names no other has, and the names that several have."""
        (single,), _, several = align([self])
        return self.take(single), several

    def take(self, places: Places) -> "ImageFiles":
        """Some of them."""
        if len(places) == len(self.names):
            return self
        names = self.names.take(places)
        return ImageFiles(names, self.files.take(places))

    def rename(self, change: Callable[[str], str]) -> "ImageFiles":
        """The same files with other names, in the order of these."""
        return _sort(pack_texts(map(change, self.names)), self.files)


def _sort(names: PackedTexts, files: PackedPaths) -> ImageFiles:
    rank = np.argsort(np.argsort(files.endings))  # of each ending; a folder is listed in any order
    order = names.find_order(rank[files.ending] if files.endings else files.ending)
    if names is files.stems:
        files = files.take(order)
        return ImageFiles(files.stems, files)
    return ImageFiles(names.take(order), files.take(order))


def list_images(folder: Path, recursive: bool = True) -> ImageFiles:
    """The image files below a folder. Hidden files don't count, and neither does an array that has the name of an image: it is something about it."""
    if isinstance(folder, ShardFolder):
        return _drop_arrays(_sort(*folder.list_files(recursive)))
    packer = PathPacker(type(folder), str(folder / "_")[:-1])
    walked = _walk_stored(folder, recursive) if isinstance(folder, StoredPath) else _walk(folder, recursive)
    for below, name in walked:
        stem, suffix = split_ending(name)
        if suffix in READABLE and not name.startswith("."):
            packer.add(f"{below}{stem}", name[len(stem) :])
    files = packer.finish()
    return _drop_arrays(_sort(files.stems, files))


def _walk_stored(folder: StoredPath, recursive: bool) -> Iterator[tuple[str, str]]:
    """The files in a folder and below it that aren't hidden: the path of each one's folder from there, and its name."""
    walked = walk_folder(folder)
    for root, names in walked if recursive else islice(walked, 1):
        below = "" if root == folder else f"{root.relative_to(folder).as_posix()}/"
        yield from ((below, name) for name in names)


def _walk(folder: Path, recursive: bool, below: str = "") -> Iterator[tuple[str, str]]:
    """The same on this machine; folders that are links are left out.

    Raises:
        UsageError: if a folder can't be listed.
    """
    inside: list[str] = []
    try:
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    yield below, entry.name
                elif recursive and not entry.name.startswith(".") and not entry.is_symlink() and entry.name != LOST:
                    inside.append(entry.name)
    except FileNotFoundError:
        return  # as if it were empty
    except OSError as error:
        raise UsageError(
            f"{folder / below} can't be listed: {error.strerror or error}. Make it readable, or take it out of the data set."
        ) from None
    for name in inside:
        yield from _walk(folder, recursive, f"{below}{name}/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link that leads round in a circle
        return False


def _drop_arrays(found: ImageFiles) -> ImageFiles:
    dropped: list[int] = []
    for _, first, end in found.group() if any(ending.lower() in ARRAYS for ending in found.files.endings) else ():
        suffixes = [find_suffix(file) for file in found.files[first:end]] if end > first + 1 else []
        if any(suffix not in ARRAYS for suffix in suffixes):
            dropped += [first + place for place, suffix in enumerate(suffixes) if suffix in ARRAYS]
    return found.take(np.delete(np.arange(len(found.names)), dropped)) if dropped else found


def align(sides: Sequence[ImageFiles]) -> tuple[list[Places], list[Places], list[str]]:
    """Which files of several folders belong together by their names.

    Returns:
        Of each folder, the places of those that have a partner in every other; those of the rest; and the names that
        several files of one folder have, which are in neither.
    """
    complete, alone, several = [array("q") for _ in sides], [array("q") for _ in sides], list[str]()
    groups = [side.group() for side in sides]
    heads = [next(group, None) for group in groups]
    while names := [head[0] for head in heads if head]:
        name = min(names)
        found = [place for place, head in enumerate(heads) if head and head[0] == name]
        together = {place: head for place in found if (head := heads[place])}
        if any(end > first + 1 for _, first, end in together.values()):
            several.append(os.fsdecode(name))
        else:
            for place, (_, first, _) in together.items():
                (complete if len(together) == len(sides) else alone)[place].append(first)
        for place in found:
            heads[place] = next(groups[place], None)
    places, rest = ([np.frombuffer(each, np.int64) for each in kind] for kind in (complete, alone))
    return places, rest, several
