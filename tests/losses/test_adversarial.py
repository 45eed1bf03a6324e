import math
from typing import Any, get_args

import pytest
import torch

from img2img.losses.adversarial import Adversarial, accuracy, discriminator, generator

REAL = [-1.0, 0.25, 2.0]
FAKE = [-2.0, 0.5, 2.5]
KINDS = get_args(Adversarial)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found)


def log_d(x: float) -> float:
    return math.log(sigmoid(x))


def by_hand(kind: str) -> tuple[float, float]:
    """The discriminator's and the generator's loss, written as in the papers."""
    bce = mean(-log_d(r) for r in REAL) + mean(-math.log(1 - sigmoid(f)) for f in FAKE)
    average_real, average_fake = mean(REAL), mean(FAKE)
    return {
        "vanilla": (bce, mean(math.log(1 - sigmoid(f)) for f in FAKE)),
        "nonsaturating": (bce, mean(-log_d(f) for f in FAKE)),
        "lsgan": (mean((r - 1) ** 2 for r in REAL) + mean(f**2 for f in FAKE), mean((f - 1) ** 2 for f in FAKE)),
        "hinge": (mean(max(0, 1 - r) for r in REAL) + mean(max(0, 1 + f) for f in FAKE), -average_fake),
        "wasserstein": (average_fake - average_real, -average_fake),
        "relativistic": (
            mean(-log_d(r - f) for r, f in zip(REAL, FAKE, strict=True)),
            mean(-log_d(f - r) for r, f in zip(REAL, FAKE, strict=True)),
        ),
        "relativistic-average": (
            mean(-log_d(r - average_fake) for r in REAL) + mean(-math.log(1 - sigmoid(f - average_real)) for f in FAKE),
            mean(-log_d(f - average_real) for f in FAKE) + mean(-math.log(1 - sigmoid(r - average_fake)) for r in REAL),
        ),
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3,), (1, 1, 1, 3)])
def test_against_values_computed_by_hand(kind: Any, shape: tuple[int, ...]) -> None:
    real, fake = torch.tensor(REAL).reshape(shape), torch.tensor(FAKE).reshape(shape)
    d, g = by_hand(kind)
    assert sum(discriminator(real, fake, kind).values()).item() == pytest.approx(d, rel=1e-5)  # type: ignore[union-attr]
    assert generator(fake, kind, real).item() == pytest.approx(g, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_gains_by_going_its_way(kind: Any) -> None:
    real, fake = (torch.tensor(each, requires_grad=True) for each in (REAL, FAKE))
    loss = sum(discriminator(real, fake, kind).values())
    to_real, to_fake = torch.autograd.grad(loss, [real, fake])  # type: ignore[arg-type]
    assert to_real.sum() < 0 < to_fake.sum()
    (towards,) = torch.autograd.grad(generator(fake, kind, real.detach()), fake)
    if kind != "lsgan":  # beyond 1 it pulls back
        assert (towards <= 0).all() and towards.sum() < 0


def test_the_minimax_gradient_fades_where_the_other_stays() -> None:
    sure = torch.tensor([-12.0], requires_grad=True)
    sizes = [torch.autograd.grad(generator(sure, kind), sure)[0].abs().item() for kind in ("vanilla", "nonsaturating")]
    assert sizes[0] < 1e-4 and sizes[1] > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_and_half_precision_logits_stay_finite(kind: Any) -> None:
    logits = torch.tensor([-200.0, 200.0], dtype=torch.bfloat16, requires_grad=True)
    other = torch.tensor([200.0, -200.0], dtype=torch.bfloat16)
    for value in (sum(discriminator(other, logits, kind).values()), generator(logits, kind, other)):
        assert isinstance(value, torch.Tensor) and value.dtype == torch.float32 and value.isfinite()
        (gradient,) = torch.autograd.grad(value, logits)
        assert gradient.isfinite().all()


def test_accuracy_is_the_share_on_the_right_side() -> None:
    real, fake = torch.tensor([1.0, 0.2, -1.0, 0.3]), torch.tensor([-1.0, 0.1, 0.6, -2.0])
    assert accuracy(real, fake, "hinge").item() == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert accuracy(real, fake, "lsgan").item() == pytest.approx((1 / 4 + 3 / 4) / 2)
    assert accuracy(real, fake, "wasserstein").item() == pytest.approx(3 / 4)


def test_smoothed_labels_by_hand() -> None:
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    smoothed = discriminator(real, fake, "nonsaturating", 0.1)
    by_hand = mean(-0.9 * log_d(r) - 0.1 * math.log(1 - sigmoid(r)) for r in REAL)
    assert smoothed["real"].item() == pytest.approx(by_hand, rel=1e-5)
    squares = discriminator(real, fake, "lsgan", 0.1)
    assert squares["real"].item() == pytest.approx(mean((r - 0.9) ** 2 for r in REAL), rel=1e-5)
    for terms, kind in ((smoothed, "nonsaturating"), (squares, "lsgan")):
        assert terms["fake"] == discriminator(real, fake, kind)["fake"], "one-sided"  # type: ignore[arg-type]
