"""Whatever a user calls a model: a folder of ours, or another project's file."""

from pathlib import Path
from typing import Literal

import torch

from img2img.core.device import choose_device
from img2img.core.downloads import announce
from img2img.core.errors import UsageError
from img2img.interop.importing import Imported, import_file
from img2img.interop.onnx import load_onnx
from img2img.interop.reading import SUFFIXES
from img2img.models import NoiseGenerator, Translator, find_translator, is_noise_generator
from img2img.models.hub import hub_folder, is_hub_name

Direction = Literal["AtoB", "BtoA"]


def load(
    path: Path | str, device: torch.device | str = "cpu", *, direction: Direction | None = None
) -> Translator | NoiseGenerator:
    """Loads a translator or a noise generator.

    Args:
        path: a folder that `save`, `img2img train` or `img2img import` wrote; or a file of weights (.pth, .safetensors) of
            pytorch-CycleGAN-and-pix2pix, contrastive-unpaired-translation, pix2pixHD or SPADE, whose architecture is told
            from its keys; what they can't tell is assumed, and printed; or an ONNX file that `img2img export` wrote; or a model of
            the Hugging Face Hub, ``user/name``.
        device: where to put the weights: ``cpu``, ``cuda`` …, or ``auto``, the fastest there is.
        direction: which translator of a run that learned both ways, as CycleGAN does; by default AtoB.

    Returns:
        A `Translator`, which makes images of images, or a `NoiseGenerator`, which makes them from noise.

    Raises:
        UsageError: if there is none, or it is damaged, or none of that direction.
    """
    place = resolve_model(Path(path))
    if not makes_images_from_noise(place):
        return load_translator(place, device, direction=direction)
    if direction is not None:
        raise UsageError(f"direction {direction}: {path} makes images from noise, and has none.")
    return NoiseGenerator.load(place, device)


def load_translator(
    path: Path | str, device: torch.device | str = "cpu", *, direction: Direction | None = None
) -> Translator:
    """As `load`, but refuses what makes images from noise."""
    place = Path(path)
    if not (is_weights(place) or is_onnx(place)):
        return Translator.load(resolve_model(place), device, direction=direction)
    if direction == "BtoA":
        raise UsageError(f"--direction BtoA: {path} is one generator, which translates one way.")
    if is_onnx(place):
        return load_onnx(place)
    imported = import_file(place)
    print_assumptions(imported, place)
    return imported.translator.to(choose_device(str(device)))


def makes_images_from_noise(path: Path) -> bool:
    """Whether a model is a noise generator.

    Raises:
        UsageError: if there is no model.
    """
    return not (is_weights(path) or is_onnx(path)) and is_noise_generator(find_translator(resolve_model(path)))


def resolve_model(path: Path) -> Path:
    """The folder of a model; one of the Hub is downloaded, unless it is in the Hub's cache.

    Raises:
        UsageError: if it is on the Hub, and can't be had.
    """
    if is_weights(path) or is_onnx(path) or not is_hub_name(path):
        return path
    announce(f"There is no folder {path}, so it is taken from huggingface.co (or the Hub's cache).")
    return hub_folder(str(path))


def is_weights(path: Path) -> bool:
    """Whether a path is meant as a file of weights."""
    return path.suffix in SUFFIXES and not path.is_dir()


def is_onnx(path: Path) -> bool:
    """Whether a path is meant as an ONNX file."""
    return path.suffix == ".onnx" and not path.is_dir()


def print_assumptions(imported: Imported, file: Path) -> None:
    """Says what a file is taken for."""
    announce(f"{file}: {imported.described}.")
    if imported.assumed:
        announce("\n  ".join(["What the file can't tell:", *imported.assumed]))
