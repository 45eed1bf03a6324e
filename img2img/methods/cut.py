"""CUT and FastCUT: contrastive learning for unpaired image-to-image translation (Park et al. 2020)."""

from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.errors import UsageError
from img2img.losses.adversarial import Adversarial
from img2img.losses.contrastive import patch_nce
from img2img.methods.adversary import AdversarialConfig, Adversary
from img2img.methods.base import Batch, Losses, Memory, Outputs, Phase, Role, independent
from img2img.methods.generators import fitting
from img2img.networks import ResNet, ResNetConfig, initialise
from img2img.networks.blocks import Initialisation
from img2img.networks.patchgan import PatchGANConfig
from img2img.networks.projection import Projection
from img2img.networks.resnet import depths


class CUTConfig(AdversarialConfig):
    """The paper's numbers."""

    paired: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {"epochs": 400}

    name: Annotated[Literal["cut"], tyro.conf.Suppress] = "cut"
    generator: ResNetConfig = ResNetConfig(downsampling="blur", upsampling="blur")
    """The network that translates, and whose encoder tells patches apart."""
    discriminator: PatchGANConfig = PatchGANConfig(downsampling="blur")
    """The network that tells real from generated."""
    adversarial: Adversarial = "lsgan"
    """lsgan: least squares, as in the paper; vanilla: the minimax game, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; hinge; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    nce_weight: float = Field(1.0, ge=0)
    """λ_X of eq. 5: weight of the contrastive loss."""
    identity_nce: bool = True
    """Compare the target's patches, too, with those of its own translation: λ_Y of eq. 5; each loss then counts half."""
    flip_equivariance: bool = False
    """Mirror every second source, and compare its translation's patches with the mirrored places."""
    patches: int = Field(256, ge=2)
    """Places compared at each depth of the encoder."""
    temperature: float = Field(0.07, gt=0)
    """τ of eq. 3."""
    projection_channels: int = Field(256, ge=1)
    """Width of the head that projects patches."""
    initialisation: Initialisation = "xavier"
    """How weights are drawn."""

    def build(self, in_channels: int, out_channels: int, size: int) -> "CUT":
        """The method with fresh networks for square training images of `size` pixels."""
        return CUT(self, in_channels, out_channels, size)


class FastCUTConfig(CUTConfig):
    """CUT made faster and lighter: no identity, a heavier contrastive loss, and flips (appendix C.1)."""

    defaults: ClassVar[dict[str, Any]] = {"epochs": 200, "decay": 0.25}

    name: Annotated[Literal["fastcut"], tyro.conf.Suppress] = "fastcut"  # type: ignore[assignment]
    nce_weight: float = Field(10.0, ge=0)
    """λ_X of eq. 5: weight of the contrastive loss."""
    identity_nce: bool = False
    """Compare the target's patches, too, with those of its own translation: λ_Y of eq. 5; each loss then counts half."""
    flip_equivariance: bool = True
    """Mirror every second source, and compare its translation's patches with the mirrored places."""


class CUT:
    """One generator, one discriminator, and a head that projects the encoder's features; D is updated before G and head.

    Args:
        config: the settings.
        in_channels: channels of the sources.
        out_channels: channels of the targets, the same: the encoder reads both.
        size: height and width of the training images in pixels.

    Raises:
        UsageError: if the networks can't take such images, or the channels differ.
    """

    generators: ClassVar[dict[Role, str]] = {"": "generator"}

    def __init__(self, config: CUTConfig, in_channels: int, out_channels: int, size: int) -> None:
        self.config = config
        if in_channels != out_channels:
            raise UsageError(
                f"{config.name} compares source and target by one encoder, so both need the same channels, not {in_channels} "
                f"and {out_channels}: set --data.in-channels and --data.out-channels alike, or use cyclegan --identity-weight 0."
            )
        if not config.nce_weight and not config.adversarial_weight:
            raise UsageError("--nce-weight 0 and --adversarial-weight 0 together leave the generator nothing to learn.")
        resolved = fitting(config.generator, in_channels, out_channels, size, "instance")
        self.generator_configs: dict[Role, ResNetConfig] = {"": resolved}
        self.depths = depths(resolved)
        self.adversary = Adversary(config, out_channels, size, "instance")
        generator = ResNet(resolved)
        discriminator = self.adversary.build()
        projection = Projection([channels for channels, _ in self.depths], config.projection_channels)
        for network in (generator, projection):
            initialise(network, config.initialisation, config.initialisation_gain)
        self.networks: dict[str, nn.Module] = {
            "generator": generator,
            "discriminator": discriminator,
            "projection": projection,
        }
        self.memories: dict[str, Memory] = {}
        self.phases = (
            Phase("D", ("discriminator",), (self.discriminator_losses,), config.lr, config.betas),
            Phase("G", ("generator", "projection"), (self.generator_losses,), config.lr, config.betas),
        )

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """The translation, and on the way the source's features, which only a mirrored source needs again."""
        source = batch["source"]
        sides = [source, batch["target"]] if self.config.identity_nce else [source]
        flip = self.config.flip_equivariance and bool(torch.rand(()) < 0.5)
        height, width = source.shape[2:]
        places, mirrored = self._places(height, width, source.device)
        images, keys = [], []
        for group in [torch.cat(sides)] if independent(self.generator_configs[""].norm) else sides:
            if flip:
                images.append(self.networks["generator"](group.flip(3)))
                with torch.no_grad():
                    keys.append(self.networks["generator"](group, places, decode=False)[1])
            else:
                image, features = self.networks["generator"](group, places)
                images.append(image)
                keys.append([each.detach() for each in features])
        image = torch.cat(images)
        shared = {f"key_{number}": torch.cat(parts) for number, parts in enumerate(zip(*keys, strict=True))}
        shared |= {f"place_{number}": each for number, each in enumerate(mirrored if flip else places)}
        fake = image[: len(source)]
        seen = fake.detach().flip(3) if flip else fake.detach()
        return Outputs(
            update, {"image": image, "fake": fake, **shared}, translations={"": (source, seen, batch["target"])}
        )

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """The discriminator's side of eq. 1."""
        network, fake = self.networks["discriminator"], outputs.images["fake"]
        return self.adversary.discriminator_losses(network, batch["target"], fake, outputs)

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 5: fool the discriminator, and keep what stands at each place."""
        config, images = self.config, outputs.images
        losses: Losses = {}
        if config.adversarial_weight:
            network = self.networks["discriminator"]
            losses["G/adversarial"] = self.adversary.generator_loss(network, batch["target"], images["fake"], outputs)
        if config.nce_weight:
            own, identity = self._nce(images)
            share = 1.0 if identity is None else 0.5
            losses["G/nce"] = config.nce_weight * share * own
            if identity is not None:
                losses["G/nce_identity"] = config.nce_weight * share * identity
        return losses

    def _nce(self, images: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """PatchNCE averaged over depths (eq. 4), for the source's translation and, if there is one, the target's."""
        counted = range(len(self.depths))
        groups = [images["image"]]
        if self.config.identity_nce and not independent(self.generator_configs[""].norm):
            groups = list(images["image"].chunk(2))
        places = [images[f"place_{number}"] for number in counted]
        found = [self.networks["generator"](group, places, decode=False)[1] for group in groups]
        queries = self.networks["projection"]([torch.cat(parts) for parts in zip(*found, strict=True)])
        with torch.no_grad():
            keys = self.networks["projection"]([images[f"key_{number}"] for number in counted])
        sides = []
        for part in range(2 if self.config.identity_nce else 1):
            own = slice(part * len(images["fake"]), (part + 1) * len(images["fake"]))
            pairs = zip(queries, keys, strict=True)
            sides.append(torch.stack([patch_nce(q[own], k[own], self.config.temperature) for q, k in pairs]).mean())
        return sides[0], sides[1] if len(sides) == 2 else None

    def _places(self, height: int, width: int, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
        """At each depth the positions to compare, (P,) row by row; and where they are in a mirrored image."""
        places = []
        mirrored = []
        for _, pixels in self.depths:
            columns = width // pixels
            chosen = torch.randperm(height // pixels * columns, device=device)[: self.config.patches]
            places.append(chosen)
            mirrored.append(chosen - chosen % columns + (columns - 1 - chosen % columns))
        return places, mirrored
