"""What every kind of data promises: one protocol, one report, and the pieces that the kinds share."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.utils.data import Dataset
from tyro.conf import arg

from img2img.core.errors import UsageError, UserError, list_some
from img2img.core.settings import Strict
from img2img.core.stored import StoredPath, resolve_path
from img2img.data.classes import Classes
from img2img.data.facts import ImageFacts
from img2img.data.layouts import Split
from img2img.data.shards import split_name
from img2img.data.transforms import JITTER, Derivation, JointTransform, Resize
from img2img.images import Array
from img2img.images.bands import Range
from img2img.images.formats import split_ending
from img2img.images.nifti import Axis

Direction = Literal["AtoB", "BtoA"]
Progress = Callable[[int], Callable[[], None]]
"""Is told how many steps there are, and gives a function to be called after each."""
Batch = dict[str, Tensor]
S = TypeVar("S")
K = TypeVar("K")

HELD_OUT = "train, held out"
"""Where validation images come from that `--data.holdout` keeps."""
SAMPLE = 1000  # pairs, or images
SMALL = 16  # pixels below which a side teaches nothing
MOST_CHANNELS = 256


class DataConfig(Strict):
    """Which images, and how they are prepared. The geometry is the same for source and target."""

    path: Annotated[Path | None, arg(name="data", prefix_name=False)] = None
    """The data set's folder. Known layouts: trainA trainB, train/A train/B, train_A train_B, A B, train/ with pairs side by side; label maps: train_label train_inst train_img; the same with val and test."""
    source: Path | None = None
    """A folder of sources, with `--data.target` instead of `--data`; may have sub-folders train, val, test."""
    target: Path | None = None
    """A folder of targets; for pairs, with the same file names."""
    labels: Path | None = None
    """A folder of label maps instead of `--data.source`: gray or palette PNGs of indices. Of unpaired images, those of the sources, for `--semantic-weight`."""
    instances: Path | None = None
    """A folder of the instance maps that belong to `--data.labels`."""
    use_instances: bool = True
    """Show the network the edges of instances, if there are instance maps."""
    classes: int | Path | None = None
    """The number of labels, or a YAML table of their names and colours; by default `classes.yaml` in the data set's folder, else the number is guessed from the labels that occur."""
    ignore_label: int | None = Field(None, ge=-1, le=65535)
    """The label of pixels that have no class, such as 255."""
    derive: Derivation | None = None
    """Make the sources from a folder of images: gray (colourisation), edges (Canny), lowres (a quarter of the resolution)."""
    direction: Annotated[Direction, arg(name="direction", prefix_name=False)] = "AtoB"
    """AtoB translates A to B; BtoA the other way; cyclegan learns both."""
    size: Annotated[int, arg(name="size", prefix_name=False)] = Field(256, ge=8, le=8192)
    """Height and width of the training images in pixels."""
    width: Annotated[int | None, arg(name="width", prefix_name=False)] = Field(None, ge=8, le=8192)
    """Width of the training images in pixels, if they are not square; --size is their height then: --size 512 --width 1024."""
    resize: Resize = "short"
    """short: scale the shorter side, keep the aspect ratio; stretch: scale both sides; none: crop only."""
    jitter: float = Field(JITTER, ge=1, le=4)
    """Scale to this times the size before a random crop: 286/256 in the paper; 1 for no jitter."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    vertical_flip: float = Field(0.0, ge=0, le=1)
    """Probability of a vertical flip."""
    rotate: float = Field(0.0, ge=0, le=180)
    """Largest angle of a random rotation, in degrees."""
    quarter_turns: bool = False
    """Random rotation by 0, 90, 180 or 270 degrees."""
    colour_jitter: float = Field(0.0, ge=0, le=1)
    """Strength of random changes of brightness, contrast, saturation and hue; of the source alone."""
    holdout: float = Field(0.0, ge=0, lt=1)
    """Without a val split: the share of the training images to hold out for validation."""
    check: Literal["all", "sample"] = "all"
    """Which files are read before training, to find what is damaged or doesn't fit: all, once, or a sample of 1000 (pairs, or images). Those that aren't read can still stop the training."""
    in_channels: int | None = Field(None, ge=1, le=MOST_CHANNELS)
    """Channels of the source, 1 (gray) to 4 (RGB with alpha), or the number of its bands; by default those of most files."""
    out_channels: int | None = Field(None, ge=1, le=MOST_CHANNELS)
    """Channels of the target; by default those of most files."""
    range: Range | None = None
    """The files hold measurements, not colours: the values that become -1 and 1 in the network, such as -1000 3000. Every channel is a band, and outputs have such values again."""
    source_range: Range | None = None
    """The same of the sources alone."""
    target_range: Range | None = None
    """The same of the targets alone, such as 0 10000 of depth maps in mm."""
    axis: Axis = "axial"
    """How volumes (.nii, .nii.gz) are cut into slices: axial (across the body), coronal (side to side) or sagittal (front to back)."""

    @field_validator("path", "source", "target", "labels", "instances")
    @classmethod
    def _resolve(cls, path: Path | None) -> Path | None:
        return path and resolve_path(path)

    @field_validator("range", "source_range", "target_range")
    @classmethod
    def _order(cls, limits: Range | None) -> Range | None:
        if limits and not (all(map(math.isfinite, limits)) and limits[0] < limits[1]):
            raise ValueError("give two numbers, the lower one first")
        return limits

    @property
    def ranges(self) -> tuple[Range | None, Range | None]:
        """Of the sources, and of the targets; None for colours."""
        return self.source_range or self.range, self.target_range or self.range

    @property
    def size_text(self) -> str:
        """Of the training images, for a person."""
        return f"{self.width}×{self.size}" if self.width else str(self.size)

    @property
    def most_checked(self) -> int | None:
        """Pairs, or images, that are read before training; None for all."""
        return SAMPLE if self.check == "sample" else None

    @property
    def shorter_side(self) -> int:
        """Of the training images, in pixels."""
        return min(self.size, self.width or self.size)

    def build_transform(self) -> JointTransform:
        """The augmentation of training images."""
        return JointTransform(
            self.size, width=self.width, resize=self.resize, jitter=self.jitter, flip=self.flip,
            vertical_flip=self.vertical_flip, rotate=self.rotate, quarter_turns=self.quarter_turns,
            colour_jitter=self.colour_jitter,
        )  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One sample: two files, or one file that holds both halves, or one from which the source is derived."""

    name: str
    """The path below the folder without the suffix; pairs are matched by it."""
    source: Path
    target: Path
    half: Literal["", "AB", "BA"] = ""
    """Of a side-by-side file: which half is the source. AB: the left one."""
    derive: Derivation | None = None
    """How the source is made from the target, if it is."""
    labels: bool = False
    """Whether the source is a label map."""
    instances: Path | None = None
    """The instance map that belongs to the label map."""
    ranges: tuple[Range | None, Range | None] = (None, None)
    """Of source and target, as of `DataConfig.ranges`."""


@dataclass(frozen=True)
class Sample:
    """What a shard holds under one key."""

    key: str
    files: dict[str, Path]
    """By kind: source, target, label, inst, or empty for an image alone."""
    label: str = ""
    """The name of its class."""


ReadPair = Callable[[Pair, int | None, Resize, int, int, int | None], tuple[Array, Array]]
"""(pair, size, resize, in_channels, out_channels, width) → source and target, (H, W, C) of one size."""
BuildDataset = Callable[[Sequence[Pair], JointTransform, int, int, int], "Samples"]
"""(pairs, transform, in_channels, out_channels, seed) → samples."""


@dataclass(frozen=True)
class ValidationSet:
    """What a model is validated on."""

    pairs: Sequence[Pair]
    """What to translate; without a known target, source and target are the same file."""
    paired: bool
    """Whether every source has a known target."""
    targets: Sequence[Path]
    """Real images of the kind that the model should make."""
    split: str
    """Where they come from; empty if the model is trained on them, so that scores would mean nothing."""
    read: ReadPair
    """Reads a pair without augmentation."""
    build_dataset: BuildDataset
    """Makes samples of some pairs."""
    labels: Sequence[int] = ()
    """The class of each of `pairs` and `targets`, which are the same images then; empty if there are no classes."""

    def has_target(self, pair: Pair) -> bool:
        """Whether the pair's target is what its source should become."""
        return self.paired or pair.source != pair.target


@dataclass(frozen=True)
class Problem:
    """One finding: an error makes training impossible, a warning doesn't."""

    level: Literal["error", "warning"]
    text: str


@dataclass
class DataReport:
    """The outcome of a check."""

    splits: dict[Split, int] = field(default_factory=dict)
    """Samples in each split."""
    in_channels: int = 3
    """Channels of the sources: of label maps the planes that the network sees; else the most frequent number."""
    out_channels: int = 3
    """Channels of the targets: the most frequent number."""
    sizes: str = ""
    """The sizes of the images, for a person."""
    classes: Classes | None = None
    """Of label maps."""
    edges: bool = False
    """Whether all label maps have instance maps, whose edges are one more channel of the source."""
    source_classes: Classes | None = None
    """Of label maps that sources have, beside targets that don't belong to them."""
    names: tuple[str, ...] = ()
    """Of images in class folders: the classes."""
    summary: str = ""
    """Channels, classes and sizes, for a person."""
    problems: list[Problem] = field(default_factory=list)

    def add(self, level: Literal["error", "warning"], text: str) -> None:
        """Notes a finding."""
        self.problems.append(Problem(level, text))

    @property
    def errors(self) -> list[str]:
        """The sentences that say why training can't work."""
        return [problem.text for problem in self.problems if problem.level == "error"]

    @property
    def warnings(self) -> list[str]:
        """The sentences that say what a person should know."""
        return [problem.text for problem in self.problems if problem.level == "warning"]


class DataModule(Protocol):
    """One kind of data, opened: `check` comes first, then `divide`, then the sets.

    A method's settings name the kinds that it takes; nothing else asks which kind it is.
    """

    def __init__(self, config: DataConfig, with_classes: bool = True) -> None:
        """Finds the files.

        Raises:
            UsageError: if there are none in a layout of this kind.
        """

    @classmethod
    def recognises(cls, config: DataConfig) -> bool:
        """Whether these settings are about data of this kind; asked where a method takes several."""
        ...

    @classmethod
    def refuse_options(cls, config: DataConfig, method: str) -> None:
        """Refuses settings that don't apply to this kind."""
        ...

    def check(self, progress: Progress | None = None) -> DataReport:
        """Reads every file that isn't known already; says what can't work, and what may surprise."""
        ...

    def learn(self, report: DataReport) -> None:
        """Takes over what a check found, perhaps that of another process."""
        ...

    def divide(self, holdout: float) -> None:
        """Divides the data into what is trained on and what is validated on: once, for it forgets what it found.

        `check`, `describe_splits` and `list_samples` come before.

        Raises:
            UsageError: if there is nothing to train on, or too little to hold out.
        """
        ...

    def build_training_set(
        self, transform: JointTransform, in_channels: int, out_channels: int, seed: int
    ) -> Dataset[Any]:
        """The samples to train on."""
        ...

    def validation_set(self, direction: str) -> ValidationSet:
        """What a model of this direction is validated on; without a validation split, training images that are only looked at."""
        ...

    @property
    def length(self) -> int:
        """Samples in an epoch."""
        ...

    def describe(self) -> str:
        """What is trained on, for a person."""
        ...

    def describe_splits(self) -> list[str]:
        """What was found, a line a split."""
        ...

    def list_samples(self) -> dict[str, list["Sample"]]:
        """All samples, by the name that their shards get."""
        ...

    def encode(self, batch: Batch, dtype: torch.dtype) -> Batch:
        """A batch on the device as the method sees it."""
        ...


class ImageFolders:
    """What kinds of data whose sources are images share."""

    config: DataConfig

    def learn(self, report: DataReport) -> None:
        """Nothing is needed of it."""

    def encode(self, batch: Batch, dtype: torch.dtype) -> Batch:
        """Images stay as they are."""
        return batch


class Samples(Dataset[dict[str, Tensor]]):
    """A data set whose errors reach the training as sentences: a worker would wrap them in its traceback."""

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[dict[str, Tensor]] | UserError:
        """The samples of a batch, or the error that one of them raised."""
        try:
            return [self[key] for key in keys]  # type: ignore[index]
        except UserError as error:
            return error


def collate(samples: Sequence[Mapping[str, Any]] | UserError) -> Batch | UserError:
    """Stacks samples, name by name: (B, C, H, W), or (B,) of numbers; passes an error on."""
    if isinstance(samples, UserError):
        return samples
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def divide_splits(
    splits: Mapping[Split, S],
    holdout: float,
    is_usable: Callable[[S], bool],
    hold_out: Callable[[S, float], tuple[S, S]],
) -> tuple[S, S | None, str]:
    """Chooses what is trained on, what is validated on, and says where the latter comes from.

    Validation images are those of val, else held-out training images if `holdout` asks for them, else those of test.

    Raises:
        UsageError: if there is no train split.
    """
    if "train" not in splits:
        raise UsageError(f"there is no train split, only {list_some(list(splits))}.")
    train = splits["train"]
    if "val" in splits and is_usable(splits["val"]):
        return train, splits["val"], "val"
    if holdout:
        return *hold_out(train, holdout), HELD_OUT
    if "test" in splits and is_usable(splits["test"]):
        return train, splits["test"], "test"
    return train, None, ""


def name_keys(files: Sequence[Path]) -> list[str]:
    """Files' names in shards: their paths below the folder that they have in common, or as their shards call them."""
    if not files:
        return []
    root = os.path.commonpath([file.parent for file in files])
    return [
        split_name(file.member)[0]
        if isinstance(file, StoredPath) and file.member
        else split_ending(file.relative_to(root).as_posix())[0]
        for file in files
    ]


def choose_held_out(total: int, share: float, what: str) -> set[int]:
    """Evenly spaced places of a list of `total` to hold out.

    Raises:
        UsageError: if too few are there.
    """
    count = max(1, round(total * share))
    if count >= total:
        raise UsageError(f"--data.holdout {share}: {total} {what} are too few to hold some out.")
    return {round((k + 0.5) * total / count - 0.5) for k in range(count)}


def report_unreadable(report: DataReport, reasons: Iterable[str], partners: str) -> None:
    """Notes files that can't be read: one sentence for those that are alike."""
    for reason in group_reasons(list(reasons)):
        whole = "--data.range" in reason  # which is what to do
        report.add("error", reason if whole else f"{reason} Repair it, or remove it{partners} from the data set.")


def choose_sample(items: Sequence[S], most: int | None) -> Sequence[S]:
    """So many of a list, evenly spaced; all without a number, or if there are no more."""
    if most is None or len(items) <= most:
        return items
    return [items[place * len(items) // most] for place in range(most)]


def choose_sample_of_each(parts: Mapping[K, Sequence[S]], most: int | None) -> list[tuple[K, S]]:
    """So many of several lists together, evenly spaced, each with its list's name."""
    places = choose_sample(range(sum(map(len, parts.values()))), most)
    chosen, first, at = list[tuple[K, S]](), 0, 0
    for name, items in parts.items():
        end = at
        while end < len(places) and places[end] < first + len(items):
            end += 1
        chosen += [(name, items[place - first]) for place in places[at:end]]
        at, first = end, first + len(items)
    return chosen


def warn_of_sample(report: DataReport, read: int, files: int) -> None:
    """Notes that not all files were read, if they weren't."""
    if read < files:
        report.add(
            "warning",
            f"only {read:,} of {files:,} files were read (--data.check sample): others may be damaged, or of other sizes.",
        )


def group_reasons(reasons: list[str]) -> list[str]:
    """Sentences that begin with a file's path: one for all that are alike, with the first file, and the names of others."""
    alike: dict[str, list[str]] = {}
    for reason in reasons:
        file, _, rest = reason.partition(" ")
        alike.setdefault(rest, []).append(file.removesuffix(":"))
    found = []
    for rest, files in alike.items():
        beside = Path(files[0]).parent
        others = [Path(file) for file in files[1:]]
        names = list_some(
            [each.name if each.parent == beside else f"{each.parent.name}/{each.name}" for each in others], 3
        )
        more = f" The same holds for {len(others)} more: {names}." if others else ""
        first = next(reason for reason in reasons if reason.endswith(rest))
        found.append(f"{first}{more}")
    return found


def warn_of_leaks(
    report: DataReport, side: str, files: Iterable[tuple[Split, Path]], facts: Mapping[Path, ImageFacts]
) -> None:
    """Warns of images that are in the train split and in another one."""
    where: dict[str, dict[Split, Path]] = defaultdict(dict)
    for split, file in files:
        if file in facts:
            where[facts[file].digest].setdefault(split, file)
    leaks = [tuple(found.values()) for found in where.values() if "train" in found and len(found) > 1]
    if leaks:
        example = " = ".join(str(file) for file in leaks[0])
        report.add(
            "warning",
            f"{side}{count_images(len(leaks))} in train and in another split, so scores there are too good ({example}).",
        )


def count_images(count: int) -> str:
    """The beginning of a sentence about so many."""
    return f"{count} image{'s are' if count > 1 else ' is'}"


def count_sizes(facts: Iterable[Any]) -> str:
    """The most frequent sizes and how often they occur: ``128×128 (7), 64×64 (2)``."""
    counts = Counter(f"{each.width}×{each.height}" for each in facts).most_common()
    shown = ", ".join(f"{value} ({number})" for value, number in counts[:3])
    return shown if len(counts) <= 3 else f"{shown} and {len(counts) - 3} other sizes"
