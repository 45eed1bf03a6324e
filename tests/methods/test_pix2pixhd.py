"""pix2pixHD against its paper."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.configs import TINY

from img2img.core import downloads
from img2img.core.errors import UsageError, UserError
from img2img.methods.perceptual import Perceptual, PerceptualConfig
from img2img.methods.pix2pixhd import Pix2PixHDMethod, Pix2PixHDMethodConfig
from img2img.networks import InstanceEncoderConfig, MultiScaleConfig, Pix2PixHDConfig
from img2img.networks.features import VGG19
from img2img.networks.labels import encode_label_maps


def tiny(**settings: Any) -> Pix2PixHDMethod:
    torch.manual_seed(0)
    return Pix2PixHDMethodConfig(**{**TINY["pix2pixhd"], **settings}).build(4, 3, 16)


def batch(size: int = 16) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    maps = torch.stack([torch.randint(0, 3, (2, size, size)), torch.randint(0, 5, (2, size, size))], 1).int()
    return {
        "maps": maps,
        "source": encode_label_maps(maps, 3, edges=True),
        "target": torch.rand(2, 3, size, size) * 2 - 1,
    }


def test_the_defaults_are_the_papers() -> None:
    config = Pix2PixHDMethodConfig()
    assert (config.feature_matching, config.perceptual.weight, config.lr, config.betas) == (10, 10, 2e-4, (0.5, 0.999))
    assert config.adversarial == "lsgan" and config.discriminator == MultiScaleConfig(scales=3)
    assert config.generator == Pix2PixHDConfig(channels=64, downsampling=4, blocks=9, enhancers=1, enhancer_blocks=3)
    assert [phase.name for phase in tiny().phases] == ["G", "D"]


def test_losses_against_the_papers_equations() -> None:
    method, data = tiny(), batch()
    outputs = method.forward(data)
    fake, network = outputs.images["fake"], method.networks["discriminator"]
    on_real, on_fake = (network(torch.cat([data["source"], image], 1), levels=True) for image in (data["target"], fake))
    losses = method.generator_losses(data, outputs)
    assert losses.keys() == {"G/adversarial", "G/features"}
    expected = sum(F.mse_loss(scale[-1], torch.ones_like(scale[-1])) for scale in on_fake)
    assert losses["G/adversarial"].item() == pytest.approx(expected.item(), rel=1e-4)  # type: ignore[union-attr]
    expected = sum(
        (a - b).abs().mean() for x, y in zip(on_fake, on_real, strict=True) for a, b in zip(x[:-1], y[:-1], strict=True)
    )
    assert losses["G/features"].item() == pytest.approx(10 * expected.item() / len(on_fake), rel=1e-4)  # type: ignore[union-attr]
    losses = method.discriminator_losses(data, outputs)
    expected = sum(F.mse_loss(scale[-1], torch.ones_like(scale[-1])) for scale in on_real)
    assert losses["D/real"].item() == pytest.approx(0.5 * expected.item(), rel=1e-4)  # type: ignore[union-attr]
    expected = sum(scale[-1].square().mean() for scale in on_fake)
    assert losses["D/fake"].item() == pytest.approx(0.5 * expected.item(), rel=1e-4)  # type: ignore[union-attr]
    assert outputs.metrics.keys() == {"D/accuracy"}, "the gradient is noted on the way back"


@pytest.mark.parametrize("encoder", [False, True])
def test_every_part_learns(encoder: bool) -> None:
    method, data = tiny(encoder=encoder), batch()
    outputs = method.forward(data)
    sum(method.generator_losses(data, outputs).values()).backward()  # type: ignore[union-attr]
    assert outputs.metrics["G/gradient"] > 0
    for name in method.phases[0].trains:
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.networks[name].parameters()), name
    assert ("encoder" in method.phases[0].trains) == encoder
    method.networks["generator"].zero_grad()
    method.networks["discriminator"].zero_grad()
    sum(method.discriminator_losses(data, outputs).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in method.networks["generator"].parameters())
    assert all(p.grad is not None for p in method.networks["discriminator"].parameters())


def test_what_was_trained_before_is_left_as_it_is_for_a_while() -> None:
    method, data = tiny(), batch()
    method.freeze_until(2)
    generator = method.generator
    for update in (0, 1, 2):
        sum(method.generator_losses(data, method.forward(data, update)).values()).backward()  # type: ignore[union-attr]
        assert all((p.grad is None) == (update < 2) for p in generator.inside.parameters())
        assert all(p.grad is not None for part in (generator.enhancers, generator.head) for p in part.parameters())
        method.networks["generator"].zero_grad()


def test_it_begins_from_a_smaller_one() -> None:
    big, small = tiny(encoder=True), tiny(encoder=True, generator={**TINY["pix2pixhd"]["generator"], "enhancers": 0})
    with torch.no_grad():
        for network in small.networks.values():
            for parameter in network.parameters():
                parameter.add_(1)
    head = big.generator.head[1].weight.clone()
    big.begin_from({name: network.state_dict() for name, network in small.networks.items()})
    for name in ("encoder", "discriminator"):
        assert all(
            map(torch.equal, big.networks[name].state_dict().values(), small.networks[name].state_dict().values())
        )
    assert all(
        map(torch.equal, big.generator.inside.state_dict().values(), small.generator.inside.state_dict().values())
    )
    assert torch.equal(big.generator.head[1].weight, head), "its last layer is of another width"
    three = {**TINY["pix2pixhd"]["generator"], "enhancers": 2}
    tiny(encoder=True, generator=three).begin_from({"generator": big.generator.state_dict()})
    with pytest.raises(UsageError, match="an enhancer less"):
        tiny(encoder=True, generator=three).begin_from({"generator": small.generator.state_dict()})
    with pytest.raises(UsageError, match="an enhancer less"):
        big.begin_from({"generator": big.generator.state_dict()})
    with pytest.raises(UsageError, match="the discriminator of the run"):
        big.begin_from({"discriminator": {}})


def test_a_pool_shows_earlier_pairs() -> None:
    method = tiny(pool=2)
    assert set(method.memories) == {"pool"}
    for _ in range(4):
        data = batch()
        method.discriminator_losses(data, method.forward(data))
    assert len(method.pool.images) == 2 and method.pool.images[0].shape == (7, 16, 16)


def test_images_do_as_sources_too() -> None:
    data = {"source": torch.rand(2, 4, 16, 16) * 2 - 1, "target": torch.rand(2, 3, 16, 16) * 2 - 1}
    method = tiny()
    assert method.generator_losses(data, method.forward(data))["G/features"] > 0


def weights(folder: Path) -> Path:
    """A file as torchvision's, with random weights and the layers that aren't used."""
    network = VGG19()
    state = {name: 0.05 * torch.randn(tensor.shape) for name, tensor in network.state_dict().items()}
    torch.save({**state, "features.34.bias": torch.zeros(512), "classifier.0.bias": torch.zeros(3)}, folder / "vgg.pth")
    return folder / "vgg.pth"


def test_the_perceptual_loss(tmp_path: Path) -> None:
    file = weights(tmp_path)
    nearness = Perceptual(PerceptualConfig(weight=2.0, network="vgg19", file=file))
    real, fake = torch.rand(1, 3, 32, 32) * 2 - 1, (torch.rand(1, 3, 32, 32) * 2 - 1).requires_grad_()
    loss = nearness.losses(fake, real)["G/perceptual"]
    features = [nearness.network(image) for image in (fake, real)]
    assert [level.shape[1] for level in features[0]] == [64, 128, 256, 512, 512]
    truth = sum(w * F.l1_loss(a, b) for w, a, b in zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), *features, strict=True))
    assert loss.item() == pytest.approx(2 * float(truth), rel=1e-4) and nearness.losses(real, real)["G/perceptual"] == 0
    loss.backward()
    assert fake.grad is not None and fake.grad.abs().sum() > 0
    first = nearness.network.features[0]
    seen = F.relu(
        F.conv2d(real, first.weight, first.bias, padding=1)
    )  # images go in as they are, as in the published code
    assert torch.allclose(nearness.network(real)[0], seen, atol=1e-5)
    assert nearness.losses(torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32))["G/perceptual"] > 0, "gray is repeated"
    method, data = tiny(perceptual={"weight": 1.0, "network": "vgg19", "file": file}), batch(32)
    assert method.generator_losses(data, method.forward(data))["G/perceptual"] > 0


def test_weights_that_are_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Perceptual(PerceptualConfig(weight=1, network="vgg19", file=tmp_path / "none.pth"))
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(UsageError, match="no VGG-19 weights"):
        Perceptual(PerceptualConfig(weight=1, network="vgg19", file=tmp_path / "bad.pth"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: Any, **__: Any) -> None:
        raise UserError("no network")

    monkeypatch.setattr(downloads, "download", offline)
    said: list[str] = []
    with pytest.raises(UsageError, match=r"--perceptual\.network lite"):
        Pix2PixHDMethodConfig().perceptual.fetch(said.append)
    assert "548 MB" in said[0], "nothing is downloaded without saying so"
    assert PerceptualConfig(weight=0, network="vgg19").fetch(said.append) is None
    assert PerceptualConfig(weight=1).fetch(said.append) is None and len(said) == 1, "lite is at hand"
    with pytest.raises(UsageError, match="vgg19"):
        PerceptualConfig(weight=1, file=tmp_path / "bad.pth").refuse_missing_file()


def test_settings_that_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--feature-matching 0"):
        tiny(augment=("colour",))
    tiny(augment=("colour",), feature_matching=0.0)
    with pytest.raises(UsageError, match="multiple of 4"):
        Pix2PixHDMethodConfig(**TINY["pix2pixhd"]).build(4, 3, 18)


def test_something_must_be_left_to_learn_by() -> None:
    with pytest.raises(UsageError, match="nothing to learn from"):
        tiny(adversarial_weight=0.0, feature_matching=0.0)
    method, data = tiny(feature_matching=0.0), batch()
    assert method.generator_losses(data, method.forward(data)).keys() == {"G/adversarial"}


def test_what_comes_first() -> None:
    config = Pix2PixHDMethodConfig(generator=Pix2PixHDConfig(enhancers=2))
    first = config.earlier_stage()
    assert first is not None and (first.name, first.share, first.scale) == ("coarse", 0.5, 2)
    assert isinstance(first.method, Pix2PixHDMethodConfig) and first.method.generator.enhancers == 1
    second = first.method.earlier_stage()
    assert second is not None and isinstance(second.method, Pix2PixHDMethodConfig)
    assert second.method.generator.enhancers == 0 and second.method.earlier_stage() is None
    assert config.without_stages().earlier_stage() is None
    assert config.model_copy(update={"coarse_run": Path("run")}).earlier_stage() is None


def test_the_encoder_is_given_the_instances() -> None:
    method, data = (
        tiny(encoder=True, instance_encoder=InstanceEncoderConfig(channels=4, downsampling=1, features=2)),
        batch(),
    )
    assert method.generator_configs[""].in_channels == 4 + 2
    seen: list[torch.Tensor] = []
    method.networks["encoder"].register_forward_hook(lambda _, given, __: seen.extend(given))
    method.forward(data)
    assert torch.equal(seen[0], data["target"]) and torch.equal(seen[1], data["maps"][:, 1])
