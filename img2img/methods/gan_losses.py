"""The adversarial core of all methods: settings, and the discriminator's and the generator's losses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.losses import adversarial, regularisers
from img2img.losses.adversarial import RELATIVISTIC, THRESHOLDS, Adversarial
from img2img.losses.augment import AUGMENTATIONS, Augmentation, augment
from img2img.losses.features import feature_matching
from img2img.methods.adaptive_augmentation import AdaptiveAugmentation
from img2img.methods.base import Batch, Losses, Memory, MethodConfig, Outputs, Phase, is_independent, unwrap
from img2img.networks import DiscriminatorConfig, build_discriminator, initialise
from img2img.networks.discriminators.patchgan import PatchGANConfig
from img2img.networks.layers import Norm
from img2img.networks.weights import add_spectral_norm

SMALL_UNPAIRED: Mapping[str, Any] = {
    "batch_size": 4,
    "ema": 0.999,
    "method": {
        "generator": {"kind": "resnet", "channels": 32, "upsampling": "resize", "residual": True},
        "discriminator": {"kind": "projected", "mixing": "cross-scale"},
        "adversarial": "hinge",
    },
}
"""The recipe of translators without pairs for few images.

Without mixing, a generator that removes something, such as shading, learns small marks that deceive single features.
"""


class AdversarialConfig(MethodConfig):
    """What all methods with a discriminator can be told."""

    discriminators: ClassVar[tuple[str, ...]] = ("discriminator",)
    discriminator_norm: ClassVar[Norm] = "instance"
    """Of the discriminator, if none was chosen."""

    adversarial: Adversarial = "nonsaturating"
    """vanilla: the minimax loss, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; lsgan: least squares; hinge; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    gradient_penalty: float = Field(0.0, ge=0)
    """λ of WGAN-GP's gradient penalty; 10 in its paper, 0 for none. In fp32; not with batch norm."""
    r1: float = Field(0.0, ge=0)
    """γ of the R1 penalty, the square of the gradient on real images; 0 for none. In fp32; not with batch norm."""
    r2: float = Field(0.0, ge=0)
    """γ of the R2 penalty, the same on generated images; with R1 and the relativistic loss this is R3GAN (Huang et al. 2024)."""
    drift: float = Field(0.0, ge=0)
    """ε of the drift penalty, the mean square of the critic's values of real images, which keeps them near 0 (Karras et al. 2018, appendix A.1: 0.001)."""
    r1_every: int = Field(16, ge=1)
    """Updates between R1 and R2 penalties, each of which is weighted by this number: lazy regularisation."""
    augment: tuple[Augmentation | Literal["auto"], ...] = ()
    """DiffAugment of what the discriminator sees, for little data: any of colour, translation, cutout. auto: these, or all three, with a probability that rises while the discriminator is too sure of real images (ADA)."""
    discriminator_lr: float | None = Field(None, gt=0)
    """Adam's learning rate for the discriminator, if it is another: two time scales (Heusel et al. 2017)."""

    def build_discriminator_phase(
        self,
        losses: Callable[[Batch, Outputs], Losses],
        trains: tuple[str, ...] = ("discriminator",),
        after: Callable[[], None] | None = None,
    ) -> Phase:
        """The phase that trains the discriminators, with their own learning rate."""
        return Phase("D", trains, (losses,), self.discriminator_lr or self.lr, self.betas, after=after)

    def refuse_penalties(self, norm: str | None, remedy: str) -> None:
        """Refuses penalties on each image's gradient with a norm that mixes images."""
        for option, value in (("--gradient-penalty", self.gradient_penalty), ("--r1", self.r1), ("--r2", self.r2)):
            if value and norm == "batch":
                raise UsageError(f"{option} is about each image alone, but batch norm mixes them; {remedy}.")

    def refuse_wasserstein(self, is_constrained: object, also: str = "") -> None:
        """Refuses a Wasserstein loss whose critic nothing constrains."""
        if self.adversarial == "wasserstein" and not is_constrained:
            raise UsageError(
                "--adversarial wasserstein needs a critic whose gradient is limited: add --gradient-penalty 10"
                f"{also}, or --discriminator.spectral-norm."
            )


class TranslationConfig(AdversarialConfig):
    """What all translators with a discriminator can be told."""

    discriminator_share: ClassVar[float] = 0.5
    """Factor of the discriminator's losses: they are halved in pix2pix (§3.3) and CycleGAN (§7.1), which slows D down relative to G."""
    mean_of_scales: ClassVar[bool] = False
    """Whether adversarial losses of discriminators at several scales are averaged, not summed."""

    discriminator: DiscriminatorConfig = PatchGANConfig()
    """The network that tells real from generated images."""
    adversarial_weight: float = Field(1.0, ge=0)
    """Weight of the adversarial loss in the generator's; 0 leaves it out."""
    feature_matching: float = Field(0.0, ge=0)
    """Weight of matching the discriminator's features (Wang et al. 2018, eq. 4); 0 leaves it out."""

    def resolve_discriminator(self) -> DiscriminatorConfig | None:
        """The discriminators' architecture, with the method's norm if none was chosen; None if there is no discriminator."""
        return self.fill_discriminator()

    def fill_discriminator(self) -> DiscriminatorConfig:
        """The architecture of a discriminator, with the method's norm if none was chosen."""
        return self.discriminator.model_copy(update={"norm": self.discriminator.norm or self.discriminator_norm})

    def build_discriminator(self, image_channels: int, size: int, given_channels: int = 0) -> nn.Module:
        """A fresh discriminator of images, and what they are conditioned on; with the method's norm if none was chosen.

        Raises:
            UsageError: if the settings exclude each other, or images of `size` pixels are too small.
        """
        network = self.fill_discriminator()
        if size < network.min_size:
            raise UsageError(
                f"--size {size}: this discriminator needs {network.min_size} pixels; use {network.smaller}."
            )
        self.refuse_penalties(network.norm, "add --discriminator.norm instance")
        everywhere = network.has_spectral_norm_at("head")
        also = "" if everywhere else ", --discriminator.no-plain-ends"
        self.refuse_wasserstein(self.gradient_penalty or (network.spectral_norm and everywhere), also)
        if self.augment and self.feature_matching:
            raise UsageError(
                "--augment changes real and generated images each in its own way, so their features can't be matched; add --feature-matching 0."
            )
        fresh = build_discriminator(network, image_channels, given_channels=given_channels)
        built = initialise(fresh, self.initialisation, self.initialisation_gain)
        return add_spectral_norm(built, network.has_spectral_norm_at) if network.spectral_norm else built

    def build_adversarial_loss(self) -> "AdversarialLoss":
        """Both sides' losses."""
        return AdversarialLoss(
            self,
            judge_translations,
            merge=is_independent(self.fill_discriminator().norm),
            discriminator_share=self.discriminator_share,
            mean_of_scales=self.mean_of_scales,
            weight=self.adversarial_weight,
            feature_matching=self.feature_matching,
        )


@dataclass
class Judgement:
    """What a discriminator gives for a batch."""

    scales: list[list[Tensor]]
    """For each scale the features of each depth, if they are asked for, and last the logits."""
    second: Tensor | None = None
    """What its second head gives, (B, outputs), if it has one."""

    def split(self, lengths: list[int]) -> list["Judgement"]:
        """Those of several batches that were seen as one."""
        logits = [scale[-1].split(lengths) for scale in self.scales]
        second = [None] * len(lengths) if self.second is None else self.second.split(lengths)
        return [Judgement([[each[k]] for each in logits], second[k]) for k in range(len(lengths))]


CallDiscriminator = Callable[[Callable[..., Any], Tensor, Tensor | None, bool], Judgement]
"""(network, images, labels, whether features are asked for) → what the discriminator gives."""


def judge_translations(network: Callable[..., Any], images: Tensor, labels: Tensor | None, levels: bool) -> Judgement:
    """Calls a discriminator of translations: one of patches, or several at different scales."""
    found = network(images, levels)
    if levels:
        return Judgement(found if isinstance(found[0], list) else [found])
    return Judgement([[logits] for logits in (found if isinstance(found, list) else [found])])


def call_in_full_precision(network: nn.Module) -> Callable[..., Any]:
    """The network without the trainer's mixed precision, for gradients of gradients."""
    bare = unwrap(network)
    return lambda *inputs: type(bare).forward(bare, *inputs)


class AdversarialLoss:
    """The losses of a discriminator, and of the generator that it judges.

    Args:
        config: which loss, penalties and augmentation.
        discriminate: how the discriminator is called.
        merge: whether real and generated images may be seen as one batch.
        discriminator_share: factor of the discriminator's losses.
        mean_of_scales: whether the losses of several scales are averaged, not summed.
        weight: of the adversarial loss in the generator's; 0 leaves it out.
        feature_matching: weight of matching features; 0 leaves it out.
        smoothing: how far below 1 the discriminator's target for real images is.
        noise: the standard deviation of noise on what the discriminator sees, by update.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        discriminate: CallDiscriminator,
        *,
        merge: bool,
        discriminator_share: float = 1.0,
        mean_of_scales: bool = False,
        weight: float = 1.0,
        feature_matching: float = 0.0,
        smoothing: float = 0.0,
        noise: Callable[[int], float] = lambda update: 0.0,
    ) -> None:
        self.config, self.discriminate, self.merge, self.share = config, discriminate, merge, discriminator_share
        self.mean_of_scales = mean_of_scales
        self.weight, self.feature_matching, self.smoothing, self.noise = weight, feature_matching, smoothing, noise
        self.judges = len(config.discriminators)
        """How many discriminators are asked in an update."""
        self.adaptive = AdaptiveAugmentation() if "auto" in config.augment else None
        named = tuple(kind for kind in config.augment if kind != "auto")
        self.augmentations: tuple[Augmentation, ...] = named or (AUGMENTATIONS if self.adaptive else ())
        self.memories: dict[str, Memory] = {"augmentation": self.adaptive} if self.adaptive else {}
        """What belongs into a checkpoint."""

    def discriminator_losses(
        self,
        network: nn.Module,
        real: Tensor,
        fake: Tensor,
        outputs: Outputs,
        name: str = "",
        given: Tensor | None = None,
        given_fake: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Losses:
        """The discriminator's losses.

        Args:
            real: (B, C, H, W).
            fake: the same; no gradient flows into it.
            outputs: gets the discriminator's accuracy, and as ``second_fake`` and ``second_real`` what its second head gives.
            name: begins the names of losses, if there are several discriminators.
            given: (B, C', H, W), the condition of a conditional discriminator, seen beside both.
            given_fake: the condition seen beside `fake`, if it is another.
            labels: (B,), the classes of both, if there are classes.
        """
        config, update = self.config, outputs.update
        losses: Losses = {}
        seen_fake = self._prepare(fake.detach(), given if given_fake is None else given_fake, update)
        seen_real = self._prepare(real, given, update)
        on_fake, on_real = self._judge_both(network, seen_fake, seen_real, labels)
        right, share = [], self.share * self._share_of_scale(on_real)
        for (fake_logits,), (real_logits,) in zip(on_fake.scales, on_real.scales, strict=True):
            terms = adversarial.discriminator(real_logits, fake_logits, config.adversarial, self.smoothing)
            if config.drift:
                terms["drift"] = config.drift * real_logits.float().square().mean()
            for term, value in terms.items():
                key = f"D/{name}{term}"
                losses[key] = losses[key] + share * value if key in losses else share * value
            right.append(adversarial.accuracy(real_logits.detach(), fake_logits.detach(), config.adversarial))
        if self.adaptive:
            judged = [[scale[-1] for scale in seen.scales] for seen in (on_real, on_fake)]
            threshold, part = THRESHOLDS.get(config.adversarial), 1 / self.judges
            self.adaptive.observe(judged[0], judged[1], threshold, update, part)
            outputs.metrics["D/augment"] = self.adaptive.probability
        outputs.metrics[f"D/{name}accuracy"] = torch.stack(right).mean()
        for key, judgement in (("second_fake", on_fake), ("second_real", on_real)):
            if judgement.second is not None:
                outputs.images[key] = judgement.second

        def critic(images: Tensor) -> Tensor:
            """Of each image the mean of its logits; of several scales, the sum of theirs."""
            scales = self.discriminate(call_in_full_precision(network), images, labels, False).scales
            return torch.stack([logits.reshape(len(logits), -1).mean(1) for (logits,) in scales]).sum(0)

        if config.gradient_penalty:
            mix = torch.rand(len(real), device=real.device)
            penalty = regularisers.gradient_penalty(critic, seen_real, seen_fake, mix)
            losses[f"D/{name}penalty"] = self.share * config.gradient_penalty * penalty
        for term, gamma, seen in (("r1", config.r1, seen_real), ("r2", config.r2, seen_fake)):
            if gamma and update % config.r1_every == 0:
                strength = self.share * gamma * config.r1_every
                losses[f"D/{name}{term}"] = strength * regularisers.zero_centred_penalty(critic, seen)
        return losses

    def generator_losses(
        self,
        network: nn.Module,
        real: Tensor,
        fake: Tensor,
        outputs: Outputs,
        name: str = "",
        given: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Losses:
        """The generator's losses, weighted; their gradient at `fake` is noted when it flows back.

        Args:
            real: (B, C, H, W), which only feature matching and the relativistic losses look at.
            outputs: gets the gradient's length, and as ``second_fake`` what the discriminator's second head gives.
            name: begins the names of losses and metrics, if there are several generators.
            given: (B, C', H, W), the condition of a conditional discriminator.
            labels: (B,), the classes, if there are classes.
        """
        config, update = self.config, outputs.update
        losses: Losses = {}
        if not (self.weight or self.feature_matching):
            return losses
        seen = fake.view_as(fake)  # a node of its own: what flows through it comes from the discriminator alone

        def note(gradient: Tensor) -> None:
            lengths = gradient.detach().float().flatten(1).norm(dim=1)  # of the mean over the batch
            outputs.metrics[f"G/{name}gradient"] = lengths.mean() * len(gradient)

        if seen.requires_grad:
            seen.register_hook(note)
        levels = bool(self.feature_matching)
        on_fake = self.discriminate(network, self._prepare(seen, given, update), labels, levels)
        if on_fake.second is not None:
            outputs.images["second_fake"] = on_fake.second
        on_real: Judgement | None = None
        if self.feature_matching or config.adversarial in RELATIVISTIC:
            with torch.no_grad():
                on_real = self.discriminate(network, self._prepare(real, given, update), labels, levels)
        if self.weight:
            terms = [
                adversarial.generator(scale[-1], config.adversarial, on_real.scales[number][-1] if on_real else None)
                for number, scale in enumerate(on_fake.scales)
            ]
            losses[f"G/{name}adversarial"] = self.weight * self._share_of_scale(on_fake) * torch.stack(terms).sum()
        if self.feature_matching:
            assert on_real is not None
            losses[f"G/{name}features"] = self.feature_matching * feature_matching(on_fake.scales, on_real.scales)
        return losses

    def _share_of_scale(self, seen: Judgement) -> float:
        return 1 / len(seen.scales) if self.mean_of_scales else 1.0

    def _judge_both(
        self, network: nn.Module, fake: Tensor, real: Tensor, labels: Tensor | None
    ) -> tuple[Judgement, Judgement]:
        """Of generated and real images, in one call if the discriminator permits it."""
        if not self.merge:
            return self.discriminate(network, fake, labels, False), self.discriminate(network, real, labels, False)
        both = None if labels is None else torch.cat([labels, labels])
        on_fake, on_real = self.discriminate(network, torch.cat([fake, real]), both, False).split(
            [len(fake), len(real)]
        )
        return on_fake, on_real

    def _prepare(self, images: Tensor, given: Tensor | None, update: int) -> Tensor:
        """What the discriminator sees: images, augmented and noisy if they are to be, beside their condition."""
        if self.augmentations:
            probability = self.adaptive.probability.to(images.device) if self.adaptive else None
            images, given = augment(images, self.augmentations, given, probability)
        deviation = self.noise(update)
        if deviation:
            images = images + deviation * torch.randn_like(images)
        return images if given is None else torch.cat([given, images.to(given.dtype)], dim=1)
