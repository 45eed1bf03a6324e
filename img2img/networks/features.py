"""The convolutions of VGG-19 (Simonyan & Zisserman 2015), whose features tell how alike two images look."""

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import vgg19

VGG_LAYERS = (1, 6, 11, 20, 29)  # of torchvision's layers: relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's images, with values in [0, 1]


class VGG19(nn.Module):
    """Maps images to features of five depths; its weights are torchvision's, under torchvision's names.

    Build it on the meta device and fill it by `load_state_dict(assign=True)`.
    """

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            self.features = cast(nn.Sequential, vgg19().features)[: VGG_LAYERS[-1] + 1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W) in [-1, 1], of which gray is repeated and of more than 3 channels the first 3 count → five features (B, c, h, w)."""
        rgb = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
        mean, deviation = (rgb.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
        x, seen = ((rgb + 1) / 2 - mean) / deviation, []
        for number, layer in enumerate(self.features):
            x = layer(x) if not isinstance(layer, nn.ReLU) else torch.relu(x)  # torchvision's work in place
            if number in VGG_LAYERS:
                seen.append(x)
        return seen
