from typing import Any

import pytest
import torch
import torch.nn.functional as F

from img2img.core.errors import UsageError
from img2img.losses.features import perceptual_distance
from img2img.methods import METHODS, load_method
from img2img.methods.pix2pix import Pix2Pix, Pix2PixConfig
from img2img.networks.discriminators.patchgan import PatchGANConfig
from img2img.networks.features import EfficientNetLite
from img2img.networks.generators.pix2pixhd import Pix2PixHDConfig
from img2img.networks.generators.resnet import ResNetConfig
from img2img.networks.generators.unet import UNetConfig


def tiny(**settings: Any) -> Pix2Pix:
    settings = {
        "generator": UNetConfig(channels=4, depth=2),
        "discriminator": PatchGANConfig(channels=4, layers=1),
        **settings,
    }
    return Pix2PixConfig(**settings).build(3, 2, 16)


def batch() -> dict[str, torch.Tensor]:
    return {"source": torch.randn(2, 3, 16, 16), "target": torch.rand(2, 2, 16, 16) * 2 - 1}


def test_the_defaults_are_the_papers() -> None:
    config = Pix2PixConfig()
    assert (config.l1_weight, config.lr, config.betas, config.adversarial) == (100, 2e-4, (0.5, 0.999), "nonsaturating")
    assert config.generator == UNetConfig() and config.discriminator == PatchGANConfig()
    built = {type(layer) for layer in Pix2PixConfig().build(3, 3, 256).networks["discriminator"].modules()}
    assert torch.nn.BatchNorm2d in built, "the method's norm, where none was chosen"
    assert [phase.name for phase in tiny().phases] == ["D", "G"], "D before G"


def test_the_discriminator_teaches_the_generator_and_knows_the_target_s_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, data = tiny(l1_weight=0.0), batch()
    sum(method.generator_losses(data, method.forward(data)).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.networks["generator"].head.parameters())
    asked = []
    build = Pix2PixConfig.build_discriminator
    monkeypatch.setattr(Pix2PixConfig, "build_discriminator", lambda *given: asked.append(given[1:]) or build(*given))
    tiny()
    assert asked == [(2, 16, 3)]


def test_losses_against_the_papers_equations() -> None:
    method, data = tiny(), batch()
    outputs = method.forward(data)
    discriminator = method.networks["discriminator"]
    real = discriminator(torch.cat([data["source"], data["target"]], 1))
    fake = discriminator(torch.cat([data["source"], outputs.images["fake"]], 1))
    bce = F.binary_cross_entropy_with_logits
    d = method.discriminator_losses(data, outputs)
    assert d["D/real"].item() == pytest.approx(0.5 * bce(real, torch.ones_like(real)).item(), rel=1e-4)
    assert d["D/fake"].item() == pytest.approx(0.5 * bce(fake, torch.zeros_like(fake)).item(), rel=1e-4)
    g = method.generator_losses(data, outputs)
    assert g["G/adversarial"].item() == pytest.approx(bce(fake, torch.ones_like(fake)).item(), rel=1e-4)
    assert g["G/l1"].item() == pytest.approx(
        100 * (outputs.images["fake"] - data["target"]).abs().mean().item(), rel=1e-5
    )


def test_the_discriminators_loss_sends_no_gradient_into_the_generator() -> None:
    method, data = tiny(), batch()
    losses = method.discriminator_losses(data, method.forward(data))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in method.networks["generator"].parameters())
    assert all(p.grad is not None for p in method.networks["discriminator"].parameters())


def test_without_adversarial_weight_only_l1_is_left() -> None:
    method, data = tiny(adversarial_weight=0.0), batch()
    assert set(method.generator_losses(data, method.forward(data))) == {"G/l1"}


def test_r1_is_of_real_images_and_r2_of_generated_ones() -> None:
    discriminator = PatchGANConfig(channels=4, layers=1, norm="instance")
    method, data = tiny(discriminator=discriminator, r1=2.0, r2=3.0, r1_every=2), batch()
    outputs = method.forward(data)
    network, found = method.networks["discriminator"], method.discriminator_losses(data, outputs)
    for term, gamma, image in (("r1", 2, data["target"]), ("r2", 3, outputs.images["fake"])):
        seen = torch.cat([data["source"], image.detach()], 1).requires_grad_()
        (gradient,) = torch.autograd.grad(network(seen).mean((1, 2, 3)).sum(), seen)
        expected = 0.5 * gamma * 2 * 0.5 * gradient.square().sum((1, 2, 3)).mean()
        assert found[f"D/{term}"].item() == pytest.approx(expected.item(), rel=1e-4)
    outputs.update = 1
    assert not {"D/r1", "D/r2"} & method.discriminator_losses(data, outputs).keys(), "every second update"


def test_the_perceptual_loss_is_the_mean_distance_by_features() -> None:
    method, data = tiny(perceptual={"weight": 3.0}), batch()
    outputs = method.forward(data)
    network = EfficientNetLite()
    expected = perceptual_distance(network(outputs.images["fake"]), network(data["target"])).mean()
    loss = method.generator_losses(data, outputs)["G/perceptual"]
    assert loss.item() == pytest.approx(3 * expected.item(), rel=1e-4) and loss > 0  # type: ignore[union-attr]
    (gradient,) = torch.autograd.grad(loss, outputs.images["fake"])
    assert gradient.abs().sum() > 0
    alone = tiny(adversarial_weight=0.0, l1_weight=0.0, perceptual={"weight": 3.0})
    assert set(alone.generator_losses(data, alone.forward(data))) == {"G/l1", "G/perceptual"}


@pytest.mark.parametrize("adversarial", ["nonsaturating", "lsgan", "hinge"])
@pytest.mark.parametrize(
    "generator",
    [
        UNetConfig(channels=4),
        ResNetConfig(channels=4, blocks=1),
        Pix2PixHDConfig(channels=8, downsampling=1, blocks=1, enhancers=1, enhancer_blocks=1),
    ],
)
def test_training_lowers_the_l1_loss(adversarial: Any, generator: Any) -> None:
    torch.manual_seed(0)
    method, data = tiny(adversarial=adversarial, generator=generator), batch()
    optimizers = [torch.optim.Adam(method.networks[p.trains[0]].parameters(), 1e-2, p.betas) for p in method.phases]
    history = []
    for _ in range(25):
        outputs = method.forward(data)
        for phase, optimizer in zip(method.phases, optimizers, strict=True):
            (part,) = phase.parts
            losses = part(data, outputs)
            method.networks["discriminator"].zero_grad()
            sum(losses.values()).backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()
        history.append(losses["G/l1"].item())
    assert history[-1] < 0.9 * history[0]


def test_a_discriminator_too_deep_for_the_size_is_refused() -> None:
    with pytest.raises(UsageError, match="needs 24 pixels"):
        Pix2PixConfig(generator=UNetConfig(channels=4)).build(3, 3, 16)


def test_every_method_builds_from_its_defaults() -> None:
    for config in map(load_method, METHODS):
        light: dict[str, object] = (
            {"perceptual": {"weight": 0}} if "perceptual" in config.model_fields else {}
        )  # needs a download
        light |= {"semantic_weight": 1.0} if "semantic_weight" in config.model_fields else {}
        method = config(**light).build(3, 3, 128 if config is load_method("lapgan") else 256, 4)  # type: ignore[arg-type]
        assert set(method.generators.values()) <= set(method.networks)
        assert method.generators.keys() == method.generator_configs.keys()
        assert {name for phase in method.phases for name in phase.trains} == set(method.networks)
