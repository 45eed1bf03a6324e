"""LAPGAN: a Laplacian pyramid of conditional GANs, one for each size (Denton et al. 2015)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from torch import Tensor, nn

from img2img.methods.base import Batch, Losses, Method, Outputs
from img2img.methods.gan import ConditionalConfig, gradients_if_due
from img2img.networks import DCGANDiscriminator, DCGANDiscriminatorConfig, LaplacianConfig, initialise
from img2img.networks.generators.laplacian import build_pyramid, list_sides
from img2img.networks.weights import add_spectral_norm


class LAPGANConfig(ConditionalConfig):
    """The paper's pyramid and loss, with Adam instead of SGD."""

    paper = "1506.05751"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    name: Annotated[Literal["lapgan"], tyro.conf.Suppress] = "lapgan"
    generator: LaplacianConfig = LaplacianConfig()
    """The networks that make images, one for each size."""
    discriminator: DCGANDiscriminatorConfig = DCGANDiscriminatorConfig()
    """The networks that tell real from generated images, one for each size."""

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "LAPGAN":
        """The method with fresh networks."""
        return LAPGAN(self, classes if self.uses_classes else 0, out_channels, size)


class LAPGAN(Method):
    """GANs that are trained side by side: that of the smallest size makes images from noise, each other one what real images lose when they are made half as large."""

    def __init__(self, config: LAPGANConfig, classes: int, channels: int, size: int) -> None:
        self.config, self.classes = config, classes
        generator, discriminator = config.resolve_networks(classes, channels, size)
        assert isinstance(discriminator, DCGANDiscriminatorConfig)
        self.latent = generator.latent
        self.generator_configs = {"": generator}
        seen = classes if discriminator.conditioning != "none" else 0
        judges = Judges(discriminator, channels, size, seen)
        initialise(judges, config.initialisation, config.initialisation_gain)
        self.networks: dict[str, nn.Module] = {
            "generator": config.initialise(generator),
            "discriminator": add_spectral_norm(judges) if discriminator.spectral_norm else judges,
        }
        self.adversarial = config.build_adversarial_loss(discriminator, False)
        self.adversarial.judges = len(list_sides(size))
        self.memories = self.adversarial.memories
        self.phases = config.build_phases(self.discriminator_losses, self.generator_losses, self.networks)

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """Images of each size, each from a real image of half the size."""
        real, enlarged = build_pyramid(batch["target"])
        noise = torch.randn(len(real[0]), self.latent, device=real[0].device)
        with gradients_if_due(self.phases[1], update):
            made = self.networks["generator"](noise, self._labels(batch), enlarged)
        images = {f"real_{each.shape[2]}": each for each in real} | {f"fake_{each.shape[2]}": each for each in made}
        images |= {f"enlarged_{each.shape[2]}": each for each in enlarged}
        return Outputs(update, images, translations={"": (real[0], made[0].detach(), real[0])})

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Of each size (eq. 3); all but the smallest images are seen beside the one that they are made from."""
        losses: Losses = {}
        for side, real, fake, given in self._sizes(outputs):
            losses |= self.adversarial.discriminator_losses(
                self.networks["discriminator"], real, fake, outputs, f"{side}_", given, labels=self._labels(batch)
            )
        return losses

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Of each size."""
        losses: Losses = {}
        for side, real, fake, given in self._sizes(outputs):
            losses |= self.adversarial.generator_losses(
                self.networks["discriminator"], real, fake, outputs, f"{side}_", given, labels=self._labels(batch)
            )
        return losses | self.config.orthogonal_losses(self.networks["generator"])

    def _sizes(self, outputs: Outputs) -> list[tuple[int, Tensor, Tensor, Tensor | None]]:
        """Pixels a side; real and generated images; what they are made from."""
        images, sides = outputs.images, list_sides(self.generator_configs[""].size)
        return [
            (side, images[f"real_{side}"], images[f"fake_{side}"], images.get(f"enlarged_{side}")) for side in sides
        ]

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch["label"] if self.classes else None


class Judges(nn.Module):
    """A discriminator for each size of a pyramid; all but that of the smallest see what an image is made from, too."""

    def __init__(self, config: DCGANDiscriminatorConfig, channels: int, size: int, classes: int) -> None:
        super().__init__()
        first, *others = list_sides(size)
        found = {str(first): DCGANDiscriminator(config, channels, first, classes)}
        found |= {str(side): DCGANDiscriminator(config, 2 * channels, side, classes) for side in others}
        self.sizes = nn.ModuleDict(found)

    def forward(self, images: Tensor, labels: Tensor | None = None, outputs: bool = False) -> Tensor:
        """(B, C or 2 C, H, W), and (B,) integers → logits (B,)."""
        logits: Tensor = self.sizes[str(images.shape[2])](images, labels)
        return logits
