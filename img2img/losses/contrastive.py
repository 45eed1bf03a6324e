"""PatchNCE: what stands at one place of the translation belongs to that place of the source."""

import torch
import torch.nn.functional as F
from torch import Tensor


def patch_nce(query: Tensor, key: Tensor, temperature: float = 0.07) -> Tensor:
    """The contrastive loss of patches (Park et al. 2020, eqs. 3 and 4, one layer), in nats.

    Each patch of the translation must be told to be of the source's patch at the same place, among all places drawn from
    the same image.

    Args:
        query: (B, P, C), unit vectors of the translation's patches.
        key: (B, P, C), of the source's patches at the same places; no gradient flows into it.
        temperature: τ.

    Returns:
        The mean over patches and images; log P if nothing is told apart.
    """
    similarity = torch.bmm(query.float(), key.detach().float().transpose(1, 2)) / temperature  # (B, P, P)
    truth = torch.arange(query.shape[1], device=query.device).expand(query.shape[0], -1)
    return F.cross_entropy(similarity.flatten(0, 1), truth.flatten())
