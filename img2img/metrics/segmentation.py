"""Whether a segmenter finds in a translation the labels that it was made from: mean IoU and pixel accuracy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import segmentation

from img2img.core.downloads import read_tensors
from img2img.core.errors import UsageError
from img2img.images import Array, composite_over_white, convert_channels, to_8_bit
from img2img.images.tensors import to_tensor

Segmenter = Callable[[Tensor], Any]
"""From images (B, 3, H, W) in [-1, 1] to logits (B, classes, h, w), or a dict that has them as ``out``."""
Architecture = Literal[
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn_resnet50",
    "fcn_resnet101",
    "lraspp_mobilenet_v3_large",
]
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # with which torchvision's are trained, values in [0, 1]
NOWHERE = -1  # in the truth: no class


class _Normalised(nn.Module):
    """A segmenter of torchvision on images in [-1, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        mean, deviation = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
        return self.network(((images + 1) / 2 - mean) / deviation)["out"]


def make_segmenter(architecture: Architecture, weights: Path) -> Segmenter:
    """A segmenter of torchvision with the weights of a file (.pth or .safetensors), whose last layer tells how many classes there are.

    Raises:
        UsageError: if the file holds no such weights.
    """
    if not weights.is_file():
        raise UsageError(f"--segmenter-weights {weights}: there is no such file.")
    try:
        state = read_tensors(weights)
        last = next(name for name in ("classifier.4.weight", "classifier.low_classifier.weight") if name in state)
        with torch.random.fork_rng([]):
            network = getattr(segmentation, architecture)(
                weights=None,
                weights_backbone=None,
                num_classes=len(state[last]),
                aux_loss=any(k.startswith("aux") for k in state),
            )
        network.load_state_dict(state)
    except Exception as error:  # whatever a damaged file, or one of another network, makes PyTorch say
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UsageError(
            f"--segmenter-weights {weights}: these are no weights of {architecture}, as network.state_dict() gives them ({reason})."
        ) from None
    return _Normalised(network.eval())


class Agreement:
    """Sums up how well a segmenter's labels agree with those that images belong to, as torchmetrics computes it."""

    def __init__(self, segmenter: Segmenter, classes: int, device: torch.device) -> None:
        from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex  # slow to import

        self.segmenter, self.classes, self.device = segmenter, classes, device
        self.iou = MulticlassJaccardIndex(classes, average="macro", ignore_index=NOWHERE)
        self.accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=NOWHERE)

    @torch.no_grad()
    def add(self, image: Array, labels: Array) -> None:
        """Takes in an image (H, W, C) and its label map (H, W) of integers; labels that are no class don't count.

        Raises:
            UsageError: if the segmenter knows another number of classes.
        """
        shown = to_tensor(convert_channels(composite_over_white(to_8_bit(image)), 3))[None].to(self.device)
        found = self.segmenter(shown)
        logits = cast(Tensor, found["out"] if isinstance(found, dict) else found)
        if logits.ndim != 4 or logits.shape[1] != self.classes:
            raise UsageError(
                f"the segmenter gives {tuple(logits.shape)}, but (1, {self.classes}, H, W) is expected, a plane for each class."
            )
        logits = F.interpolate(logits.float(), labels.shape, mode="bilinear", align_corners=False)
        truth = np.where((labels < 0) | (labels >= self.classes), NOWHERE, labels)
        prediction, target = logits.argmax(1).cpu(), torch.from_numpy(truth)[None].long()
        self.iou.update(prediction, target)
        self.accuracy.update(prediction, target)

    def scores(self) -> dict[str, float]:
        """``miou``: the mean over classes that occur of intersection over union; ``accuracy``: the share of pixels that agree."""
        return {"miou": float(self.iou.compute()), "accuracy": float(self.accuracy.compute())}
