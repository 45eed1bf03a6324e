"""The perceptual loss: how unlike two images look to a network trained on ImageNet."""

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from img2img.core.downloads import Weights, read_tensors
from img2img.core.errors import UsageError
from img2img.core.settings import Strict
from img2img.losses import features
from img2img.methods.base import Download, Losses
from img2img.methods.gan_losses import TranslationConfig
from img2img.networks.features import VGG19, EfficientNetLite, FeatureNetworkName

VGG = Weights("VGG-19", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "dcbb9e9d", 548)


class PerceptualConfig(Strict):
    """Nearness to the target by the features of a network trained on ImageNet."""

    weight: float = Field(0.0, ge=0)
    """Of the loss; 0 leaves it out."""
    network: FeatureNetworkName = "lite"
    """lite: the distance of LPIPS by features of EfficientNet-Lite0, which is always at hand; vgg19: the loss of pix2pixHD and SPADE, whose weights are downloaded (548 MB)."""
    file: Path | None = None
    """torchvision's VGG-19 weights (.pth or .safetensors); by default PyTorch's cache, else they are downloaded."""

    def fetch(self, say: Download) -> Path | None:
        """Where VGG-19's weights are; None if there is no need of them. Downloads them if they are not there.

        Raises:
            UsageError: if they can't be had.
        """
        if not self.weight or self.network != "vgg19":
            return None
        if self.file is None:
            return VGG.fetch(
                say, "give a file of torchvision's with --perceptual.file, or take --perceptual.network lite."
            )
        self.refuse_missing_file()
        return self.file

    def refuse_missing_file(self) -> None:
        """Refuses a file of weights that doesn't exist, or isn't used."""
        if self.file and self.network != "vgg19":
            raise UsageError("--perceptual.file holds the weights of VGG-19; add --perceptual.network vgg19.")
        if self.weight and self.file and not self.file.is_file():
            raise UsageError(f"--perceptual.file {self.file}: there is no such file.")


class PerceptualTranslationConfig(TranslationConfig):
    """What translators with a discriminator and a perceptual loss can be told."""

    perceptual: PerceptualConfig = PerceptualConfig()
    """Nearness by features."""

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
        self.weight, self.published = config.weight, config.network == "vgg19"
        file = config.fetch(print)
        if file is not None:
            self.network: nn.Module = _load_vgg(file)
        elif self.weight:
            self.network = EfficientNetLite()

    def losses(self, fake: Tensor, real: Tensor) -> Losses:
        """The weighted loss of images (B, C, H, W) in [-1, 1] against others; none if it is left out."""
        if not self.weight:
            return {}
        network = self.network.to(fake.device)
        with torch.no_grad():
            truth = network(real)
        found = network(fake)
        value = features.perceptual(found, truth) if self.published else features.perceptual_distance(found, truth)
        return {"G/perceptual": self.weight * value.mean()}


def _load_vgg(file: Path) -> VGG19:
    network = VGG19().eval()
    try:
        weights = {name: tensor for name, tensor in read_tensors(file).items() if name.startswith("features.")}
        network.load_state_dict({name: weights[name] for name in network.state_dict()}, assign=True)
    except Exception as error:  # whatever a damaged file, or one of another network, makes PyTorch say
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{file}: these are no VGG-19 weights of torchvision ({type(error).__name__}: {reason})."
        ) from None
    return network.requires_grad_(False)
