"""What configs of discriminators have in common, and the head of those that judge images from noise."""

from abc import abstractmethod
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.core.settings import Strict
from img2img.networks.labels import one_hot
from img2img.networks.layers import Norm

HIDDEN = 128


class DiscriminatorBaseConfig(Strict):
    """What all discriminators of translations are told, and what they declare."""

    kind: str
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    channels: int = Field(64, ge=1)
    """Channels of the first convolution."""
    norm: Norm | None = None
    """Normalisation; by default the method's."""
    spectral_norm: bool = False
    """Divide each weight by its largest singular value (Miyato et al. 2018)."""
    bias: Annotated[bool | None, Suppress] = None
    """Whether convolutions before norms have biases, as in weights that others trained; by default only where the norm doesn't cancel them."""

    def has_spectral_norm_at(self, layer: str) -> bool:
        """Whether this layer has it, if the network has."""
        return True

    @property
    @abstractmethod
    def min_size(self) -> int:
        """Pixels a side that give one logit."""

    def fits(self, channels: int, size: int) -> bool:
        """Whether it takes images of so many channels, and pixels a side."""
        return size >= self.min_size

    @property
    def smaller(self) -> str:
        """Options by which it takes smaller images, for a person."""
        return "--discriminator.kind pixel"


class NoiseDiscriminatorConfig(Strict):
    """What all discriminators of images from noise are told, and what they declare."""

    grows: ClassVar[bool] = False
    """Whether images are smaller at first, as its generator makes them."""
    scales_weights: ClassVar[bool] = False
    """Whether weights are scaled when they are used (equalised learning rate), so that what is said of weights isn't about them."""
    compares_images: ClassVar[bool] = False
    """Whether it compares the images of a batch, so that real and generated ones must not be mixed."""

    kind: str
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    conditioning: str
    """How it sees the class."""
    norm: str | None = None
    """Normalisation."""

    channels: int = Field(64, ge=1)
    """Channels of the first layer; they double per layer."""
    spectral_norm: bool = False
    """Divide each weight by its largest singular value (Miyato et al. 2018)."""

    @property
    def attention_height(self) -> int | None:
        """How many pixels high features are where there is self-attention; None for nowhere."""
        return None


class Head(nn.Module):
    """A logit for each image, with what its class adds to it; and other numbers, if they are wanted.

    The logit is ψ(φ(x)) + yᵀV Σ φ(x), the sum being over positions (Miyato & Koyama 2018, eq. 3).

    Args:
        judge: ψ, from the features φ to one number an image.
        classes: of the projection V; 0 for none.
        outputs: numbers of the second head, which looks at the same features; 0 for none.
        flat: numbers that an image's features are.
    """

    def __init__(self, judge: nn.Module, channels: int, classes: int, outputs: int, flat: int) -> None:
        super().__init__()
        self.judge = judge
        self.projection = nn.Linear(classes, channels, bias=False) if classes else None  # of one-hot labels
        self.second = _build_perceptron(flat, outputs) if outputs else None

    def forward(self, features: Tensor, labels: Tensor | None, outputs: bool) -> Tensor | list[Tensor]:
        """(B, C, H, W) and (B,) integers → (B,); with `outputs` a list: that, and (B, outputs)."""
        logits = self.judge(features).flatten()
        if self.projection is not None:
            assert labels is not None
            logits = logits + (
                self.projection(one_hot(labels, self.projection.in_features, features.dtype)) * features.sum((2, 3))
            ).sum(1)
        if not outputs:
            return logits
        assert self.second is not None
        return [logits, self.second(features)]


def _build_perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, outputs))


def concatenate_label_planes(images: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """Images with a plane for each class beside them, 1 in that of their own: (B, C, H, W) → (B, C + classes, H, W)."""
    if not classes:
        return images
    assert labels is not None
    planes = one_hot(labels, classes, images.dtype)[:, :, None, None]
    return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)
