"""The VAE against its paper."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.configs import TINY, tiny_config
from helpers.data import write_classes
from torch import Tensor, nn

import img2img
from img2img.core.errors import UsageError
from img2img.methods.vae import VAE, VAEConfig
from img2img.networks import DCGANConfig
from img2img.training.train import train


def tiny(classes: int = 3, **settings: Any) -> VAE:
    torch.manual_seed(0)
    return VAEConfig.model_validate({**TINY["vae"], **settings}).build(3, 3, 32, classes)


def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"target": torch.rand(4, 3, 32, 32) * 2 - 1, "label": torch.tensor([0, 1, 2, 1])}


def test_the_loss_is_the_papers() -> None:
    """Minus the evidence lower bound of the whole batch, written out, per image and number."""
    method, data = tiny(beta=2.0), batch()
    outputs = method.forward(data)
    losses, made, real = method.losses(data, outputs), outputs.images["made"], data["target"]
    mean, logvar = outputs.images["mean"], outputs.images["logvar"]
    best, found = (torch.distributions.Normal(mean, 1.0).log_prob(real).sum((1, 2, 3)).mean() for mean in (real, made))
    normal = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    codes = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    divergence = torch.distributions.kl_divergence(codes, normal).sum(1).mean()
    numbers = 3 * 32 * 32
    assert losses["G/reconstruction"].item() * numbers == pytest.approx((best - found).item(), rel=1e-3)
    assert losses["G/kl"].item() * numbers == pytest.approx(2 * divergence.item(), rel=1e-3)
    assert losses.keys() == {"G/reconstruction", "G/kl"}


def test_codes_are_drawn_around_their_means() -> None:
    method, data = tiny(), batch()
    nn.init.constant_(method.networks["encoder"].logvar.bias, -2)  # type: ignore[union-attr, arg-type]
    seen: list[Tensor] = []
    method.networks["generator"].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method.networks["encoder"].eval()
    with torch.no_grad():
        for _ in range(300):
            outputs = method.forward(data)
    codes = torch.stack(seen)
    assert torch.allclose(codes.mean(0), outputs.images["mean"], atol=0.15)
    assert torch.allclose(codes.std(0), (0.5 * outputs.images["logvar"]).exp(), rtol=0.25)


def test_both_networks_learn_from_the_reconstruction() -> None:
    method, data = tiny(), batch()
    method.losses(data, method.forward(data))["G/reconstruction"].backward()
    for name in ("generator", "encoder"):
        assert all(p.grad is not None for n, p in method.networks[name].named_parameters() if "embedding" not in n), (
            name
        )
    assert method.phases[0].trains == ("generator", "encoder") and len(method.phases) == 1


def test_the_class_is_the_decoders_unless_it_is_to_be_ignored() -> None:
    data = batch()
    for settings, classes in (({}, 3), ({"unconditional": True}, 0)):
        method = tiny(**settings)
        assert method.generator_configs[""].classes == classes
        method.networks["generator"].eval()
        method.networks["encoder"].eval()
        made = []
        for labels in (data["label"], data["label"].flip(0)):
            torch.manual_seed(2)
            made.append(method.forward({**data, "label": labels}).images["made"])
        assert torch.equal(made[0], made[1]) == (classes == 0)


def test_it_is_trained_and_sampled(tmp_path: Path) -> None:
    data = write_classes(write_classes(tmp_path / "data"), split="val")
    run = train(tiny_config(data, tmp_path / "run", {"name": "vae"}), quiet=True)
    images = img2img.load(run).sample(3)
    assert images.shape[0] == 3 and images.dtype == np.uint8 and not np.array_equal(images[0], images[1])
    assert not (run / "latest" / "encoder.safetensors").exists()


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(UsageError, match="grows with its discriminator"):
        tiny(generator={"kind": "progressive"})
    with pytest.raises(UsageError, match="--size 48: these networks make images of 32, 64, 128 or 256"):
        VAEConfig().build(3, 3, 48)
    encoder: Any = VAEConfig(generator=DCGANConfig(latent=16, channels=2)).build(1, 1, 32).networks["encoder"]
    assert encoder.mean.out_features == 16
