"""InfoGAN: interpretable codes by maximising mutual information (Chen et al. 2016)."""

from contextlib import nullcontext
from typing import Annotated, ClassVar, Literal

import torch
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.errors import UsageError
from img2img.losses.information import code_losses
from img2img.methods.base import Batch, Losses, Memory, Outputs, Role, is_due
from img2img.methods.noise import NoiseGame, NoiseGameConfig
from img2img.networks import AnyEncoder, DCGANConfig, NoiseGenerator
from img2img.networks.noise import Codes


class InfoGANConfig(NoiseGameConfig):
    """The paper's numbers for digits (appendix C.1), with DCGAN's networks."""

    generator: NoiseGenerator = DCGANConfig(latent=62)
    """The network that makes images."""
    lr: float = Field(1e-3, gt=0)
    """Adam's learning rate for the generator."""
    discriminator_lr: float | None = Field(2e-4, gt=0)
    """Adam's learning rate for the discriminator and its second head."""
    name: Annotated[Literal["infogan"], tyro.conf.Suppress] = "infogan"
    codes: Codes = Codes()
    """What shall be told apart without labels."""
    categorical_weight: float = Field(1.0, ge=0)
    """λ of the categorical codes."""
    continuous_weight: float = Field(0.1, ge=0)
    """λ of the continuous codes."""

    def build(self, in_channels: int, out_channels: int, size: int) -> "InfoGAN":
        """The method with fresh networks for images of `out_channels` and `size` pixels; classes are not looked at."""
        return InfoGAN(self, out_channels, size)


class InfoGAN:
    """A generator whose noise has codes beside it, and a discriminator with a second head, Q, that finds them (§4).

    Args:
        config: the settings.
        channels: of the images.
        size: height and width of the images in pixels.

    Raises:
        UsageError: if the settings exclude each other, or the networks can't make images of that size.
    """

    generators: ClassVar[dict[Role, str]] = {"": "generator"}
    encoders: ClassVar[dict[Role, tuple[str, AnyEncoder]]] = {}

    def __init__(self, config: InfoGANConfig, channels: int, size: int) -> None:
        if not config.codes.outputs:
            raise UsageError(
                "infogan needs a code: --codes.categorical 10, or --codes.continuous 1; without one it is gan."
            )
        self.config = config
        self.game = NoiseGame(config, 0, channels, size, config.codes.width, config.codes.outputs)
        self.latent = config.generator.latent
        self.generator_configs = {"": self.game.generator_config}
        self.networks: dict[str, nn.Module] = self.game.build()
        self.memories: dict[str, Memory] = {}
        self.phases = self.game.phases(self.discriminator_losses, self.generator_losses, self.networks)

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """As many images as there are real ones, from noise and codes, which are drawn uniformly."""
        real = self.game.grow(self.networks, batch["target"], update)
        noise = torch.randn(len(real), self.latent, device=real.device)
        codes = self.config.codes.drawn(len(real), real.device)
        with nullcontext() if is_due(self.phases[1], update) else torch.no_grad():
            fake = self.networks["generator"](torch.cat([noise, codes], dim=1))
        return Outputs(
            update, {"fake": fake, "real": real, "codes": codes}, translations={"": (real, fake.detach(), real)}
        )

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 6 for the discriminator and Q: tell real from generated, and find the codes of the generated."""
        network, fake = self.networks["discriminator"], outputs.images["fake"]
        losses, second = self.game.discriminator_losses(network, outputs.images["real"], fake, None, outputs)
        return losses | self._information(second[0], outputs, "D")

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 6 for the generator: fool the discriminator, and let Q find the codes."""
        fake = outputs.images["fake"]
        losses, second = self.game.generator_losses(self.networks, outputs.images["real"], fake, None, outputs)
        assert second is not None
        return losses | self._information(second, outputs, "G")

    def _information(self, found: Tensor, outputs: Outputs, side: str) -> Losses:
        config = self.config
        terms = code_losses(found, outputs.images["codes"], config.codes.categorical, config.codes.continuous)
        weights = {"categorical": config.categorical_weight, "continuous": config.continuous_weight}
        return {f"{side}/{name}": weights[name] * value for name, value in terms.items()}
