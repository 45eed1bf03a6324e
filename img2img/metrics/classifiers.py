"""Classifiers of torchvision with the weights of a file, as judges of sets of images."""

from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.core.downloads import read_tensors
from img2img.core.errors import UsageError

Classifier = Literal["resnet18", "resnet50", "vgg16", "efficientnet_b0"]
CLASSIFIERS: tuple[str, ...] = get_args(Classifier)
SIZE = 224  # pixels that images are scaled to
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images that such networks are trained on


class ClassifierFeatures(nn.Module):
    """What goes into a classifier's last layer, and what comes out: uint8 images (B, 3, H, W) → (B, D), (B, classes)."""

    def __init__(self, network: nn.Module, last: nn.Linear) -> None:
        super().__init__()
        self.network = network.eval()
        self.seen: list[Tensor] = []
        last.register_forward_pre_hook(lambda _, inputs: self.seen.append(inputs[0]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = F.interpolate(images.float() / 255, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        mean, deviation = (x.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
        self.seen.clear()
        logits = self.network((x - mean) / deviation)
        return self.seen.pop(), logits


def make_classifier(architecture: str, weights: Path) -> nn.Module:
    """A classifier of torchvision with the weights of a file (.pth or .safetensors), whose last layer tells how many classes there are.

    Raises:
        UsageError: if the file holds no such weights.
    """
    from torchvision import models  # slow to import

    try:
        state = read_tensors(weights)
        last = [name for name, tensor in state.items() if name.endswith("weight") and tensor.ndim == 2][-1]
        with torch.random.fork_rng([]):
            network = models.get_model(architecture, weights=None, num_classes=len(state[last]))
        network.load_state_dict(state)
    except Exception as error:  # whatever a damaged file, or one of another network, makes PyTorch say
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UsageError(
            f"--feature-weights {weights}: these are no weights of {architecture}, as network.state_dict() gives them ({reason})."
        ) from None
    layer = network.get_submodule(last.removesuffix(".weight"))
    assert isinstance(layer, nn.Linear)
    return ClassifierFeatures(network, layer)
