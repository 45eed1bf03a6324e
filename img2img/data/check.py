"""What is wrong with a data set, found before training starts."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from img2img.data.classes import Classes
from img2img.data.folders import Derivation, Pair, PairedFolder, Split, no_pairs_sentence
from img2img.errors import listed
from img2img.images import ImageError, read_image

Item = TypeVar("Item")
Fact = TypeVar("Fact")

SMALL = 16  # pixels below which a side teaches nothing


@dataclass(frozen=True)
class Problem:
    """One finding: an error makes training impossible, a warning doesn't."""

    level: Literal["error", "warning"]
    text: str


@dataclass(frozen=True)
class ImageFacts:
    """What decoding a file told: height, width, channels, bits, and a digest of its pixels."""

    height: int
    width: int
    channels: int
    bits: int
    digest: str


@dataclass
class DataReport:
    """The outcome of a check."""

    splits: dict[Split, int] = field(default_factory=dict)
    """Pairs in each split; of an unpaired set the images of the larger side."""
    in_channels: int = 3
    """Channels of the sources: the most frequent number; derived sources are gray but for lowres."""
    out_channels: int = 3
    """Channels of the targets: the most frequent number."""
    sizes: str = ""
    """The sizes of the targets, for a person."""
    classes: Classes | None = None
    """Of label maps."""
    edges: bool = False
    """Whether all label maps have instance maps, whose edges are one more channel of the source."""
    names: tuple[str, ...] = ()
    """Of images of one kind: their classes."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """The sentences that say why training can't work."""
        return [problem.text for problem in self.problems if problem.level == "error"]

    @property
    def warnings(self) -> list[str]:
        """The sentences that say what a person should know."""
        return [problem.text for problem in self.problems if problem.level == "warning"]


def check_pairs(
    splits: dict[Split, PairedFolder], progress: Callable[[int], Callable[[], None]] | None = None
) -> DataReport:
    """Reads every file of a paired data set and says what can't work and what may surprise.

    Args:
        splits: what `find_pairs` found.
        progress: is told the number of files, and gives a function that is called after each.

    Returns:
        The report; nothing is raised for bad files.
    """
    report = DataReport()
    files = {file for folder in splits.values() for pair in folder.pairs for file in (pair.source, pair.target)}
    facts, unreadable = read_facts(sorted(files), progress)
    add = report.problems.append
    for split, folder in splits.items():
        report.splits[split] = len(folder.pairs)
        if not folder.pairs:
            add(Problem("error" if split == "train" else "warning", f"{split}: {no_pairs_sentence(folder)}"))
        elif folder.unmatched:
            names = listed([str(file) for file in folder.unmatched], 3)
            add(
                Problem("warning", f"{split}: {len(folder.unmatched)} files have no partner and are left out: {names}.")
            )
        if folder.ambiguous:
            names = listed(folder.ambiguous, 3)
            add(Problem("warning", f"{split}: several files share a name on one side and are left out: {names}."))
    for _, reason in sorted(unreadable.items()):
        add(Problem("error", f"{reason} Repair it, or take it and its partner out of the data set."))
    pairs = [pair for folder in splits.values() for pair in folder.pairs if {pair.source, pair.target} <= facts.keys()]
    if pairs:
        report.problems += [*_sizes(pairs, facts), *_duplicates(splits, facts)]
        report.in_channels, report.out_channels = _channels(pairs, facts, report.problems)
        report.sizes = counted(f"{facts[pair.target].width}×{facts[pair.target].height}" for pair in pairs)
    return report


def read_facts(
    files: list[Path], progress: Callable[[int], Callable[[], None]] | None
) -> tuple[dict[Path, ImageFacts], dict[Path, str]]:
    """Decodes all files: what they told, and why some can't be read."""
    advance = progress(len(files)) if progress else lambda: None

    def read(file: Path) -> ImageFacts | str:
        try:
            array = read_image(file)
        except ImageError as error:
            return str(error)
        height, width, channels = array.shape
        digest = hashlib.blake2b(array.tobytes() + repr(array.shape).encode(), digest_size=16).hexdigest()
        return ImageFacts(height, width, channels, array.dtype.itemsize * 8, digest)

    return read_each(files, read, advance)


def read_each(
    items: Sequence[Item], read: Callable[[Item], Fact | str], advance: Callable[[], None]
) -> tuple[dict[Item, Fact], dict[Item, str]]:
    """Reads items side by side: what they told, and of those for which `read` gave a sentence, that."""
    facts: dict[Item, Fact] = {}
    unreadable: dict[Item, str] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for item, outcome in zip(items, pool.map(read, items), strict=True):
            if isinstance(outcome, str):
                unreadable[item] = outcome
            else:
                facts[item] = outcome
            advance()
    return facts, unreadable


def _sizes(pairs: list[Pair], facts: dict[Path, ImageFacts]) -> Iterator[Problem]:
    halves = [pair for pair in pairs if pair.half and facts[pair.source].width % 2]
    if halves:
        names = listed([str(pair.source) for pair in halves], 3)
        yield Problem("error", f"these side-by-side images have an odd width, so they have no two halves: {names}.")
    wide = [pair for pair in pairs if pair.half and facts[pair.source].width < 1.5 * facts[pair.source].height]
    if len(wide) > len(pairs) / 2:
        yield Problem(
            "warning",
            "most images are hardly wider than high; are they really pairs side by side? "
            "If each is a single image, --data.derive gray|edges|lowres makes pairs of them.",
        )
    differing = [pair for pair in pairs if not pair.half and _shape(facts[pair.source]) != _shape(facts[pair.target])]
    bent = [p for p in differing if abs(_aspect(facts[p.source]) / _aspect(facts[p.target]) - 1) > 0.02]
    for found, what in ((bent, "also differ in shape, and the source is bent to the target's"), (differing, "differ in size, and the source is scaled to the target's")):  # fmt: skip
        if found:
            name, a, b = found[0].name, facts[found[0].source], facts[found[0].target]
            example = f"{name}: {a.width}×{a.height} and {b.width}×{b.height}"
            yield Problem("warning", f"the images of {len(found)} pairs {what} ({example}).")
    same = [p for p in pairs if p.source != p.target and facts[p.source].digest == facts[p.target].digest]
    if same:
        names = listed([pair.name for pair in same], 3)
        yield Problem("warning", f"source and target of {len(same)} pairs are the same image: {names}.")
    tiny = [pair for pair in pairs if min(_shape(facts[pair.target])) < SMALL]
    if tiny:
        yield Problem(
            "warning", f"{len(tiny)} images are smaller than {SMALL} pixels: {listed([p.name for p in tiny], 3)}."
        )


def _channels(pairs: list[Pair], facts: dict[Path, ImageFacts], problems: list[Problem]) -> tuple[int, int]:
    chosen = [
        common_channels(side, [facts[getattr(pair, side)] for pair in pairs], problems) for side in ("source", "target")
    ]
    derive = pairs[0].derive
    return _derived_channels(derive, chosen[1]) if derive else chosen[0], chosen[1]


def common_channels(side: str, facts: Sequence[ImageFacts], problems: list[Problem]) -> int:
    """The most frequent number of channels; says where it, or the depth, is mixed."""
    counts = Counter(each.channels for each in facts)
    common = counts.most_common(1)[0][0]
    if len(counts) > 1:
        kinds = ", ".join(f"{number} of {KINDS[channels]}" for channels, number in counts.most_common())
        problems.append(Problem("warning", f"{side}: channels are mixed ({kinds}); all are used as {KINDS[common]}."))
    bits = Counter(each.bits for each in facts)
    if len(bits) > 1:
        problems.append(Problem("warning", f"{side}: {bits[16]} images have 16 bits a channel, {bits[8]} have 8."))
    return common


def _derived_channels(derive: Derivation, channels: int) -> int:
    return channels if derive == "lowres" else 1


KINDS = {1: "gray", 2: "gray with alpha", 3: "RGB", 4: "RGB with alpha"}


def _duplicates(splits: dict[Split, PairedFolder], facts: dict[Path, ImageFacts]) -> Iterator[Problem]:
    for side in ("source", "target"):
        where: dict[str, dict[Split, Path]] = defaultdict(dict)
        for split, folder in splits.items():
            for pair in folder.pairs:
                file: Path = getattr(pair, side)
                if file in facts:
                    where[facts[file].digest].setdefault(split, file)
        leaks = [tuple(found.values()) for found in where.values() if "train" in found and len(found) > 1]
        if leaks:
            example = " = ".join(str(file) for file in leaks[0])
            yield Problem(
                "warning",
                f"{side}: {len(leaks)} images stand in train and in another split, so scores there are too good ({example}).",
            )
        if side == "source" and all(pair.source == pair.target for folder in splits.values() for pair in folder.pairs):
            return


def _shape(facts: ImageFacts) -> tuple[int, int]:
    return facts.height, facts.width


def _aspect(facts: ImageFacts) -> float:
    return facts.width / facts.height


def counted(values: Iterable[str]) -> str:
    """The most frequent values and how often they come: ``128×128 (7), 64×64 (2)``."""
    counts = Counter(values).most_common()
    shown = ", ".join(f"{value} ({number})" for value, number in counts[:3])
    return shown if len(counts) <= 3 else f"{shown} and {len(counts) - 3} other sizes"
