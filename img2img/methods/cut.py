"""CUT and FastCUT: contrastive learning for unpaired image-to-image translation (Park et al. 2020)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.data.unpaired import UnpairedData
from img2img.losses.adversarial import Adversarial
from img2img.losses.contrastive import patch_nce
from img2img.methods.base import Batch, Losses, Method, Outputs, Stage, resolve_generator
from img2img.methods.gan_losses import SMALL_UNPAIRED, TranslationConfig
from img2img.methods.inpaint import pretraining_stage
from img2img.networks import DiscriminatorConfig, ResNet, ResNetConfig, initialise
from img2img.networks.discriminators.patchgan import PatchGANConfig
from img2img.networks.generators.resnet import encoder_depths
from img2img.networks.projection import Projection
from img2img.networks.weights import Initialisation, load_plain_state


class CUTConfig(TranslationConfig):
    """The paper's numbers."""

    data_kinds = (UnpairedData,)
    best_by: ClassVar[Literal["perceptual", "kid"]] = "kid"
    paper = "2007.15651"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": SMALL_UNPAIRED}
    run_defaults: ClassVar[Mapping[str, object]] = {"epochs": 400}

    name: Annotated[Literal["cut"], tyro.conf.Suppress] = "cut"
    generator: ResNetConfig = ResNetConfig(downsampling="blur", upsampling="blur")
    """The network that translates, and whose encoder tells patches apart."""
    discriminator: DiscriminatorConfig = PatchGANConfig(downsampling="blur")
    """The network that tells real from generated."""
    adversarial: Adversarial = "lsgan"
    """lsgan: least squares, as in the paper; vanilla: the minimax loss, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; hinge; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    nce_weight: float = Field(1.0, gt=0)
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
    pretrain: int = Field(0, ge=0)
    """Updates before all others in which the generator learns to restore masked images of both sides (Torbunov et al. 2023); 0 for none."""
    initialisation: Initialisation = "xavier"
    """How weights are drawn."""

    def earlier_stage(self) -> Stage | None:
        """Restoring masked images, if it is asked for."""
        return pretraining_stage(self.pretrain, self.generator, self.lr, self.initialisation, self.initialisation_gain)

    def without_stages(self) -> Self:
        """Without pretraining."""
        return self.model_copy(update={"pretrain": 0})

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "CUT":
        """The method with fresh networks."""
        return CUT(self, in_channels, out_channels, size)


class FastCUTConfig(CUTConfig):
    """CUT made faster and lighter: no identity, a heavier contrastive loss, and flips (appendix C.1)."""

    run_defaults: ClassVar[Mapping[str, object]] = {"epochs": 200, "decay": 0.25}

    name: Annotated[Literal["fastcut"], tyro.conf.Suppress] = "fastcut"  # type: ignore[assignment]
    nce_weight: float = Field(10.0, gt=0)
    """λ_X of eq. 5: weight of the contrastive loss."""
    identity_nce: bool = False
    """Compare the target's patches, too, with those of its own translation: λ_Y of eq. 5; each loss then counts half."""
    flip_equivariance: bool = True
    """Mirror every second source, and compare its translation's patches with the mirrored places."""


class CUT(Method):
    """One generator, one discriminator, and a head that projects the encoder's features; D is updated before G and head."""

    def __init__(self, config: CUTConfig, in_channels: int, out_channels: int, size: int) -> None:
        self.config = config
        if in_channels != out_channels:
            raise UsageError(
                f"{config.name} compares source and target by one encoder, so both need the same channels, not {in_channels} "
                f"and {out_channels}: set --data.in-channels and --data.out-channels alike, or use cyclegan --identity-weight 0."
            )
        resolved = resolve_generator(config.generator, in_channels, out_channels, size, "instance")
        self.generator_configs = {"": resolved}
        self.depths = encoder_depths(resolved)
        self.adversarial = config.build_adversarial_loss()
        self.memories = self.adversarial.memories
        generator = ResNet(resolved)
        discriminator = config.build_discriminator(out_channels, size)
        projection = Projection([channels for channels, _ in self.depths], config.projection_channels)
        for network in (generator, projection):
            initialise(network, config.initialisation, config.initialisation_gain)
        self.networks: dict[str, nn.Module] = {
            "generator": generator,
            "discriminator": discriminator,
            "projection": projection,
        }
        parts = (self.generator_losses, self.identity_losses) if config.identity_nce else (self.generator_losses,)
        self.phases = (
            config.build_discriminator_phase(self.discriminator_losses),
            config.build_phase("G", ("generator", "projection"), *parts),
        )

    def begin_from(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The generator begins with what it has learned in pretraining."""
        load_plain_state(self.networks["generator"], weights["generator"])

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """The translation, with what the contrastive loss needs of the source."""
        source = batch["source"]
        fake, keys, places, flip = self._translate(source)
        images = {"fake": fake, **_number("key", keys), **_number("place", places)}
        seen = fake.detach().flip(3) if flip else fake.detach()
        return Outputs(update, images, translations={"": (source, seen, batch["target"])})

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """The discriminator's side of eq. 1."""
        network, fake = self.networks["discriminator"], outputs.images["fake"]
        return self.adversarial.discriminator_losses(network, batch["target"], fake, outputs)

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 5 without its last term: fool the discriminator, and keep what stands at each place."""
        config, images = self.config, outputs.images
        losses: Losses = {}
        fake = images.pop("fake")  # nobody needs it afterwards, and its activations are large
        places, keys = (self._each(name, images) for name in ("place", "key"))
        share = 0.5 if config.identity_nce else 1.0
        losses["G/nce"] = config.nce_weight * share * self._nce(fake, places, keys)
        network = self.networks["discriminator"]
        return losses | self.adversarial.generator_losses(network, batch["target"], fake, outputs)

    def identity_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """The last term of eq. 5: what is translated to the target's domain already keeps what stands at each place.

        A part of its own, so that both translations' activations are never held at once.
        """
        same, keys, places, _ = self._translate(batch["target"])
        return {"G/nce_identity": self.config.nce_weight * 0.5 * self._nce(same, places, keys)}

    def _translate(self, image: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], bool]:
        """The translation, and on the way the image's own features, which only a mirrored image needs again.

        Returns:
            The translation, of the mirrored image if `flip`; at each depth the features at the places drawn, (B, P, channels);
            where these places are in the translation; flip.
        """
        flip = self.config.flip_equivariance and bool(torch.rand(()) < 0.5)
        places, mirrored = self._places(image.shape[2], image.shape[3], image.device)
        if not flip:
            translation, keys = self.networks["generator"](image, places)
            return translation, keys, places, False
        translation = self.networks["generator"](image.flip(3))
        with torch.no_grad():
            keys = self.networks["generator"](image, places, decode=False)[1]
        return translation, keys, mirrored, True

    def _nce(self, image: Tensor, places: list[Tensor], keys: list[Tensor]) -> Tensor:
        """PatchNCE averaged over depths (eq. 4)."""
        head = self.networks["projection"]
        queries = head(self.networks["generator"](image, places, decode=False)[1])
        with torch.no_grad():
            keys = head([key.detach() for key in keys])
        losses = [patch_nce(q, k, self.config.temperature) for q, k in zip(queries, keys, strict=True)]
        return torch.stack(losses).mean()

    def _each(self, name: str, images: dict[str, Tensor]) -> list[Tensor]:
        return [images[f"{name}_{number}"] for number in range(len(self.depths))]

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


def _number(name: str, values: list[Tensor]) -> dict[str, Tensor]:
    return {f"{name}_{number}": value for number, value in enumerate(values)}
