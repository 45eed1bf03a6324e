"""Names and paths in a few arrays, instead of an object each: a tenth of the memory, and a loader's workers share it."""

import os
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from img2img.images.formats import split_ending

T = TypeVar("T")
Places = NDArray[np.int64]
"""Of items, counted from 0."""
MOST = 2**32  # bytes, up to which 32 bits count them
CHUNK = 2**16  # texts that are worked on at once
WIDTH = 64  # bytes of each text that are sorted at once


class Packed(Sequence[T]):
    """Items that are made when they are asked for; equal to any sequence of the same items."""

    @abstractmethod
    def _make(self, place: int) -> T:
        """The item at a place, counted from 0."""

    @abstractmethod
    def take(self, places: Places) -> Self:
        """The items at some places, in the order of these."""

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        places = range(len(self))[index]
        return self._make(places) if isinstance(places, int) else [self._make(place) for place in places]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class PackedTexts(Packed[str]):
    """Names of files, or other texts."""

    def __init__(self, data: NDArray[np.uint8], ends: NDArray[Any]) -> None:
        """Of all bytes, and where each text ends, with a 0 before."""
        self.data, self.ends = data, ends.astype(np.uint32 if len(data) < MOST else np.uint64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def _make(self, place: int) -> str:
        return os.fsdecode(self.encode_one(place))

    def encode_one(self, place: int) -> bytes:
        """The bytes of one."""
        return self.data[self.ends[place] : self.ends[place + 1]].tobytes()

    def take(self, places: Places) -> Self:
        """As of `Packed`."""
        starts, lengths = self.ends[:-1].astype(np.int64)[places], self.lengths[places]
        parts = []
        for first in range(0, len(places), CHUNK):
            some = slice(first, first + CHUNK)
            ends = np.cumsum(lengths[some])
            shift = starts[some] - (ends - lengths[some])  # from a text's place in the part to that in the data
            parts.append(self.data[np.repeat(shift, lengths[some]) + np.arange(ends[-1])])
        return type(self)(np.concatenate(parts) if parts else self.data[:0], np.append(0, np.cumsum(lengths)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each."""
        ends = self.ends.astype(np.int64)
        return ends[1:] - ends[:-1]  # type: ignore[no-any-return]

    def encode(self) -> Iterator[bytes]:
        """Their bytes, one text after the other."""
        for first in range(0, len(self), CHUNK):
            ends = self.ends[first : first + CHUNK + 1].tolist()
            part = self.data[ends[0] : ends[-1]].tobytes()
            for start, end in pairwise(ends):
                yield part[start - ends[0] : end - ends[0]]

    def find_order(self, then: NDArray[Any]) -> Places:
        """The places of the texts in the order of their bytes; of equal ones, in that of other numbers."""
        lengths = self.lengths
        longest = int(lengths.max(initial=1))
        width = min(longest, WIDTH)
        wide = np.zeros((len(self), width), np.uint8)  # for numpy sorts texts of one length
        for first in range(0, len(self), CHUNK):
            some = slice(first, first + CHUNK)
            start, end = int(self.ends[first]), int(self.ends[min(first + CHUNK, len(self))])
            column = np.arange(end - start) - np.repeat(self.ends[some][: len(wide[some])] - start, lengths[some])
            begins = column < width
            wide[some][np.arange(width) < lengths[some, None]] = self.data[start:end][begins]
        beginnings = wide.view(f"S{width}").ravel()
        order = np.lexsort((then, beginnings))
        if longest > width:
            self._order_alike(order, beginnings, then)
        return order

    def _order_alike(self, order: Places, beginnings: NDArray[np.bytes_], then: NDArray[Any]) -> None:
        """Puts texts in order that begin alike and go on."""
        same = beginnings[order[1:]] == beginnings[order[:-1]]
        borders = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
        for first, last in borders.reshape(-1, 2).tolist():
            run = order[first : last + 1]
            run[:] = sorted(run.tolist(), key=lambda place: (self.encode_one(place), then[place]))

    def equals(self, other: "PackedTexts") -> bool:
        """Whether they are the same texts."""
        return np.array_equal(self.data, other.data) and np.array_equal(self.ends, other.ends)


@dataclass(eq=False)
class PackedPaths(Packed[Path]):
    """Files; what all paths begin with, and their endings, are kept once."""

    kind: type[Path]
    prefix: str
    stems: PackedTexts
    endings: tuple[str, ...]
    ending: NDArray[Any]
    """Which of the endings each has."""

    def __len__(self) -> int:
        return len(self.stems)

    def _make(self, place: int) -> Path:
        return self.kind(f"{self.prefix}{self.stems[place]}{self.endings[self.ending[place]]}")

    def take(self, places: Places) -> Self:
        """As of `Packed`."""
        return replace(self, stems=self.stems.take(places), ending=self.ending[places])


class TextPacker:
    """Takes texts, one after the other."""

    def __init__(self) -> None:
        self.data, self.ends = bytearray(), array("Q", [0])

    def add(self, text: str) -> None:
        """One more."""
        self.data += os.fsencode(text)
        self.ends.append(len(self.data))

    def finish(self) -> PackedTexts:
        """All of them."""
        return PackedTexts(np.frombuffer(self.data, np.uint8), np.frombuffer(self.ends, np.uint64))


class PathPacker:
    """Takes files, one after the other.

    Args:
        kind: of the paths.
        prefix: what all begin with.
    """

    def __init__(self, kind: type[Path], prefix: str) -> None:
        self.kind, self.prefix, self.stems = kind, prefix, TextPacker()
        self.endings, self.ending = dict[str, int](), array("H")

    def add(self, stem: str, ending: str) -> None:
        """One more: what follows the prefix, and its ending."""
        self.stems.add(stem)
        self.ending.append(self.endings.setdefault(ending, len(self.endings)))

    def add_path(self, path: str) -> None:
        """One more, as a whole."""
        text = path[len(self.prefix) :]
        stem = split_ending(text)[0]
        self.add(stem, text[len(stem) :])

    def finish(self) -> PackedPaths:
        """All of them."""
        ending = np.frombuffer(self.ending, np.uint16).astype(np.min_scalar_type(len(self.endings)))
        return PackedPaths(self.kind, self.prefix, self.stems.finish(), tuple(self.endings), ending)


def pack_texts(texts: Iterable[str]) -> PackedTexts:
    """The same texts, packed."""
    packer = TextPacker()
    for text in texts:
        packer.add(text)
    return packer.finish()


def pack_paths(paths: Sequence[Path]) -> Sequence[Path]:
    """The same paths; packed, unless some are in shards and some are not."""
    if isinstance(paths, PackedPaths) or any(type(path) is not type(paths[0]) for path in paths):
        return paths
    return pack_together(paths)


def find_prefix(paths: Sequence[str]) -> str:
    """The folder that all paths begin with, with the slash behind it; empty for none."""
    first, last = min(paths, default=""), max(paths, default="")  # of texts in order, these say it for all
    alike = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first[:alike].rfind("/") + 1]


def pack_together(paths: Sequence[Path]) -> PackedPaths:
    """Paths of one type, packed."""
    prefix = find_prefix([min(map(str, paths), default=""), max(map(str, paths), default="")])

    packer = PathPacker(type(paths[0]) if paths else Path, prefix)
    for path in paths:
        packer.add_path(str(path))
    return packer.finish()


def take(items: Sequence[T], places: Places) -> Sequence[T]:
    """The items at some places; packed, if all are."""
    return items.take(places) if isinstance(items, Packed) else [items[place] for place in places.tolist()]


def divide(items: Sequence[T], chosen: set[int]) -> tuple[Sequence[T], Sequence[T]]:
    """The items that are not at some places, and those that are."""
    there = np.zeros(len(items), bool)
    there[list(chosen)] = True
    return take(items, np.flatnonzero(~there)), take(items, np.flatnonzero(there))


def find_endings(paths: Sequence[Path]) -> set[str]:
    """The endings of all files' names, in small letters."""
    if isinstance(paths, PackedPaths):
        return {paths.endings[place].lower() for place in np.unique(paths.ending).tolist()}
    return {split_ending(path.name)[1] for path in paths}
