import math
from typing import Any

import pytest
import torch

from img2img.losses.adversarial import discriminator_fake, discriminator_real, generator

LOGITS = torch.tensor([-2.0, 0.5, 3.0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


BY_HAND: dict[str, Any] = {
    "vanilla": (lambda x: -math.log(sigmoid(x)), lambda x: -math.log(1 - sigmoid(x)), lambda x: -math.log(sigmoid(x))),
    "lsgan": (lambda x: (x - 1) ** 2, lambda x: x**2, lambda x: (x - 1) ** 2),
    "hinge": (lambda x: max(0, 1 - x), lambda x: max(0, 1 + x), lambda x: -x),
}


@pytest.mark.parametrize("kind", BY_HAND)
@pytest.mark.parametrize("shape", [(3,), (1, 1, 1, 3)])
def test_against_values_computed_by_hand(kind: Any, shape: tuple[int, ...]) -> None:
    for loss, by_hand in zip((discriminator_real, discriminator_fake, generator), BY_HAND[kind], strict=True):
        expected = sum(by_hand(x) for x in LOGITS.tolist()) / 3
        assert loss(LOGITS.reshape(shape), kind).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", BY_HAND)
def test_extreme_and_half_precision_logits_stay_finite(kind: Any) -> None:
    logits = torch.tensor([-200.0, 200.0], dtype=torch.bfloat16, requires_grad=True)
    for loss in (discriminator_real, discriminator_fake, generator):
        value = loss(logits, kind)
        assert value.dtype == torch.float32 and value.isfinite()
        (gradient,) = torch.autograd.grad(value, logits)
        assert gradient.isfinite().all()
