"""Data sets in shards: tar files named as `webdataset` has it, which look like the folders that all other code knows.

A sample's files have a common name up to the first dot. ``cat.source.png`` and ``cat.target.png`` are a pair, ``cat.label.png``,
``cat.inst.png`` and ``cat.target.png`` a label map with its instances and its image, ``cat.png`` is an image, whose class ``cat.cls`` names.
Shards called ``train-000000.tar`` are of that split; so are ``trainA-000000.tar`` of one side.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from img2img.core.errors import UsageError
from img2img.core.stored import TAR, URL, StoredPath, StoreError, list_folder, read_tar_index, resolve_path
from img2img.data.index import load_index, read_class
from img2img.data.packed import PackedPaths, PackedTexts, PathPacker, TextPacker, find_prefix
from img2img.images.formats import READABLE

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST = 1_000_000  # shards of one pattern
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
INSIDE = " (shards)"  # ends the name of shards; what follows is in them
SPLIT = re.compile(r"^((train|val|test)(_?[A-Za-z]+)?)(?=[-_.\d])")
FOLDERS = {"source": "A", "target": "B"}  # of a pair's files, in words that `layouts` knows
CLASS = "cls"

Found = dict[tuple[str, ...], tuple[TextPacker, PathPacker]]
"""As of `read_shards`, not finished yet."""


class ShardFolder(StoredPath):
    """A folder that exists in shards only, as the layouts of data sets have it: ``shards (shards)/train/A``."""

    @property
    def parts_inside(self) -> tuple[str, tuple[str, ...]]:
        """The shards, and the folders below."""
        root, _, inside = str(self).rpartition(INSIDE)
        return root, tuple(filter(None, inside.split("/")))

    def is_dir(self, **options: Any) -> bool:
        """Whether any shard has such a folder."""
        root, inside = self.parts_inside
        return any(folder[: len(inside)] == inside for folder in read_shards(root))

    def is_file(self, **options: Any) -> bool:
        """Never; files are `StoredPath`s, in their tar files."""
        return False

    def list_files(self, recursive: bool = True) -> tuple[PackedTexts, PackedPaths]:
        """The images in it: their names below it without their endings, and where they are."""
        root, inside = self.parts_inside
        names, files = TextPacker(), PathPacker(StoredPath, "")
        for folder, (keys, members) in read_shards(root).items():
            if folder[: len(inside)] != inside:
                continue
            files.prefix = members.prefix
            for place, key in enumerate(keys):
                name, ending = "/".join((*folder[len(inside) :], key)), members.endings[members.ending[place]]
                if recursive or "/" not in name:
                    names.add(name)
                    files.add(members.stems[place], ending)
        return names.finish(), files.finish()


def find_shards(path: Path) -> list[StoredPath] | None:
    """The tar files that a path names: itself, those of a pattern such as ``photos-{000000..000999}.tar``, or those of a folder.

    Returns:
        None if it is none of these.

    Raises:
        UsageError: if a pattern is wrong.
    """
    text = str(path)
    if text.endswith(COMPRESSED) and path.is_file():
        raise UsageError(f"{path} is compressed, which shards must not be; unpack it, and pack it with tar cf.")
    if not text.endswith(TAR):
        return _list_shards(path)
    if found := BRACES.search(text):
        first, last = found[1], found[2]
        count = int(last) - int(first) + 1
        if not 1 <= count <= MOST or len(BRACES.findall(text)) > 1:
            raise UsageError(
                f"{text}: give one range of numbers, the smaller first, as in photos-{{000000..000999}}.tar."
            )
        numbers = (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
        return [StoredPath(text.replace(found[0], number)) for number in numbers]
    return None if not URL.match(text) and path.is_dir() else [StoredPath(text)]


def _list_shards(path: Path) -> list[StoredPath] | None:
    """The tar files of a folder that holds neither images nor other folders beside them."""
    names = []
    if isinstance(path, StoredPath):
        files, folders = list_folder(path) if path.is_dir() else ([], [])
        entries: Iterable[tuple[str, bool]] = chain(
            ((name, True) for name in folders), ((name, False) for name in files)
        )
    elif path.is_dir():
        entries = ((entry.name, entry.is_dir()) for entry in os.scandir(path))
    else:
        return None
    for name, is_folder in entries:
        if name.startswith("."):
            continue
        if is_folder or name.lower().endswith(READABLE):
            return None
        if name.endswith(TAR):
            names.append(name)
    return [StoredPath(path / name) for name in sorted(names)] or None


@lru_cache(maxsize=16)
def read_shards(root: str) -> dict[tuple[str, ...], tuple[PackedTexts, PackedPaths]]:
    """The files of shards, by the folder in which a data set has them: their samples' keys, and where they are.

    Raises:
        UsageError: if a shard can't be read, or is cut off.
    """
    folder = resolve_path(root)
    load_index(folder if folder.is_dir() else folder.parent, strict=folder.is_dir())
    shards = find_shards(folder) or []
    prefix = find_prefix([str(shard) for shard in shards])
    found: Found = defaultdict(lambda: (TextPacker(), PathPacker(StoredPath, prefix)))
    for shard in shards:
        try:
            _sort_members(shard, found)
        except (StoreError, OSError) as error:
            raise UsageError(str(error)) from None
    return {place: (keys.finish(), files.finish()) for place, (keys, files) in found.items()}


def forget_shards() -> None:
    """Frees the lists of their files; where members lie stays known."""
    read_shards.cache_clear()


def _sort_members(shard: StoredPath, found: Found) -> None:
    index = read_tar_index(str(shard))
    if index.cut:
        raise UsageError(f"{shard} is cut off after {index.cut}; make it anew.")
    samples: dict[str, dict[str, str]] = defaultdict(dict)
    for name in index.list_names():
        key, kind = split_name(name)
        if not Path(name).name.startswith("."):
            samples[key][kind] = name
    split = match[1] if (match := SPLIT.match(shard.name)) else ""
    for key, members in samples.items():
        label = read_class(shard / members[CLASS]) if CLASS in members else ""
        for kind, name in members.items():
            part = kind.rpartition(".")[0]
            part = (
                "img"
                if part == "target" and any(each.startswith("label.") for each in members)
                else FOLDERS.get(part, part)
            )
            if name.lower().endswith(READABLE):
                keys, files = found[tuple(filter(None, (split, part or label)))]
                keys.add(key)
                files.add_path(f"{shard}/{name}")


def split_name(name: str) -> tuple[str, str]:
    """The key and the kind of a member: ``a/cat`` and ``source.png`` of ``a/cat.source.png``."""
    folder, _, base = name.rpartition("/")
    key, _, kind = base.partition(".")
    return f"{folder}/{key}" if folder else key, kind
