"""Scores of an image against the truth, as scikit-image computes them."""

import math
from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict, cast

import numpy as np

from img2img.core.errors import UserError
from img2img.images import Array, composite_over_white, convert_channels, peak
from img2img.metrics.lpips import Lpips
from img2img.metrics.perceptual import PerceptualDistance

HIGHER_IS_BETTER = ("psnr", "ssim", "miou", "accuracy", "precision", "recall", "inception_score", "diversity")
"""The scores of which more is better, also of those that other files compute."""

OF = " of "
"""What follows it, in the name of a score, is the domain that the score is about, one of several."""


class Scores(TypedDict):
    """Of one image, or their mean over several."""

    l1: float
    """Mean absolute error of values in [0, 1]."""
    psnr: float
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    ssim: float
    """Structural similarity (Wang et al. 2004), at most 1; NaN for images of less than 3 pixels a side."""
    perceptual: float
    """How unlike the images look, from 0: LPIPS (Zhang et al. 2018) by features of EfficientNet-Lite0; NaN where no network was given."""
    lpips: NotRequired[float]
    """The same by a published network, `metrics.lpips.Lpips`; NaN for images that are too small for it."""


def score(image: Array, truth: Array, distance: PerceptualDistance | None = None, lpips: Lpips | None = None) -> Scores:
    """Compares two images of one size.

    SSIM is `skimage.metrics.structural_similarity` with its defaults (7×7 uniform window, smaller for images that are
    smaller), over all channels.

    Args:
        image: (H, W, C), uint8 or uint16, or float32 in [0, 1] of measurements; if its channels differ from the truth's, it is converted to the truth's.
        truth: the same; alpha goes over white on both, which measurements have not.
        distance: gives the perceptual distance.
        lpips: gives LPIPS.

    Raises:
        UserError: if the sizes differ.
    """
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity  # slow to import

    if image.shape[:2] != truth.shape[:2]:
        sizes = [f"{array.shape[1]}×{array.shape[0]}" for array in (image, truth)]
        raise UserError(f"images of different sizes can't be compared: {sizes[0]} and {sizes[1]}.")
    bands = np.issubdtype(truth.dtype, np.floating)
    truth = truth if bands else composite_over_white(truth)
    a = convert_channels(image, truth.shape[2]) / peak(image.dtype)
    b = truth / peak(truth.dtype)
    with np.errstate(divide="ignore"):
        psnr = float(peak_signal_noise_ratio(b, a, data_range=1))
    window = min(7, (min(a.shape[:2]) - 1) // 2 * 2 + 1)
    ssim = math.nan
    if window >= 3:
        ssim = float(structural_similarity(b, a, win_size=window, channel_axis=2, data_range=1))
    perceptual = distance(image, truth) if distance else math.nan
    scores: Scores = {"l1": float(np.abs(a - b).mean()), "psnr": psnr, "ssim": ssim, "perceptual": perceptual}
    if lpips:
        scores["lpips"] = lpips(image, truth)
    return scores


def mean(scores: Sequence[Scores]) -> Scores:
    """The mean of each score over the images for which it is defined."""

    def over(values: list[float]) -> float:
        defined = [value for value in values if not math.isnan(value)]
        return sum(defined) / len(defined) if defined else math.nan

    return cast(Scores, {name: over([cast(dict[str, float], each)[name] for each in scores]) for name in scores[0]})


def are_comparable(source: Array, target: Array) -> bool:
    """Whether an image can be converted to the channels of the other: bands can't."""
    channels = source.shape[2], target.shape[2]
    return channels[0] == channels[1] or (source.dtype.kind == target.dtype.kind == "u" and max(channels) <= 4)


def describe_scores(scores: Mapping[str, float | None]) -> str:
    """Scores for a person, without those of single domains, of which there may be many."""
    shown = {name: value for name, value in scores.items() if value is not None and OF not in name}
    return ", ".join(f"{name} {value:.4g}" for name, value in shown.items())


def finite(scores: Scores | dict[str, float]) -> dict[str, float | None]:
    """For JSON, which has no infinity: None where a score is infinite or undefined."""
    return {name: float(value) if math.isfinite(value) else None for name, value in scores.items()}  # type: ignore[arg-type]
