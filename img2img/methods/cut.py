"""CUT and FastCUT: contrastive learning for unpaired image-to-image translation (Park et al. 2020)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.methods.base import Batch, Losses, Method, Outputs, Stage, resolve_generator
from img2img.methods.contrastive import ContrastiveConfig, compare_patches, draw_places
from img2img.methods.gan_losses import SMALL_UNPAIRED
from img2img.methods.inpaint import pretraining_stage
from img2img.networks.generators.resnet import encoder_depths
from img2img.networks.weights import load_plain_state


class CUTConfig(ContrastiveConfig):
    """The paper's numbers."""

    paper = "2007.15651"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": SMALL_UNPAIRED}
    run_defaults: ClassVar[Mapping[str, object]] = {"epochs": 400}

    name: Annotated[Literal["cut"], tyro.conf.Suppress] = "cut"
    flip_equivariance: bool = False
    """Mirror every second source, and compare its translation's patches with the mirrored places."""
    pretrain: int = Field(0, ge=0)
    """Updates before all others in which the generator learns to restore masked images of both sides (Torbunov et al. 2023); 0 for none."""

    def earlier_stage(self) -> Stage | None:
        """Restoring masked images, if it is asked for."""
        return pretraining_stage(self.pretrain, self.generator, self.lr, self.initialisation, self.initialisation_gain)

    def without_stages(self) -> Self:
        """Without pretraining."""
        return self.model_copy(update={"pretrain": 0})

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "CUT":
        """The method with fresh networks."""
        return CUT(self, in_channels, out_channels, size, classes)


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

    def __init__(self, config: CUTConfig, in_channels: int, out_channels: int, size: int, classes: int = 0) -> None:
        self.config = config
        config.refuse_other_channels(in_channels, out_channels)
        resolved = resolve_generator(config.generator, in_channels, out_channels, size, "instance")
        self.generator_configs = {"": resolved}
        self.depths = encoder_depths(resolved)
        self.adversarial = config.build_adversarial_loss()
        self.memories = self.adversarial.memories
        self.networks: dict[str, nn.Module] = {
            "generator": config.initialise(resolved),
            "discriminator": config.build_discriminator(out_channels, size),
            "projection": config.build_projection(resolved),
        }
        self.semantic = config.build_semantic(in_channels, out_channels, size, classes)
        self.networks |= self.semantic.networks if self.semantic else {}
        parts = (self.generator_losses, self.identity_losses) if config.identity_nce else (self.generator_losses,)
        self.phases = (
            *([self.semantic.build_phase(self.networks)] if self.semantic else []),
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
        if self.semantic:
            images["flip"] = torch.tensor(flip)
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
        if self.semantic:
            losses |= self.semantic.losses(fake, outputs, batch, bool(images["flip"]))
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
        places, mirrored = draw_places(self.depths, image, self.config.patches)
        if not flip:
            translation, keys = self.networks["generator"](image, places)
            return translation, keys, places, False
        translation = self.networks["generator"](image.flip(3))
        with torch.no_grad():
            keys = self.networks["generator"](image, places, decode=False)[1]
        return translation, keys, mirrored, True

    def _nce(self, image: Tensor, places: list[Tensor], keys: list[Tensor]) -> Tensor:
        """Of a translation, and what was seen of its source."""
        queries = self.networks["generator"](image, places, decode=False)[1]
        return compare_patches(self.networks["projection"], queries, keys, self.config)

    def _each(self, name: str, images: dict[str, Tensor]) -> list[Tensor]:
        return [images[f"{name}_{number}"] for number in range(len(self.depths))]


def _number(name: str, values: list[Tensor]) -> dict[str, Tensor]:
    return {f"{name}_{number}": value for number, value in enumerate(values)}
