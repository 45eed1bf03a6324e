"""What configs of generators have in common, and what others must know of a generator."""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.core.errors import UsageError
from img2img.core.settings import Strict
from img2img.networks.layers import Norm

BYTES_PER_CHANNEL = 40  # of the stem, and pixel, that a network needs at most, measured
BYTES_PER_PLANE = 10  # of the source, and pixel
HELD_PER_CHANNEL = 12  # bytes of activations in fp32, of the stem, and pixel; twice as many where upsampling resizes


class GeneratorBaseConfig(Strict):
    """What all generators that translate are told, and what they declare.

    The network itself is an `ImageNetwork`, and says which sizes it takes.
    """

    tiling: ClassVar[Literal["exact", "blended"]] = "exact"
    """How images that don't fit into the memory are computed: in strips, with the whole image's result, or in blended tiles."""

    kind: str
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    in_channels: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Channels of the source; filled in from the data (`--data.in-channels`)."""
    out_channels: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Channels of the target; filled in from the data (`--data.out-channels`)."""
    channels: int = Field(64, ge=1)
    """Channels of the first layer."""
    norm: Annotated[str | None, Suppress] = None
    """Normalisation; by default the method's."""

    @property
    def keeps_luminance(self) -> bool:
        """Whether the network colours gray images: each output's luminance is its source's."""
        return getattr(self, "keep_luminance", False)

    @abstractmethod
    def resolve(self, in_channels: int, out_channels: int, size: int, norm: Norm | None = None) -> Self:
        """Fills in what was left to the data, for images whose shorter side has `size` pixels; and `norm`, the method's, if none was chosen.

        Raises:
            UsageError: if such images don't fit.
        """

    @property
    def bytes_per_pixel(self) -> int:
        """Memory that the network needs at most for a pixel of its source, in fp32 and without gradients, on a CPU."""
        return BYTES_PER_PLANE * (self.in_channels or 3) + BYTES_PER_CHANNEL * self.channels

    @property
    def activations_per_pixel(self) -> int:
        """Bytes of activations in fp32 that are held at once, at most, for a pixel of the source: what a GPU needs."""
        resizes = getattr(self, "upsampling", "transpose") != "transpose"
        held = 2 * HELD_PER_CHANNEL if resizes else HELD_PER_CHANNEL
        return BYTES_PER_PLANE * (self.in_channels or 3) + held * self.channels

    @property
    def has_spectral_norm(self) -> bool:
        """Whether weights are divided by their largest singular values while it is trained."""
        return False

    def has_spectral_norm_at(self, layer: str) -> bool:
        """Whether this layer has it, if the network has."""
        return True


def refuse_no_luminance(in_channels: int, out_channels: int) -> None:
    """Refuses to keep a luminance where gray images don't become coloured ones.

    Raises:
        UsageError: saying what is needed.
    """
    if (in_channels, out_channels) == (1, 3):
        return
    needs = f"--generator.keep-luminance colours gray images, so sources need 1 channel and targets 3, not {in_channels} and {out_channels}: "
    if out_channels == 4:
        raise UsageError(f"{needs}most targets have alpha; add --data.out-channels 3, which puts them over white.")
    if out_channels != 3:
        raise UsageError(f"{needs}most targets have no colours that could be learnt.")
    raise UsageError(
        f"{needs}add --data.derive gray for photos, or --data.in-channels 1 if the sources have the luminance of their targets."
    )


class NoiseGeneratorConfig(Strict):
    """What all generators of images from noise are told."""

    grows: ClassVar[bool] = False
    """Whether images are smaller at first."""
    scales_weights: ClassVar[bool] = False
    """Whether weights are scaled when they are used (equalised learning rate)."""
    sizes: ClassVar[tuple[int, ...]] = (32, 64, 128, 256)
    """Heights and widths of images that it can make."""

    kind: str
    """The network (`--generator.kind KIND --help` lists the options of another)."""

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

    def count_numbers(self, size: int) -> int:
        """All random numbers that an image of this size is made from."""
        return self.latent

    @property
    def attention_height(self) -> int | None:
        """How many pixels high images are where there is self-attention; None for nowhere."""
        return None

    @property
    def has_spectral_norm(self) -> bool:
        """Whether weights are divided by their largest singular values while it is trained."""
        return False

    def has_spectral_norm_at(self, layer: str) -> bool:
        """Whether this layer has it, if the network has."""
        return True


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

    def draw(self, count: int, device: torch.device) -> Tensor:
        """(count, width), uniformly: one-hot numbers, then values in [-1, 1]."""
        hot = [
            torch.eye(size, device=device)[torch.randint(size, (count,), device=device)] for size in self.categorical
        ]
        return torch.cat([*hot, 2 * torch.rand(count, self.continuous, device=device) - 1], dim=1)


def count_halvings(size: int) -> int:
    """How often `size`, a power of two, is halved down to 4 pixels."""
    return size.bit_length() - 3


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift are linear functions of a condition (de Vries et al. 2017, eq. 4, as in SNGAN and BigGAN).

    Args:
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
