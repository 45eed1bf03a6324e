"""How good a translator is on a paired split, or how near one folder of images is to another."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise, starmap
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from rich.progress import track
from torch import Tensor, nn

from img2img.core.device import choose_device, tune_allocator
from img2img.core.downloads import announce
from img2img.core.errors import UsageError, UserError
from img2img.core.files import write_whole
from img2img.data.base import HELD_OUT, Direction, Pair, divide_splits
from img2img.data.labelled import find_labelled, read_labelled_validation_pair
from img2img.data.layouts import LABEL_LAYOUTS, Split
from img2img.data.paired import PairedFolder, explain_no_pairs, find_pairs, hold_out, match, read_validation_pair
from img2img.data.unpaired import find_unpaired, hold_out_images
from img2img.images import Array, read_image
from img2img.interop import load_translator
from img2img.methods import METHODS, load_method
from img2img.metrics.distribution import FEWEST, Features, distances, find_weights, make_extractor
from img2img.metrics.distribution import features as features_of
from img2img.metrics.lpips import Lpips
from img2img.metrics.paired import Scores, are_comparable, finite, mean, score
from img2img.metrics.perceptual import PerceptualDistance
from img2img.metrics.segmentation import Agreement, Segmenter
from img2img.models import Mode, Style, Translator, TranslatorConfig, has_both_directions

STYLES = 5  # in which an image is translated to see how diverse they are
SOURCES = 100  # images of which that is seen
S = TypeVar("S")

Look = Callable[[str, Array | None, Array, Array | None, Scores | None], None]
"""Is shown each image: its name, the source, what was made of it, the target, and the scores; what there isn't is None."""


@dataclass
class Evaluation:
    """Scores, their mean, and what could not be scored."""

    metrics: dict[str, float]
    """The means of pairs: L1 of values in [0, 1], PSNR in dB, SSIM, perceptual distance, LPIPS if it was asked for; with random styles, their diversity; with features, KID and FID of all."""
    copy_input: dict[str, float] | None
    """The same for the sources taken as they are: what a translator has to beat. None for two folders."""
    images: dict[str, Scores]
    """By name; none of samples, which are scored as a set."""
    failed: dict[str, str] = field(default_factory=dict)
    """By name, why it could not be scored."""
    real: dict[str, float] | None = None
    """What a segmenter finds in the real images: nobody can be better."""
    about: dict[str, Any] = field(default_factory=dict)
    """What was evaluated."""

    def write(self, path: Path) -> None:
        """Writes `values` as JSON."""
        write_json(path, self.values())

    def values(self) -> dict[str, Any]:
        """``metrics``, ``copy_input``, ``images``, ``failed`` and what was evaluated; None where a score is not finite."""
        return {
            "metrics": finite(self.metrics),
            "copy_input": finite(self.copy_input) if self.copy_input else None,
            **({"real": finite(self.real)} if self.real else {}),
            **self.about,
            "failed": self.failed,
            "images": {name: finite(scores) for name, scores in self.images.items()},
        }

    def rows(self, name: str) -> dict[str, dict[str, float]]:
        """Means by what was scored, for a table; `name` is what the evaluated is called."""
        found = {name: self.metrics, "copy of the input": self.copy_input, "real images": self.real}
        return {row: scores for row, scores in found.items() if scores}


def write_json(path: Path, values: Any) -> None:
    """Writes a file of JSON, whole or not at all."""
    write_whole(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def evaluate(
    translator: Translator | Path | str,
    data: Path | str,
    *,
    split: Split | None = None,
    holdout: float = 0.0,
    direction: Direction | None = None,
    size: int | None = None,
    mode: Mode | None = None,
    seed: int = 0,
    style: Style | None = None,
    nfe: int | None = None,
    features: Features | None = None,
    feature_weights: Path | None = None,
    segmenter: Segmenter | None = None,
    lpips: Lpips | None = None,
    device: str = "auto",
    progress: bool = False,
    look: Look | None = None,
) -> Evaluation:
    """Scores a translator on a data set, at the images' own size unless `size` is given.

    Args:
        translator: one that is loaded, or the folder of one, or of a run.
        data: the data set's folder, in any layout that training takes.
        split: train, val or test; by default val if there is one, else test, else train.
        holdout: without a val split, score what training held out with the same share.
        direction: by default the one that the translator was trained in; picks the translator of a run that learned both.
        size: scale the pairs' shorter side to so many pixels, as in training.
        mode: ``eval`` or ``paper``; by default the translator's own.
        seed: of mode ``paper``, and of the noise of a translator that takes several steps.
        style: as of `Translator.with_style`.
        nfe: as of `Translator.with_nfe`.
        features: compare translations and targets as sets, too (KID and FID), by the features that
            `metrics.distribution.find_weights` names; by default lite where there are no pairs and the method expects none.
        feature_weights: a file of their network's weights.
        segmenter: of a translator of label maps: finds labels in images, which are compared with those that they were made from (mean IoU,
            pixel accuracy); of the real images, too, for nobody can be better than the segmenter is on them.
        lpips: also scores pairs; `metrics.lpips.make_lpips` makes one.
        device: where to run.
        progress: whether to show a progress bar.
        look: is shown each image, such as `pages.gallery.Gallery`.

    Raises:
        UsageError: if there is nothing to evaluate.
    """
    tune_allocator()
    if size is not None and size < 1:
        raise UsageError(f"--size {size}: give the pixels of the shorter side.")
    if not isinstance(translator, Translator):
        both_ways = has_both_directions(translator)
        translator = load_translator(translator, choose_device(device), direction=direction if both_ways else None)
    translator = translator if style is None else translator.with_style(style)
    translator = translator if nfe is None else translator.with_nfe(nfe)
    translator.chosen_domain()
    config = translator.config
    splits = _splits(Path(data), config, direction)
    learns_pairs = _learns_pairs(config)
    folder, chosen = choose_split(
        data, splits, split, holdout,
        lambda each: bool(each.pairs) or not learns_pairs,
        hold_out if learns_pairs else lambda each, share: (each, replace(each, pairs=[])),
    )  # fmt: skip
    pairs, targets = folder.pairs, [pair.target for pair in folder.pairs]
    if not pairs:
        if features is None:
            _refuse_missing_pairs(config, folder)
        features = features or "lite"
        ranges = config.in_range, config.out_range
        found = find_unpaired(Path(data), direction=direction or config.direction, ranges=ranges, axis=config.axis)
        sides = hold_out_images(found["train"], holdout)[1] if chosen == HELD_OUT else found[cast(Split, chosen)]
        limits = config.in_range
        pairs = [Pair(file.stem, file, file, ranges=(limits, limits)) for file in sides.sources]
        targets = list(sides.targets)
    diversity = _Diversity(translator, mode, seed) if translator.draws_styles and style is None else None
    sets = _Sets(features, feature_weights, translator.device) if features else None
    paired = bool(folder.pairs)
    distance = PerceptualDistance().to(translator.device) if paired else None
    if lpips and not paired:
        raise UsageError(f"--lpips compares pairs, and there are none in {chosen}; leave it out.")
    published = lpips.to(translator.device) if lpips else None
    agreement = _Agreements(segmenter, translator) if segmenter is not None else None
    read_pair = read_validation_pair if config.classes is None else read_labelled_validation_pair

    def read(pair: Pair, in_channels: int) -> tuple[Array, Array]:
        return read_pair(pair, size, config.resize, in_channels, translator.out_channels)

    def both(pair: Pair) -> tuple[Scores | None, Scores | None]:
        source, target = read(pair, translator.in_channels)
        done = translator.translate_scaled(source, mode=mode, seed=seed)
        if sets:
            sets.add(done, None if pair.labels else source, target if paired else None)
        if diversity:
            diversity.add(source)
        if agreement:
            agreement.add(done, target, source[..., 0])
        comparable = paired and not pair.labels and are_comparable(source, target)
        copied = score(source, target, distance, published) if comparable else None
        scores = score(done, target, distance, published) if paired else None
        if look:
            shown = source if config.classes is None else config.classes.paint(source[..., 0])
            look(pair.name if paired else str(pair.source), shown, done, target if paired else None, scores)
        return scores, copied

    about: dict[str, Any] = {
        "data": str(data),
        "split": chosen,
        "direction": direction or config.direction,
        "size": size,
        **({"lpips_network": lpips.network} if lpips else {}),
    }
    if chosen == "train" and split is None:
        about["remark"] = (
            "There is no val or test split. If the model was trained on these images, new ones will score worse."
        )
    named = {pair.name if paired else str(pair.source): pair for pair in pairs}
    evaluation = _collect(named, both, about, progress, lpips)
    if agreement:
        evaluation.metrics |= agreement.made.scores()
        evaluation.real = agreement.real.scores()
    if diversity:
        evaluation.metrics["diversity"] = diversity.mean()
    if sets:
        if not paired:
            for file in targets:
                real = Pair(file.stem, file, file, ranges=(config.out_range, config.out_range))
                sets.truth.append(sets.look(read(real, translator.out_channels)[1]))
        evaluation.about["features"] = sets.kind
        evaluation.metrics |= sets.distances(sets.images)
        if "kid" not in evaluation.metrics:
            counts = f"{len(sets.images)} and {len(sets.truth)}"
            raise UsageError(
                f"KID and FID need at least {FEWEST} images a side, but there are {counts} in {chosen}; take another --split, or more images."
            )
        if config.classes is None:
            evaluation.copy_input = (evaluation.copy_input or {}) | sets.distances(sets.copies)
    return evaluation


def choose_split(
    data: Path | str,
    splits: Mapping[Split, S],
    split: Split | None,
    holdout: float,
    is_usable: Callable[[S], bool],
    hold_out: Callable[[S, float], tuple[S, S]],
) -> tuple[S, str]:
    """What is scored, and where it comes from: val if there is one, else test, else train; with `holdout` as `data.base.divide_splits` has it.

    Raises:
        UsageError: if there is no such split, or nothing can have been held out.
    """
    if not 0 <= holdout < 1:
        raise UsageError(f"--holdout {holdout:g}: give the share that --data.holdout had, from 0 to 1.")
    if split and holdout:
        raise UsageError(f"--holdout is of what training held out of its own split; leave out --split {split}.")
    if holdout:
        divided: tuple[S, S | None, str] = divide_splits(splits, holdout, is_usable, hold_out)
        assert divided[1] is not None
        return divided[1], divided[2]
    order: list[Split] = [split] if split else ["val", "test", "train"]
    for name in order:
        if name in splits:
            return splits[name], name
    raise UsageError(f"{data} has no split {' or '.join(order)}; it has {', '.join(splits)}.")


def _learns_pairs(config: TranslatorConfig) -> bool:
    return config.classes is not None or config.method not in METHODS or load_method(config.method).best_by != "kid"


def _refuse_missing_pairs(config: TranslatorConfig, split: PairedFolder) -> None:
    """Refuses a split without pairs, unless the translator was trained without them."""
    if not _learns_pairs(config):
        return
    has_sets = config.classes is None and bool(split.unmatched)
    advice = " --features lite compares whole sets, without pairs." if has_sets else ""
    raise UsageError(explain_no_pairs(split) + advice)


def _splits(data: Path, config: TranslatorConfig, direction: Direction | None) -> dict[Split, PairedFolder]:
    """The splits that a translator can be scored on.

    Raises:
        UsageError: if the folder holds label maps and it takes images, or the other way round.
    """
    if config.classes is None:
        ranges = config.in_range, config.out_range
        try:
            return find_pairs(
                data, direction=direction or config.direction, derive=config.derive, ranges=ranges, axis=config.axis
            )
        except UsageError as error:
            if not config.domains:
                raise
            advice = "A translator between domains is scored on two folders: testA with sources, testB with real images of the one that --style names."
            raise UsageError(f"{error} {advice}") from None
    splits = find_labelled(data, with_instances=config.edges, limits=config.out_range)
    if not splits:
        raise UsageError(
            f"this translator takes label maps, and {data} holds none in a layout that is known: {LABEL_LAYOUTS}."
        )
    return splits


class _Agreements:
    """How a segmenter reads translations, and real images."""

    def __init__(self, segmenter: Segmenter, translator: Translator) -> None:
        classes = translator.config.classes
        if classes is None:
            raise UsageError("a segmenter compares labels, but this translator takes images; leave it out.")
        if translator.config.out_range is not None:
            raise UsageError("a segmenter reads images, but this translator makes measurements; leave it out.")
        if isinstance(segmenter, nn.Module):
            segmenter = segmenter.to(translator.device).eval()
        self.classes = classes
        self.made, self.real = (Agreement(segmenter, classes.count, translator.device) for _ in range(2))

    def add(self, image: Array, target: Array, labels: Array) -> None:
        known = self.classes.known(labels)
        self.made.add(image, known)
        self.real.add(target, known)


class _Diversity:
    """How unlike translations of one image in different styles look, as BicycleGAN's paper measures it (Zhu et al. 2017, §5.2).

    It is the mean perceptual distance between neighbours of `STYLES` translations in random styles, of the first `SOURCES` images.
    """

    def __init__(self, translator: Translator, mode: Mode | None, seed: int) -> None:
        self.translators = [translator.with_style(number) for number in range(STYLES)]
        self.distance = PerceptualDistance().to(translator.device)
        self.mode, self.seed = mode, seed
        self.found: list[float] = []

    def add(self, source: Array) -> None:
        if len(self.found) < SOURCES:
            made = [each.translate_scaled(source, mode=self.mode, seed=self.seed) for each in self.translators]
            self.found.append(sum(starmap(self.distance, pairwise(made))) / (STYLES - 1))

    def mean(self) -> float:
        return sum(self.found) / len(self.found)


class _Sets:
    """Features of translations, of their sources, and of the targets."""

    def __init__(self, kind: Features, weights: Path | None, device: torch.device) -> None:
        file = find_weights(kind, weights, announce)
        self.kind, self.extractor, self.device = kind, make_extractor(kind, file).to(device), device
        self.images: list[Tensor] = []
        self.copies: list[Tensor] = []
        self.truth: list[Tensor] = []

    def look(self, image: Array) -> Tensor:
        return features_of(self.extractor, [image], self.device)

    def add(self, image: Array, source: Array | None, target: Array | None) -> None:
        self.images.append(self.look(image))
        self.copies += [] if source is None else [self.look(source)]
        self.truth += [] if target is None else [self.look(target)]

    def distances(self, found: list[Tensor]) -> dict[str, float]:
        return distances(torch.cat(found), torch.cat(self.truth)) if found and self.truth else {}


def compare(
    images: Path | str,
    truth: Path | str,
    *,
    lpips: Lpips | None = None,
    device: str = "auto",
    progress: bool = False,
    look: Look | None = None,
) -> Evaluation:
    """Scores a folder of images against another, matched by stem.

    Args:
        images: a folder.
        truth: another.
        lpips: as of `evaluate`.
        device: where to run.
        progress: whether to show a progress bar.
        look: is shown each image, such as `pages.gallery.Gallery`.

    Raises:
        UsageError: if a folder is missing, or nothing matches.
    """
    folders = Path(images), Path(truth)
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no such folder.")
    found = match(*folders)
    if not found.pairs:
        raise UsageError(explain_no_pairs(found))

    chosen = choose_device(device)
    distance, published = PerceptualDistance().to(chosen), lpips.to(chosen) if lpips else None
    about = {"data": str(images), "truth": str(truth), **({"lpips_network": lpips.network} if lpips else {})}

    def one(pair: Pair) -> tuple[Scores, None]:
        image, target = read_image(pair.source), read_image(pair.target)
        scores = score(image, target, distance, published)
        if look:
            look(pair.name, None, image, target, scores)
        return scores, None

    evaluation = _collect({pair.name: pair for pair in found.pairs}, one, about, progress, lpips)
    evaluation.failed |= {str(file): "it has no partner of the same name" for file in found.unmatched}
    evaluation.failed |= dict.fromkeys(found.ambiguous, "several files of one side share this name")
    return evaluation


def _collect(
    pairs: dict[str, Pair],
    measure: Callable[[Pair], tuple[Scores | None, Scores | None]],
    about: dict[str, Any],
    progress: bool,
    lpips: Lpips | None,
) -> Evaluation:
    images: dict[str, Scores] = {}
    copies: list[Scores] = []
    failed: dict[str, str] = {}
    for name, pair in _show_progress(pairs, progress):
        try:
            scores, copied = measure(pair)
        except UserError as error:
            failed[name] = str(error)
            continue
        images |= {name: scores} if scores else {}
        copies += [copied] if copied else []
    if len(failed) == len(pairs):
        name, reason = next(iter(failed.items()))
        raise UsageError(f"nothing could be scored: {'' if name in reason else f'{name}: '}{reason}")
    missing = sum(math.isnan(scores.get("lpips", 0)) for scores in images.values())
    if lpips and missing:
        remark = f"{missing} of {len(images)} images have no LPIPS: --lpips {lpips.network} needs {lpips.smallest} pixels a side."
        about = {**about, "remark": " ".join([*filter(None, [about.get("remark")]), remark])}
    return Evaluation(
        _plain(list(images.values())),
        _plain(copies) or None,
        images,
        failed,
        about={**about, "count": len(pairs) - len(failed)},
    )


def _plain(scores: list[Scores]) -> dict[str, float]:
    return {name: float(value) for name, value in mean(scores).items()} if scores else {}  # type: ignore[arg-type]


def _show_progress(pairs: dict[str, Pair], progress: bool) -> Iterator[tuple[str, Pair]]:
    yield from track(list(pairs.items()), "evaluating", transient=True, disable=not progress)
