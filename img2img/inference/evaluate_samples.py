"""How good samples are: they are compared, as a set, with real images."""

from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn

from img2img.core.device import choose_device, tune_allocator
from img2img.core.downloads import announce
from img2img.core.errors import UsageError
from img2img.data.class_folders import ClassFolder, find_class_folders, hold_out_files, read_plain_images
from img2img.data.layouts import Split
from img2img.inference.evaluate import Evaluation, choose_split
from img2img.inference.path_length import perceptual_path_length
from img2img.interop import resolve_model
from img2img.metrics.distribution import (
    FEATURE_NAMES,
    FEWEST,
    Features,
    distances,
    features_and_logits,
    find_weights,
    make_extractor,
)
from img2img.metrics.distribution import features as features_of
from img2img.metrics.reference import cache_features
from img2img.metrics.samples import inception_score, precision_recall
from img2img.models import NoiseGenerator

ENOUGH = 10_000  # images from which on FID's bias is small
AT_ONCE = 64


def evaluate_samples(
    generator: NoiseGenerator | Path | str,
    data: Path | str,
    *,
    split: Split | None = None,
    holdout: float = 0.0,
    count: int | None = None,
    seed: int = 0,
    truncation: float | None = None,
    features: Features | nn.Module = "lite",
    feature_weights: Path | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Evaluation:
    """Compares samples with the images of a data set: KID, FID, precision and recall, and with Inception the Inception Score; with styles the perceptual path length.

    Args:
        generator: one that is loaded, or the folder of one, or of a run.
        split: train, val or test; by default val if there is one, else test, else train.
        holdout: without a val split, compare with what training held out with the same share.
        count: how many samples; by default as many as there are real images.
        truncation: as of `NoiseGenerator.sample`.
        features: whose features are compared: as `metrics.distribution.find_weights` names them, or a module from uint8
            images (B, 3, H, W) to features (B, D), or to a tuple of features and logits (B, classes).
        feature_weights: a file of their network's weights.

    Returns:
        The scores; ``about`` has the counts, and a ``remark`` where they are few.

    Raises:
        UsageError: if there is nothing to compare.
    """
    tune_allocator()
    if not isinstance(generator, NoiseGenerator):
        generator = NoiseGenerator.load(resolve_model(Path(generator)), choose_device(device))
    limits = generator.config.range
    splits = find_class_folders(Path(data), with_classes=False, limits=limits, axis=generator.config.axis)
    folder, chosen = choose_split(data, splits, split, holdout, lambda each: bool(each.files), hold_out_files)
    files = folder.files
    count = len(files) if count is None else count
    if min(len(files), count) < FEWEST:
        raise UsageError(f"KID and FID need at least {FEWEST} images a side, but there are {count} and {len(files)}.")
    if isinstance(features, nn.Module):
        name, extractor = type(features).__name__, features
    else:
        extractor = make_extractor(features, find_weights(features, feature_weights, announce))
        name = FEATURE_NAMES[features]
    extractor = extractor.to(generator.device).eval()
    with Progress(transient=True, disable=not progress) as bar:
        task = bar.add_task("sampling", total=count)
        found: list[tuple[Tensor, Tensor | None]] = []
        for start in range(0, count, AT_ONCE):
            images = generator.sample(min(AT_ONCE, count - start), seed=seed + start, truncation=truncation)
            found.append(features_and_logits(extractor, list(generator.show(images)), generator.device))
            bar.advance(task, len(images))
        task = bar.add_task("looking at the real images", total=None)
        truth = _truth(generator, folder, extractor)
    made = torch.cat([each for each, _ in found])
    scores = {**distances(made, truth), **precision_recall(made, truth)}
    logits = [each for _, each in found if each is not None]
    if logits:
        scores["inception_score"] = inception_score(torch.cat(logits))
    if generator.has_styles:
        scores["ppl"] = perceptual_path_length(generator, seed=seed)
    about = {
        "data": str(data),
        "split": chosen,
        "count": count,
        "real": len(files),
        "size": generator.config.generator.size,
        "features": name,
        "seed": seed,
    }
    if min(count, len(files)) < ENOUGH:
        about["remark"] = (
            f"FID of {min(count, len(files))} images is biased upwards: compare it only with FIDs of as many, or take KID, which isn't."
        )
    return Evaluation(scores, None, {}, about=about)


def _truth(generator: NoiseGenerator, folder: ClassFolder, extractor: nn.Module) -> Tensor:
    config = generator.config
    size, channels, resize, limits = config.generator.size, config.generator.out_channels, config.resize, config.range
    assert size and channels
    return cache_features(
        folder.files,
        extractor,
        f"{size}/{channels}/{resize}{f'/{limits}' if limits else ''}",
        lambda: features_of(
            extractor, read_plain_images(folder.files, size, resize, channels, limits=limits), generator.device
        ),
    )
