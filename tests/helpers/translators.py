"""Tiny translators and noise generators with drawn weights."""

from typing import Any

import torch
from torch import nn

from img2img.models import NoiseGenerator, NoiseGeneratorModelConfig, Training, Translator, TranslatorConfig
from img2img.networks import NOISE_GENERATORS, ResNetConfig, build_generator, build_noise_generator, initialise
from img2img.networks.generators.base import Codes
from img2img.networks.generators.unet import UNetConfig

CONFIGS = [
    UNetConfig(channels=4, depth=3),
    UNetConfig(channels=4, depth=2, upsampling="resize"),
    UNetConfig(channels=4, depth=2, upsampling="blur", norm="instance"),
    ResNetConfig(channels=4, blocks=2, norm="batch", dropout=0.5),
    ResNetConfig(channels=4, blocks=2, downsampling="blur", upsampling="blur"),
]


def make(config: Any) -> Translator:
    return draw_weights(config.resolve(3, 3, 32))


def draw_weights(resolved: Any, **values: Any) -> Translator:
    """A translator with an architecture, and with these values in its config."""
    torch.manual_seed(0)
    network = initialise(build_generator(resolved), "xavier", 1.0).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    about = TranslatorConfig(method="test", generator=resolved, size=32, training=Training(img2img="0"), **values)
    return Translator(about, network)


def sampler(
    kind: str = "dcgan", classes: tuple[str, ...] = (), codes: Codes | None = None, **values: Any
) -> NoiseGenerator:
    torch.manual_seed(0)
    config = NOISE_GENERATORS[kind][0](
        channels=4, latent=8 + (codes.width if codes else 0), classes=len(classes), out_channels=1, size=32, **values
    )
    config = config.model_copy(update={"latent": config.count_numbers(32)})
    network = initialise(build_noise_generator(config), "orthogonal", 1.0)
    about = NoiseGeneratorModelConfig(
        method="gan", generator=config, classes=classes, codes=codes, training=Training(img2img="1", updates=7)
    )
    return NoiseGenerator(about, network).recalibrate()
