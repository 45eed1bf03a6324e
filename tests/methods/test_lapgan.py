"""LAPGAN against its paper."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.configs import TINY, tiny_config
from helpers.data import write_classes

from img2img.core.errors import UsageError
from img2img.methods.lapgan import LAPGAN, LAPGANConfig
from img2img.models import NoiseGenerator
from img2img.networks import Laplacian, LaplacianConfig
from img2img.networks.generators.laplacian import build_pyramid, list_sides
from img2img.training.train import train


def tiny(classes: int = 0, **settings: Any) -> LAPGAN:
    torch.manual_seed(0)
    values = {**TINY["lapgan"], "initialisation_gain": 0.3, **settings}
    return LAPGANConfig.model_validate(values).build(3, 3, 32, classes)


def test_a_pyramid_and_what_is_missing_give_the_image() -> None:
    image = torch.rand(2, 3, 32, 32)
    pyramid, enlarged = build_pyramid(image)
    assert [each.shape[2] for each in pyramid] == list_sides(32) == [8, 16, 32]
    assert [each.shape[2] for each in enlarged] == [16, 32] and torch.equal(pyramid[-1], image)
    assert torch.allclose(pyramid[1], F.avg_pool2d(image, 2))
    expected = F.interpolate(pyramid[0], scale_factor=2.0, mode="bilinear", align_corners=False)
    assert torch.allclose(enlarged[0], expected)


def test_an_image_is_made_from_the_one_before() -> None:
    torch.manual_seed(0)
    config = LaplacianConfig(channels=2, latent=8)
    assert config.count_numbers(32) == 8 + 16**2 + 32**2
    network = Laplacian(
        config.model_copy(update={"size": 32, "out_channels": 3, "latent": config.count_numbers(32), "classes": 2})
    )
    noise, labels = torch.randn(2, 1288), torch.tensor([0, 1])
    real = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32)
    smallest, middle, largest = network(noise, labels, real)
    again = network(noise, labels, [network.enlarge(smallest), real[1]])[1]
    whole = network(noise, labels, [network.enlarge(smallest), network.enlarge(again)])[2]
    assert torch.allclose(network(noise, labels), whole, atol=1e-5)
    zero = network.steps[0]
    torch.nn.init.zeros_(zero[-1].weight), torch.nn.init.zeros_(zero[-1].bias)  # type: ignore[index, arg-type]
    assert torch.allclose(network(noise, labels, real)[1], real[0]), "a step adds to what it gets"
    assert middle.shape[2:] == (16, 16) and largest.shape[2:] == (32, 32)
    other = noise.clone()
    other[:, 256 : 256 + 1024] = 0  # the plane of the largest
    changed = network(other, labels, real)
    assert torch.equal(changed[0], smallest) and not torch.equal(changed[2], largest)
    other[:, :1280] = 0
    assert torch.equal(network(other, labels, real)[0], smallest), "the smallest has noise of its own"
    assert not torch.allclose(network(noise, labels.flip(0), real)[0], smallest)


def test_each_size_has_its_own_gan() -> None:
    method = tiny()
    batch = {"target": torch.rand(4, 3, 32, 32) * 2 - 1}
    outputs = method.forward(batch)
    judge = method.networks["discriminator"]
    losses = method.discriminator_losses(batch, outputs)
    assert losses.keys() == {f"D/{side}_{kind}" for side in (8, 16, 32) for kind in ("real", "fake")}
    real, enlarged = build_pyramid(batch["target"])
    with torch.no_grad():
        seen = torch.cat([enlarged[0], real[1]], 1)
        logits = judge(seen)
    assert losses["D/16_real"].item() == pytest.approx(F.softplus(-logits).mean().item(), rel=1e-3)
    made = method.generator_losses(batch, outputs)
    assert made.keys() == {f"G/{side}_adversarial" for side in (8, 16, 32)}
    made["G/16_adversarial"].backward()
    touched = {name for name, p in method.networks["generator"].named_parameters() if p.grad is not None}
    assert touched and all(name.startswith("steps.0.") for name in touched), "sizes are trained apart"


def test_it_is_trained_and_sampled(tmp_path: Path) -> None:
    data = write_classes(write_classes(tmp_path / "data"), split="val")
    run = train(tiny_config(data, tmp_path / "run", {"name": "lapgan"}), quiet=True)
    model = NoiseGenerator.load(run)
    images = model.sample(3, seed=4)
    assert images.shape[1:3] == (32, 32) and np.array_equal(images[1], model.sample(1, seed=5, labels=None)[0])
    assert model.interpolate(1, 2, 3).shape[0] == 3


def test_other_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="32, 64 or 128"):
        LAPGANConfig.model_validate(TINY["lapgan"]).build(3, 3, 256)
