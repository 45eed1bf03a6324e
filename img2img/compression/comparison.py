"""How near a student comes to its teacher, on photos that it has not learned from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from img2img.data.base import Pair, ReadPair
from img2img.data.paired import read_validation_pair
from img2img.images import Array
from img2img.metrics.distribution import distances, features, make_extractor
from img2img.metrics.paired import Scores, are_comparable, mean, score
from img2img.metrics.perceptual import PerceptualDistance
from img2img.models import Translator

MOST = 500  # photos, evenly spaced


@dataclass(frozen=True)
class Comparison:
    """What a student costs in quality."""

    photos: int
    to_teacher: Scores
    """L1, PSNR, SSIM and perceptual distance to the teacher's translations."""
    copied: Scores | None
    """The same of the photos as they are: what is as far off as that is no translation. None of what can't be compared, such as label maps."""
    kid: dict[str, float] = field(default_factory=dict)
    """KID by ``student to teacher``, and with real images ``student to real`` and ``teacher to real``; empty for too few images."""


def compare_with_teacher(
    student: Translator, pairs: Sequence[Pair], real: Sequence[Path], read: ReadPair, progress: bool = False
) -> Comparison:
    """Translates photos at their own size, and compares what comes out with the teacher's translations.

    Args:
        pairs: photos or label maps, and the teacher's translations of them.
        read: how they are read.
        real: images of the kind that the teacher makes, if there are some, in its range if they are measurements.

    Raises:
        UserError: if an image can't be read.
    """
    device = student.device
    distance, extractor = PerceptualDistance().to(device), make_extractor("lite", None).to(device)
    scores: list[Scores] = []
    copies: list[Scores] = []
    sets: dict[str, list[Tensor]] = {"student": [], "teacher": [], "real": []}

    def look(name: str, image: Array) -> None:
        sets[name].append(features(extractor, [image], device))

    for pair in track(pairs, "comparing", transient=True, disable=not progress):
        photo, truth = read(pair, None, "none", student.in_channels, student.out_channels, None)
        done = student.translate_scaled(photo)
        scores.append(score(done, truth, distance))
        alike = pair.ranges[0] == pair.ranges[1] and are_comparable(photo, truth)
        if alike and not pair.labels:
            copies.append(score(photo, truth, distance))
        look("student", done)
        look("teacher", truth)
    limits, channels = student.config.out_range, student.out_channels
    for file in real:
        pair = Pair(file.stem, file, file, ranges=(limits, limits))
        look("real", read_validation_pair(pair, None, "none", channels, channels)[1])
    found = {name: torch.cat(each) for name, each in sets.items() if each}
    kid = {
        f"{one} to {other}": distances(found[one], found[other]).get("kid")
        for one, other in (("student", "teacher"), ("student", "real"), ("teacher", "real"))
        if one in found and other in found
    }
    return Comparison(
        len(pairs),
        mean(scores),
        mean(copies) if copies else None,
        {name: value for name, value in kid.items() if value is not None},
    )
