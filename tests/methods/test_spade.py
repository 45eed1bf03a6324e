"""SPADE against its paper."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.configs import TINY
from torch.nn.utils import parametrize

from img2img.core.errors import UsageError
from img2img.methods.base import Method
from img2img.methods.spade import SPADEMethod, SPADEMethodConfig
from img2img.networks import MultiScaleConfig, SPADEConfig
from img2img.networks.labels import encode_label_maps


def tiny(**settings: Any) -> SPADEMethod:
    torch.manual_seed(0)
    return SPADEMethodConfig(**{**TINY["spade"], **settings}).build(4, 3, 64)


def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    maps = torch.stack([torch.randint(0, 3, (2, 64, 64)), torch.randint(0, 5, (2, 64, 64))], 1).int()
    return {"maps": maps, "source": encode_label_maps(maps, 3, edges=True), "target": torch.rand(2, 3, 64, 64) * 2 - 1}


def test_the_defaults_are_the_papers() -> None:
    config = SPADEMethodConfig()
    assert (config.lr, config.discriminator_lr, config.betas) == (1e-4, 4e-4, (0.0, 0.9))
    assert (config.feature_matching, config.perceptual.weight, config.kl_weight) == (10, 10, 0.05)
    assert config.adversarial == "hinge" and config.discriminator == MultiScaleConfig(
        scales=2, spectral_norm=True, plain_ends=True
    )
    assert config.generator == SPADEConfig() and config.image_encoder.latent == 256
    g, d = tiny().phases
    assert (g.name, g.lr, d.name, d.lr) == ("G", 1e-4, "D", 4e-4)


def normed(method: Method, name: str) -> tuple[int, int]:
    """How many layers with weights have spectral norm, and how many there are."""
    layers = [m for m in method.networks[name].modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    return sum(parametrize.is_parametrized(layer, "weight") for layer in layers), len(layers)


def test_spectral_norm_is_where_the_published_code_has_it_or_the_paper() -> None:
    generator = {"channels": 1, "hidden": 2}
    config = SPADEMethodConfig.model_validate({"generator": generator, "perceptual": {"weight": 0}})
    method = config.build(3, 3, 64)
    assert normed(method, "generator") == (18, 74) and normed(method, "discriminator") == (6, 10)
    changes = {"perceptual": {"weight": 0}, "generator": {**generator, "spectral_norm": "all"}, "discriminator": {"kind": "multiscale", "scales": 2, "spectral_norm": True, "plain_ends": False}}  # fmt: skip
    paper = SPADEMethodConfig.model_validate(changes).build(3, 3, 64)
    assert normed(paper, "generator") == (74, 74) and normed(paper, "discriminator") == (10, 10)
    plain = tiny(generator={**TINY["spade"]["generator"], "spectral_norm": "none"})
    assert normed(plain, "generator")[0] == 0


def test_a_critic_with_plain_ends_is_not_constrained() -> None:
    with pytest.raises(UsageError, match=r"--discriminator\.no-plain-ends"):
        tiny(adversarial="wasserstein", discriminator=MultiScaleConfig(channels=1, spectral_norm=True, plain_ends=True))


def test_losses_against_the_papers() -> None:
    method, data = tiny(), batch()
    network = method.networks["discriminator"].eval()  # so that the power iteration stands still
    outputs = method.forward(data)
    fake = outputs.images["fake"]
    on_real, on_fake = (network(torch.cat([data["source"], image], 1)) for image in (data["target"], fake))
    losses = method.generator_losses(data, outputs)
    assert losses.keys() == {"G/adversarial", "G/features"}
    assert losses["G/adversarial"].item() == pytest.approx(
        -0.5 * sum(s.mean().item() for s in on_fake), rel=1e-4, abs=1e-5
    )
    losses = method.discriminator_losses(data, outputs)
    assert losses["D/real"].item() == pytest.approx(0.5 * sum(F.relu(1 - s).mean().item() for s in on_real), rel=1e-4)
    assert losses["D/fake"].item() == pytest.approx(0.5 * sum(F.relu(1 + s).mean().item() for s in on_fake), rel=1e-4)


def test_the_encoder_is_a_vae() -> None:
    method, data = tiny(encoder=True), batch()
    assert method.phases[0].trains == ("generator", "encoder")
    outputs = method.forward(data)
    mean, logvar = outputs.images["mean"], outputs.images["logvar"]
    losses = method.generator_losses(data, outputs)
    truth = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1).mean()
    assert losses["G/kl"].item() == pytest.approx(0.05 * truth.item(), rel=1e-4, abs=1e-6)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for name in ("generator", "encoder"):
        assert all(p.grad is not None for p in method.networks[name].parameters())
    assert not torch.equal(method.forward(data).images["fake"], outputs.images["fake"]), "the style is drawn"


def test_styles_are_drawn_with_the_deviation_that_the_encoder_says() -> None:
    method, data = tiny(encoder=True), batch()
    seen: list[torch.Tensor] = []
    method.networks["generator"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    said = torch.full((2, 4), 5.0), torch.full((2, 4), -4.0)  # mean, log of the variance
    method.networks["encoder"].register_forward_hook(lambda *_: said)
    with torch.no_grad():
        for _ in range(40):
            method.forward(data)
    styles = torch.cat(seen)
    assert styles.mean().item() == pytest.approx(5, abs=0.05) and styles.std().item() == pytest.approx(
        math.exp(-2), rel=0.15
    )


def test_training_brings_the_output_nearer() -> None:
    method, data = tiny(generator={**TINY["spade"]["generator"], "spectral_norm": "all"}), batch()
    data["target"] = data["source"][:, :3] * 2 - 1
    optimizers = [
        torch.optim.Adam([p for name in phase.trains for p in method.networks[name].parameters()], 1e-3, (0.5, 0.9))
        for phase in method.phases
    ]
    distances = []
    for _ in range(40):
        outputs = method.forward(data)
        distances.append((outputs.images["fake"] - data["target"]).abs().mean().item())
        for phase, optimizer in zip(method.phases, optimizers, strict=True):
            for network in method.networks.values():
                network.zero_grad()
            sum(phase.parts[0](data, outputs).values()).backward()  # type: ignore[union-attr]
            optimizer.step()
    assert distances[-1] < 0.8 * distances[0]
