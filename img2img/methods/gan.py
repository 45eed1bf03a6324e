"""GAN: generative adversarial networks (Goodfellow et al. 2014), also with classes (Mirza & Osindero 2014)."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.data.class_folders import ClassFolderData
from img2img.losses import regularisers
from img2img.methods.base import Batch, Losses, Method, Outputs, Phase, is_independent, unwrap
from img2img.methods.gan_losses import AdversarialConfig, AdversarialLoss, Judgement
from img2img.networks import (
    NOISE_DISCRIMINATORS,
    AnyNoiseDiscriminatorConfig,
    AnyNoiseGeneratorConfig,
    DCGANConfig,
    DCGANDiscriminatorConfig,
    NoiseDiscriminatorConfig,
    NoiseGeneratorConfig,
    initialise,
)
from img2img.networks.generators.progressive import ProgressiveConfig, explain_growth, level_at, reduce_images
from img2img.networks.weights import add_spectral_norm

SMOOTHED = ("vanilla", "nonsaturating", "lsgan")


SMALL_DCGAN: Mapping[str, Any] = {
    "generator": {"kind": "dcgan", "channels": 32},
    "discriminator": {"kind": "dcgan", "channels": 32},
}
"""Networks for few images."""


class NoiseMethodConfig(AdversarialConfig):
    """What all methods that make images from noise can be told; the defaults are DCGAN's."""

    data_kinds = (ClassFolderData,)
    model: ClassVar[Literal["translator", "noise_generator"]] = "noise_generator"
    best_by: ClassVar[Literal["perceptual", "kid"]] = "kid"
    run_defaults: ClassVar[Mapping[str, object]] = {
        "batch_size": 128, "epochs": 50, "decay": 0.0, "data": {"size": 64, "jitter": 1.0, "flip": 0.0}
    }  # fmt: skip

    generator: AnyNoiseGeneratorConfig = DCGANConfig()
    """The network that makes images."""
    discriminator: AnyNoiseDiscriminatorConfig = DCGANDiscriminatorConfig()
    """The network that tells real from generated images."""
    discriminator_steps: int = Field(1, ge=1)
    """Updates of the discriminator for each of the generator (k of Goodfellow et al. 2014, algorithm 1). --steps counts the discriminator's."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """How far below 1 the discriminator's target for real images is: one-sided label smoothing (Salimans et al. 2016, §3.4)."""
    instance_noise: float = Field(0.0, ge=0)
    """Standard deviation of noise on all that the discriminator sees (Sønderby et al. 2017), falling linearly to 0."""
    instance_noise_updates: int = Field(2000, ge=1)
    """Updates after which it is 0."""
    weight_clip: float = Field(0.0, ge=0)
    """Clip the discriminator's weights to this after each step: 0.01 in WGAN (Arjovsky et al. 2017); 0 doesn't clip."""
    orthogonal: float = Field(0.0, ge=0)
    """β of BigGAN's orthogonal regularisation of the generator: 1e-4 in its paper; 0 for none."""

    def suits_recipe(self) -> bool:
        """With DCGAN's networks and loss."""
        kinds = {self.generator.kind, self.discriminator.kind}
        penalties = self.gradient_penalty or self.r1 or self.r2 or self.weight_clip or self.discriminator.spectral_norm
        return kinds == {"dcgan"} and self.adversarial == "nonsaturating" and not penalties

    @property
    def freezes_parts(self) -> bool:
        """Layers of resolutions that aren't reached yet."""
        return self.generator.grows

    def warn_of_length(self, updates: int, size: int) -> str:
        """That a generator which grows needs more updates."""
        return explain_growth(self.generator.model_copy(update={"size": size}), updates)

    def resolve_networks(
        self, classes: int, channels: int, size: int, codes: int = 0
    ) -> tuple[NoiseGeneratorConfig, NoiseDiscriminatorConfig]:
        """The networks' configs with all filled in; `codes` are numbers of the generator's input beside the noise.

        Raises:
            UsageError: if the settings exclude each other, or the networks can't make images of that size.
        """
        generator = resolve_noise_generator(self.generator, classes, channels, size, codes)
        refuse_attention("discriminator", self.discriminator.attention_height, list_heights(size)[:-1])
        norm = self.discriminator.norm or ("group" if self.gradient_penalty or self.r1 or self.r2 else "batch")
        discriminator = self.discriminator.model_copy(update={"norm": norm})
        self._refuse_combinations(discriminator)
        return generator, discriminator

    def _refuse_combinations(self, discriminator: NoiseDiscriminatorConfig) -> None:
        if self.generator.grows != discriminator.grows:
            raise UsageError(
                "networks grow together: give both --generator.kind progressive and --discriminator.kind progressive."
            )
        self.refuse_penalties(discriminator.norm, "leave --discriminator.norm out, or take group")
        scaled: NoiseGeneratorConfig | NoiseDiscriminatorConfig
        for option, value, scaled in (
            ("--orthogonal", self.orthogonal, self.generator),
            ("--weight-clip", self.weight_clip, discriminator),
        ):
            if value and scaled.scales_weights:
                raise UsageError(
                    f"{option} is for weights as they are used, and those of {scaled.kind} networks are scaled; leave it out."
                )
        constrained = self.gradient_penalty or self.weight_clip or discriminator.spectral_norm
        self.refuse_wasserstein(constrained, ", --weight-clip 0.01")
        if self.label_smoothing and self.adversarial not in SMOOTHED:
            raise UsageError(f"--label-smoothing is for {', '.join(SMOOTHED)}, not {self.adversarial}.")
        if self.weight_clip and discriminator.spectral_norm:
            raise UsageError("--weight-clip and --discriminator.spectral-norm both limit the weights; leave one out.")

    def build_networks(
        self, generator: NoiseGeneratorConfig, discriminator: NoiseDiscriminatorConfig, outputs: int = 0
    ) -> dict[str, nn.Module]:
        """Fresh networks, ``generator`` and ``discriminator``, the latter with a second head of so many numbers."""
        made = self.initialise(generator)
        seen = generator.classes if discriminator.conditioning != "none" else 0
        network: Any = NOISE_DISCRIMINATORS[discriminator.kind][1]
        judge = network(discriminator, generator.out_channels, generator.size, seen, outputs)
        initialise(judge, self.initialisation, self.initialisation_gain)
        return {"generator": made, "discriminator": add_spectral_norm(judge) if discriminator.spectral_norm else judge}

    def build_adversarial_loss(self, discriminator: NoiseDiscriminatorConfig, second_head: bool) -> AdversarialLoss:
        """Both sides' losses."""

        def fade_noise(update: int) -> float:
            return self.instance_noise * max(0.0, 1 - update / self.instance_noise_updates)

        return AdversarialLoss(
            self,
            partial(judge_samples, second_head=second_head),
            merge=is_independent(discriminator.norm) and not discriminator.compares_images,
            smoothing=self.label_smoothing,
            noise=fade_noise,
        )

    def build_phases(
        self,
        discriminator_losses: Callable[[Batch, Outputs], Losses],
        generator_losses: Callable[[Batch, Outputs], Losses],
        networks: dict[str, nn.Module],
    ) -> tuple[Phase, Phase]:
        """Algorithm 1 of Goodfellow et al. 2014: k steps of D, then one of G."""

        def clip() -> None:
            with torch.no_grad():
                network = networks["discriminator"]
                torch._foreach_clamp_min_(list(network.parameters()), -self.weight_clip)
                torch._foreach_clamp_max_(list(network.parameters()), self.weight_clip)

        return (
            self.build_discriminator_phase(discriminator_losses, after=clip if self.weight_clip else None),
            self.build_phase("G", ("generator",), generator_losses, every=self.discriminator_steps),
        )

    def orthogonal_losses(self, generator: nn.Module) -> Losses:
        """BigGAN's regularisation, if it is asked for."""
        if not self.orthogonal:
            return {}
        weights = [  # of a transposed convolution the filters are the second axis
            layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
            for name, layer in generator.named_modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and "embedding" not in name
        ]
        return {"G/orthogonal": self.orthogonal * regularisers.orthogonal(weights)}


def resolve_noise_generator(
    config: NoiseGeneratorConfig, classes: int, channels: int, size: int, codes: int = 0
) -> NoiseGeneratorConfig:
    """A generator's config with all filled in; `codes` are numbers of its input beside the noise.

    Raises:
        UsageError: if it can't make images of that size.
    """
    if size not in config.sizes:
        sizes = f"{', '.join(map(str, config.sizes[:-1]))} or {config.sizes[-1]}"
        raise UsageError(f"--size {size}: these networks make images of {sizes} pixels.")
    refuse_attention("generator", config.attention_height, list_heights(size)[1:])
    filled = {"classes": classes, "out_channels": channels, "size": size, "latent": config.count_numbers(size) + codes}
    return config.model_copy(update=filled)


def list_heights(size: int) -> list[int]:
    """From 4 up to the size."""
    return [2**level for level in range(2, size.bit_length())]


def refuse_attention(role: str, attention: int | None, possible: list[int]) -> None:
    """Refuses self-attention where images have no such height."""
    if attention and attention not in possible:
        places = ", ".join(map(str, possible))
        raise UsageError(f"--{role}.attention {attention}: here images are {places} pixels high.")


def judge_samples(
    network: Callable[..., Any], images: Tensor, labels: Tensor | None, levels: bool, second_head: bool
) -> Judgement:
    """Calls a discriminator of images from noise."""
    found = network(images, labels, second_head)
    logits, second = found if second_head else (found, None)
    return Judgement([[scale] for scale in logits] if isinstance(logits, list) else [[logits]], second)


def grow_networks(networks: dict[str, nn.Module], real: Tensor, update: int, config: NoiseGeneratorConfig) -> Tensor:
    """Lets networks that grow do so, and gives real images of their size; both are functions of the update."""
    if not isinstance(config, ProgressiveConfig):
        return real
    level = level_at(update, config)
    for network in networks.values():
        unwrap(network).grow(level)
    return reduce_images(real, level)


def gradients_if_due(phase: Phase, update: int) -> AbstractContextManager[Any]:
    """Gradients are needed only when the generator is trained."""
    return nullcontext() if phase.is_due(update) else torch.no_grad()


class ConditionalConfig(NoiseMethodConfig):
    """What methods can be told whose images may be of classes."""

    unconditional: bool = False
    """Ignore the classes that the folders name."""

    @property
    def uses_classes(self) -> bool:
        """Unless it is told to ignore them."""
        return not self.unconditional


class GANConfig(ConditionalConfig):
    """The paper's loss with DCGAN's numbers."""

    paper = "1406.2661"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "ema": 0.999,
            "method": {**SMALL_DCGAN, "lr": 1e-3, "discriminator_lr": 2e-4},
        }
    }

    name: Annotated[Literal["gan"], tyro.conf.Suppress] = "gan"
    auxiliary_weight: float = Field(0.0, ge=0)
    """Weight of a classifier in the discriminator (Odena et al. 2017); 1 in that paper, with --discriminator.conditioning none; 0 for none."""

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "GAN":
        """The method with fresh networks."""
        return GAN(self, classes if self.uses_classes else 0, out_channels, size)


class GAN(Method):
    """A generator and a discriminator; both see the class, if there are classes."""

    def __init__(self, config: GANConfig, classes: int, channels: int, size: int) -> None:
        _refuse_conditioning(config, classes)
        generator, discriminator = config.resolve_networks(classes, channels, size)
        self.config, self.classes, self.latent = config, classes, generator.latent
        outputs = classes if config.auxiliary_weight else 0
        self.generator_configs = {"": generator}
        self.networks = config.build_networks(generator, discriminator, outputs)
        self.adversarial = config.build_adversarial_loss(discriminator, bool(outputs))
        self.memories = self.adversarial.memories
        self.phases = config.build_phases(self.discriminator_losses, self.generator_losses, self.networks)

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """As many images from noise as there are real ones, of the same classes."""
        real = grow_networks(self.networks, batch["target"], update, self.generator_configs[""])
        noise = torch.randn(len(real), self.latent, device=real.device)
        with gradients_if_due(self.phases[1], update):
            fake = self.generate(noise, self._labels(batch))
        return Outputs(update, {"fake": fake, "real": real}, translations={"": (real, fake.detach(), real)})

    def generate(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Images from noise (B, latent)."""
        made: Tensor = self.networks["generator"](noise, labels)
        return made

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 1; with an auxiliary classifier, the classes of real and generated images, too (Odena et al. 2017, eq. 2–3)."""
        network, labels, images = self.networks["discriminator"], self._labels(batch), outputs.images
        losses = self.adversarial.discriminator_losses(network, images["real"], images["fake"], outputs, labels=labels)
        if self.config.auxiliary_weight and labels is not None:
            both = [F.cross_entropy(images[key].float(), labels) for key in ("second_fake", "second_real")]
            losses["D/classes"] = self.config.auxiliary_weight * (both[0] + both[1])
        return losses

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 1, or one of its successors; with an auxiliary classifier, be recognised as the class."""
        network, labels, images = self.networks["discriminator"], self._labels(batch), outputs.images
        losses = self.adversarial.generator_losses(network, images["real"], images["fake"], outputs, labels=labels)
        losses |= self.config.orthogonal_losses(self.networks["generator"])
        if self.config.auxiliary_weight and labels is not None:
            recognised = F.cross_entropy(images["second_fake"].float(), labels)
            losses["G/classes"] = self.config.auxiliary_weight * recognised
        return losses

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch["label"] if self.classes else None


def _refuse_conditioning(config: GANConfig, classes: int) -> None:
    if config.auxiliary_weight and not classes:
        raise UsageError("--auxiliary-weight classifies, but there are no classes; it needs train/CLASS/ folders.")
    conditioning = config.discriminator.conditioning
    if config.auxiliary_weight and conditioning == "concat":
        raise UsageError(
            "--auxiliary-weight: a discriminator that is told the class needn't find it; add --discriminator.conditioning none "
            "(or projection)."
        )
    if classes and conditioning == "none" and not config.auxiliary_weight:
        raise UsageError(
            "--discriminator.conditioning none: then nothing ties an image to its class; add --auxiliary-weight 1, or --unconditional."
        )
