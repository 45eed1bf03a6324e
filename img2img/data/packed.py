"""Paths and pairs in a few arrays, instead of an object each: a tenth of the memory, and a loader's workers share it."""

import os
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from img2img.data.base import Pair
from img2img.images.formats import split_ending

T = TypeVar("T")
MOST = 2**32  # bytes, up to which 32 bits count them


class Packed(Sequence[T]):
    """Items that are made when they are asked for."""

    @abstractmethod
    def _make(self, place: int) -> T:
        """The item at a place, counted from 0."""

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        places = range(len(self))[index]
        return self._make(places) if isinstance(places, int) else [self._make(place) for place in places]


class PackedTexts(Packed[str]):
    """Names of files, or other texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.data, ends = bytearray(), array("Q", [0])
        for text in texts:
            self.data += os.fsencode(text)
            ends.append(len(self.data))
        self.ends = np.array(ends, np.uint32 if len(self.data) < MOST else np.uint64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def equals(self, other: "PackedTexts") -> bool:
        """Whether they are the same texts."""
        return self.data == other.data and np.array_equal(self.ends, other.ends)

    def _make(self, place: int) -> str:
        return os.fsdecode(bytes(self.data[int(self.ends[place]) : int(self.ends[place + 1])]))


class PackedPaths(Packed[Path]):
    """Files; what all paths begin with is kept once."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.kind = type(paths[0]) if paths else Path
        first, last = min(map(str, paths), default=""), max(map(str, paths), default="")
        alike = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        self.root = first[:alike].rpartition("/")[0]  # of texts in order, the first and the last say it for all
        start = len(self.root)
        self.names = PackedTexts(str(path)[start:] for path in paths)

    def __len__(self) -> int:
        return len(self.names)

    def _make(self, place: int) -> Path:
        return self.kind(self.root + self.names[place])


class PackedPairs(Packed[Pair]):
    """Pairs that differ in their name and files alone."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.common = pairs[0]
        self.sources = self.targets = PackedPaths([pair.target for pair in pairs])
        if any(pair.source != pair.target for pair in pairs):
            self.sources = PackedPaths([pair.source for pair in pairs])
        if self.sources.names.equals(self.targets.names):
            self.sources.names = self.targets.names
        instances = [pair.instances for pair in pairs if pair.instances]
        self.instances = PackedPaths(instances) if instances else None
        self.names: PackedTexts | None = None
        if any(pair.name != self._name(place) for place, pair in enumerate(pairs)):
            self.names = PackedTexts(pair.name for pair in pairs)

    def __len__(self) -> int:
        return len(self.targets)

    def _name(self, place: int) -> str:
        """As most pairs are called: the target's path below the folder of all, without its ending."""
        return split_ending(self.targets.names[place][1:])[0] if self.names is None else self.names[place]

    def _make(self, place: int) -> Pair:
        common, instances = self.common, self.instances
        return Pair(
            self._name(place), self.sources[place], self.targets[place], common.half, common.derive, common.labels,
            None if instances is None else instances[place], common.ranges,
        )  # fmt: skip


def pack_paths(paths: Sequence[Path]) -> Sequence[Path]:
    """The same paths; packed, unless some are in shards and some are not."""
    return PackedPaths(paths) if all(type(path) is type(paths[0]) for path in paths) else paths


def pack_pairs(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """The same pairs; packed, if they differ in their name and files alone."""

    def others(pair: Pair) -> tuple[object, ...]:
        kinds = type(pair.source), type(pair.target), type(pair.instances)
        return pair.half, pair.derive, pair.labels, pair.ranges, kinds

    return PackedPairs(pairs) if len({others(pair) for pair in pairs}) == 1 else pairs
