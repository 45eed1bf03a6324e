"""Data sets of one kind of images, perhaps in a folder for each class."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from img2img.data.dataset import fit_channels, unit
from img2img.data.folders import SPLITS, Split, existing_folder, image_files
from img2img.data.sampler import Key
from img2img.data.transforms import JointTransform, Resize
from img2img.errors import UsageError, UserError, listed
from img2img.images import SUFFIXES, Array, read_image
from img2img.images.tensors import to_array, to_tensor


@dataclass(frozen=True)
class SingleFolder:
    """The images of one split."""

    split: Split
    files: list[Path]
    where: str
    """Where they come from, to be shown to a person."""
    labels: tuple[int, ...] = ()
    """The number of each file's class in `classes`; empty if there are no classes."""
    classes: tuple[str, ...] = ()
    """The classes of the data set by name; the same in all splits."""


def find_single(path: Path | None, with_classes: bool = True) -> dict[Split, SingleFolder]:
    """Finds the splits of a data set of one kind: `train/CLASS/`, `train/`, or any folder of images.

    The sub-folders of a split are classes if all its images lie in one of them, and there are at least two; so are the
    sub-folders of a folder that has no splits.

    Args:
        path: the data set's folder.
        with_classes: whether classes are of interest.

    Returns:
        The splits that are there, in the order train, val, test.

    Raises:
        UsageError: if there is no such folder, or no image in it; or if a split has a class that train doesn't have.
    """
    if path is None:
        raise UsageError("which data? Give --data FOLDER.")
    folder = existing_folder(path)
    places: dict[Split, Path] = {split: folder / split for split in SPLITS if (folder / split).is_dir()} or {
        "train": folder
    }
    found = {split: _files(place) for split, place in places.items()}
    if not any(found.values()):
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise UsageError(f"{path} holds no images (image files: {kinds}).")
    first = next(iter(places))
    classes = _classes(places[first], found[first]) if with_classes else ()
    return {split: _labelled(split, place, found[split], classes, first) for split, place in places.items()}


def _files(place: Path) -> list[Path]:
    return [file for each in image_files(place).values() for file in each]


def _classes(place: Path, files: list[Path]) -> tuple[str, ...]:
    """The names of the sub-folders that all the images lie in; none if some lie elsewhere, or in one."""
    names = {file.relative_to(place).parts[0] for file in files if len(file.relative_to(place).parts) > 1}
    loose = any(len(file.relative_to(place).parts) == 1 for file in files)
    return () if loose or len(names) < 2 else tuple(sorted(names, key=_as_people_count))


def _as_people_count(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _labelled(split: Split, place: Path, files: list[Path], classes: tuple[str, ...], first: Split) -> SingleFolder:
    if not classes:
        return SingleFolder(split, files, str(place))
    numbers = {name: number for number, name in enumerate(classes)}
    strange = sorted({file.relative_to(place).parts[0] for file in files} - numbers.keys())
    if strange:
        raise UsageError(
            f"{place}: {listed(strange)} is no class of {first}, which has {listed(classes)}; each class needs a folder there."
        )
    labels = tuple(numbers[file.relative_to(place).parts[0]] for file in files)
    return SingleFolder(split, files, str(place), labels, classes)


def hold_out_single(folder: SingleFolder, share: float) -> tuple[SingleFolder, SingleFolder]:
    """Takes evenly spaced images out of a training split for validation: (the rest, the held-out).

    Raises:
        UsageError: if too few images are there.
    """
    total, count = len(folder.files), max(1, round(len(folder.files) * share))
    if count >= total:
        raise UsageError(f"--data.holdout {share}: {total} images are too few to keep some aside.")
    chosen = {round((k + 0.5) * total / count - 0.5) for k in range(count)}

    def part(keep: bool, split: Split) -> SingleFolder:
        places = [place for place in range(total) if (place in chosen) == keep]
        labels = tuple(folder.labels[place] for place in places) if folder.labels else ()
        return replace(folder, split=split, files=[folder.files[place] for place in places], labels=labels)

    return part(False, folder.split), part(True, "val")


def plain_images(
    folder: SingleFolder, size: int, resize: Resize, channels: int, count: int | None = None
) -> list[Array]:
    """Images as a discriminator sees them but for what is random, (size, size, channels), uint8: all, or `count` at even distances."""
    images = SingleImages(folder, JointTransform(size, resize=resize, jitter=1, flip=0), channels, seed=0)
    places = np.linspace(0, len(images) - 1, len(images) if count is None else count).round().astype(int)
    return [to_array(images[0, int(place)]["target"]) for place in places]


class SingleImages(Dataset[dict[str, Tensor]]):
    """Images with the number of their class, transformed as a function of (seed, epoch, index).

    Args:
        folder: a split.
        transform: the augmentation.
        channels: of every image.
        seed: of the run.
    """

    def __init__(self, folder: SingleFolder, transform: JointTransform, channels: int, seed: int) -> None:
        self.folder, self.transform, self.channels, self.seed = folder, transform, channels, seed

    def __len__(self) -> int:
        return len(self.folder.files)

    def __getitems__(self, keys: list[Key]) -> list[dict[str, Tensor]] | UserError:
        """A batch for the loader; an error is given and not raised, for a worker would wrap it in its traceback."""
        try:
            return [self[key] for key in keys]
        except UserError as error:
            return error

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """``target``: (C, H, W) in [-1, 1]; ``label``: () int64, 0 if there are no classes."""
        epoch, index = key
        file, seed = self.folder.files[index], zlib.crc32(f"{self.seed}/{epoch}/{index}".encode())
        image = self.transform.one(unit(fit_channels(read_image(file), self.channels, file)), seed)
        label = self.folder.labels[index] if self.folder.labels else 0
        return {"target": to_tensor(np.ascontiguousarray(image)), "label": torch.tensor(label)}
