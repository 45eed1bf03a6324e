"""UNSB: unpaired translation in several steps, by a neural Schrödinger bridge (Kim et al. 2024)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.losses.entropy import estimate_entropy
from img2img.methods.base import Batch, Losses, Method, Outputs, resolve_generator
from img2img.methods.contrastive import ContrastiveConfig, compare_patches, draw_places
from img2img.methods.gan_losses import SMALL_UNPAIRED
from img2img.networks import build_discriminator, initialise
from img2img.networks.conditioning import Place, begin
from img2img.networks.discriminators.patchgan import PatchGANConfig
from img2img.networks.generators.resnet import ResNet, encoder_depths


class UNSBConfig(ContrastiveConfig):
    """The numbers of the paper and its code, but for batches of two instead of one."""

    paper = "2305.15086"
    fewest_images: ClassVar[int] = 2
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": SMALL_UNPAIRED}
    run_defaults: ClassVar[Mapping[str, object]] = {"epochs": 400, "batch_size": 2}

    name: Annotated[Literal["unsb"], tyro.conf.Suppress] = "unsb"
    nfe: int = Field(5, ge=1)
    """Steps in which an image is translated, at most: `img2img convert --nfe` may take fewer."""
    tau: float = Field(0.01, ge=0)
    """τ: the variance of the noise that the whole process adds, and the weight of the entropy."""
    bridge_weight: float = Field(1.0, ge=0)
    """λ_SB: the weight of staying near the image and of the entropy."""
    energy: PatchGANConfig = PatchGANConfig(downsampling="blur")
    """The network that estimates the entropy."""

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "UNSB":
        """The method with fresh networks."""
        return UNSB(self, in_channels, out_channels, size, classes)


class UNSB(Method):
    """A generator that is told the step, a discriminator and an energy network that see it, and a head that projects features; updated in the order D, E, G and head."""

    def __init__(self, config: UNSBConfig, in_channels: int, out_channels: int, size: int, classes: int = 0) -> None:
        self.config = config
        config.refuse_other_channels(in_channels, out_channels)
        resolved = resolve_generator(config.generator, in_channels, out_channels, size, "instance")
        resolved = resolved.model_copy(update={"steps": config.nfe, "tau": config.tau})
        self.generator_configs = {"": resolved}
        self.depths = encoder_depths(resolved)
        energy = build_discriminator(config.energy, 4 * out_channels, "instance", config.nfe)
        if size < config.energy.min_size:
            raise UsageError(
                f"--size {size}: the energy network needs {config.energy.min_size} pixels; use fewer --energy.layers."
            )
        self.networks: dict[str, nn.Module] = {
            "generator": draw_conditioning(config.initialise(resolved)),
            "discriminator": config.build_discriminator(out_channels, size, config.nfe),
            "energy": initialise(energy, config.initialisation, config.initialisation_gain),
            "projection": config.build_projection(resolved),
        }
        self.semantic = config.build_semantic(in_channels, out_channels, size, classes)
        self.networks |= self.semantic.networks if self.semantic else {}
        self.width = 4 * resolved.channels
        self.adversarial = config.build_adversarial_loss()
        self.memories = self.adversarial.memories
        parts = (self.generator_losses, self.identity_losses) if config.identity_nce else (self.generator_losses,)
        self.phases = (
            *([self.semantic.build_phase(self.networks)] if self.semantic else []),
            config.build_discriminator_phase(self.discriminator_losses),
            config.build_phase("E", ("energy",), self.energy_losses),
            config.build_phase("G", ("generator", "projection"), *parts),
        )

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """Images where a random step begins, and their translations at this step."""
        source, target = batch["source"], batch["target"]
        step = int(torch.randint(self.config.nfe, ()))
        images = torch.cat([source, target]) if self.config.identity_nce else source
        begins = self._walk(images, step)
        fake = self._call(begins, step, slice(len(source)))
        given = source.new_zeros(len(source), self.config.nfe, *source.shape[2:])
        given[:, step] = 1
        made = {"image": begins.image, "noise": begins.noise.expand_as(images), "fake": fake, "given": given}
        made["step"] = torch.tensor(step)
        return Outputs(update, made, translations={"": (source, fake.detach(), target)})

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """The discriminator's side, at this step."""
        network, made = self.networks["discriminator"], outputs.images
        return self.adversarial.discriminator_losses(
            network, batch["target"], made["fake"], outputs, given=made["given"]
        )

    def energy_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Makes the estimate of the entropy as good as it gets."""
        entropy, spread = self._estimate_entropy(outputs.images["fake"].detach(), outputs)
        return {"E/entropy": -entropy, "E/drift": spread**2}

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """The objective of §4 but for the identity: fool the discriminator, stay near, stay uncertain, and keep what stands at each place."""
        config, source, made = self.config, batch["source"], outputs.images
        fake, begins, step = made["fake"], self._seen(outputs), int(made["step"])
        losses: Losses = {}
        if config.bridge_weight:
            entropy, _ = self._estimate_entropy(fake, outputs)
            outputs.metrics["G/entropy"] = entropy.detach()
            left = 1 - step / config.nfe
            losses["G/near"] = config.bridge_weight * config.tau * F.mse_loss(fake.float(), begins)
            losses["G/certain"] = -config.bridge_weight * config.tau * left * entropy
        share = 0.5 if config.identity_nce else 1.0
        losses["G/nce"] = config.nce_weight * share * self._nce(source, fake)
        if self.semantic:
            losses |= self.semantic.losses(fake, outputs, batch)
        network = self.networks["discriminator"]
        return losses | self.adversarial.generator_losses(network, batch["target"], fake, outputs, given=made["given"])

    def identity_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """CUT's identity: what is of the target's domain already keeps what stands at each place."""
        made = outputs.images
        place = Place(made["image"], made["noise"])
        same = self._call(place, int(made["step"]), slice(len(batch["source"]), None))
        return {"G/nce_identity": self.config.nce_weight * 0.5 * self._nce(batch["target"], same)}

    def _call(self, place: Place, step: int, part: slice = slice(None)) -> Tensor:
        """The translation at a step, with fresh noise; of a part of the batch."""
        image, seen = place.image[part], place.seen[part]
        made: Tensor = self.networks["generator"](seen, step=step, noise=self._draw(image), base=image)
        return made

    def _seen(self, outputs: Outputs) -> Tensor:
        """What the network saw of the sources."""
        made = outputs.images
        count = len(made["fake"])
        return made["image"][:count] + made["noise"][:count]

    def _draw(self, image: Tensor) -> Tensor:
        return torch.randn(len(image), self.width, device=image.device)

    @torch.no_grad()
    def _walk(self, images: Tensor, last: int) -> Place:
        """Where a step begins, if the network makes all steps before it (§4)."""
        place = begin(images)
        for step in range(last):
            made = self._call(place, step).float()
            place = place.move_on(made, step, self.config.nfe, self.config.tau, torch.randn_like(images))
        return place

    def _estimate_entropy(self, fake: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Of pairs: where the step begins, and its translation."""
        pairs = torch.cat([self._seen(outputs), fake.float()], dim=1)
        return estimate_entropy(self.networks["energy"], pairs, outputs.images["given"])

    def _nce(self, source: Tensor, translation: Tensor) -> Tensor:
        """Both as the encoder sees them at the first step, with the same noise."""
        places, _ = draw_places(self.depths, source, self.config.patches)
        how: dict[str, Any] = {"decode": False, "noise": self._draw(source)}
        with torch.no_grad():
            keys = self.networks["generator"](source, places, **how)[1]
        queries = self.networks["generator"](translation, places, **how)[1]
        return compare_patches(self.networks["projection"], queries, keys, self.config)


def draw_conditioning(generator: nn.Module) -> nn.Module:
    """Lets steps and noise matter from the beginning, whatever the gain of the other weights."""
    assert isinstance(generator, ResNet) and generator.conditioning is not None
    generator.conditioning.draw()
    for name, layer in generator.named_modules():
        if name.endswith(".modulation") and isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.25 / layer.in_features**0.5)
    return generator
