"""The game of the methods that make images from noise: settings, and both sides' losses."""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from img2img.errors import UsageError
from img2img.losses import adversarial, regularisers
from img2img.losses.adversarial import RELATIVISTIC
from img2img.losses.augment import augment
from img2img.methods.adversary import GameConfig
from img2img.methods.base import Losses, Outputs, Phase, independent
from img2img.networks import (
    NOISE_DISCRIMINATORS,
    AnyNoiseDiscriminator,
    AnyNoiseGenerator,
    DCGANConfig,
    DCGANDiscriminatorConfig,
    NoiseDiscriminator,
    NoiseGenerator,
    build_generator,
    initialise,
)
from img2img.networks.blocks import with_spectral_norm
from img2img.networks.progressive import ProgressiveConfig, grown, reduced

SIZES = (32, 64, 128, 256)
SMOOTHED = ("vanilla", "nonsaturating", "lsgan")


class NoiseGameConfig(GameConfig):
    """What all methods that make images from noise can be told; the defaults are DCGAN's."""

    from_noise: ClassVar[bool] = True
    paired: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {
        "batch_size": 128, "epochs": 50, "decay": 0.0, "data": {"size": 64, "jitter": 1.0, "flip": 0.0}
    }  # fmt: skip

    @property
    def takes_classes(self) -> bool:
        """Whether the classes that folders name are of interest."""
        return False

    generator: NoiseGenerator = DCGANConfig()
    """The network that makes images."""
    discriminator: NoiseDiscriminator = DCGANDiscriminatorConfig()
    """The network that tells real from generated."""
    discriminator_steps: int = Field(1, ge=1)
    """Updates of the discriminator for each of the generator (k of Goodfellow et al. 2014, algorithm 1). --steps counts the discriminator's."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """How far below 1 the discriminator's target for real images is: one-sided label smoothing (Salimans et al. 2016, §3.4)."""
    instance_noise: float = Field(0.0, ge=0)
    """Standard deviation of noise on all that the discriminator sees (Sønderby et al. 2017), falling linearly to 0."""
    instance_noise_updates: int = Field(2000, ge=1)
    """Updates after which it is 0."""
    weight_clip: float = Field(0.0, ge=0)
    """Clip the discriminator's weights to so much after each step: 0.01 in WGAN (Arjovsky et al. 2017); 0 for not."""
    orthogonal: float = Field(0.0, ge=0)
    """β of BigGAN's orthogonal regularisation of the generator: 1e-4 in its paper; 0 for none."""


class NoiseGame:
    """Both sides of the game.

    Args:
        config: the settings.
        classes: how many can be asked for; 0 for none.
        channels: of the images.
        size: height and width of the training images in pixels.
        codes: numbers of the generator's input beside `latent`.
        outputs: numbers of the discriminator's second head; 0 for none.

    Raises:
        UsageError: if the settings exclude each other, or the networks can't make images of that size.
    """

    def __init__(
        self, config: NoiseGameConfig, classes: int, channels: int, size: int, codes: int = 0, outputs: int = 0
    ) -> None:
        self.config, self.classes, self.channels, self.size, self.outputs = config, classes, channels, size, outputs
        if size not in SIZES:
            raise UsageError(
                f"--size {size}: these networks make images of {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]} pixels."
            )
        heights = [2**level for level in range(2, size.bit_length())]  # from 4 up to the size
        makes, judges = (
            ("generator", config.generator, heights[1:]),
            ("discriminator", config.discriminator, heights[:-1]),
        )
        for role, network, passed in (makes, judges):
            attention = getattr(network, "attention", None)
            if attention and attention not in passed:
                places = ", ".join(map(str, passed))
                raise UsageError(f"--{role}.attention {attention}: here images are {places} pixels high.")
        self.generator_config: AnyNoiseGenerator = config.generator.model_copy(
            update={
                "classes": classes,
                "out_channels": channels,
                "size": size,
                "latent": config.generator.latent + codes,
            }
        )
        penalised = bool(config.gradient_penalty or config.r1)
        own = config.discriminator.norm
        self.discriminator_config: AnyNoiseDiscriminator = config.discriminator.model_copy(
            update={"norm": own or ("group" if penalised else "batch")}
        )
        self._refuse(penalised)

    def grow(self, networks: dict[str, nn.Module], real: Tensor, update: int) -> Tensor:
        """Lets networks that grow do so, and gives real images of their size; both are a function of the update."""
        if not isinstance(self.generator_config, ProgressiveConfig):
            return real
        level = grown(update, self.generator_config)
        for network in networks.values():
            bare: Any = network.module if isinstance(network, DistributedDataParallel) else network
            bare.grow(level)
        return reduced(real, level)

    def _refuse(self, penalised: bool) -> None:
        config, network = self.config, self.discriminator_config
        if (config.generator.kind == "progressive") != (network.kind == "progressive"):
            raise UsageError(
                "networks grow together: give both --generator.kind progressive and --discriminator.kind progressive."
            )
        if penalised and network.norm == "batch":
            option = "--gradient-penalty" if config.gradient_penalty else "--r1"
            raise UsageError(
                f"{option} is about each image alone, but batch norm mixes them; leave --discriminator.norm out, or take group."
            )
        grows = network.kind == "progressive"
        if grows and (config.orthogonal or config.weight_clip):
            option = "--orthogonal" if config.orthogonal else "--weight-clip"
            raise UsageError(
                f"{option} is for weights as they are used, and those of progressive networks are scaled; leave it out."
            )
        held = config.gradient_penalty or config.weight_clip or network.spectral_norm
        if config.adversarial == "wasserstein" and not held:
            raise UsageError(
                "--adversarial wasserstein needs a critic that is held: add --gradient-penalty 10, --weight-clip 0.01, or "
                "--discriminator.spectral-norm."
            )
        if config.label_smoothing and config.adversarial not in SMOOTHED:
            raise UsageError(f"--label-smoothing is for {', '.join(SMOOTHED)}, not {config.adversarial}.")
        if config.weight_clip and network.spectral_norm:
            raise UsageError("--weight-clip and --discriminator.spectral-norm both hold the weights; leave one out.")

    def build(self) -> dict[str, nn.Module]:
        """Fresh networks: ``generator`` and ``discriminator``."""
        config, judge = self.config, self.discriminator_config
        how = (config.initialisation, config.initialisation_gain)
        generator = initialise(build_generator(self.generator_config), *how)
        if getattr(self.generator_config, "spectral_norm", False):
            with_spectral_norm(generator, but="embedding")
        seen = self.classes if judge.conditioning != "none" else 0
        network: Any = NOISE_DISCRIMINATORS[judge.kind][1]
        discriminator = initialise(network(judge, self.channels, self.size, seen, self.outputs), *how)
        if judge.spectral_norm:
            with_spectral_norm(discriminator)
        return {"generator": generator, "discriminator": discriminator}

    def phases(
        self, discriminator_losses: Any, generator_losses: Any, networks: dict[str, nn.Module]
    ) -> tuple[Phase, Phase]:
        """Algorithm 1 of Goodfellow et al. 2014: k steps of D, then one of G."""
        config = self.config

        def clip() -> None:
            with torch.no_grad():
                network = networks["discriminator"]
                torch._foreach_clamp_min_(list(network.parameters()), -config.weight_clip)
                torch._foreach_clamp_max_(list(network.parameters()), config.weight_clip)

        rates = config.discriminator_lr or config.lr, config.lr
        return (
            Phase("D", ("discriminator",), (discriminator_losses,), rates[0], config.betas,
                  after=clip if config.weight_clip else None),
            Phase("G", ("generator",), (generator_losses,), rates[1], config.betas, every=config.discriminator_steps),
        )  # fmt: skip

    def discriminator_losses(
        self, network: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None, outputs: Outputs
    ) -> tuple[Losses, list[Tensor]]:
        """The discriminator's losses; and what its second head says of the generated and of the real images, if there is one.

        Args:
            network: the discriminator.
            real: (B, C, H, W).
            fake: the same, of the same classes; no gradient flows into it.
            labels: (B,) integers, if there are classes.
            outputs: gets the discriminator's accuracy.
        """
        config = self.config
        shown = [self._shown(fake.detach(), outputs.update), self._shown(real, outputs.update)]
        if independent(self.discriminator_config.norm) and not self._compares:
            both = None if labels is None else torch.cat([labels, labels])
            halves = [each.chunk(2) for each in self._judged(network, torch.cat(shown), both)]
        else:
            halves = list(zip(*(self._judged(network, images, labels) for images in shown), strict=True))
        (on_fake, on_real), *second = halves
        terms = adversarial.discriminator(on_real, on_fake, config.adversarial, config.label_smoothing)
        losses = {f"D/{term}": value for term, value in terms.items()}
        outputs.metrics["D/accuracy"] = adversarial.accuracy(on_real.detach(), on_fake.detach(), config.adversarial)
        critic = _in_full_precision(network, labels)
        if config.gradient_penalty:
            share = torch.rand(len(real), device=real.device)
            penalty = regularisers.gradient_penalty(critic, shown[1], shown[0], share)
            losses["D/penalty"] = config.gradient_penalty * penalty
        if config.r1 and outputs.update % config.r1_every == 0:
            losses["D/r1"] = config.r1 * config.r1_every * regularisers.r1(critic, shown[1])
        return losses, list(second[0]) if second else []

    def generator_losses(
        self,
        networks: dict[str, nn.Module],
        real: Tensor,
        fake: Tensor,
        labels: Tensor | None,
        outputs: Outputs,
    ) -> tuple[Losses, Tensor | None]:
        """The generator's losses; and what the discriminator's second head says of the generated images, if there is one.

        Args:
            networks: both; the discriminator is frozen.
            real: (B, C, H, W), which only the relativistic kinds look at.
            fake: the same, of the same classes.
            labels: (B,) integers, if there are classes.
            outputs: gets the length of the gradient that flows back into `fake`.
        """
        config, network = self.config, networks["discriminator"]
        judged = fake.view_as(fake)

        def note(gradient: Tensor) -> None:
            of_each = gradient.detach().float().flatten(1).norm(dim=1)  # of the mean over the batch
            outputs.metrics["G/gradient"] = of_each.mean() * len(gradient)

        judged.register_hook(note)
        logits, *second = self._judged(network, self._shown(judged, outputs.update), labels)
        others = None
        if config.adversarial in RELATIVISTIC:
            with torch.no_grad():
                others = self._judged(network, self._shown(real, outputs.update), labels)[0]
        losses = {"G/adversarial": adversarial.generator(logits, config.adversarial, others)}
        if config.orthogonal:
            weights = [  # of a transposed convolution the filters are the second axis
                layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
                for name, layer in networks["generator"].named_modules()
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and "embedding" not in name
            ]
            losses["G/orthogonal"] = config.orthogonal * regularisers.orthogonal(weights)
        return losses, second[0] if second else None

    @property
    def _compares(self) -> bool:
        """Whether the discriminator compares images of a batch, so that real and generated ones must not be mixed."""
        return self.discriminator_config.kind == "progressive"

    def _judged(self, network: nn.Module, images: Tensor, labels: Tensor | None) -> list[Tensor]:
        found: Tensor | list[Tensor] = network(images, labels, outputs=bool(self.outputs))
        return found if isinstance(found, list) else [found]

    def _shown(self, images: Tensor, update: int) -> Tensor:
        """What the discriminator sees: images, changed at random and noisy if they are to be."""
        if self.config.augment:
            images, _ = augment(images, self.config.augment, None)
        spread = self.config.instance_noise * max(0.0, 1 - update / self.config.instance_noise_updates)
        return images + spread * torch.randn_like(images) if spread else images


def _in_full_precision(network: nn.Module, labels: Tensor | None) -> regularisers.Critic:
    """The network without the trainer's mixed precision, for gradients of gradients."""
    bare = network.module if isinstance(network, DistributedDataParallel) else network

    def values(images: Tensor) -> Tensor:
        found: Tensor = type(bare).forward(bare, images, labels)
        return found

    return values
