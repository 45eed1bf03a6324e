"""The anti-aliased networks of contrastive-unpaired-translation, as its files name their layers."""

import torch
from torch import Tensor

from img2img.interop.cyclegan import discriminator, generator, patch_guess, patch_layers, resnet_guess, resnet_layers
from img2img.interop.family import Family, Guess, Shapes
from img2img.networks import ResNetConfig
from img2img.networks.discriminators.patchgan import PatchGANConfig

PROJECT = "contrastive-unpaired-translation"


def filters(size: int, channels: int, gain: float = 1.0) -> Tensor:
    """The binomial filter that blurs each channel: (channels, 1, size, size)."""
    row = torch.tensor({3: [1.0, 2.0, 1.0], 4: [1.0, 3.0, 3.0, 1.0]}[size])
    both = torch.outer(row, row)
    return (both / both.sum() * gain).repeat(channels, 1, 1, 1)


def _guess(shapes: Shapes) -> Guess | None:
    guess = resnet_guess(shapes)
    return guess if guess and "blur" in (guess.config.downsampling, guess.config.upsampling) else None


def _filters_of_generator(config: ResNetConfig) -> dict[str, Tensor]:
    assert config.blocks is not None
    found, at = {}, 4
    for level in range(2):
        if config.downsampling == "blur":
            found[f"model.{at + 3}.filt"] = filters(3, config.channels * 2 ** (level + 1))
        at += 4 if config.downsampling == "blur" else 3
    at += config.blocks
    for level in range(2):
        if config.upsampling == "blur":
            found[f"model.{at}.filt"] = filters(4, config.channels * 2 ** (2 - level), gain=4)
        at += 4
    return found


def _guess_patch(shapes: Shapes) -> Guess | None:
    guess = patch_guess(shapes)
    return guess if guess and guess.config.downsampling == "blur" else None


def _filters_of_discriminator(config: PatchGANConfig) -> dict[str, Tensor]:
    widths = [config.channels * min(2**layer, 8) for layer in range(config.layers)]
    return {f"model.{2 + 4 * layer}.filt": filters(3, width) for layer, width in enumerate(widths)}


FAMILIES = (
    Family("cut-resnet", f"{PROJECT}'s ResNet generator", "generator", _guess, resnet_layers, generator, _filters_of_generator),
    Family("cut-patch", f"{PROJECT}'s PatchGAN", "discriminator", _guess_patch, patch_layers, discriminator, _filters_of_discriminator),
)  # fmt: skip
