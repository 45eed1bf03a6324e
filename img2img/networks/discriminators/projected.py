"""The projected discriminator: small heads that judge images by the features of a network trained on ImageNet."""

import math
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.core.errors import UsageError
from img2img.networks.discriminators.base import DiscriminatorBaseConfig, NoiseDiscriminatorConfig
from img2img.networks.discriminators.patchgan import PatchGAN, PatchGANConfig, run_layers
from img2img.networks.features import EfficientNetLite
from img2img.networks.labels import one_hot

CHANNELS = (1, 3)  # of the images for which its features were trained: gray and RGB
ENLARGED = 64  # pixels a side; smaller images from noise are enlarged to this, so that features see them
Mixing = Literal["none", "cross-channel", "cross-scale"]


class ProjectedConfig(DiscriminatorBaseConfig):
    """What a projected discriminator is made of (Sauer et al. 2021)."""

    kind: Literal["projected"] = "projected"
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    channels: int = Field(64, ge=1)
    """Channels of each head's first convolution; twice as many in its second."""
    norm: Annotated[Literal["none"], Suppress] = "none"
    spectral_norm: bool = True
    """Divide each weight by its largest singular value (Miyato et al. 2018)."""
    mixing: Mixing = "none"
    """Fixed random convolutions between features and heads (§3.2): none; cross-channel: 1×1, at each scale; cross-scale: also 3×3, from coarse scales to fine ones."""
    patch: bool = False
    """Judge by a PatchGAN, too, which sees the image itself."""

    @property
    def min_size(self) -> int:
        """Pixels a side that give each head a logit."""
        return 32

    def fits(self, channels: int, size: int) -> bool:
        """Gray and RGB images, for which its features were trained."""
        return super().fits(channels, size) and channels in CHANNELS

    @property
    def smaller(self) -> str:
        """Options by which it takes smaller images, for a person."""
        return "--discriminator.kind patch"


class ProjectedNoiseConfig(NoiseDiscriminatorConfig):
    """What a projected discriminator of images from noise is made of (Sauer et al. 2021)."""

    kind: Literal["projected"] = "projected"
    """The network (`--discriminator.kind KIND --help` lists the options of another)."""
    conditioning: Literal["concat", "none"] = "concat"
    """How it sees the class. concat: a plane a class beside the features; none: not at all."""
    channels: int = Field(64, ge=1)
    """Channels of each head's first convolution; twice as many in its second."""
    norm: Annotated[Literal["none"], Suppress] = "none"
    spectral_norm: bool = True
    """Divide each weight by its largest singular value (Miyato et al. 2018)."""
    mixing: Mixing = "cross-channel"
    """Fixed random convolutions between features and heads (§3.2): none; cross-channel: 1×1, at each scale; cross-scale: also 3×3, from coarse scales to fine ones."""


class Projected(nn.Module):
    """Maps images to logits at five scales, and at a sixth by a PatchGAN if there is one.

    Args:
        image_channels: 1 or 3.
        given_channels: of the condition that is seen beside the images.

    Raises:
        UsageError: for images of other channels.
    """

    def __init__(
        self, config: ProjectedConfig | ProjectedNoiseConfig, image_channels: int, given_channels: int = 0
    ) -> None:
        super().__init__()
        if image_channels not in CHANNELS:
            raise UsageError(
                f"--discriminator.kind projected judges gray and RGB images by a network trained on photographs, but these "
                f"have {image_channels} channels; use --discriminator.kind patch."
            )
        self.given_channels = given_channels
        self.features = EfficientNetLite()
        channels = self.features.channels
        self.mixing = _Mixing(channels, config.mixing == "cross-scale") if config.mixing != "none" else None
        seen = self.mixing.channels if self.mixing else channels
        self.heads = nn.ModuleList(_build_head(count + given_channels, config.channels) for count in seen)
        patch = PatchGANConfig(channels=config.channels, norm="none")
        beside = isinstance(config, ProjectedConfig) and config.patch
        self.patch = PatchGAN(patch, image_channels, given_channels) if beside else None

    def layer_names(self) -> list[tuple[str, ...]]:
        """For each layer of all heads, from the image inwards, what its parameters' names begin with."""
        return [
            (*(f"heads.{number}.{layer}." for number in range(len(self.heads))), f"patch.{part}.")
            for layer, part in enumerate(("stem", "blocks", "head"))
        ]

    def forward(self, images: Tensor, levels: bool = False) -> list[Any]:
        """(B, given_channels + image_channels, H, W) → logits (B, 1, h, w) of each scale, from fine to coarse; with `levels`, of each a list: the features of each depth, and the logits."""
        given, seen = images[:, : self.given_channels], images[:, self.given_channels :]
        features = self.features(seen)
        if self.mixing:
            features = self.mixing(features)
        found = []
        for head, each in zip(self.heads, features, strict=True):
            if self.given_channels:
                beside = F.interpolate(given, each.shape[2:], mode="area")
                each = torch.cat([beside.to(each.dtype), each], dim=1)
            found.append(run_layers(each, [*cast(nn.Sequential, head)], levels))
        return found if self.patch is None else [*found, self.patch(images, levels)]


class ProjectedNoise(Projected):
    """The same for images from noise, of which small ones are enlarged.

    Args:
        classes: how many there are; 0 for none.
        outputs: of a second head, which it hasn't: must be 0.

    Raises:
        UsageError: for images of other channels than 1 or 3, or if a second head is wanted.
    """

    def __init__(
        self, config: ProjectedNoiseConfig, in_channels: int, size: int, classes: int = 0, outputs: int = 0
    ) -> None:
        if outputs:
            raise UsageError(
                "--discriminator.kind projected only tells real from generated, but here it shall also recognise classes or "
                "codes; use another --discriminator.kind."
            )
        super().__init__(config, in_channels, classes if config.conditioning == "concat" else 0)

    def forward(self, images: Tensor, labels: Tensor | None = None, outputs: bool = False) -> list[Tensor]:  # type: ignore[override]
        """(B, in_channels, size, size), and (B,) integers → logits (B, 1, h, w) of each scale."""
        if images.shape[2] < ENLARGED:
            images = F.interpolate(images, (ENLARGED, ENLARGED), mode="bilinear", align_corners=False)
        if self.given_channels:
            assert labels is not None
            planes = one_hot(labels, self.given_channels, images.dtype)[:, :, None, None]
            images = torch.cat([planes.expand(-1, -1, *images.shape[2:]), images], dim=1)
        return super().forward(images)


def _build_head(in_channels: int, width: int) -> nn.Sequential:
    """Three convolutions, of which the second halves the resolution."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.LeakyReLU(0.2)),
        nn.Sequential(nn.Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(0.2)),
        nn.Conv2d(2 * width, 1, 3, padding=1),
    )


class _Mixing(nn.Module):
    """Random convolutions that stay as they are drawn, so that no head can look at few features only (Sauer et al. 2021, §3.2)."""

    def __init__(self, channels: tuple[int, ...], across_scales: bool) -> None:
        super().__init__()
        self.channels = channels
        for number, count in enumerate(channels):
            self.register_buffer(f"point_{number}", _draw(count, count, 1))
            if across_scales and number:
                self.register_buffer(f"down_{number}", _draw(channels[number - 1], count, 3))
        self.across_scales = across_scales

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        mixed = [F.conv2d(each, self.get_buffer(f"point_{number}")) for number, each in enumerate(features)]
        if self.across_scales:
            for number in range(len(mixed) - 1, 0, -1):
                coarse = F.conv2d(mixed[number], self.get_buffer(f"down_{number}"), padding=1)
                size = mixed[number - 1].shape[2:]
                raised = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
                mixed[number - 1] = (mixed[number - 1] + raised) * math.sqrt(0.5)
        return mixed


def _draw(outward: int, inward: int, kernel: int) -> Tensor:
    """A weight by Kaiming's rule for linear layers, which keeps the deviation of features."""
    return torch.randn(outward, inward, kernel, kernel) / math.sqrt(inward * kernel**2)
