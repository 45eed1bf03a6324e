"""`img2img.load`: whatever a folder holds."""

from pathlib import Path
from typing import Literal

import torch

from img2img.errors import UsageError
from img2img.translator.sampler import Sampler
from img2img.translator.storage import find_translator, is_sampler
from img2img.translator.translator import Translator


def load(
    path: Path | str, device: torch.device | str = "cpu", *, direction: Literal["AtoB", "BtoA"] | None = None
) -> Translator | Sampler:
    """Loads a translator, or a sampler, from its folder or its run's folder.

    Args:
        path: a folder that `save` or `img2img train` wrote.
        device: where to put the weights: ``cpu``, ``cuda`` …, or ``auto``, the fastest there is.
        direction: which translator of a run that learned both ways, as CycleGAN does; by default AtoB.

    Returns:
        A `Translator`, which makes images of images, or a `Sampler`, which makes them from noise.

    Raises:
        UsageError: if there is none, or it is damaged, or none of that direction.
    """
    if is_sampler(find_translator(Path(path), direction)):
        if direction is not None:
            raise UsageError(f"direction {direction}: {path} makes images from noise, and has none.")
        return Sampler.load(path, device)
    return Translator.load(path, device, direction=direction)
