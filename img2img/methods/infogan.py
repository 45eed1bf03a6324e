"""InfoGAN: interpretable codes by maximising mutual information (Chen et al. 2016)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.losses.augment import warp
from img2img.losses.information import clustering_loss, code_losses
from img2img.methods.base import Batch, Losses, Method, Outputs
from img2img.methods.gan import SMALL_DCGAN, NoiseMethodConfig, gradients_if_due, grow_networks, judge_samples
from img2img.networks import AnyNoiseGeneratorConfig, DCGANConfig
from img2img.networks.generators.base import Codes

COPIES = 3  # of each real image, which the clustering compares with it


class InfoGANConfig(NoiseMethodConfig):
    """The paper's numbers for digits (appendix C.1), with DCGAN's networks."""

    paper = "1606.03657"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"ema": 0.999, "method": {**SMALL_DCGAN, "clustering_weight": 1.0}}
    }

    generator: AnyNoiseGeneratorConfig = DCGANConfig(latent=62)
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
    clustering_weight: float = Field(0.0, ge=0)
    """Weight of the clustering of real images by Q: it shall say the same of an image and of copies that are slightly turned, scaled, moved and bent, be sure, and use all values of a categorical code equally often (Hu et al. 2017, IMSAT). Q then learns categories from real images alone; 0 lets it learn them from generated ones, as in the paper."""

    def suits_recipe(self) -> bool:
        """With a categorical code, too."""
        return super().suits_recipe() and bool(self.codes.categorical)

    @property
    def noise_codes(self) -> Codes:
        """As they were chosen."""
        return self.codes

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "InfoGAN":
        """The method with fresh networks; classes are ignored."""
        return InfoGAN(self, out_channels, size)


class InfoGAN(Method):
    """A generator whose noise has codes beside it, and a discriminator with a second head, Q, that finds them (§4)."""

    def __init__(self, config: InfoGANConfig, channels: int, size: int) -> None:
        if not config.codes.outputs:
            raise UsageError(
                "infogan needs a code: --codes.categorical 10, or --codes.continuous 1; without one it is gan."
            )
        if config.clustering_weight and not config.codes.categorical:
            raise UsageError(
                "--clustering-weight is about a categorical code: add --codes.categorical 10, or --clustering-weight 0."
            )
        self.config, self.latent = config, config.generator.count_numbers(size)
        generator, discriminator = config.resolve_networks(0, channels, size, config.codes.width)
        self.generator_configs = {"": generator}
        self.networks = config.build_networks(generator, discriminator, config.codes.outputs)
        self.adversarial = config.build_adversarial_loss(discriminator, second_head=True)
        self.memories = self.adversarial.memories
        self.phases = config.build_phases(self.discriminator_losses, self.generator_losses, self.networks)

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """As many images as there are real ones, from noise and codes, which are drawn uniformly."""
        real = grow_networks(self.networks, batch["target"], update, self.generator_configs[""])
        noise = torch.randn(len(real), self.latent, device=real.device)
        codes = self.config.codes.draw(len(real), real.device)
        with gradients_if_due(self.phases[1], update):
            fake = self.networks["generator"](torch.cat([noise, codes], dim=1))
        images = {"fake": fake, "real": real, "codes": codes}
        return Outputs(update, images, translations={"": (real, fake.detach(), real)})

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 6 for the discriminator and Q: tell real from generated, and find the codes of the generated."""
        network, images = self.networks["discriminator"], outputs.images
        losses = self.adversarial.discriminator_losses(network, images["real"], images["fake"], outputs)
        if self.config.clustering_weight:
            losses["D/clustering"] = self.config.clustering_weight * self._clustering_loss(network, images["real"])
        return losses | self._information_losses(images["second_fake"], outputs, "D")

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 6 for the generator: fool the discriminator, and let Q find the codes."""
        network, images = self.networks["discriminator"], outputs.images
        losses = self.adversarial.generator_losses(network, images["real"], images["fake"], outputs)
        losses |= self.config.orthogonal_losses(self.networks["generator"])
        return losses | self._information_losses(images["second_fake"], outputs, "G")

    def _clustering_loss(self, network: nn.Module, real: Tensor) -> Tensor:
        """Of what Q says of real images, and of warped copies of them."""
        copies = [warp(real) for _ in range(COPIES)]
        second = judge_samples(network, torch.cat([real, *copies]), None, False, True).second
        assert second is not None
        found, *changed = second.split(len(real))
        return clustering_loss(found, changed, self.config.codes.categorical)

    def _information_losses(self, found: Tensor, outputs: Outputs, side: str) -> Losses:
        """Of Q on generated images. With clustering, real images alone teach Q the categories, and the generator follows."""
        config = self.config
        terms = code_losses(found, outputs.images["codes"], config.codes.categorical, config.codes.continuous)
        weights = {"categorical": config.categorical_weight, "continuous": config.continuous_weight}
        if config.clustering_weight and side == "D":
            del terms["categorical"]
        return {f"{side}/{name}": weights[name] * value for name, value in terms.items()}
