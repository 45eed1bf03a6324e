"""How good a translator is on a paired split, or how near one folder of images is to another."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from rich.progress import track

from img2img.data.dataset import validation_pair
from img2img.data.folders import Direction, Pair, Split, find_pairs, match, no_pairs_sentence
from img2img.errors import UsageError, UserError
from img2img.files import write_whole
from img2img.images import read_image
from img2img.machine import choose_device, tune_allocator
from img2img.metrics.paired import Scores, finite, mean, score
from img2img.translator import Mode, Translator, has_both_directions, load


@dataclass
class Evaluation:
    """Scores, their mean, and what could not be scored."""

    metrics: Scores
    """The means: L1 of values in [0, 1], PSNR in dB, SSIM."""
    copy_input: Scores | None
    """The same for the sources taken as they are: what a translator has to beat. None for two folders."""
    images: dict[str, Scores]
    """By name."""
    failed: dict[str, str] = field(default_factory=dict)
    """By name, why it could not be scored."""
    about: dict[str, Any] = field(default_factory=dict)
    """What was evaluated."""

    def write(self, path: Path) -> None:
        """JSON: ``metrics``, ``copy_input``, ``images``, ``failed`` and what was evaluated; null where a score is not finite."""
        values = {
            "metrics": finite(self.metrics),
            "copy_input": finite(self.copy_input) if self.copy_input else None,
            **self.about,
            "count": len(self.images),
            "failed": self.failed,
            "images": {name: finite(scores) for name, scores in self.images.items()},
        }
        write_whole(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def evaluate(
    translator: Translator | Path | str,
    data: Path | str,
    *,
    split: Split | None = None,
    direction: Direction | None = None,
    size: int | None = None,
    mode: Mode | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> Evaluation:
    """Scores a translator on a paired data set, at the images' own size unless `size` is given.

    Args:
        translator: one that is loaded, or the folder of one, or of a run.
        data: the data set's folder, in any layout that training takes.
        split: train, val or test; by default val if there is one, else test, else train.
        direction: by default the one that the translator was trained in; picks the translator of a run that learned both.
        size: scale the pairs' shorter side to so many pixels, as in training.
        mode: ``eval`` or ``paper``; by default the translator's own.
        seed: of mode ``paper``.
        device: where to run.
        progress: whether to show a progress bar.

    Raises:
        UsageError: if there is nothing to evaluate.
    """
    tune_allocator()
    if size is not None and size < 1:
        raise UsageError(f"--size {size}: give the pixels of the shorter side.")
    if not isinstance(translator, Translator):
        both_ways = has_both_directions(translator)
        translator = load(translator, choose_device(device), direction=direction if both_ways else None)
    config = translator.config
    splits = find_pairs(Path(data), direction=direction or config.direction, derive=config.derive)
    chosen = split or next(name for name in ("val", "test", "train") if name in splits)
    if chosen not in get_args(Split) or chosen not in splits:
        raise UsageError(f"{data} has no split {chosen}; it has {', '.join(splits)}.")
    folder = splits[chosen]
    if not folder.pairs:
        raise UsageError(no_pairs_sentence(folder))

    def both(pair: Pair) -> tuple[Scores, Scores | None]:
        source, target = validation_pair(pair, size, config.resize, translator.in_channels, translator.out_channels)
        copied = score(source, target) if _comparable(source.shape[2], target.shape[2]) else None
        return score(translator(source, mode=mode, seed=seed), target), copied

    named = {pair.name: pair for pair in folder.pairs}
    about = {"data": str(data), "split": chosen, "direction": direction or config.direction, "size": size}
    return _collect(named, both, about, progress)


def compare(images: Path | str, truth: Path | str, *, progress: bool = False) -> Evaluation:
    """Scores a folder of images against another, matched by stem.

    Raises:
        UsageError: if a folder is missing, or nothing matches.
    """
    folders = Path(images), Path(truth)
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no such folder.")
    found = match(*folders)
    if not found.pairs:
        raise UsageError(no_pairs_sentence(found))

    def one(pair: Pair) -> tuple[Scores, None]:
        return score(read_image(pair.source), read_image(pair.target)), None

    evaluation = _collect(
        {pair.name: pair for pair in found.pairs}, one, {"data": str(images), "truth": str(truth)}, progress
    )
    evaluation.failed |= {str(file): "it has no partner of the same name" for file in found.unmatched}
    evaluation.failed |= dict.fromkeys(found.ambiguous, "several files of one side share this name")
    return evaluation


def _collect(
    pairs: dict[str, Pair],
    measure: Callable[[Pair], tuple[Scores, Scores | None]],
    about: dict[str, Any],
    progress: bool,
) -> Evaluation:
    images: dict[str, Scores] = {}
    copies: list[Scores] = []
    failed: dict[str, str] = {}
    for name, pair in _watched(pairs, progress):
        try:
            images[name], copied = measure(pair)
        except UserError as error:
            failed[name] = str(error)
            continue
        copies += [copied] if copied else []
    if not images:
        raise UsageError(f"nothing could be scored: {next(iter(failed.values()))}")
    return Evaluation(mean(list(images.values())), mean(copies) if copies else None, images, failed, about)


def _watched(pairs: dict[str, Pair], progress: bool) -> Iterator[tuple[str, Pair]]:
    yield from track(list(pairs.items()), "evaluating", transient=True, disable=not progress)


def _comparable(source: int, target: int) -> bool:
    """Whether an image of so many channels can be converted to one of the other number."""
    return source <= 4 and target <= 4
