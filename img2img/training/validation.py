"""Looks at a translator while it is trained: scores on images kept aside, and a picture of some."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from img2img.data.dataset import PairedImages, validation_pair
from img2img.data.folders import Pair
from img2img.data.transforms import JointTransform, Resize
from img2img.errors import UserError
from img2img.images import Array, write_image
from img2img.images.tensors import grid
from img2img.methods.base import Role
from img2img.metrics.distribution import distances, features
from img2img.metrics.paired import Scores, finite, mean, score
from img2img.training.setup import on_main
from img2img.translator import Translator

ROWS = 6
OTHER: dict[Role, Role] = {"A2B": "B2A", "B2A": "A2B"}


@dataclass(frozen=True)
class Trial:
    """What a translator is tried on."""

    pairs: list[Pair]
    """What to translate; without a truth, source and target are one file."""
    paired: bool
    """Whether every pair has a truth."""
    targets: list[Path]
    """Images of the kind that translations shall look like."""
    split: str
    """Where they come from; empty if they were trained on, and scores would mean nothing."""

    def has_truth(self, pair: Pair) -> bool:
        """Whether the pair's target is what its source should become."""
        return self.paired or pair.source != pair.target


@dataclass
class Judge:
    """Scores translators.

    Args:
        size: the training size, to which images are scaled as in training but neither cropped nor flipped.
        width: the training width, if it is another.
        resize: as in training.
        extractor: whose features tell how near the translations are to the targets as a whole; None: not measured.
        accelerator: which share of the images is this process's.
    """

    size: int
    width: int | None
    resize: Resize
    extractor: nn.Module | None
    accelerator: Accelerator
    truths: dict[Role, Tensor] = field(default_factory=dict)
    """The targets' features, found once."""

    def score(self, translator: Translator, trial: Trial, role: Role) -> dict[str, float | None]:
        """L1, PSNR and SSIM over pairs that have a truth, and KID and FID; None where a score is not finite.

        What is scored is the 8- or 16-bit image that a user would get.

        Raises:
            UserError: in every process, if an image can't be read.
        """
        outcomes: list[tuple[Scores | None, Tensor | None] | UserError] = []
        for pair in trial.pairs[self.accelerator.process_index :: self.accelerator.num_processes]:
            try:
                source, target = self._pair(pair, translator.in_channels, translator.out_channels)
                done = translator(source)
                scores = score(done, target) if trial.has_truth(pair) else None
                outcomes.append((scores, self._features([done], translator.device)))
            except UserError as error:  # raised only when all processes have come so far
                outcomes.append(error)
        gathered = _raised(gather_object(outcomes))
        paired = [scores for scores, _ in gathered if scores is not None]
        found: dict[str, float | None] = {**finite(mean(paired))} if paired else {}
        if self.extractor is not None:
            images, truth = torch.cat([each for _, each in gathered]), self._truth(translator, trial, role)
            found |= finite(on_main(self.accelerator, lambda: distances(images, truth)))
        return found

    def _truth(self, translator: Translator, trial: Trial, role: Role) -> Tensor:
        if role not in self.truths:
            outcomes: list[Tensor | UserError | None] = []
            for file in trial.targets[self.accelerator.process_index :: self.accelerator.num_processes]:
                try:
                    image = self._pair(Pair(file.stem, file, file), translator.out_channels, translator.out_channels)[1]
                    outcomes.append(self._features([image], translator.device))
                except UserError as error:
                    outcomes.append(error)
            self.truths[role] = torch.cat(_raised(gather_object(outcomes)))
        return self.truths[role]

    def _pair(self, pair: Pair, in_channels: int, out_channels: int) -> tuple[Array, Array]:
        return validation_pair(pair, self.size, self.resize, in_channels, out_channels, self.width)

    def _features(self, images: Sequence[Array], device: torch.device) -> Tensor | None:
        return None if self.extractor is None else features(self.extractor.to(device), images, device)

    def draw(self, translators: Mapping[Role, Translator], trial: Trial, role: Role, file: Path) -> Array:
        """Writes a picture of a few images, always the same ones, and gives it back: a row for each.

        Source, translation, back to the source if there is a translator for that, and the truth if it is known.
        """
        translator = translators[role]
        chosen = list(trial.pairs[:: max(1, len(trial.pairs) // ROWS)][:ROWS])
        plain = JointTransform(self.size, width=self.width, resize=self.resize, jitter=1, flip=0)
        fixed = PairedImages(chosen, plain, translator.in_channels, translator.out_channels, seed=0)
        rows = [fixed[0, index] for index in range(len(fixed))]
        source = torch.stack([row["source"] for row in rows])
        columns = [translator.shown(source), translator(source)]
        back = translators.get(OTHER.get(role, ""))
        if back is not None and back is not translator:
            columns.append(back(columns[1]))
        if all(trial.has_truth(pair) for pair in chosen):
            columns.append(torch.stack([row["target"] for row in rows]))
        picture = grid(columns)
        write_image(file, picture)
        return picture


def _raised(outcomes: Sequence[Any]) -> list[Any]:
    """The outcomes of all processes.

    Raises:
        UserError: the first of them.
    """
    for outcome in outcomes:
        if isinstance(outcome, UserError):
            raise outcome
    return list(outcomes)
