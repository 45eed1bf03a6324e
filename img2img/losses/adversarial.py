"""What generator and discriminator play against each other for, on logits of any shape."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Adversarial = Literal[
    "vanilla", "nonsaturating", "lsgan", "hinge", "wasserstein", "relativistic", "relativistic-average"
]
RELATIVISTIC = ("relativistic", "relativistic-average")
THRESHOLDS: dict[Adversarial, float] = {"vanilla": 0.0, "nonsaturating": 0.0, "hinge": 0.0, "lsgan": 0.5}
"""Logits above which an image is taken for real; a critic has none."""


def discriminator(real: Tensor, fake: Tensor, adversarial: Adversarial, smoothing: float = 0.0) -> dict[str, Tensor]:
    """The discriminator's (or critic's) loss, to be minimised, as its terms, which are to be added.

    With C the logits on real x and generated y, D = sigmoid(C), and σ the sigmoid:

    - ``vanilla`` and ``nonsaturating``: -log D(x) - log(1 - D(y)) (Goodfellow et al. 2014, eq. 1);
    - ``lsgan``: (C(x) - 1)² + C(y)² (Mao et al. 2017, eq. 9 with a = 0, b = 1; without its ½, which methods apply);
    - ``hinge``: max(0, 1 - C(x)) + max(0, 1 + C(y)) (Lim & Ye 2017, eq. 9; Miyato et al. 2018, eq. 16);
    - ``wasserstein``: -C(x) + C(y) (Arjovsky et al. 2017, eq. 2, without the penalty);
    - ``relativistic``: -log σ(C(x) - C(y)), pair by pair (Jolicoeur-Martineau 2018, RSGAN);
    - ``relativistic-average``: -log σ(C(x) - E C(y)) - log(1 - σ(C(y) - E C(x))) (ibid., RaSGAN).

    Args:
        real: logits on real images.
        fake: logits on generated ones; of the same shape for ``relativistic``.
        adversarial: the kind.
        smoothing: by how much less than 1 the probability is that real images shall be given (Salimans et al. 2016, §3.4: one-sided
            label smoothing); for ``vanilla``, ``nonsaturating`` and ``lsgan``.

    Returns:
        Means over all logits: ``real`` and ``fake``; ``pair`` for ``relativistic``.
    """
    real, fake = real.float(), fake.float()
    if adversarial in ("vanilla", "nonsaturating"):
        found = (1 - smoothing) * F.softplus(-real) + smoothing * F.softplus(real) if smoothing else F.softplus(-real)
        return {"real": found.mean(), "fake": F.softplus(fake).mean()}
    if adversarial == "lsgan":
        return {"real": (real - (1 - smoothing)).square().mean(), "fake": fake.square().mean()}
    if adversarial == "hinge":
        return {"real": F.relu(1 - real).mean(), "fake": F.relu(1 + fake).mean()}
    if adversarial == "wasserstein":
        return {"real": -real.mean(), "fake": fake.mean()}
    if adversarial == "relativistic":
        return {"pair": F.softplus(fake - real).mean()}
    return {"real": F.softplus(fake.mean() - real).mean(), "fake": F.softplus(fake - real.mean()).mean()}


def generator(fake: Tensor, adversarial: Adversarial, real: Tensor | None = None) -> Tensor:
    """The generator's loss, to be minimised.

    - ``vanilla``: log(1 - D(y)), the minimax game, whose gradient fades when D wins (Goodfellow et al. 2014, eq. 1);
    - ``nonsaturating``: -log D(y) (ibid., §3);
    - ``lsgan``: (C(y) - 1)² (Mao et al. 2017, eq. 9 with c = 1, without its ½);
    - ``hinge`` and ``wasserstein``: -C(y);
    - ``relativistic`` and ``relativistic-average``: the discriminator's with x and y exchanged (Jolicoeur-Martineau 2018).

    Args:
        fake: logits on generated images.
        adversarial: the kind.
        real: logits on real images, which only the relativistic kinds need.
    """
    fake = fake.float()
    if adversarial == "vanilla":
        return -F.softplus(fake).mean()
    if adversarial == "nonsaturating":
        return F.softplus(-fake).mean()
    if adversarial == "lsgan":
        return (fake - 1).square().mean()
    if adversarial in ("hinge", "wasserstein"):
        return -fake.mean()
    assert real is not None, "the relativistic losses compare with real images"
    terms = discriminator(fake, real, adversarial)
    return sum(terms.values(), start=fake.new_zeros(()))


def accuracy(real: Tensor, fake: Tensor, adversarial: Adversarial) -> Tensor:
    """The share of logits on the right side: of the kind's threshold, or for a critic, which has none, of each other."""
    threshold = THRESHOLDS.get(adversarial)
    if threshold is None:
        return (real > fake).float().mean()
    return 0.5 * ((real > threshold).float().mean() + (fake < threshold).float().mean())
