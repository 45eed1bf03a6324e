"""Volumes as data sets: their slices, as arrays in the cache."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from rich.console import Console
from rich.progress import track

from img2img.core.downloads import cache_folder
from img2img.core.errors import UsageError, UserError
from img2img.core.files import whole_folder
from img2img.core.stored import StoredPath
from img2img.data.base import Pair, choose_held_out
from img2img.data.packed import PackedPaths, find_endings
from img2img.data.packed_pairs import list_sources, list_targets
from img2img.images import ImageError
from img2img.images.bands import Range
from img2img.images.formats import VOLUMES, split_ending
from img2img.images.nifti import Axis, read_volume

Ranges = tuple[Range | None, Range | None]
"""Of sources and targets, as of `DataConfig.ranges`."""

SLICES = "slices"  # a folder in the cache


class VolumeError(UsageError):
    """Volumes can't be cut into slices: one is damaged, doesn't fit its partner, or nobody says what its values mean."""


def expand_files(files: Sequence[Path], ranges: Ranges, axis: Axis) -> Sequence[Path]:
    """The files, with the slices of each volume instead of it; volumes need the ranges of both sides.

    Raises:
        VolumeError: if a volume can't be read, or nobody says what its values mean.
        UserError: if slices can't be written.
    """
    slices = _cut_volumes(files, ranges, axis)
    return [each for file in files for each in slices.get(file, [file])] if slices else files


def expand_pairs(pairs: Sequence[Pair], ranges: Ranges, axis: Axis) -> Sequence[Pair]:
    """The pairs, with those of slices instead of those of volumes.

    Raises:
        VolumeError: as of `expand_files`, and if volumes of a pair don't have equally many slices.
    """
    if find_endings(list_sources(pairs)).union(find_endings(list_targets(pairs))).isdisjoint(VOLUMES):
        return pairs
    slices = _cut_volumes([file for pair in pairs for file in (pair.source, pair.target)], ranges, axis)
    expanded: list[Pair] = []
    for pair in pairs:
        if pair.source not in slices and pair.target not in slices:
            expanded.append(pair)
            continue
        sources, targets = slices.get(pair.source, [pair.source]), slices.get(pair.target, [pair.target])
        if len(sources) != len(targets):
            counts = f"{pair.source} has {len(sources)} {axis} slices, and {pair.target} {len(targets)}"
            raise VolumeError(f"{counts}; the volumes of a pair lie on one grid: resample one of them.")
        expanded += [
            replace(pair, name=f"{pair.name}/{source.stem}", source=source, target=target)
            for source, target in zip(sources, targets, strict=True)
        ]
    return expanded


def choose_held_out_files(files: Sequence[Path], share: float, what: str) -> set[int]:
    """Evenly spaced places of a list of files to hold out; of slices, all of a volume or none, for neighbours look alike.

    Raises:
        UsageError: if too few are there.
    """
    slices = f"{cache_folder() / SLICES}/"
    if (isinstance(files, PackedPaths) and not files.prefix.startswith(slices)) or not any(
        str(file).startswith(slices) for file in files
    ):
        return choose_held_out(len(files), share, what)
    owners = [file.parent if str(file).startswith(slices) else file for file in files]
    numbers = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
    chosen = choose_held_out(len(numbers), share, what if len(numbers) == len(files) else "volumes")
    return {place for place, owner in enumerate(owners) if numbers[owner] in chosen}


def _cut_volumes(files: Sequence[Path], ranges: Ranges, axis: Axis) -> dict[Path, list[Path]]:
    """The slices of those files that are volumes; they are kept until these change."""
    if find_endings(files).isdisjoint(VOLUMES):
        return {}
    volumes = [file for file in files if split_ending(file.name)[1] in VOLUMES]
    if None in ranges:
        raise VolumeError(
            f"{volumes[0]} holds measurements: say with --data.range (check: --range) what its values mean."
        )
    folders = {file: _name_folder(file, axis) for file in volumes}
    new = [file for file, folder in folders.items() if not folder.is_dir()]
    if new:
        place = folders[new[0]].parent
        what = "a volume" if len(new) == 1 else f"{len(new)} volumes"
        print(f"Cutting {what} into {axis} slices, into {place}.", file=sys.stderr)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{place} can't be made: {error.strerror}; XDG_CACHE_HOME says where caches are.") from None
        shown = sys.stderr.isatty()
        for file in track(new, "cutting", transient=True, disable=not shown, console=Console(stderr=True)):
            with FileLock(place / f"{folders[file].name}.lock"):  # of several processes, one does it
                if not folders[file].is_dir():
                    _cut(file, folders[file], axis)
    return {file: sorted(folder.glob("*.npy")) for file, folder in folders.items()}


def _name_folder(volume: Path, axis: Axis) -> Path:
    """Where slices of a volume are, in the state in which it is."""
    if isinstance(volume, StoredPath):
        raise VolumeError(
            f"{volume}: volumes are cut into slices, for which they must be on this machine; copy them here."
        )
    state = volume.stat()
    about = f"{volume.resolve()} {state.st_size} {state.st_mtime_ns} {axis}"
    digest = hashlib.blake2b(about.encode(), digest_size=8).hexdigest()
    return cache_folder() / SLICES / f"{split_ending(volume.name)[0]}-{digest}"


def _cut(volume: Path, folder: Path, axis: Axis) -> None:
    try:
        slices = read_volume(volume, False, lambda sizes: None, axis)[0]
    except ImageError as error:
        raise VolumeError(f"{volume}: {str(error).rstrip('.')}.") from None
    with whole_folder(folder) as new:
        for number, values in enumerate(slices):
            np.save(new / f"{number:05}.npy", values, allow_pickle=False)
