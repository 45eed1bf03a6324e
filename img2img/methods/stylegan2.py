"""StyleGAN2: a GAN whose images are made by styles (Karras et al. 2020, Analyzing and Improving the Image Quality of StyleGAN)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from pydantic import Field
from torch import Tensor, nn
from torch.distributed import all_reduce, get_world_size, is_initialized

from img2img.methods.base import Batch, Losses, Outputs, unwrap
from img2img.methods.gan import GAN, GANConfig, NoiseMethodConfig
from img2img.networks import AnyNoiseDiscriminatorConfig, StyleConfig, StyleDiscriminatorConfig
from img2img.networks.generators.style import StyleGenerator

DECAY = 0.01  # of the mean path length, as in the published code


class StyleGAN2Config(GANConfig):
    """The paper's numbers."""

    paper = "1912.04958"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    run_defaults: ClassVar[Mapping[str, object]] = {**NoiseMethodConfig.run_defaults, "batch_size": 32, "ema": 0.998}

    name: Annotated[Literal["stylegan2"], tyro.conf.Suppress] = "stylegan2"  # type: ignore[assignment]
    generator: StyleConfig = StyleConfig()
    """The network that makes images."""
    discriminator: AnyNoiseDiscriminatorConfig = StyleDiscriminatorConfig()
    """The network that tells real from generated images."""
    r1: float = Field(10.0, ge=0)
    """γ of the R1 penalty, the square of the gradient on real images; 0 for none. In fp32; smaller images need less."""
    style_mixing: float = Field(0.9, ge=0, le=1)
    """The share of updates in which an image has two styles, one for its coarse layers and one for its fine ones."""
    path_length: float = Field(2.0, ge=0)
    """Weight of path length regularisation (eq. 4): an equal step in style changes any image equally much; 0 for none."""
    path_every: int = Field(4, ge=1)
    """Updates of the generator between path length penalties, each of which is weighted by this number."""
    lr: float = Field(2e-3, gt=0)
    """Adam's learning rate, for both networks."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.0, 0.99)
    """Adam's betas, for all networks."""

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "StyleGAN2":
        """The method with fresh networks."""
        return StyleGAN2(self, classes if self.uses_classes else 0, out_channels, size)


class StyleGAN2(GAN):
    """A GAN with style mixing and path length regularisation; R1 is the adversarial loss' own."""

    config: StyleGAN2Config

    def __init__(self, config: StyleGAN2Config, classes: int, channels: int, size: int) -> None:
        super().__init__(config, classes, channels, size)
        self.paths = MeanPath()
        self.memories = {**self.memories, "paths": self.paths}

    def generate(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Images, of which coarse and fine layers may have different styles (Karras et al. 2019, §3.1)."""
        layers, made = self.generator_configs[""].layers, self.networks["generator"]
        if float(torch.rand(())) >= self.config.style_mixing:
            return made(noise, labels)
        crossover = int(torch.randint(1, layers, ()))
        return made(noise, labels, torch.randn_like(noise), crossover)

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """The GAN's, and every so often the path length penalty."""
        losses, config = super().generator_losses(batch, outputs), self.config
        turn = (outputs.update + 1) // config.discriminator_steps
        if config.path_length and turn % config.path_every == 0:
            count = max(1, len(batch["target"]) // 2)  # as in the published code, for its memory
            labels = self._labels(batch)
            noise = torch.randn(count, self.latent, device=batch["target"].device)
            lengths = measure_paths(self.networks["generator"], noise, None if labels is None else labels[:count])
            penalty = (lengths - self.paths.update(lengths)).square().mean()
            losses["G/path"] = config.path_length * config.path_every * penalty
            outputs.metrics["G/path_length"] = lengths.detach().mean()
        return losses


def measure_paths(generator: nn.Module, noise: Tensor, labels: Tensor | None) -> Tensor:
    """By how much images change with their styles: ‖Jᵀ y‖ of eq. 4, (B,), itself differentiable; in fp32.

    y is random, of an image's shape, with a variance of one over the number of its pixels.
    """
    network = unwrap(generator)
    assert isinstance(network, StyleGenerator)
    with torch.autocast(noise.device.type, enabled=False):
        styles = network.spread(network.mapping(noise, labels))
        images = network.synthesise(styles)
        direction = torch.randn_like(images) / images[0, 0].numel() ** 0.5
        (slope,) = torch.autograd.grad((images * direction).sum(), styles, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


class MeanPath:
    """The moving average of path lengths: the a of eq. 4."""

    def __init__(self) -> None:
        self.mean = torch.zeros(())

    def update(self, lengths: Tensor) -> Tensor:
        """Moves it towards the mean of these, in all processes, and gives it."""
        seen = lengths.detach().mean()
        if is_initialized():
            all_reduce(seen)  # every process has the same
            seen = seen / get_world_size()
        if self.mean.device != seen.device:
            self.mean = seen.new_full((), float(self.mean))
        self.mean = torch.lerp(self.mean, seen, DECAY)
        return self.mean

    def state_dict(self) -> dict[str, Tensor]:
        """All of it."""
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Undoes `state_dict`."""
        self.mean = state["mean"].clone()
