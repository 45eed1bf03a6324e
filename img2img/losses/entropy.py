"""A neural estimate of entropy (Kim et al. 2024, UNSB, §4; Belghazi et al. 2018, MINE)."""

import torch
from torch import Tensor, nn


def estimate_entropy(critic: nn.Module, samples: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """The Donsker-Varadhan bound of what samples tell of themselves, which is their entropy, in nats.

    The critic sees two samples side by side. Those of one image are a draw from the joint distribution; those of an image and the next
    one of the batch are independent. (UNSB's published code draws a second batch for these.)

    Args:
        critic: maps (B, G + 2 C, H, W) to (B, 1, h, w).
        samples: (B, C, H, W), of at least two images.
        given: (B, G, H, W), what else the critic sees.

    Returns:
        The estimate, but for a constant, as the published code computes it: the mean over joint pairs, less the logarithm of the sum
        of exponentials over independent ones; and this logarithm, whose drift from 0 the critic is penalised for, as there.
    """
    both = torch.cat([samples, samples.roll(1, 0)])
    seen = torch.cat([torch.cat([given, given]), torch.cat([samples, samples]), both], dim=1)
    joint, independent = critic(seen).float().chunk(2)
    spread = torch.logsumexp(independent.flatten(), 0)
    return joint.mean() - spread, spread
