"""What generator and discriminator play against each other for, on logits of any shape."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Adversarial = Literal["vanilla", "lsgan", "hinge"]


def discriminator_real(logits: Tensor, adversarial: Adversarial) -> Tensor:
    """The discriminator's loss on real images: low when `logits` say real.

    ``vanilla``: -log D (Goodfellow et al. 2014, eq. 1); ``lsgan``: (D - 1)² (Mao et al. 2017, eq. 9, b = 1, without
    the factor ½, which methods apply); ``hinge``: max(0, 1 - D) (Lim & Ye 2017, eq. 9).
    """
    logits = logits.float()
    if adversarial == "vanilla":
        return F.softplus(-logits).mean()
    if adversarial == "lsgan":
        return (logits - 1).square().mean()
    return F.relu(1 - logits).mean()


def discriminator_fake(logits: Tensor, adversarial: Adversarial) -> Tensor:
    """The discriminator's loss on generated images: low when `logits` say fake (a = 0 for ``lsgan``)."""
    logits = logits.float()
    if adversarial == "vanilla":
        return F.softplus(logits).mean()
    if adversarial == "lsgan":
        return logits.square().mean()
    return F.relu(1 + logits).mean()


def generator(logits: Tensor, adversarial: Adversarial) -> Tensor:
    """The generator's loss: low when the discriminator's `logits` on its images say real.

    ``vanilla`` is the non-saturating form, -log D (Goodfellow et al. 2014, §3), as pix2pix uses it; ``hinge``: -D.
    """
    return -logits.float().mean() if adversarial == "hinge" else discriminator_real(logits, adversarial)
