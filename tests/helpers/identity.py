"""A translator that changes nothing, so that what conversion does can be tested to the pixel."""

import torch
from torch import Tensor, nn

from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import ResNetConfig
from img2img.networks.layers import ImageNetwork


class Same(ImageNetwork):
    """Gives what it gets."""

    size_multiple = 4
    min_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, source: Tensor) -> Tensor:
        return source * self.scale


def identity(channels: int = 3) -> Translator:
    """For gray or RGB."""
    config = ResNetConfig(channels=4, blocks=1).resolve(channels, channels, 16)
    return Translator(
        TranslatorConfig(method="none", generator=config, size=16, training=Training(img2img="0")), Same()
    )
