"""Weights for LPIPS, which nobody needs to download."""

from pathlib import Path

import torch
from torch import nn
from torchvision import models

from img2img.metrics.lpips import TRUNKS, LpipsNetwork


def draw_weights(network: LpipsNetwork, file: Path) -> Path:
    """He's random weights of a classifier's convolutions."""
    with torch.device("meta"):
        features = models.get_model(TRUNKS[network].architecture, weights=None).features
    features = features.to_empty(device="cpu")
    torch.manual_seed(0)
    for layer in features.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)
    torch.save({f"features.{name}": tensor for name, tensor in features.state_dict().items()}, file)
    return file
