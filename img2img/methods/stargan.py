"""StarGAN: one generator for translation between several domains (Choi et al. 2018)."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.data.class_folders import ClassFolderData
from img2img.losses.adversarial import Adversarial
from img2img.methods.base import Batch, Losses, Method, Outputs, is_independent
from img2img.methods.gan import gradients_if_due
from img2img.methods.gan_losses import AdversarialConfig, AdversarialLoss, Judgement
from img2img.networks import DiscriminatorConfig, GeneratorConfig, ResNetConfig, initialise
from img2img.networks.discriminators.stargan import StarGANDiscriminator, StarGANDiscriminatorConfig
from img2img.networks.labels import append_domain, one_hot
from img2img.networks.weights import add_spectral_norm


class StarGANConfig(AdversarialConfig):
    """The paper's numbers (§5.1, appendix)."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "batch_size": 8,
            "ema": 0.999,
            "method": {
                "generator": {"kind": "resnet", "channels": 32, "blocks": 6, "upsampling": "resize"},
                "discriminator": {"kind": "stargan", "channels": 32, "spectral_norm": True},
                "discriminator_steps": 1,
                "adversarial": "hinge",
                "gradient_penalty": 0.0,
                "cycle_weight": 5.0,
                "lr": 2e-4,
            },
        }
    }
    data_kinds = (ClassFolderData,)
    best_by: ClassVar[Literal["perceptual", "kid"]] = "kid"
    paper = "1711.09020"
    run_defaults: ClassVar[Mapping[str, object]] = {
        "batch_size": 16,
        "epochs": 20,
        "data": {"size": 128, "jitter": 1.0},
    }

    name: Annotated[Literal["stargan"], tyro.conf.Suppress] = "stargan"
    lr: float = Field(1e-4, gt=0)
    """Adam's learning rate, for all networks, or for all but the discriminator."""
    generator: GeneratorConfig = ResNetConfig(blocks=6)
    """The network that translates; it is told the domain by copies of the image, one for each, all black but that one's."""
    discriminator: StarGANDiscriminatorConfig = StarGANDiscriminatorConfig()
    """The network that tells real from generated images, and domains from each other."""
    adversarial: Adversarial = "wasserstein"
    """wasserstein: as in the paper, with a gradient penalty; vanilla: the minimax loss, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; lsgan: least squares; hinge; relativistic; relativistic-average."""
    gradient_penalty: float = Field(10.0, ge=0)
    """λ of WGAN-GP's gradient penalty; 0 for none. In fp32; not with batch norm."""
    discriminator_steps: int = Field(5, ge=1)
    """Updates of the discriminator for each of the generator. --steps counts the discriminator's."""
    domain_weight: float = Field(1.0, ge=0)
    """λ_cls of eq. 5 and 6: weight of recognising an image's domain."""
    cycle_weight: float = Field(10.0, ge=0)
    """λ_rec of eq. 6: weight of the L1 distance to the source after there and back."""

    @property
    def uses_classes(self) -> bool:
        """They are the domains."""
        return True

    def resolve_discriminator(self) -> DiscriminatorConfig:
        """As it was chosen."""
        return self.discriminator

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "StarGAN":
        """The method with fresh networks."""
        return StarGAN(self, out_channels, size, classes)


def judge_domains(network: Callable[..., Any], images: Tensor, labels: Tensor | None, levels: bool) -> Judgement:
    """Calls the discriminator: a logit for each patch, and for each domain."""
    logits, domains = network(images)
    return Judgement([[logits]], domains)


class StarGAN(Method):
    """A generator that is told the domain, and a discriminator that recognises it."""

    def __init__(self, config: StarGANConfig, channels: int, size: int, domains: int) -> None:
        if not domains:
            raise UsageError("stargan translates between classes: put the images of each into a folder, train/CLASS/.")
        if size < config.discriminator.min_size:
            raise UsageError(f"--size {size}: this discriminator needs {config.discriminator.min_size} pixels; use {config.discriminator.smaller}.")  # fmt: skip
        self.config, self.domains = config, domains
        architecture, generator = config.build_generator(
            config.generator, channels * (1 + domains), channels, size, "instance"
        )
        seen = config.discriminator
        config.refuse_penalties(seen.norm, "add --discriminator.norm instance")
        config.refuse_wasserstein(config.gradient_penalty or seen.spectral_norm)
        discriminator = StarGANDiscriminator(seen, channels, size, domains)
        initialise(discriminator, config.initialisation, config.initialisation_gain)
        if seen.spectral_norm:
            add_spectral_norm(discriminator)
        self.generator_configs = {"": architecture}
        self.networks: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator}
        self.adversarial = AdversarialLoss(config, judge_domains, merge=is_independent(seen.norm))
        self.memories = self.adversarial.memories
        self.phases = (
            config.build_discriminator_phase(self.discriminator_losses),
            config.build_phase("G", ("generator",), self.generator_losses, every=config.discriminator_steps),
        )

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """Each image, translated to a domain that is drawn at random (§3.1)."""
        real = batch["target"]
        wanted = torch.randint(self.domains, (len(real),), device=real.device)
        with gradients_if_due(self.phases[1], update):
            fake = self._translate(real, wanted)
        images = {"real": real, "fake": fake, "wanted": wanted}
        return Outputs(update, images, translations={"": (real, fake.detach(), real)})

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 5: the adversarial loss, and the domain of real images (eq. 2)."""
        network, images = self.networks["discriminator"], outputs.images
        losses = self.adversarial.discriminator_losses(network, images["real"], images["fake"], outputs)
        recognised = F.cross_entropy(images["second_real"].float(), batch["label"])
        return losses | {"D/domain": self.config.domain_weight * recognised}

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 6: the adversarial loss, the domain that was asked for (eq. 3), and the way back (eq. 4)."""
        network, images, config = self.networks["discriminator"], outputs.images, self.config
        losses = self.adversarial.generator_losses(network, images["real"], images["fake"], outputs)
        recognised = F.cross_entropy(images["second_fake"].float(), images["wanted"])
        back = self._translate(images["fake"], batch["label"])
        return losses | {
            "G/domain": config.domain_weight * recognised,
            "G/cycle": config.cycle_weight * F.l1_loss(back.float(), images["real"]),
        }

    def _translate(self, images: Tensor, domains: Tensor) -> Tensor:
        return self.networks["generator"](append_domain(images, one_hot(domains, self.domains)))  # type: ignore[no-any-return]
