"""The variational bound of the mutual information of codes and images (Chen et al. 2016, eq. 5), without constants."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BALANCE = 4.0  # weight of the entropy of all values together: μ of IMSAT (§4.1)


def code_losses(found: Tensor, codes: Tensor, categorical: Sequence[int], continuous: int) -> dict[str, Tensor]:
    """How far Q is from the codes that images were made from, to be minimised.

    Args:
        found: (B, sum(categorical) + 2 continuous), what Q says: logits of each categorical code, then the means of the
            continuous ones, then the logarithms of their variances.
        codes: (B, sum(categorical) + continuous): one-hot numbers, then values in [-1, 1].
        categorical: how many values each categorical code has.
        continuous: how many continuous codes there are.

    Returns:
        ``categorical``: the cross-entropy, summed over codes; ``continuous``: the negative log-likelihood of a Gaussian,
        summed over codes; means over the batch. Only those that there are.
    """
    found, codes = found.float(), codes.float()
    losses = {}
    hot = sum(categorical)
    if categorical:
        pairs = zip(found[:, :hot].split(list(categorical), 1), codes[:, :hot].split(list(categorical), 1), strict=True)
        losses["categorical"] = torch.stack([F.cross_entropy(logits, code) for logits, code in pairs]).sum()
    if continuous:
        mean, logvar = found[:, hot:].split(continuous, 1)
        logvar = logvar.clamp(-6, 6)  # a spread between 0.05 and 20
        distance = (codes[:, hot:] - mean).square() / logvar.exp()
        losses["continuous"] = 0.5 * (distance + logvar + math.log(2 * math.pi)).sum(1).mean()
    return losses


def clustering_loss(found: Tensor, changed: Sequence[Tensor], categorical: Sequence[int]) -> Tensor:
    """How far Q is from telling images apart by what small changes leave alone (Hu et al. 2017, IMSAT, eq. 2 to 6), to be minimised.

    Three terms for each categorical code: Q says the same of an image and of its changed copies; it is sure; and all values occur
    equally often. The published weight of the last two is 0.1 of the first's; here all count alike, which was measured to be better.

    Args:
        found: (B, ≥ sum(categorical)), what Q says of images: first the logits of each categorical code.
        changed: the same of changed copies of these images.
        categorical: how many values each categorical code has.

    Returns:
        (), summed over codes.
    """
    hot, losses = sum(categorical), []
    parts = [each[:, :hot].float().split(list(categorical), 1) for each in (found, *changed)]
    for logits, *others in zip(*parts, strict=True):
        told = logits.detach().softmax(1)
        agreement = torch.stack([F.cross_entropy(other, told) for other in others]).mean()
        all_logits = torch.cat([logits, *others])
        unsure = F.cross_entropy(all_logits, all_logits.softmax(1))
        mean = all_logits.softmax(1).mean(0)
        losses.append(agreement + unsure + BALANCE * (mean * mean.clamp_min(1e-8).log()).sum())
    return torch.stack(losses).sum()
