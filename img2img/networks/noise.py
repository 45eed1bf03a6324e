"""What networks that make images from noise, and those that judge them, have in common."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.errors import Strict

HIDDEN = 128


class NoiseGeneratorConfig(Strict):
    """What all generators from noise are told."""

    classes: Annotated[int, Suppress] = Field(0, ge=0)
    """How many classes can be asked for; filled in from the data, 0 for none."""
    out_channels: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Channels of the images; filled in from the data (`--data.out-channels`)."""
    size: Annotated[int | None, Suppress] = Field(None, ge=8)
    """Height and width of the images in pixels; filled in from `--size`."""
    latent: int = Field(128, ge=1)
    """Random numbers that an image is made from."""
    channels: int = Field(64, ge=1)
    """Channels of the last hidden layer; they double per layer towards the noise."""


class NoiseDiscriminatorConfig(Strict):
    """What all discriminators of images from noise are told."""

    channels: int = Field(64, ge=1)
    """Channels of the first layer; they double per layer."""
    spectral_norm: bool = False
    """Divide each weight by its largest singular value (Miyato et al. 2018)."""


class Codes(Strict):
    """The codes of an InfoGAN: numbers beside the noise that an image is to be recognised by."""

    categorical: tuple[Annotated[int, Field(ge=2)], ...] = (10,)
    """How many values each categorical code has."""
    continuous: int = Field(2, ge=0)
    """How many continuous codes there are, each from -1 to 1."""

    @property
    def width(self) -> int:
        """Numbers that they are."""
        return sum(self.categorical) + self.continuous

    @property
    def outputs(self) -> int:
        """Numbers by which they are recognised: logits; means and variances."""
        return sum(self.categorical) + 2 * self.continuous

    def drawn(self, count: int, device: torch.device) -> Tensor:
        """(count, width), uniformly: one-hot numbers, then values in [-1, 1]."""
        hot = [
            torch.eye(size, device=device)[torch.randint(size, (count,), device=device)] for size in self.categorical
        ]
        return torch.cat([*hot, 2 * torch.rand(count, self.continuous, device=device) - 1], dim=1)


def halvings(size: int) -> int:
    """How often `size`, a power of two, is halved down to 4 pixels."""
    return size.bit_length() - 3


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift are linear functions of a condition (de Vries et al. 2017, eq. 4, as in SNGAN and BigGAN).

    Args:
        channels: of the images.
        condition: numbers of the condition: a one-hot label, or an embedding of it beside a part of the noise.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Linear(condition, channels, bias=False)
        self.shift = nn.Linear(condition, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H, W) and (B, condition) → (B, C, H, W); the scale is around 1."""
        scale, shift = (layer(condition)[:, :, None, None] for layer in (self.scale, self.shift))
        return self.norm(x) * (1 + scale) + shift


class Head(nn.Module):
    """A logit for each image, with what its class adds to it; and other numbers, if they are wanted.

    The logit is ψ(φ(x)) + yᵀV Σ φ(x), the sum being over positions (Miyato & Koyama 2018, eq. 3).

    Args:
        judge: ψ, from the features φ to one number an image.
        channels: of the features.
        classes: of the projection V; 0 for none.
        outputs: numbers of the second head, which looks at the same features; 0 for none.
        flat: numbers that an image's features are.
    """

    def __init__(self, judge: nn.Module, channels: int, classes: int, outputs: int, flat: int) -> None:
        super().__init__()
        self.judge = judge
        self.projection = nn.Linear(classes, channels, bias=False) if classes else None  # of one-hot labels
        self.second = _perceptron(flat, outputs) if outputs else None

    def forward(self, features: Tensor, labels: Tensor | None, outputs: bool) -> Tensor | list[Tensor]:
        """(B, C, H, W) and (B,) integers → (B,); with `outputs` a list: that, and (B, outputs)."""
        logits = self.judge(features).flatten()
        if self.projection is not None:
            assert labels is not None
            logits = logits + (
                self.projection(one_hot(labels, self.projection.in_features, features)) * features.sum((2, 3))
            ).sum(1)
        if not outputs:
            return logits
        assert self.second is not None
        return [logits, self.second(features)]


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, outputs))


def beside_planes(images: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """Images with a plane for each class beside them, 1 in that of their own: (B, C, H, W) → (B, C + classes, H, W)."""
    if not classes:
        return images
    assert labels is not None
    planes = one_hot(labels, classes, images)[:, :, None, None]
    return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)


def one_hot(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """(B,) integers → (B, classes), 0 or 1, on the device and in the type of another tensor."""
    return (labels[:, None] == torch.arange(classes, device=like.device)).to(like.dtype)
