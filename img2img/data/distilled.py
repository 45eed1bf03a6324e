"""Photos and what a teacher made of them: the pairs from which a smaller translator learns."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from img2img.core.errors import UsageError
from img2img.data.base import BuildDataset, DataConfig, Direction, Pair, Samples
from img2img.data.layouts import SPLITS, Split, check_folder, list_image_kinds
from img2img.data.listing import list_images
from img2img.data.paired import PairedData, PairedFolder, PairedImages, match, set_ranges
from img2img.data.sampler import Key
from img2img.data.transforms import JointTransform
from img2img.data.volumes import expand_files
from img2img.images import read_image
from img2img.images.arrays import fit_channels, to_unit
from img2img.images.bands import Range
from img2img.images.tensors import to_tensor


@dataclass(frozen=True)
class SourceFolder:
    """One split of what a teacher translates."""

    source: Path
    """The folder of the images."""
    real: Path | None = None
    """A folder of real images of the kind that the teacher makes, if there is one."""
    instances: Path | None = None
    """The folder of the instance maps, of label maps that have such."""


def find_photos(path: Path, direction: Direction = "AtoB") -> dict[Split, SourceFolder]:
    """Finds what a teacher is to translate: one side of a paired or unpaired data set, or any folder.

    Args:
        path: a folder in a layout of two sides, such as trainA trainB testA, whose other side may be missing; with sub-folders train,
            val or test; or a folder of images.
        direction: which side of two is the source.

    Raises:
        UsageError: if there is no such folder, or it holds no images.
    """
    path = check_folder(path)
    own, other = ("A", "B") if direction == "AtoB" else ("B", "A")
    found: dict[Split, SourceFolder] = {}
    for split in SPLITS:
        for layout in ("{}{}", "{}/{}", "{}_{}"):
            source, real = (path / layout.format(split, side) for side in (own, other))
            if source.is_dir():
                found.setdefault(split, SourceFolder(source, real if real.is_dir() else None))
    for split in SPLITS if not found else ():
        if (path / own / split).is_dir():
            real = path / other / split
            found[split] = SourceFolder(path / own / split, real if real.is_dir() else None)
    if not found and (path / own).is_dir():
        found["train"] = SourceFolder(path / own, path / other if (path / other).is_dir() else None)
    if not found and (path / "train").is_dir():
        found = {split: SourceFolder(path / split) for split in SPLITS if (path / split).is_dir()}
    found = {
        split: photos
        for split, photos in (found or {"train": SourceFolder(path)}).items()
        if list_images(photos.source).names
    }
    if "train" not in found:
        raise UsageError(f"{path} holds no images to learn from (image files: {list_image_kinds()}).")
    return found


def list_real(found: Mapping[Split, SourceFolder]) -> dict[Split, Sequence[Path]]:
    """Real images of the kind that the teacher makes, of the splits that have such."""
    return {split: list_images(photos.real).files for split, photos in found.items() if photos.real}


def choose_real(real: Mapping[Split, Sequence[Path]]) -> Sequence[Path]:
    """Real images to compare with: such that were not learned from, if there are some."""
    return next((real[split] for split in ("val", "test", "train") if real.get(split)), ())


def explain_no_translations(target: Path) -> str:
    """What to do if the teacher's translations are not where the config says."""
    return f"the teacher's translations, {target}, are not there: go on with img2img compress --resume RUN, which makes them, also if the run was moved."


class DistilledImages(Samples):
    """Pairs of what a teacher translated and its translation; beside each, a real image of the kind that the teacher makes, if there are some.

    Args:
        build: makes the pairs' samples.
        real: the real images, of which one is drawn as a function of (seed, epoch, index).
        limits: of measurements, the range of the real images.
    """

    def __init__(
        self,
        build: BuildDataset,
        real: Sequence[Path],
        limits: Range | None,
        pairs: Sequence[Pair],
        transform: JointTransform,
        in_channels: int,
        out_channels: int,
        seed: int,
    ) -> None:
        self.pairs, self.real, self.limits = pairs, real, limits
        self.samples = build(pairs, transform, in_channels, out_channels, seed)
        self.transform, self.out_channels, self.seed = transform, out_channels, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """``source``, ``target``, and ``real``, (C, H, W) in [-1, 1], if there is such."""
        item = self.samples[key]
        if self.real:
            epoch, index = key
            drawn = zlib.crc32(f"real/{self.seed}/{epoch}/{index}".encode())
            file = self.real[drawn % len(self.real)]
            read = to_unit(read_image(file, self.transform.enough, self.limits))
            image = self.transform.apply_to_one(read, drawn)
            item["real"] = to_tensor(fit_channels(image, self.out_channels, file, self.limits is not None))
        return item


class DistilledData(PairedData):
    """Photos (``--data``) and the teacher's translations of the same names (``--data.target``), which has a sub-folder for each split.

    Args:
        with_classes: whether real images of the kind that the teacher makes are wanted, too.
    """

    def __init__(self, config: DataConfig, with_classes: bool = True) -> None:
        self.config = config
        if config.path is None or config.target is None:
            raise UsageError(
                "distill learns from photos, --data FOLDER, and a teacher's translations of them, --data.target FOLDER; img2img compress makes these."
            )
        photos = find_photos(config.path, config.direction)
        if not config.target.is_dir():
            raise UsageError(explain_no_translations(config.target))
        self.splits: dict[Split, PairedFolder] = {
            split: set_ranges(match(found.source, config.target / split, split), config.ranges, config.axis)
            for split, found in photos.items()
            if (config.target / split).is_dir()
        }
        self.real: Mapping[Split, Sequence[Path]] = {
            split: expand_files(files, config.ranges, config.axis)
            for split, files in (list_real(photos) if with_classes else {}).items()
        }
        self.build_dataset = partial(DistilledImages, PairedImages, self.real.get("train", ()), config.ranges[1])

    @classmethod
    def refuse_options(cls, config: DataConfig, method: str) -> None:
        """Refuses what is about label maps, and other ways to name pairs."""
        super().refuse_options(config, method)
        for name in ("source", "derive"):
            if getattr(config, name) is not None:
                raise UsageError(f"--data.{name}: distill learns from --data and --data.target; leave it out.")
