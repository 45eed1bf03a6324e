"""ADA: the probability follows how sure the discriminator is of real images."""

import pytest
import torch

from img2img.methods import adaptive_augmentation
from img2img.methods.adaptive_augmentation import EVERY, IMAGES, TARGET, AdaptiveAugmentation
from img2img.methods.base import Outputs
from img2img.methods.cyclegan import CycleGANConfig
from img2img.methods.pix2pix import Pix2PixConfig
from img2img.networks import PatchGANConfig, ResNetConfig, UNetConfig


def observe(adaptive: AdaptiveAugmentation, share: float, updates: int, first: int = 0) -> None:
    """Logits of 20 real images of which so many are taken for real."""
    real = torch.where(torch.arange(20) < share * 20, 1.0, -1.0)
    for update in range(first, first + updates):
        adaptive.observe([real], [-real], 0.0, update)


def test_it_rises_while_real_images_are_too_sure_and_falls_otherwise() -> None:
    adaptive = AdaptiveAugmentation()
    observe(adaptive, 1.0, 4 * EVERY + 1)
    assert adaptive.probability == pytest.approx(4 * EVERY * 20 / IMAGES)
    just_below = 0.5 + TARGET / 2 - 0.05  # a mean sign of 0.5
    observe(adaptive, just_below, 2 * EVERY, 4 * EVERY + 1)
    assert adaptive.probability < 4 * EVERY * 20 / IMAGES
    observe(adaptive, 0.0, 20 * EVERY, 6 * EVERY + 1)
    assert adaptive.probability == 0
    adaptive.probability.fill_(1 - 1e-4)
    observe(adaptive, 1.0, 20 * EVERY, 40 * EVERY)
    assert adaptive.probability == 1


def test_the_threshold_is_that_of_the_loss_or_the_mean_of_generated_images() -> None:
    for threshold, sign in ((0.5, -1.0), (0.0, 1.0), (None, 1.0)):
        adaptive = AdaptiveAugmentation()
        adaptive.observe([torch.full((4, 1, 2, 2), 0.3)], [torch.full((4, 1, 2, 2), -0.3)], threshold, 0)
        assert adaptive.signs == 4 * sign


def test_batches_that_are_accumulated_adjust_it_once() -> None:
    adaptive, real = AdaptiveAugmentation(), torch.ones(2)
    for update in range(EVERY + 1):
        for _ in range(2):
            adaptive.observe([real], [-real], 0.0, update)
    assert adaptive.probability == pytest.approx(2 * EVERY * 2 / IMAGES) and adaptive.images == 4


def test_images_are_counted_once_however_many_scales_and_discriminators_see_them() -> None:
    adaptive = AdaptiveAugmentation()
    adaptive.observe([torch.ones(4), -torch.ones(4, 1, 3, 3)], [torch.zeros(4), torch.zeros(4)], 0.0, 0)
    assert adaptive.images == 4 and adaptive.signs == 0, "the mean of both scales"
    networks = {"generator": ResNetConfig(channels=4, blocks=1), "discriminator": PatchGANConfig(channels=4, layers=1)}
    method = CycleGANConfig(**networks, augment=("auto",)).build(3, 3, 16)  # type: ignore[arg-type]
    batch = {"source": torch.rand(3, 3, 16, 16), "target": torch.rand(3, 3, 16, 16)}
    outputs = method.forward(batch)
    for part in [part for phase in method.phases for part in phase.parts]:
        part(batch, outputs)
    assert method.memories["augmentation"].state_dict()["images"] == 3


def test_several_processes_know_what_all_have_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, not only when the probability is adjusted: a checkpoint has one process' numbers."""
    monkeypatch.setattr(adaptive_augmentation, "is_initialized", lambda: True)
    monkeypatch.setattr(adaptive_augmentation, "all_reduce", lambda seen: seen.mul_(3))
    alone = AdaptiveAugmentation()
    observe(alone, 1.0, 2)
    assert alone.images == 3 * 2 * 20 and alone.signs == 3 * 2 * 20
    observe(alone, 1.0, EVERY - 1, 2)
    assert alone.probability == pytest.approx(3 * EVERY * 20 / IMAGES) and alone.images == 3 * 20


def test_its_state_goes_on_where_it_was() -> None:
    whole, first, second = AdaptiveAugmentation(), AdaptiveAugmentation(), AdaptiveAugmentation()
    observe(whole, 1.0, 3 * EVERY)
    observe(first, 1.0, EVERY + 2)
    second.load_state_dict(first.state_dict())
    observe(second, 1.0, 2 * EVERY - 2, EVERY + 2)
    assert second.state_dict() == whole.state_dict() and whole.probability > 0


def test_the_discriminator_sees_changes_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Pix2PixConfig(
        generator=UNetConfig(channels=4, depth=2),
        discriminator=PatchGANConfig(channels=4, layers=1),
        augment=("auto", "cutout"),
    ).build(3, 3, 16)
    adversarial = method.adversarial
    assert method.memories.keys() == {"augmentation"} and adversarial.augmentations == ("cutout",)
    images, given = torch.ones(400, 3, 16, 16), torch.ones(400, 1, 16, 16)
    for probability in (0.0, 0.3, 1.0):
        assert adversarial.adaptive is not None
        adversarial.adaptive.probability = torch.tensor(probability)
        seen = adversarial._prepare(images, given, 0)
        changed = (seen == 0).flatten(1).any(1).float().mean()
        assert changed == pytest.approx(probability, abs=0.08 if probability == 0.3 else 0)
    monkeypatch.setattr(adaptive_augmentation, "IMAGES", 8)
    method = Pix2PixConfig(generator=UNetConfig(channels=4, depth=2), augment=("auto",)).build(3, 3, 32)
    assert method.adversarial.augmentations == ("colour", "translation", "cutout")
    network = method.networks["discriminator"]
    outputs = Outputs(0)
    method.adversarial.discriminator_losses(
        network, torch.ones(2, 3, 32, 32), torch.zeros(2, 3, 32, 32), outputs, given=torch.zeros(2, 3, 32, 32)
    )
    assert outputs.metrics["D/augment"] == 0 and method.adversarial.adaptive.images == 2  # type: ignore[union-attr]
