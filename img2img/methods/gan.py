"""GAN: generative adversarial networks (Goodfellow et al. 2014), also with classes (Mirza & Osindero 2014)."""

from contextlib import nullcontext
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.errors import UsageError
from img2img.methods.base import Batch, Losses, Memory, Outputs, Role, is_due
from img2img.methods.noise import NoiseGame, NoiseGameConfig
from img2img.networks import AnyEncoder


class GANConfig(NoiseGameConfig):
    """The paper's game with DCGAN's numbers."""

    name: Annotated[Literal["gan"], tyro.conf.Suppress] = "gan"
    unconditional: bool = False
    """Take no notice of the classes that the folders name."""
    auxiliary_weight: float = Field(0.0, ge=0)
    """Weight of a classifier in the discriminator (Odena et al. 2017); 1 in that paper, with --discriminator.conditioning none; 0 for none."""

    @property
    def takes_classes(self) -> bool:
        """Whether the classes that folders name are of interest."""
        return not self.unconditional

    def build(self, in_channels: int, out_channels: int, size: int) -> "GAN":
        """The method with fresh networks for `in_channels` classes (0: none), images of `out_channels` and `size` pixels."""
        return GAN(self, in_channels if self.takes_classes else 0, out_channels, size)


class GAN:
    """A generator and a discriminator; both see the class, if there are classes.

    Args:
        config: the settings.
        classes: how many; 0 for none.
        channels: of the images.
        size: height and width of the images in pixels.

    Raises:
        UsageError: if the settings exclude each other, or the networks can't make images of that size.
    """

    generators: ClassVar[dict[Role, str]] = {"": "generator"}
    encoders: ClassVar[dict[Role, tuple[str, AnyEncoder]]] = {}

    def __init__(self, config: GANConfig, classes: int, channels: int, size: int) -> None:
        if config.auxiliary_weight and not classes:
            raise UsageError("--auxiliary-weight classifies, but there are no classes; it needs train/CLASS/ folders.")
        seen = config.discriminator.conditioning
        if config.auxiliary_weight and seen == "concat":
            raise UsageError(
                "--auxiliary-weight: a discriminator that is told the class needn't find it; add --discriminator.conditioning none "
                "(or projection)."
            )
        if classes and seen == "none" and not config.auxiliary_weight:
            raise UsageError(
                "--discriminator.conditioning none: then nothing ties an image to its class; add --auxiliary-weight 1, or --unconditional."
            )
        self.config, self.classes = config, classes
        self.game = NoiseGame(config, classes, channels, size, outputs=classes if config.auxiliary_weight else 0)
        self.latent = config.generator.latent
        self.generator_configs = {"": self.game.generator_config}
        self.networks: dict[str, nn.Module] = self.game.build()
        self.memories: dict[str, Memory] = {}
        self.phases = self.game.phases(self.discriminator_losses, self.generator_losses, self.networks)

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """As many images from noise as there are real ones, of the same classes."""
        real, labels = self.game.grow(self.networks, batch["target"], update), self._labels(batch)
        noise = torch.randn(len(real), self.latent, device=real.device)
        with nullcontext() if is_due(self.phases[1], update) else torch.no_grad():
            fake = self.networks["generator"](noise, labels)
        return Outputs(update, {"fake": fake, "real": real}, translations={"": (real, fake.detach(), real)})

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 1; with an auxiliary classifier, the classes of real and generated images, too (Odena et al. 2017, eq. 2–3)."""
        network, fake, labels = self.networks["discriminator"], outputs.images["fake"], self._labels(batch)
        losses, second = self.game.discriminator_losses(network, outputs.images["real"], fake, labels, outputs)
        if second and labels is not None:
            both = [F.cross_entropy(found.float(), labels) for found in second]
            losses["D/classes"] = self.config.auxiliary_weight * (both[0] + both[1])
        return losses

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 1, or one of its successors; with an auxiliary classifier, be recognised as the class."""
        fake, labels = outputs.images["fake"], self._labels(batch)
        losses, second = self.game.generator_losses(self.networks, outputs.images["real"], fake, labels, outputs)
        if second is not None and labels is not None:
            losses["G/classes"] = self.config.auxiliary_weight * F.cross_entropy(second.float(), labels)
        return losses

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch["label"] if self.classes else None
