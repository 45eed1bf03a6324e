"""The adversarial part of every method: settings, and the discriminator's and generator's side of the game."""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from img2img.errors import Strict, UsageError
from img2img.losses import adversarial, regularisers
from img2img.losses.adversarial import RELATIVISTIC, Adversarial
from img2img.losses.augment import Augmentation, augment
from img2img.losses.features import feature_matching
from img2img.methods.base import Losses, Outputs, merged
from img2img.networks import DiscriminatorConfig, build_discriminator, initialise
from img2img.networks.blocks import Initialisation, Norm, with_spectral_norm
from img2img.networks.patchgan import MultiScaleConfig, PatchGANConfig

Beta = Annotated[float, Field(ge=0, lt=1)]


class GameConfig(Strict):
    """What all methods can be told about the game of a generator and a discriminator."""

    from_noise: ClassVar[bool] = False

    adversarial: Adversarial = "nonsaturating"
    """vanilla: the minimax game, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; lsgan: least squares; hinge; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    gradient_penalty: float = Field(0.0, ge=0)
    """λ of WGAN-GP's gradient penalty; 10 in its paper, 0 for none. In fp32; not with batch norm."""
    r1: float = Field(0.0, ge=0)
    """γ of the R1 penalty, the gradient's square on real images; 0 for none. In fp32; not with batch norm."""
    r1_every: int = Field(16, ge=1)
    """Updates between R1 penalties, each so many times as strong: lazy regularisation."""
    augment: tuple[Augmentation, ...] = ()
    """DiffAugment of what the discriminator sees, for little data: any of colour, translation, cutout."""
    lr: float = Field(2e-4, gt=0)
    """Adam's learning rate, for all networks, or for all but the discriminator."""
    discriminator_lr: float | None = Field(None, gt=0)
    """Adam's learning rate for the discriminator, if it is another: two time scales (Heusel et al. 2017)."""
    betas: tuple[Beta, Beta] = (0.5, 0.999)
    """Adam's betas, for all networks."""
    initialisation: Initialisation = "normal"
    """How weights are drawn."""
    initialisation_gain: float = Field(0.02, gt=0)
    """Standard deviation of normal; gain of xavier and orthogonal."""

    def coarser(self) -> "GameConfig | None":
        """What is trained first, at half the size, if the method goes from coarse to fine."""
        return None


class AdversarialConfig(GameConfig):
    """What all translators with a discriminator can be told."""

    discriminator: DiscriminatorConfig = PatchGANConfig()
    """The network that tells real from generated."""
    adversarial_weight: float = Field(1.0, ge=0)
    """Weight of the adversarial loss in the generator's; 0 leaves it out."""
    feature_matching: float = Field(0.0, ge=0)
    """Weight of matching the discriminator's features (Wang et al. 2018, eq. 4); 0 leaves it out."""


class Adversary:
    """A discriminator's side of the game and the generator's.

    Args:
        config: the settings.
        in_channels: what the discriminator sees.
        size: height and width of the training images in pixels.
        norm: the method's, if none was chosen.

    Raises:
        UsageError: if the settings exclude each other, or the images are too small.
    """

    def __init__(self, config: AdversarialConfig, in_channels: int, size: int, norm: Norm) -> None:
        self.config = config
        self.network_config = network = config.discriminator.model_copy(
            update={"norm": config.discriminator.norm or norm}
        )
        if size < network.min_size:
            raise UsageError(
                f"--size {size}: this PatchGAN needs {network.min_size} pixels; use fewer --discriminator.layers"
                f"{' or --discriminator.scales' if isinstance(network, MultiScaleConfig) else ''}."
            )
        for option, value in (("--gradient-penalty", config.gradient_penalty), ("--r1", config.r1)):
            if value and network.norm == "batch":
                raise UsageError(
                    f"{option} is about each image alone, but batch norm mixes them; add --discriminator.norm instance."
                )
        if config.adversarial == "wasserstein" and not (config.gradient_penalty or network.spectral_norm):
            raise UsageError(
                "--adversarial wasserstein needs a critic that is held: add --gradient-penalty 10, or "
                "--discriminator.spectral-norm."
            )
        if config.augment and config.feature_matching:
            raise UsageError(
                "--augment changes real and generated images each in its own way, so their features can't be matched; add --feature-matching 0."
            )
        self.in_channels = in_channels

    def build(self) -> nn.Module:
        """A fresh discriminator."""
        config = self.network_config
        network = build_discriminator(config, self.in_channels)
        initialise(network, self.config.initialisation, self.config.initialisation_gain)
        return with_spectral_norm(network) if config.spectral_norm else network

    def discriminator_losses(
        self,
        network: nn.Module,
        real: Tensor,
        fake: Tensor,
        outputs: Outputs,
        name: str = "",
        given: Tensor | None = None,
        given_fake: Tensor | None = None,
    ) -> Losses:
        """The discriminator's losses, halved as in pix2pix (§3.3) and CycleGAN (§7.1), which slows D down relative to G.

        Args:
            network: the discriminator.
            real: (B, C, H, W).
            fake: the same; no gradient flows into it.
            outputs: gets the discriminator's accuracy.
            name: begins the names of losses, if there are several discriminators.
            given: (B, C', H, W), the condition of a conditional discriminator, seen beside both.
            given_fake: the condition seen beside `fake`, if it is another.
        """
        config = self.config
        losses: Losses = {}
        shown = [self._shown(fake.detach(), given if given_fake is None else given_fake), self._shown(real, given)]
        on_fake, on_real = map(_scales, merged(network, shown, self.network_config.norm))
        right = []
        for fake_logits, real_logits in zip(on_fake, on_real, strict=True):
            for term, value in adversarial.discriminator(real_logits, fake_logits, config.adversarial).items():
                key = f"D/{name}{term}"
                losses[key] = losses[key] + 0.5 * value if key in losses else 0.5 * value
            right.append(adversarial.accuracy(real_logits.detach(), fake_logits.detach(), config.adversarial))
        outputs.metrics[f"D/{name}accuracy"] = torch.stack(right).mean()
        critic = in_full_precision(network)
        if config.gradient_penalty:
            share = torch.rand(len(real), device=real.device)
            penalty = regularisers.gradient_penalty(critic, shown[1], shown[0], share)
            losses[f"D/{name}penalty"] = 0.5 * config.gradient_penalty * penalty
        if config.r1 and outputs.update % config.r1_every == 0:
            strength = config.r1 * config.r1_every
            losses[f"D/{name}r1"] = 0.5 * strength * regularisers.r1(critic, shown[1])
        return losses

    def generator_losses(
        self,
        network: nn.Module,
        real: Tensor,
        fake: Tensor,
        outputs: Outputs,
        name: str = "",
        given: Tensor | None = None,
    ) -> Losses:
        """The generator's losses, weighted; their gradient at `fake` is noted when it flows back.

        Args:
            network: the discriminator, frozen.
            real: (B, C, H, W), which only feature matching and the relativistic kinds look at.
            fake: the same.
            outputs: gets the gradient's length.
            name: begins the names of losses and metrics, if there are several generators.
            given: (B, C', H, W), the condition of a conditional discriminator.
        """
        config = self.config
        losses: Losses = {}
        if not (config.adversarial_weight or config.feature_matching):
            return losses
        judged = fake.view_as(fake)  # a node of its own: what flows through it comes from the discriminator alone

        def note(gradient: Tensor) -> None:
            of_each = gradient.detach().float().flatten(1).norm(dim=1)  # of the mean over the batch
            outputs.metrics[f"G/{name}gradient"] = of_each.mean() * len(gradient)

        if judged.requires_grad:
            judged.register_hook(note)
        levels = _levels(network(self._shown(judged, given), levels=True))
        others = None
        if config.feature_matching or config.adversarial in RELATIVISTIC:
            with torch.no_grad():
                others = _levels(network(self._shown(real, given), levels=True))
        if config.adversarial_weight:
            terms = [
                adversarial.generator(scale[-1], config.adversarial, others[number][-1] if others else None)
                for number, scale in enumerate(levels)
            ]
            losses[f"G/{name}adversarial"] = config.adversarial_weight * torch.stack(terms).sum()
        if config.feature_matching:
            assert others is not None
            losses[f"G/{name}features"] = config.feature_matching * feature_matching(levels, others)
        return losses

    def _shown(self, images: Tensor, given: Tensor | None) -> Tensor:
        """What the discriminator sees: images, changed at random if it is to be, beside their condition."""
        if self.config.augment:
            images, given = augment(images, self.config.augment, given)
        return images if given is None else torch.cat([given, images.to(given.dtype)], dim=1)


def in_full_precision(network: nn.Module) -> regularisers.Critic:
    """The network without the trainer's mixed precision, for gradients of gradients."""
    bare = network.module if isinstance(network, DistributedDataParallel) else network

    def values(images: Tensor) -> Tensor:
        """Of each image the mean of its logits; of several scales, the sum of theirs."""
        return torch.stack([each.flatten(1).mean(1) for each in _scales(type(bare).forward(bare, images))]).sum(0)

    return values


def _scales(logits: Any) -> list[Tensor]:
    return logits if isinstance(logits, list) else [logits]


def _levels(found: list[Any]) -> list[list[Tensor]]:
    """What a discriminator gives with `levels`, for each scale."""
    return found if isinstance(found[0], list) else [found]
