"""The PatchGAN discriminator: a fully convolutional classifier of overlapping patches."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.networks.discriminators.base import DiscriminatorBaseConfig
from img2img.networks.layers import BlurPool, Downsampling, Norm, has_bias, norm_layer


class PatchGANConfig(DiscriminatorBaseConfig):
    """What a PatchGAN is made of (Isola et al. 2017, §6.1.2)."""

    kind: Literal["patch"] = "patch"
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    layers: int = Field(3, ge=1, le=8)
    """Convolutions with stride 2: 3 see 70×70 pixels, 1 sees 16×16."""
    channels: int = Field(64, ge=1)
    """Channels of the first convolution; they double per convolution, up to 8 times this."""
    norm: Norm | None = None
    """Not applied to the first convolution; by default the method's: batch in pix2pix, instance in the others."""
    downsampling: Downsampling = "stride"
    """stride: strided convolutions; blur: anti-aliased (stride 1, then blur-pooling), as in CUT."""
    plain_ends: bool = False
    """With --discriminator.spectral-norm: leave the first and the last convolution without it, as in SPADE's published code."""
    most_channels: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Where the doubling of channels ends, if it isn't at 8 times the first's, as in pix2pixHD's, which always have at most 512."""

    @property
    def min_size(self) -> int:
        """Pixels a side that give one logit."""
        return 3 * 2**self.layers

    def has_spectral_norm_at(self, layer: str) -> bool:
        """As it was chosen."""
        return not self.plain_ends or "blocks" in layer.split(".")

    @property
    def smaller(self) -> str:
        """Options by which it takes smaller images, for a person."""
        return "fewer --discriminator.layers"


class MultiScaleConfig(PatchGANConfig):
    """What several PatchGANs are made of, each looking at half the resolution of the one before (Wang et al. 2018, §3.2)."""

    kind: Literal["multiscale"] = "multiscale"  # type: ignore[assignment]
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    scales: int = Field(3, ge=1, le=6)
    """How many there are."""

    @property
    def min_size(self) -> int:
        """Pixels a side that give the coarsest one a logit."""
        return int((2**self.layers + 2) * 2 ** (self.scales - 1))

    @property
    def smaller(self) -> str:
        """Options by which it takes smaller images, for a person."""
        return "fewer --discriminator.layers or --discriminator.scales"


class PixelGANConfig(DiscriminatorBaseConfig):
    """What a 1×1 PatchGAN ("PixelGAN") is made of (Isola et al. 2017, §6.1.2)."""

    kind: Literal["pixel"] = "pixel"
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    channels: int = Field(64, ge=1)
    """Channels of the first convolution; twice as many in the second."""
    norm: Norm | None = None
    """Normalisation after the second convolution; by default the method's."""

    @property
    def min_size(self) -> int:
        """Pixels a side that give one logit."""
        return 1


class PatchGAN(nn.Module):
    """Maps (B, C, H, W) to logits (B, 1, h, w), one for each patch; about H/2**layers - 2 high.

    Args:
        image_channels: of the images that are judged.
        given_channels: of the condition that a conditional discriminator sees before them.
        padding: of each convolution: 1 in pix2pix, 2 in pix2pixHD.
    """

    def __init__(self, config: PatchGANConfig, image_channels: int, given_channels: int = 0, padding: int = 1) -> None:
        super().__init__()
        assert config.norm
        norm, width = config.norm, config.channels
        blur = config.downsampling == "blur"
        self.stem = nn.Sequential(
            nn.Conv2d(image_channels + given_channels, width, 4, 1 if blur else 2, padding),
            nn.LeakyReLU(0.2),
            *([BlurPool()] if blur else []),
        )
        blocks = []
        for layer in range(1, config.layers + 1):
            inward, width = width, min(config.channels * 2**layer, config.most_channels or 8 * config.channels)
            halves = layer < config.layers
            blocks.append(
                nn.Sequential(
                    nn.Conv2d(
                        inward, width, 4, 2 if halves and not blur else 1, padding, bias=has_bias(norm, config.bias)
                    ),
                    norm_layer(norm, width),
                    nn.LeakyReLU(0.2),
                    *([BlurPool()] if halves and blur else []),
                )
            )
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(width, 1, 4, 1, padding)

    def layer_names(self) -> list[tuple[str, ...]]:
        """For each layer, from the image inwards, what its parameters' names begin with."""
        return [("stem.",), *((f"blocks.{number}.",) for number in range(len(self.blocks))), ("head.",)]

    def forward(self, images: Tensor, levels: bool = False) -> Any:
        """(B, C, H, W) → (B, 1, h, w) logits; with `levels`, a list: the features of each depth, and the logits."""
        return run_layers(images, [self.stem, *self.blocks, self.head], levels)


class PixelGAN(nn.Module):
    """Maps (B, C, H, W) to logits (B, 1, H, W), one for each pixel."""

    def __init__(self, config: PixelGANConfig, image_channels: int, given_channels: int = 0) -> None:
        super().__init__()
        assert config.norm
        width = config.channels
        self.stem = nn.Sequential(nn.Conv2d(image_channels + given_channels, width, 1), nn.LeakyReLU(0.2))
        self.blocks = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1, bias=has_bias(config.norm, config.bias)),
            norm_layer(config.norm, 2 * width),
            nn.LeakyReLU(0.2),
        )
        self.head = nn.Conv2d(2 * width, 1, 1, bias=config.bias is not False)

    def layer_names(self) -> list[tuple[str, ...]]:
        """For each layer, from the image inwards, what its parameters' names begin with."""
        return [("stem.",), ("blocks.",), ("head.",)]

    def forward(self, images: Tensor, levels: bool = False) -> Any:
        """(B, C, H, W) → (B, 1, H, W) logits; with `levels`, a list: the features of each depth, and the logits."""
        return run_layers(images, [self.stem, self.blocks, self.head], levels)


class MultiScale(nn.Module):
    """PatchGANs that look at an image, at half of it, at a quarter … (Wang et al. 2018, §3.2)."""

    def __init__(self, config: MultiScaleConfig, image_channels: int, given_channels: int = 0) -> None:
        super().__init__()
        self.halve = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.scales = nn.ModuleList(
            PatchGAN(config, image_channels, given_channels, padding=2) for _ in range(config.scales)
        )

    def layer_names(self) -> list[tuple[str, ...]]:
        """For each layer of all scales, from the image inwards, what its parameters' names begin with."""
        scales = [cast(PatchGAN, scale).layer_names() for scale in self.scales]
        return [
            tuple(f"scales.{number}.{name}" for number, names in enumerate(each) for name in names)
            for each in zip(*scales, strict=True)
        ]

    def forward(self, images: Tensor, levels: bool = False) -> list[Any]:
        """(B, C, H, W) → what each `PatchGAN` gives, from the full resolution down."""
        found = []
        for number, scale in enumerate(self.scales):
            images = self.halve(images) if number else images
            found.append(scale(images, levels))
        return found


def run_layers(x: Tensor, layers: Sequence[nn.Module], levels: bool) -> Any:
    """What the last layer gives; with `levels`, a list of what each gives."""
    seen = []
    for layer in layers:
        x = layer(x)
        seen.append(x)
    return seen if levels else x
