"""Distances between images by the features that a network finds in them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

VGG_WEIGHTS = (
    1 / 32,
    1 / 16,
    1 / 8,
    1 / 4,
    1.0,
)  # of the five depths, from the surface down, as published with pix2pixHD


def feature_matching(fake: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """The mean absolute difference of a discriminator's features, summed over depths (Wang et al. 2018, eq. 4), without λ.

    Of several scales the mean, as in the published code of pix2pixHD and SPADE; eq. 5 has their sum.

    Args:
        fake: for each scale the features of each depth and, last, the logits, which don't count.
        real: the same of real images; no gradient flows into it.
    """
    terms = [
        F.l1_loss(a.float(), b.detach().float())
        for one, other in zip(fake, real, strict=True)
        for a, b in zip(one[:-1], other[:-1], strict=True)
    ]
    return torch.stack(terms).sum() / len(fake)


def perceptual(fake: Sequence[Tensor], real: Sequence[Tensor], weights: Sequence[float] = VGG_WEIGHTS) -> Tensor:
    """Σ over depths of the weighted mean absolute difference of features (Johnson et al. 2016; Wang et al. 2018, §4.1), without λ.

    Args:
        fake: features of each depth.
        real: the same of real images; no gradient flows into it.
        weights: of each depth.
    """
    terms = [w * F.l1_loss(a.float(), b.detach().float()) for w, a, b in zip(weights, fake, real, strict=True)]
    return torch.stack(terms).sum()


def perceptual_distance(images: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """How unlike images look: features are scaled to length 1 at each position, and their squared differences summed over channels
    (Zhang et al. 2018, eq. 1, with w = 1), then averaged over positions and depths.

    Args:
        images: features of each depth, (B, C, H, W).
        truth: the same of the images that they are compared with; no gradient flows into it.

    Returns:
        (B,), 0 for equal features, at most 4.
    """
    found = [(_unit(a) - _unit(b.detach())).square().sum(1).mean((1, 2)) for a, b in zip(images, truth, strict=True)]
    return torch.stack(found).mean(0)


def _unit(features: Tensor) -> Tensor:
    x = features.float()
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-3 * x.shape[1])


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) ‖ N(0, 1)) of (B, D) each, summed over D (Kingma & Welling 2014, appendix B), mean over the batch."""
    mean, logvar = mean.float(), logvar.float()
    return -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(1).mean()
