"""The adversarial core with a discriminator that records what it is shown, and by hand."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.methods import gan_losses
from img2img.methods.base import Outputs
from img2img.methods.gan_losses import AdversarialLoss, judge_translations
from img2img.methods.pix2pix import Pix2PixConfig

REAL, FAKE, GIVEN = 1.0, 2.0, 3.0


class Spy(nn.Module):
    """Linear in its images at each of several scales; records what it sees."""

    def __init__(self, channels: int = 1, scales: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.Parameter(torch.randn(scales, channels * 16))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, levels: bool = False) -> Any:
        self.seen.append(images.detach())
        found = [images.flatten(1) @ weight for weight in self.weights]
        return [[images * n, logits] for n, logits in enumerate(found, 1)] if levels else found


def build(merge: bool = True, share: float = 0.5, mean: bool = False, features: float = 0.0, **settings: Any) -> AdversarialLoss:  # fmt: skip
    config = Pix2PixConfig.model_validate(settings)
    return AdversarialLoss(
        config,
        judge_translations,
        merge=merge,
        discriminator_share=share,
        mean_of_scales=mean,
        weight=3.0,
        feature_matching=features,
    )


def images(value: float, channels: int = 1) -> Tensor:
    return torch.full((2, channels, 4, 4), value)


@pytest.mark.parametrize("scales", [1, 2])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_penalties_by_hand(share: float, scales: int) -> None:
    """The gradient of a linear critic is its weight, of the sum of two theirs: every factor shows in the values."""
    spy, real, fake = Spy(scales=scales), torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    loss = build(share=share, adversarial="wasserstein", gradient_penalty=10.0, r1=3.0, r2=5.0, r1_every=4, drift=0.001)
    length = spy.weights.sum(0).norm().item()
    losses = loss.discriminator_losses(spy, real, fake, Outputs(8))
    drift = sum((real.flatten(1) @ weight).square().mean().item() for weight in spy.weights)
    wanted = {
        "D/real": -share * (real.flatten(1) @ spy.weights.sum(0)).mean().item(),
        "D/fake": share * (fake.flatten(1) @ spy.weights.sum(0)).mean().item(),
        "D/drift": share * 0.001 * drift,
        "D/penalty": share * 10 * (length - 1) ** 2,
        "D/r1": share * 3 * 4 * 0.5 * length**2,
        "D/r2": share * 5 * 4 * 0.5 * length**2,
    }
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(wanted, rel=1e-4)
    assert {"D/r1", "D/r2"}.isdisjoint(loss.discriminator_losses(spy, real, fake, Outputs(9))), "they are lazy"


def test_losses_of_scales_are_summed_or_averaged() -> None:
    real, fake = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    for mean, factor in ((False, 1.0), (True, 1 / 3)):
        spy, loss = Spy(scales=3), build(mean=mean, features=2.0, adversarial="hinge", drift=0.1)
        logits = [[each.flatten(1) @ weight for weight in spy.weights] for each in (real, fake)]
        losses = loss.discriminator_losses(spy, real, fake, Outputs())
        wanted = {
            "D/real": 0.5 * factor * sum(F.relu(1 - each).mean().item() for each in logits[0]),
            "D/fake": 0.5 * factor * sum(F.relu(1 + each).mean().item() for each in logits[1]),
            "D/drift": 0.05 * factor * sum(each.square().mean().item() for each in logits[0]),
        }
        assert {name: value.item() for name, value in losses.items()} == pytest.approx(wanted, rel=1e-4)
        losses = loss.generator_losses(spy, real, fake, Outputs())
        apart = (real - fake).abs().mean().item()
        wanted = {
            "G/adversarial": -3 * factor * sum(each.mean().item() for each in logits[1]),
            "G/features": 2 * apart * (1 + 2 + 3) / 3,
        }
        assert {name: value.item() for name, value in losses.items()} == pytest.approx(wanted, rel=1e-4)


class Curved(Spy):
    """½‖x‖² of each image, whose gradient is x: so a penalty tells where it was taken."""

    def forward(self, images: Tensor, levels: bool = False) -> Any:
        return 0.5 * images.flatten(1).square().sum(1)


def test_r1_is_taken_on_real_images_and_r2_on_generated_ones() -> None:
    real, fake = torch.randn(2, 1, 4, 4), 3 * torch.randn(2, 1, 4, 4)
    losses = build(share=1.0, r1=1.0, r2=1.0, r1_every=1).discriminator_losses(Curved(), real, fake, Outputs())
    for name, images in (("D/r1", real), ("D/r2", fake)):
        assert losses[name].item() == pytest.approx(0.5 * images.square().sum((1, 2, 3)).mean().item(), rel=1e-4)


def test_the_gradient_that_the_generator_gets_is_noted_for_each_image() -> None:
    spy, outputs = Spy(), Outputs()
    fake = images(FAKE).requires_grad_()
    sum(build(adversarial="hinge").generator_losses(spy, images(REAL), fake, outputs).values()).backward()  # type: ignore[union-attr]
    assert outputs.metrics["G/gradient"].item() == pytest.approx(3 * spy.weights[0].norm().item(), rel=1e-4)


def test_older_translations_are_seen_beside_their_own_condition() -> None:
    spy = Spy(2)
    other = images(7.0)
    build().discriminator_losses(spy, images(REAL), images(FAKE), Outputs(), given=images(GIVEN), given_fake=other)
    (shown,) = spy.seen
    assert shown[:, :, 0, 0].tolist() == [[7.0, FAKE]] * 2 + [[GIVEN, REAL]] * 2


@pytest.mark.parametrize("merge", [True, False])
def test_all_that_the_discriminator_sees_is_augmented(merge: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def ten(images: Tensor, kinds: Any, given: Tensor | None, probability: Any) -> tuple[Tensor, Tensor | None]:
        assert kinds == ("colour",) and probability is None
        return 10 * images, None if given is None else 10 * given

    monkeypatch.setattr(gan_losses, "augment", ten)
    loss = build(merge=merge, augment=("colour",), adversarial="relativistic")
    for given in (None, images(GIVEN)):
        spy = Spy(1 if given is None else 2)
        loss.discriminator_losses(spy, images(REAL), images(FAKE), Outputs(), given=given)
        shown = torch.cat(spy.seen)
        assert shown[:, -1, 0, 0].tolist() == [10 * FAKE] * 2 + [10 * REAL] * 2
        assert given is None or shown[:, 0].unique().item() == 10 * GIVEN
        spy.seen = []
        loss.generator_losses(spy, images(REAL), images(FAKE), Outputs(), given=given)
        assert [seen[:, -1].unique().item() for seen in spy.seen] == [10 * FAKE, 10 * REAL]
        assert given is None or {seen[:, 0].unique().item() for seen in spy.seen} == {10 * GIVEN}


def test_no_gradient_flows_from_the_discriminator_s_losses_into_what_was_generated() -> None:
    fake = images(FAKE).requires_grad_()
    for loss in (build(), build(merge=False, r2=1.0, r1_every=1), build(gradient_penalty=10.0)):
        sum(loss.discriminator_losses(Spy(), images(REAL), fake, Outputs()).values()).backward()  # type: ignore[union-attr]
    assert fake.grad is None
    sum(build().generator_losses(Spy(), images(REAL), fake, Outputs()).values()).backward()  # type: ignore[union-attr]
    assert fake.grad is not None and fake.grad.abs().sum() > 0
