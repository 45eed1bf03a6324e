"""Unpaired data sets: two folders of images that have nothing to do with each other."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from img2img.data.dataset import Sample, fit_channels, unit
from img2img.data.folders import (
    LAYOUTS,
    SPLITS,
    Direction,
    Pair,
    Split,
    existing_folder,
    explicit_sides,
    image_files,
    recognised_sides,
    refuse_labels,
)
from img2img.data.sampler import Key, permutation
from img2img.data.transforms import JointTransform
from img2img.errors import UsageError, UserError
from img2img.images import SUFFIXES, read_image
from img2img.images.tensors import to_tensor

PARTNERS = 2**20  # apart from the run's seed, so that partners are drawn from another row of numbers than the order


@dataclass(frozen=True)
class UnpairedFolder:
    """The two sides of one split."""

    split: Split
    sources: list[Path]
    targets: list[Path]
    where: str
    """Where they come from, to be shown to a person."""
    pairs: tuple[Pair, ...] = ()
    """If the sides happen to be pairs (every name of the smaller side stands on the other, too): the pairs."""


def find_unpaired(
    path: Path | None, *, source: Path | None = None, target: Path | None = None, direction: Direction = "AtoB"
) -> dict[Split, UnpairedFolder]:
    """Finds the splits of an unpaired data set: `trainA trainB testA testB`, `train/A train/B` and the like.

    Args:
        path: the data set's folder, unless `source` and `target` are given.
        source: a folder of images of one kind, alone or with sub-folders train, val, test.
        target: a folder of images of the other kind.
        direction: AtoB makes A the source.

    Returns:
        The splits that are there, in the order train, val, test.

    Raises:
        UsageError: if there is no such folder, or it holds no layout that is known.
    """
    if source is not None or target is not None:
        if source is None or target is None or path is not None:
            raise UsageError("give either --data FOLDER, or both --data.source FOLDER and --data.target FOLDER.")
        sides = explicit_sides(existing_folder(source), existing_folder(target))
    elif path is None:
        raise UsageError("which data? Give --data FOLDER.")
    else:
        sides = recognised_sides(existing_folder(path))
    found = {split: _folder(split, *sides[split], direction) for split in SPLITS if split in sides}
    if not any(folder.sources or folder.targets for folder in found.values()):
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        refuse_labels(path)
        layouts = LAYOUTS.rpartition(", or")[0]
        raise UsageError(
            f"{path or source} holds no two folders of images in a layout that is known: {layouts} (image files: {kinds})."
        )
    return found


def _folder(split: Split, a: Path, b: Path, direction: Direction) -> UnpairedFolder:
    sides = (a, b) if direction == "AtoB" else (b, a)
    names = [image_files(side) for side in sides]
    files = [[file for each in side.values() for file in each] for side in names]
    pairs: tuple[Pair, ...] = ()
    single = [{name: each[0] for name, each in side.items() if len(each) == 1} for side in names]
    common = sorted(single[0].keys() & single[1].keys())
    if common and len(common) == min(len(side) for side in names):
        pairs = tuple(Pair(name, single[0][name], single[1][name]) for name in common)
    return UnpairedFolder(split, files[0], files[1], f"{sides[0]} + {sides[1]}", pairs)


def hold_out_images(folder: UnpairedFolder, share: float) -> tuple[UnpairedFolder, UnpairedFolder]:
    """Takes evenly spaced images of each side out of a training split for validation: (the rest, the held-out).

    Raises:
        UsageError: if too few images are there.
    """
    rest: list[list[Path]] = []
    held: list[list[Path]] = []
    for files in (folder.sources, folder.targets):
        count = max(1, round(len(files) * share))
        if count >= len(files):
            raise UsageError(f"--data.holdout {share}: {len(files)} images are too few to keep some aside.")
        chosen = {round((k + 0.5) * len(files) / count - 0.5) for k in range(count)}
        rest.append([file for place, file in enumerate(files) if place not in chosen])
        held.append([file for place, file in enumerate(files) if place in chosen])
    return (
        replace(folder, sources=rest[0], targets=rest[1], pairs=()),
        replace(folder, split="val", sources=held[0], targets=held[1], pairs=()),
    )


class UnpairedImages(Dataset[Sample]):
    """Images of both kinds, each with a random partner; an epoch is as long as the larger side.

    What a sample is, is a function of (seed, epoch, index). The larger side's image is the index-th; partners are the
    smaller side in a random order of the epoch, gone through again and again, each time in another order. So all images are
    seen about equally often, and no two stand together because of their names or places.

    Args:
        sources: files of the one kind.
        targets: files of the other.
        transform: the augmentation, drawn for each image on its own.
        in_channels: channels of every source.
        out_channels: channels of every target.
        seed: of the run.
    """

    def __init__(
        self,
        sources: list[Path],
        targets: list[Path],
        transform: JointTransform,
        in_channels: int,
        out_channels: int,
        seed: int,
    ) -> None:
        self.sides = sources, targets
        self.channels = in_channels, out_channels
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return max(len(side) for side in self.sides)

    def __getitems__(self, keys: list[Key]) -> list[Sample] | UserError:
        """A batch for the loader; an error is given and not raised, for a worker would wrap it in its traceback."""
        try:
            return [self[key] for key in keys]
        except UserError as error:
            return error

    def __getitem__(self, key: Key) -> Sample:
        chosen = self.partners(key)
        tensors = []
        for side, (files, place, channels) in enumerate(zip(self.sides, chosen, self.channels, strict=True)):
            file = files[place]
            image = unit(fit_channels(read_image(file), channels, file))
            seed = zlib.crc32(f"{self.seed}/{key[0]}/{key[1]}/{side}".encode())
            tensors.append(to_tensor(np.ascontiguousarray(self.transform.one(image, seed))))
        return {"source": tensors[0], "target": tensors[1]}

    def partners(self, key: Key) -> tuple[int, int]:
        """The places of a sample's two images on their sides."""
        epoch, index = key
        lengths = [len(side) for side in self.sides]
        smaller = min(lengths)
        turn, place = divmod(index, smaller)
        turns = -(-len(self) // smaller)
        other = permutation(smaller, self.seed + PARTNERS, epoch * turns + turn)[place]
        return (index, other) if lengths[0] >= lengths[1] else (other, index)
