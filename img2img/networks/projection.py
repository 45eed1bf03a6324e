"""The projection head of CUT: a small MLP for each depth of the encoder."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Projection(nn.Module):
    """Maps features of several depths to the unit sphere on which patches are compared (Park et al. 2020, §3: H_l).

    Args:
        widths: channels of the features at each depth.
        channels: of what comes out, and of the hidden layer; the paper's is 256.
    """

    def __init__(self, widths: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, channels), nn.ReLU(), nn.Linear(channels, channels)) for width in widths
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """For each depth (B, P, width) → (B, P, channels), each vector of length 1."""
        projected = [head(each) for head, each in zip(self.heads, features, strict=True)]
        # the usual epsilon of 1e-12 makes gradients of 1e12 where no hidden unit is active
        return [F.normalize(each.float(), dim=2, eps=1e-7) for each in projected]
