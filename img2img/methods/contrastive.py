"""What methods share that compare patches of a translation with those of its source: settings, and the loss (Park et al. 2020)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.losses.adversarial import Adversarial
from img2img.losses.contrastive import patch_nce
from img2img.methods.semantic import SemanticTranslationConfig
from img2img.networks import DiscriminatorConfig, ResNetConfig, initialise
from img2img.networks.discriminators.patchgan import PatchGANConfig
from img2img.networks.generators.resnet import encoder_depths
from img2img.networks.projection import Projection
from img2img.networks.weights import Initialisation


class ContrastiveConfig(SemanticTranslationConfig):
    """CUT's numbers."""

    best_by: ClassVar[Literal["perceptual", "kid"]] = "kid"

    generator: ResNetConfig = ResNetConfig(downsampling="blur", upsampling="blur")
    """The network that translates, and whose encoder tells patches apart."""
    discriminator: DiscriminatorConfig = PatchGANConfig(downsampling="blur")
    """The network that tells real from generated."""
    adversarial: Adversarial = "lsgan"
    """lsgan: least squares, as in the paper; vanilla: the minimax loss, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; hinge; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    nce_weight: float = Field(1.0, gt=0)
    """λ_X of CUT's eq. 5: weight of the contrastive loss."""
    identity_nce: bool = True
    """Compare the target's patches, too, with those of its own translation: λ_Y of CUT's eq. 5; each loss then counts half."""
    patches: int = Field(256, ge=2)
    """Places compared at each depth of the encoder."""
    temperature: float = Field(0.07, gt=0)
    """τ of CUT's eq. 3."""
    projection_channels: int = Field(256, ge=1)
    """Width of the head that projects patches."""
    initialisation: Initialisation = "xavier"
    """How weights are drawn."""

    def refuse_other_channels(self, in_channels: int, out_channels: int) -> None:
        """Refuses sources and targets that one encoder can't see.

        Raises:
            UsageError: saying what else can be done.
        """
        if in_channels != out_channels:
            raise UsageError(
                f"{self.name} compares source and target by one encoder, so both need the same channels, not {in_channels} "
                f"and {out_channels}: set --data.in-channels and --data.out-channels alike, or use cyclegan --identity-weight 0."
            )

    def build_projection(self, generator: ResNetConfig) -> Projection:
        """The head that projects the encoder's features, with fresh weights."""
        channels = [channels for channels, _ in encoder_depths(generator)]
        head = Projection(channels, self.projection_channels)
        return initialise(head, self.initialisation, self.initialisation_gain)


def compare_patches(
    head: nn.Module, queries: Sequence[Tensor], keys: Sequence[Tensor], config: ContrastiveConfig
) -> Tensor:
    """PatchNCE averaged over depths (eq. 4), of what the encoder sees of a translation and of its source at the same places."""
    projected = head(queries)
    with torch.no_grad():
        truth = head([key.detach() for key in keys])
    losses = [patch_nce(q, k, config.temperature) for q, k in zip(projected, truth, strict=True)]
    return torch.stack(losses).mean()


def draw_places(depths: Sequence[tuple[int, int]], image: Tensor, patches: int) -> tuple[list[Tensor], list[Tensor]]:
    """At each depth the positions to compare, (P,) row by row; and where they are in a mirrored image."""
    height, width = image.shape[2:]
    places: list[Tensor] = []
    mirrored: list[Tensor] = []
    for _, pixels in depths:
        columns = width // pixels
        chosen = torch.randperm(height // pixels * columns, device=image.device)[:patches]
        places.append(chosen)
        mirrored.append(chosen - chosen % columns + (columns - 1 - chosen % columns))
    return places, mirrored
