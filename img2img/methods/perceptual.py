"""The perceptual loss: VGG-19's weights, and the distance by its features."""

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from img2img.downloads import Weights, read_tensors
from img2img.errors import Strict, UsageError
from img2img.losses import features
from img2img.methods.adversary import AdversarialConfig
from img2img.networks.vgg import VGG19

VGG = Weights("VGG-19", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "dcbb9e9d", 548)


class PerceptualConfig(Strict):
    """Nearness to the target by the features of VGG-19, trained on ImageNet."""

    weight: float = Field(10.0, ge=0)
    """Of the loss; 0 leaves it out, and needs no weights."""
    file: Path | None = None
    """torchvision's VGG-19 weights (.pth or .safetensors); by default PyTorch's cache, else they are downloaded (548 MB)."""

    def fetched(self, say: Callable[[str], None]) -> Path | None:
        """Where the weights are; None if there is no need of them. Downloads them if they are not there.

        Raises:
            UsageError: if they can't be had.
        """
        if not self.weight:
            return None
        if self.file is None:
            return VGG.fetched(
                say, "give a file of torchvision's with --perceptual.file, or --perceptual.weight 0 trains without."
            )
        if not self.file.is_file():
            raise UsageError(f"--perceptual.file {self.file}: there is no such file.")
        return self.file


def needs_losses(config: AdversarialConfig, perceptual: PerceptualConfig) -> None:
    """Raises a sentence if nothing is left that a generator could learn by.

    Raises:
        UsageError: if all weights are 0.
    """
    if not (config.adversarial_weight or config.feature_matching or perceptual.weight):
        raise UsageError(
            "--adversarial-weight, --feature-matching and --perceptual.weight are all 0, so the generator has nothing to learn by."
        )


class Perceptual:
    """Weighs how unlike two images look.

    Args:
        config: the settings.

    Raises:
        UsageError: if the weights can't be had, or are of another network.
    """

    def __init__(self, config: PerceptualConfig) -> None:
        self.weight = config.weight
        file = config.fetched(print)
        if file is None:
            return
        self.network = VGG19().eval()
        try:
            weights = {name: tensor for name, tensor in read_tensors(file).items() if name.startswith("features.")}
            own = self.network.state_dict().keys()
            self.network.load_state_dict({name: weights[name] for name in own}, assign=True)
        except Exception as error:  # whatever a damaged file, or one of another network, makes PyTorch say
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"{file}: these are no VGG-19 weights of torchvision ({type(error).__name__}: {reason})."
            ) from None
        self.network.requires_grad_(False)

    def __call__(self, fake: Tensor, real: Tensor) -> Tensor:
        """The weighted loss of images (B, C, H, W) in [-1, 1] against others."""
        network = self.network.to(fake.device)
        with torch.no_grad():
            truth = network(real)
        return self.weight * features.perceptual(network(fake), truth)
