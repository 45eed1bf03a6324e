"""The perceptual loss: VGG-19's weights, and the distance by its features."""

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from img2img.core.downloads import Weights, read_tensors
from img2img.core.errors import UsageError
from img2img.core.settings import Strict
from img2img.losses import features
from img2img.methods.base import Download
from img2img.methods.gan_losses import TranslationConfig
from img2img.networks.features import VGG19

VGG = Weights("VGG-19", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "dcbb9e9d", 548)


class PerceptualConfig(Strict):
    """Nearness to the target by the features of VGG-19, trained on ImageNet."""

    weight: float = Field(10.0, ge=0)
    """Of the loss; 0 leaves it out, and needs no weights."""
    file: Path | None = None
    """torchvision's VGG-19 weights (.pth or .safetensors); by default PyTorch's cache, else they are downloaded (548 MB)."""

    def fetch(self, say: Download) -> Path | None:
        """Where the weights are; None if there is no need of them. Downloads them if they are not there.

        Raises:
            UsageError: if they can't be had.
        """
        if not self.weight:
            return None
        if self.file is None:
            return VGG.fetch(
                say, "give a file of torchvision's with --perceptual.file, or --perceptual.weight 0 trains without."
            )
        self.refuse_missing_file()
        return self.file

    def refuse_missing_file(self) -> None:
        """Refuses a file of weights that doesn't exist."""
        if self.weight and self.file and not self.file.is_file():
            raise UsageError(f"--perceptual.file {self.file}: there is no such file.")


class PerceptualTranslationConfig(TranslationConfig):
    """What translators with a discriminator and a perceptual loss can be told."""

    perceptual: PerceptualConfig = PerceptualConfig()
    """Nearness by the features of VGG-19."""

    def refuse_files(self) -> None:
        """Refuses a file of weights that doesn't exist."""
        self.perceptual.refuse_missing_file()

    def download(self, say: Download) -> None:
        """Downloads VGG-19's weights if they are needed and not there."""
        self.perceptual.fetch(say)

    def refuse_no_losses(self) -> None:
        """Refuses settings that leave the generator nothing to learn from."""
        if not (self.adversarial_weight or self.feature_matching or self.perceptual.weight):
            raise UsageError(
                "--adversarial-weight, --feature-matching and --perceptual.weight are all 0, so the generator has nothing to learn from."
            )


class Perceptual:
    """Weighs how unlike two images look.

    Raises:
        UsageError: if the weights can't be loaded.
    """

    def __init__(self, config: PerceptualConfig) -> None:
        self.weight = config.weight
        file = config.fetch(print)
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
