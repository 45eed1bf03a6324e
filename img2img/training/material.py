"""What a run trains on and is judged by: a paired or an unpaired data set."""

from collections.abc import Callable
from typing import Any, Protocol

from torch.utils.data import Dataset

from img2img.config import DataConfig
from img2img.data.check import DataReport, check_pairs
from img2img.data.check_labelled import check_labelled
from img2img.data.check_single import check_single
from img2img.data.check_unpaired import check_unpaired
from img2img.data.classes import declared
from img2img.data.dataset import PairedImages
from img2img.data.folders import Pair, PairedFolder, Split, existing_folder, find_pairs, hold_out
from img2img.data.labelled import find_labelled, label_sides
from img2img.data.single import SingleImages, find_single, hold_out_single
from img2img.data.transforms import JointTransform
from img2img.data.unpaired import UnpairedFolder, UnpairedImages, find_unpaired, hold_out_images
from img2img.errors import UsageError, listed
from img2img.methods.base import Role
from img2img.training.validation import Trial

Ticker = Callable[[int], Callable[[], None]]


class Material(Protocol):
    """The data of a run; `choose` comes after `check`."""

    def check(self, progress: Ticker | None) -> DataReport:
        """Reads every file and says what is wrong."""
        ...

    def choose(self, holdout: float) -> None:
        """Divides it into what is trained on and what is validated on."""
        ...

    def train_set(self, transform: JointTransform, in_channels: int, out_channels: int, seed: int) -> Dataset[Any]:
        """The samples to train on."""
        ...

    def trial(self, role: Role) -> Trial:
        """What a translator is tried on; without a validation split, what it was trained on, not to be scored."""
        ...

    @property
    def length(self) -> int:
        """Samples of an epoch."""
        ...

    def described(self) -> str:
        """What is trained on, for a person."""
        ...


class PairedMaterial:
    """Pairs, of images or of label maps and images, for methods that learn from the truth."""

    def __init__(self, data: DataConfig) -> None:
        self.data = data
        self.splits = find_labels(data)
        self.labelled = bool(self.splits)
        if not self.labelled:
            self.splits = find_pairs(
                data.path, source=data.source, target=data.target, derive=data.derive, direction=data.direction
            )

    def check(self, progress: Ticker | None) -> DataReport:
        if not self.labelled:
            return check_pairs(self.splits, progress)
        data = self.data
        classes = declared(data.classes, data.path, data.ignore_label)
        return check_labelled(self.splits, classes, data.ignore_label, progress)

    def choose(self, holdout: float) -> None:
        if "train" not in self.splits:
            raise UsageError(f"there is no train split, only {listed(list(self.splits))}.")
        train, name = self.splits["train"], ""
        validation: list[Pair] = []
        if "val" in self.splits and self.splits["val"].pairs:
            validation, name = self.splits["val"].pairs, "val"
        elif holdout:
            train, held = hold_out(train, holdout)
            validation, name = held.pairs, "train, held out"
        elif "test" in self.splits and self.splits["test"].pairs:
            validation, name = self.splits["test"].pairs, "test"
        self.train, self.validation = train.pairs, Trial(validation, True, [pair.target for pair in validation], name)

    def train_set(self, transform: JointTransform, in_channels: int, out_channels: int, seed: int) -> PairedImages:
        return PairedImages(self.train, transform, in_channels, out_channels, seed)

    def trial(self, role: Role) -> Trial:
        return self.validation if self.validation.pairs else Trial(self.train, True, [], "")

    @property
    def length(self) -> int:
        return len(self.train)

    def described(self) -> str:
        return f"{len(self.train)} pairs"


def find_labels(data: DataConfig) -> dict[Split, PairedFolder]:
    """The pairs of label maps and images, if that is what the data are.

    Raises:
        UsageError: if settings were given that label maps have no use for, or others that only they have.
    """
    found: dict[Split, PairedFolder] = {}
    if data.labels or data.instances or (data.path and not data.derive and label_sides(existing_folder(data.path))):
        found = find_labelled(
            data.path,
            labels=data.labels,
            instances=data.instances,
            target=data.target,
            with_instances=data.use_instances,
        )
    wrong: dict[str, Any] = {"source": data.source, "direction BtoA": data.direction == "BtoA", "derive": data.derive}
    wrong |= {"in-channels": data.in_channels, "colour-jitter": data.colour_jitter}
    only: dict[str, Any] = {"classes": data.classes, "ignore-label": data.ignore_label, "instances": data.instances}
    for name, given in wrong.items() if found else only.items():
        if given not in (None, False, 0.0) or (not found and given is not None):
            what = "these are label maps" if found else "these are no label maps (train_label, train_img)"
            raise UsageError(f"--{'' if name.startswith('direction') else 'data.'}{name}: {what}; leave it out.")
    return found


class UnpairedMaterial:
    """Two kinds of images, for methods that know no truth."""

    def __init__(self, data: DataConfig) -> None:
        self.splits = find_unpaired(data.path, source=data.source, target=data.target, direction=data.direction)

    def check(self, progress: Ticker | None) -> DataReport:
        return check_unpaired(self.splits, progress)

    def choose(self, holdout: float) -> None:
        if "train" not in self.splits:
            raise UsageError(f"there is no train split, only {listed(list(self.splits))}.")
        self.train, self.name = self.splits["train"], ""
        self.validation: UnpairedFolder | None = None
        if "val" in self.splits and _full(self.splits["val"]):
            self.validation, self.name = self.splits["val"], "val"
        elif holdout:
            self.train, self.validation = hold_out_images(self.train, holdout)
            self.name = "train, held out"
        elif "test" in self.splits and _full(self.splits["test"]):
            self.validation, self.name = self.splits["test"], "test"

    def train_set(self, transform: JointTransform, in_channels: int, out_channels: int, seed: int) -> UnpairedImages:
        train = self.train
        return UnpairedImages(train.sources, train.targets, transform, in_channels, out_channels, seed)

    def trial(self, role: Role) -> Trial:
        folder = self.validation or self.train
        sides = (folder.sources, folder.targets)
        sources, targets = sides if role != "B2A" else sides[::-1]
        partners = {p.source: p.target for p in folder.pairs} | {p.target: p.source for p in folder.pairs}
        pairs = [Pair(file.stem, file, partners.get(file, file)) for file in sources]
        return Trial(pairs, False, targets, self.name)

    @property
    def length(self) -> int:
        return max(len(self.train.sources), len(self.train.targets))

    def described(self) -> str:
        return f"{len(self.train.sources)} source and {len(self.train.targets)} target images, unpaired"


class SingleMaterial:
    """Images of one kind, for methods that make such from noise."""

    def __init__(self, data: DataConfig, with_classes: bool) -> None:
        self.splits = find_single(data.path, with_classes)

    def check(self, progress: Ticker | None) -> DataReport:
        return check_single(self.splits, progress)

    def choose(self, holdout: float) -> None:
        if "train" not in self.splits:
            raise UsageError(f"there is no train split, only {listed(list(self.splits))}.")
        self.train = self.splits["train"]
        self.validation, self.name = self.train, ""
        for split in ("val", "test"):
            if (
                not self.name
                and split in self.splits
                and self.splits[split].files
                and not (holdout and split == "test")
            ):
                self.validation, self.name = self.splits[split], split
        if holdout and not self.name:
            self.train, self.validation = hold_out_single(self.train, holdout)
            self.name = "train, held out"

    def train_set(self, transform: JointTransform, in_channels: int, out_channels: int, seed: int) -> SingleImages:
        return SingleImages(self.train, transform, out_channels, seed)

    def trial(self, role: Role) -> Trial:
        return Trial([], False, self.validation.files, self.name)

    @property
    def length(self) -> int:
        return len(self.train.files)

    def described(self) -> str:
        classes = f" of {len(self.train.classes)} classes" if self.train.classes else ""
        return f"{len(self.train.files)} images{classes}"


def _full(folder: UnpairedFolder) -> bool:
    return bool(folder.sources and folder.targets)
