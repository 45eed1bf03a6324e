"""Looks at a translator while it is trained: scores on the validation pairs, and a picture of some."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate.utils import gather_object

from img2img.data.dataset import PairedImages, validation_pair
from img2img.data.folders import Pair
from img2img.data.transforms import JointTransform, Resize
from img2img.errors import UserError
from img2img.images import Array, grid, write_image
from img2img.metrics.paired import Scores, mean, score
from img2img.translator import Translator

ROWS = 6


def validate(
    translator: Translator, pairs: Sequence[Pair], size: int, resize: Resize, process: int, processes: int
) -> Scores:
    """Mean scores over pairs, scaled as in training but neither cropped nor flipped; each process takes its share.

    What is scored is the 8- or 16-bit image that a user would get.

    Raises:
        UserError: in every process, if a pair can't be read.
    """
    outcomes: list[Scores | UserError] = []
    for pair in pairs[process::processes]:
        try:
            source, target = validation_pair(pair, size, resize, translator.in_channels, translator.out_channels)
            outcomes.append(score(translator(source), target))
        except UserError as error:  # raised only when all processes have come so far
            outcomes.append(error)
    scores = []
    for outcome in gather_object(outcomes):
        if isinstance(outcome, UserError):
            raise outcome
        scores.append(outcome)
    return mean(scores)


def draw_samples(translator: Translator, pairs: Sequence[Pair], size: int, resize: Resize, file: Path) -> Array:
    """Writes a picture of source, translation and target of a few pairs, always the same ones, and gives it back."""
    chosen = list(pairs[:: max(1, len(pairs) // ROWS)][:ROWS])
    plain = JointTransform(size, resize=resize, jitter=1, flip=0)
    fixed = PairedImages(chosen, plain, translator.in_channels, translator.out_channels, seed=0)
    rows = [fixed[0, index] for index in range(len(fixed))]
    source = torch.stack([row["source"] for row in rows])
    target = torch.stack([row["target"] for row in rows])
    picture = grid([source, translator(source), target])
    write_image(file, picture)
    return picture
