"""LPIPS by its published networks and weights (Zhang et al. 2018), for scores that compare with those of papers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn
from torch.nn.functional import normalize

from img2img.core.downloads import Weights, read_tensors
from img2img.core.errors import UsageError
from img2img.images import Array
from img2img.metrics.perceptual import prepare_image
from img2img.networks.features import collect_features

LpipsNetwork = Literal["alex", "vgg", "squeeze"]
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet, in [-1, 1]
URL = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Trunk:
    """A classifier of torchvision, whose features are compared."""

    architecture: str
    layers: tuple[int, ...]
    """Of its `features`, those that are compared."""
    smallest: int
    """Pixels of a side that it needs."""
    weights: Weights


TRUNKS: dict[LpipsNetwork, Trunk] = {
    "alex": Trunk("alexnet", (1, 4, 7, 9, 11), 31, Weights("AlexNet", f"{URL}alexnet-owt-7be5be79.pth", "7be5be79", 233)),
    "vgg": Trunk("vgg16", (3, 8, 15, 22, 29), 16, Weights("VGG-16", f"{URL}vgg16-397923af.pth", "397923af", 528)),
    "squeeze": Trunk(
        "squeezenet1_1", (1, 4, 7, 9, 10, 11, 12), 17, Weights("SqueezeNet", f"{URL}squeezenet1_1-b8a52dc0.pth", "b8a52dc0", 5)
    ),
}  # fmt: skip


class Lpips(nn.Module):
    """LPIPS, version 0.1: 0 for equal images, about 0.7 for unrelated ones.

    The weights of the layers come with torchmetrics.

    Args:
        network: ``alex`` is what papers usually report.
        weights: the classifier's weights as torchvision has them (.pth or .safetensors).

    Raises:
        UsageError: if the file holds no such weights.
    """

    def __init__(self, network: LpipsNetwork, weights: Path) -> None:
        from torchvision import models  # slow to import

        super().__init__()
        trunk = TRUNKS[network]
        self.network, self.layers, self.smallest = network, trunk.layers, trunk.smallest
        with torch.device("meta"):
            whole = models.get_model(trunk.architecture, weights=None)
        features = cast(nn.Sequential, whole.features)[: trunk.layers[-1] + 1]
        try:
            known = read_tensors(weights)
            own = {name: known[f"features.{name}"].float() for name in features.state_dict()}
            features.load_state_dict(own, assign=True)
        except Exception as error:  # whatever a damaged file, or one of another network, makes PyTorch say
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise UsageError(
                f"--lpips-weights {weights} doesn't hold the weights of torchvision's {trunk.architecture} ({reason})."
            ) from None
        self.features = features.eval().requires_grad_(False)
        published = read_tensors(Path(str(files("torchmetrics") / f"functional/image/lpips_models/{network}.pth")))
        for place in range(len(trunk.layers)):
            self.register_buffer(f"weight_{place}", published[f"lin{place}.model.1.weight"])
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None])

    @torch.no_grad()
    def forward(self, image: Array, truth: Array) -> float:
        """Images (H, W, C) of one size, as of `metrics.perceptual.prepare_image`; NaN if they are too small for the network (eq. 1)."""
        if min(image.shape[:2]) < self.smallest:
            return math.nan
        mean = self.get_buffer("mean")
        seen = torch.stack([prepare_image(each) for each in (image, truth)]).to(mean.device)
        x = (seen.float() / 127.5 - 1 - mean) / self.get_buffer("deviation")
        distance = x.new_zeros(())
        for place, found in enumerate(collect_features(self.features, self.layers, x)):
            first, second = normalize(found, dim=1, eps=1e-10)
            distance += (self.get_buffer(f"weight_{place}")[0] * (first - second).square()).sum(0).mean()
        return distance.item()


def make_lpips(network: LpipsNetwork, weights: Path | None, say: Callable[[str], None]) -> Lpips:
    """LPIPS by a network, whose weights are downloaded if no file is given, and PyTorch's cache has none.

    Raises:
        UsageError: if they are not to be had.
    """
    if weights is None:
        weights = TRUNKS[network].weights.fetch(say, "give a file of them with --lpips-weights.")
    elif not weights.is_file():
        raise UsageError(f"--lpips-weights {weights}: there is no such file.")
    return Lpips(network, weights)
