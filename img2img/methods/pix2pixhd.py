"""pix2pixHD: high-resolution image synthesis with conditional GANs (Wang et al. 2018)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.data.labelled import LabelledData
from img2img.data.paired import PairedData
from img2img.losses.adversarial import Adversarial
from img2img.methods.base import Batch, Losses, Method, Outputs, Stage, choose_source, resolve_generator
from img2img.methods.image_pool import ImagePool
from img2img.methods.perceptual import Perceptual, PerceptualConfig, PerceptualTranslationConfig
from img2img.networks import (
    DiscriminatorConfig,
    InstanceEncoderConfig,
    MultiScaleConfig,
    Pix2PixHD,
    Pix2PixHDConfig,
    build_encoder,
    initialise,
)


class Pix2PixHDMethodConfig(PerceptualTranslationConfig):
    """The paper's numbers."""

    data_kinds = (LabelledData, PairedData)
    paper = "1711.11585"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "batch_size": 4,
            "ema": 0.999,
            "method": {
                "generator": {"channels": 32, "upsampling": "resize"},
                "discriminator": {"kind": "multiscale", "channels": 32, "scales": 2},
                "feature_matching": 20.0,
                "perceptual": {"network": "lite", "weight": 20.0},
            },
        }
    }

    name: Annotated[Literal["pix2pixhd"], tyro.conf.Suppress] = "pix2pixhd"
    generator: Pix2PixHDConfig = Pix2PixHDConfig(enhancers=1)
    """The network that translates: a global generator, and local enhancers around it."""
    discriminator: DiscriminatorConfig = MultiScaleConfig()
    """The networks that tell real from generated, at several scales."""
    adversarial: Adversarial = "lsgan"
    """lsgan: least squares, as in the paper, summed over scales; vanilla: the minimax loss, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; hinge; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    feature_matching: float = Field(10.0, ge=0)
    """λ of eq. 5: weight of matching the discriminators' features; 0 leaves it out."""
    perceptual: PerceptualConfig = PerceptualConfig(weight=10.0, network="vgg19")
    """Nearness by features; the paper's are those of VGG-19."""
    encoder: bool = False
    """Learn styles: an encoder sums up each instance of the real image in a few numbers, which the generator is given (§3.4)."""
    instance_encoder: InstanceEncoderConfig = InstanceEncoderConfig()
    """That encoder."""
    styles: int = Field(10, ge=1, le=1000)
    """Kinds of each class that are told apart, by k-means of the encoder's features (§3.4), and kept in the translator."""
    coarse_share: float = Field(0.5, ge=0, lt=1)
    """Share of the training in which the generator without its last enhancer is trained, at half the size, before the rest (§3.2); 0 trains all at once."""
    frozen_share: float = Field(0.1, ge=0, le=1)
    """Share of the rest in which what the generator learned before is left as it is, while the enhancer learns."""
    coarse_run: Path | None = None
    """A run of the generator with an enhancer less, at half the size, to begin from; instead of training one."""
    pool: int = Field(0, ge=0)
    """Earlier translations that the discriminators are shown, too; 0 for none."""

    @property
    def style_count(self) -> int:
        """As it was chosen."""
        return self.styles

    @property
    def begins_with_run(self) -> Path | None:
        """The run that --coarse-run names."""
        return self.coarse_run

    @property
    def freezes_parts(self) -> bool:
        """While the enhancer learns."""
        return bool(self.earlier_stage() or self.coarse_run)

    def earlier_stage(self) -> Stage | None:
        """The generator without its last enhancer, at half the size (§3.2)."""
        if not self.generator.enhancers or not self.coarse_share or self.coarse_run:
            return None
        inner = self.generator.model_copy(update={"enhancers": self.generator.enhancers - 1})
        coarse = self.model_copy(update={"generator": inner})
        text = "First stage: the generator with one enhancer less, at half the size."
        return Stage("coarse", coarse, self.coarse_share, 2, text)

    def share_frozen_after_stage(self) -> float:
        """As it was chosen."""
        return self.frozen_share

    def without_stages(self) -> Self:
        """All trained at once."""
        return self.model_copy(update={"coarse_share": 0.0})

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "Pix2PixHDMethod":
        """The method with fresh networks."""
        return Pix2PixHDMethod(self, in_channels, out_channels, size)


class Pix2PixHDMethod(Method):
    """A coarse-to-fine generator, discriminators at several scales, and perhaps an encoder of instances; G is updated before D."""

    def __init__(self, config: Pix2PixHDMethodConfig, in_channels: int, out_channels: int, size: int) -> None:
        self.config = config
        if config.coarse_run and not config.generator.enhancers:
            raise UsageError(
                "--coarse-run is of a generator with an enhancer less, but this one has none (--generator.enhancers 1)."
            )
        config.refuse_no_losses()
        encoder = config.instance_encoder.model_copy(update={"in_channels": out_channels}) if config.encoder else None
        inward = in_channels + (encoder.features if encoder else 0)
        resolved = resolve_generator(config.generator, inward, out_channels, size, "instance")
        self.generator_configs = {"": resolved}
        self.encoders = {"": ("encoder", encoder)} if encoder else {}
        self.adversarial = config.build_adversarial_loss()
        self.perceptual = Perceptual(config.perceptual)
        self.generator = Pix2PixHD(resolved)
        self.networks: dict[str, nn.Module] = {"generator": self.generator}
        if encoder:
            self.networks["encoder"] = build_encoder(encoder)
        for network in self.networks.values():
            initialise(network, config.initialisation, config.initialisation_gain)
        trained = tuple(self.networks)
        self.networks["discriminator"] = config.build_discriminator(out_channels, size, in_channels)
        self.pool = ImagePool(config.pool, int(torch.randint(2**31, ()).item()))
        self.memories = ({"pool": self.pool} if config.pool else {}) | self.adversarial.memories
        self.frozen_until = 0
        self.phases = (
            config.build_phase("G", trained, self.generator_losses),
            config.build_discriminator_phase(self.discriminator_losses),
        )

    def begin_from(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes over networks by name from a run of a generator with an enhancer less; all but its last layer, which is of another width.

        Raises:
            UsageError: if they are of other widths or depths.
        """
        for name, found in weights.items():
            own = self.networks[name].state_dict()
            taken = {k: v for k, v in found.items() if not (name == "generator" and k.startswith("head."))}
            wrong = [k for k, v in taken.items() if k not in own or own[k].shape != v.shape]
            last = f"enhancers.{self.config.generator.enhancers - 1}."
            new = (last, "head.") if name == "generator" else ()
            wrong += [k for k in taken if name == "generator" and k.startswith(last)]
            missing = [k for k in own if k not in taken and not k.startswith(new)]
            if wrong or missing:
                raise UsageError(
                    f"the {name} of the run at half the size doesn't fit this one ({(wrong + missing)[0]}); it must be pix2pixhd with an enhancer "
                    "less, the same channels, blocks, encoder and labels."
                )
            self.networks[name].load_state_dict({**own, **taken})

    def freeze_until(self, update: int) -> None:
        """Leaves what was trained at half the size as it is until then."""
        self.frozen_until = update

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """The translation, which both phases use."""
        if self.frozen_until and update <= self.frozen_until:
            for part in (self.generator.inside, *list(self.generator.enhancers)[:-1]):
                part.requires_grad_(update == self.frozen_until)
        source = batch["source"]
        if "encoder" in self.networks:  # without instances, each label is one
            features = self.networks["encoder"](batch["target"], batch["maps"][:, -1])
            source = torch.cat([source, features.to(source.dtype)], dim=1)
        fake = self.networks["generator"](source)
        return Outputs(
            update, {"fake": fake}, translations={"": (choose_source(batch), fake.detach(), batch["target"])}
        )

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 5: fool the discriminators, and match their features, and those of VGG-19."""
        fake, target = outputs.images["fake"], batch["target"]
        outputs.images["fake"] = fake.detach()
        losses = self.adversarial.generator_losses(
            self.networks["discriminator"], target, fake, outputs, given=batch["source"]
        )
        losses |= self.perceptual.losses(fake, target)
        return losses

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 2, with least squares, on real and generated pairs, perhaps earlier ones."""
        network, given, fake = self.networks["discriminator"], batch["source"], outputs.images["fake"]
        if not self.config.pool:
            return self.adversarial.discriminator_losses(network, batch["target"], fake, outputs, given=given)
        pooled = self.pool.query(torch.cat([given, fake.to(given.dtype)], dim=1))
        before = pooled.split([given.shape[1], fake.shape[1]], dim=1)
        return self.adversarial.discriminator_losses(
            network, batch["target"], before[1], outputs, given=given, given_fake=before[0]
        )
