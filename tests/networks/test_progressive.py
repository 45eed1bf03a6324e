"""Networks that grow."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from img2img.networks.discriminators.progressive import (
    MinibatchDeviation,
    ProgressiveDiscriminator,
    ProgressiveDiscriminatorConfig,
)
from img2img.networks.generators.progressive import (
    Equalised,
    PixelNorm,
    Progressive,
    ProgressiveConfig,
    explain_growth,
    level_at,
    reduce_images,
)

CONFIG = ProgressiveConfig(channels=2, latent=4, out_channels=1, size=32, grow_updates=10)


def networks() -> tuple[Progressive, ProgressiveDiscriminator]:
    torch.manual_seed(0)
    return Progressive(CONFIG), ProgressiveDiscriminator(ProgressiveDiscriminatorConfig(channels=2), 1, 32)


def test_the_level_rests_and_fades_in_turn() -> None:
    levels = [level_at(update, CONFIG) for update in (0, 9, 10, 15, 19, 20, 29, 30, 35, 60, 500)]
    assert levels == [0, 0, 0, 0.5, 0.9, 1, 1, 1, 1.5, 3, 3]


@pytest.mark.parametrize(
    ("level", "side"), [(0.0, 4), (0.3, 8), (1.0, 8), (1.5, 16), (2.0, 16), (2.999, 32), (3.0, 32)]
)
def test_images_grow_and_are_judged_at_every_level(level: float, side: int) -> None:
    made, judge = networks()
    for network in (made, judge):
        network.grow(level)
    images = made(torch.randn(4, 4))
    assert images.shape == (4, 1, side, side)
    assert reduce_images(torch.randn(4, 1, 32, 32), level).shape == images.shape
    logits = judge(images)
    assert logits.shape == (4,)
    logits.sum().backward()
    assert made.eval()(torch.randn(2, 4)).shape == (2, 1, 32, 32), "who samples gets images of the whole size"


@pytest.mark.parametrize("whole", [1, 2, 3])
def test_fading_is_continuous(whole: int) -> None:
    """Karras et al. 2018, figure 2: at both ends it is the resolution alone."""
    made, judge = networks()
    noise, real = torch.randn(4, 4), torch.randn(4, 1, 32, 32)

    def both(level: float) -> tuple[torch.Tensor, torch.Tensor]:
        made.grow(level)
        judge.grow(level)
        return made.eval()(noise), judge(reduce_images(real, level))

    images, logits = both(whole - 1)
    nearly, judged = both(whole - 0.999)
    assert torch.allclose(images, nearly, atol=0.02) and torch.allclose(logits, judged, atol=0.02)
    images, logits = both(whole)
    nearly, judged = both(whole - 0.001)
    assert torch.allclose(images, nearly, atol=0.02) and torch.allclose(logits, judged, atol=0.02)
    half, _ = both(whole - 0.5)
    coarse, _ = both(whole - 1)
    assert torch.allclose(half, (coarse + images) / 2, atol=1e-5)


def test_equalised_weights_are_scaled_when_they_are_used() -> None:
    torch.manual_seed(0)
    layer = Equalised(64, 32, 3)
    assert layer.weight.std().item() == pytest.approx(1, abs=0.02)
    x = torch.randn(2, 64, 5, 5)
    assert torch.allclose(layer(x), F.conv2d(x, layer.weight * (2 / (64 * 9)) ** 0.5, layer.bias, padding=1), atol=1e-5)
    assert layer(x).var().item() == pytest.approx(2, rel=0.4), "of He: a ReLU halves it"


def test_pixel_norm() -> None:
    x = 5 * torch.randn(2, 3, 4, 4)
    done = PixelNorm()(x)
    assert torch.allclose(done.square().mean(1), torch.ones(2, 4, 4), atol=1e-4)
    assert torch.allclose(F.normalize(done, dim=1), F.normalize(x, dim=1), atol=1e-5), "directions stay"


def test_minibatch_deviation_tells_how_much_images_differ() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 4, 4)
    done = MinibatchDeviation()(x)
    assert done.shape == (8, 4, 4, 4) and torch.equal(done[:, :3], x)
    for place in range(8):  # groups are made of every second image
        group = x[place % 2 :: 2]
        wanted = (group.var(0, unbiased=False) + 1e-8).sqrt().mean()
        assert torch.allclose(done[place, 3], wanted.expand(4, 4), atol=1e-6)
    assert MinibatchDeviation()(x[:1].expand(4, -1, -1, -1))[:, 3].abs().max() < 1e-3
    assert MinibatchDeviation()(x[:1]).shape == (1, 4, 4, 4) and MinibatchDeviation()(x[:3]).shape == (3, 4, 4, 4)


def test_a_run_that_is_too_short_to_grow_is_no_secret() -> None:
    assert explain_growth(CONFIG, 60) == ""
    assert "will have grown to 8 pixels only; 32 take 60 updates" in explain_growth(CONFIG, 30)


def test_the_level_is_saved_and_no_average_changes_it() -> None:
    from img2img.training.ema import EMA

    made, _ = networks()
    ema = EMA(made, 0.9)
    made.grow(1.25)
    ema.update(made)
    assert ema.network.stage() == made.stage() == (2, 0.25)  # type: ignore[operator]
    other = Progressive(CONFIG)
    other.load_state_dict(made.state_dict())
    assert other.stage() == (2, 0.25)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in made.modules())
