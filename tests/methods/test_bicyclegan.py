"""BicycleGAN against its paper."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.configs import TINY, tiny_config
from helpers.data import write_pairs
from torch import Tensor, nn

import img2img
from img2img.cli.convert import convert as run_convert
from img2img.core.errors import UsageError
from img2img.images import Array, read_image, write_image
from img2img.inference.engine import optimise
from img2img.inference.evaluate import evaluate
from img2img.interop.exporting import export_reference
from img2img.interop.loading import load_translator
from img2img.interop.onnx import export_onnx
from img2img.losses.features import kl_divergence
from img2img.methods.base import call_frozen
from img2img.methods.bicyclegan import BicycleGAN, BicycleGANConfig
from img2img.networks import UNetConfig, build_generator
from img2img.networks.discriminators.patchgan import MultiScaleConfig
from img2img.tiling.strips import Budget, run_in_strips
from img2img.training.train import train


def tiny(**settings: Any) -> BicycleGAN:
    torch.manual_seed(0)
    plain = {"discriminator": {"kind": "patch", "channels": 4, "layers": 1, "norm": "instance"}}
    return BicycleGANConfig.model_validate({**TINY["bicyclegan"], **plain, **settings}).build(3, 3, 16)


def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"source": torch.rand(2, 3, 16, 16) * 2 - 1, "target": torch.rand(2, 3, 16, 16) * 2 - 1}


def gradients(network: nn.Module) -> float:
    return sum(p.grad.abs().sum().item() for p in network.parameters() if p.grad is not None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return write_pairs(write_pairs(folder, 5), 3, split="val", first=5)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run"
    return train(tiny_config(data, output, {"name": "bicyclegan", "initialisation_gain": 0.2}), quiet=True)


def draw() -> Array:
    return np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)


def test_the_defaults_are_the_papers() -> None:
    config = BicycleGANConfig()
    assert (config.l1_weight, config.latent_weight, config.kl_weight, config.image_encoder.latent) == (10, 0.5, 0.01, 8)
    assert (config.lr, config.betas, config.adversarial, config.discriminator_share) == (2e-4, (0.5, 0.999), "lsgan", 1)
    assert config.discriminator == MultiScaleConfig(scales=2) and config.generator == UNetConfig(dropout=0.0)
    assert [(phase.name, phase.trains) for phase in tiny().phases] == [
        ("G", ("generator", "encoder")),
        ("D", ("discriminator", "discriminator_encoded")),
    ]


def test_losses_against_the_papers_equations() -> None:
    method, data = tiny(), batch()
    outputs = method.forward(data)
    made, networks = outputs.images, method.networks
    mean, logvar = networks["encoder"](data["target"])
    assert torch.equal(mean, made["mean"]) and torch.equal(logvar, made["logvar"])
    assert torch.allclose(networks["generator"](data["source"], made["style"]), made["random"], atol=1e-5)
    losses = method.generator_losses(data, outputs)
    expected = {
        "G/l1": 10 * F.l1_loss(made["encoded"], data["target"]),
        "G/kl": 0.01 * kl_divergence(mean, logvar),
        "G/latent": 0.5 * (networks["encoder"](made["random"])[0] - made["style"]).abs().mean(),
        "G/adversarial": (networks["discriminator"](torch.cat([data["source"], made["random"]], 1)) - 1)
        .square()
        .mean(),
        "G/encoded_adversarial": (
            networks["discriminator_encoded"](torch.cat([data["source"], made["encoded"]], 1)) - 1
        )
        .square()
        .mean(),
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4), name
    judged = method.discriminator_losses(data, outputs)
    real = networks["discriminator"](torch.cat([data["source"], data["target"]], 1))
    assert judged["D/real"].item() == pytest.approx((real - 1).square().mean().item(), rel=1e-4), "not halved"
    fake = networks["discriminator_encoded"](torch.cat([data["source"], made["encoded"]], 1))
    assert judged["D/encoded_fake"].item() == pytest.approx(fake.square().mean().item(), rel=1e-4)
    assert judged.keys() == {"D/real", "D/fake", "D/encoded_real", "D/encoded_fake"}


def test_the_encoder_learns_from_the_target_and_not_from_the_latent_loss() -> None:
    method, data = tiny(), batch()
    losses = method.generator_losses(data, method.forward(data))
    losses["G/latent"].backward(retain_graph=True)
    assert gradients(method.networks["encoder"]) == 0 < gradients(method.networks["generator"])
    losses["G/l1"].backward()
    assert gradients(method.networks["encoder"]) > 0
    judged = tiny()
    sum(judged.discriminator_losses(data, judged.forward(data)).values()).backward()  # type: ignore[union-attr]
    assert gradients(judged.networks["generator"]) == gradients(judged.networks["encoder"]) == 0


def test_a_frozen_call_gives_the_same_and_leaves_no_trace() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    x = torch.randn(2, 3)
    found = torch.stack(list(call_frozen(network, x)))
    before = {name: each.clone() for name, each in network.state_dict().items()}
    assert torch.equal(found, network(x))
    after = network.state_dict()
    assert torch.equal(before["1.running_mean"], torch.zeros(3)) and not torch.equal(
        after["1.running_mean"], before["1.running_mean"]
    )


def test_encoded_styles_are_drawn_around_their_means() -> None:
    method, data = tiny(), batch()
    nn.init.constant_(method.networks["encoder"].logvar.bias, -2)  # type: ignore[union-attr, arg-type]
    seen: list[Tensor] = []
    method.networks["encoder"].eval()
    method.networks["generator"].register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    for _ in range(300):
        with torch.no_grad():
            outputs = method.forward(data)
    encoded, random = torch.stack(seen).split(2, dim=1)
    deviation = (0.5 * outputs.images["logvar"]).exp()
    assert torch.allclose(encoded.mean(0), outputs.images["mean"], atol=0.25)
    assert torch.allclose(encoded.std(0), deviation, rtol=0.2)
    assert torch.allclose(random.mean(0), torch.zeros(2, 4), atol=0.25) and random.std() == pytest.approx(1, abs=0.1)


def test_a_network_with_its_style_fixed_is_the_same_and_computed_in_strips() -> None:
    config = UNetConfig(channels=4, depth=3, norm="instance", latent=5).resolve(3, 3, 32)
    network, image, style = build_generator(config).eval(), torch.randn(2, 3, 40, 24).tanh(), torch.randn(5)
    for p in network.parameters():
        p.data.normal_(0, 0.2)
    fixed = network.with_style(style)
    with torch.no_grad():
        made = network(image, style.expand(2, -1))
        assert torch.allclose(fixed(image), made, atol=1e-5)
        assert torch.equal(network(image), network(image, torch.zeros(2, 5))), "by default, the mean"
        assert (network(image) - made).abs().mean() > 0.01
        assert torch.allclose(run_in_strips(fixed, image[:1], Budget(300, 10**8)), made[:1], atol=1e-4)
    assert fixed.state_dict()["head.1.weight"].data_ptr() == network.state_dict()["head.1.weight"].data_ptr()


def test_translations_differ_by_style(run: Path) -> None:
    translator, image = img2img.load(run), draw()
    made = [translator(image, style=number) for number in (0, 1, 1)]
    assert np.array_equal(made[1], made[2]) and not np.array_equal(made[0], made[1])
    assert made[0].shape == image.shape
    like = translator(image, style=255 - image)
    assert like.shape == image.shape and not np.array_equal(like, translator(image)), "in the style of an image"
    assert np.abs(translator(image, style=1, tile=12).astype(int) - made[1]).max() <= 1, "in strips"


def test_a_range_of_styles(run: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write_image(photos / "a.png", draw())
    options = ["--model", str(run), "--device", "cpu"]
    report = tmp_path / "report.jsonl"
    assert run_convert([str(photos), str(tmp_path / "many"), *options, "--style", "0..2", "--report", str(report)]) == 0
    made = [read_image(tmp_path / "many" / str(number) / "a.png") for number in range(3)]
    assert not np.array_equal(made[0], made[1]) and not np.array_equal(made[1], made[2])
    assert [report.with_name(f"report-{number}.jsonl").is_file() for number in range(3)] == [True] * 3
    assert run_convert([str(photos / "a.png"), str(tmp_path / "one.png"), *options, "--style", "1..2"]) == 0
    assert np.array_equal(read_image(tmp_path / "one-2.png"), made[2])
    (tmp_path / "some.d").mkdir()
    assert run_convert([str(photos / "a.png"), str(tmp_path / "some.d"), *options, "--style", "0..1"]) == 0
    assert np.array_equal(read_image(tmp_path / "some.d" / "1" / "a.png"), made[1])
    assert run_convert([str(photos), str(tmp_path / "many"), *options, "--style", "0..2"]) == 1, "they exist"
    for wrong, sentence in ((["2..1"], "smaller number first"), (["0..1", "--list", "-"], "--list -")):
        with pytest.raises(UsageError, match=sentence):
            run_convert([str(photos), str(tmp_path / "x"), *options, "--style", *wrong])
    assert not (tmp_path / "x").exists()


def test_diversity(run: Path, data: Path) -> None:
    found = evaluate(run, data, device="cpu").metrics["diversity"]
    assert 0 < found < 1
    assert "diversity" not in evaluate(run, data, device="cpu", style=1).metrics
    plain = img2img.load(run)
    for shift in plain.generator.shifts:  # type: ignore[union-attr]
        nn.init.zeros_(shift.weight)
    assert evaluate(plain, data).metrics["diversity"] == pytest.approx(0, abs=1e-6), "styles that change nothing"


def test_the_engine_fixes_the_style_first(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is compiled, and what OpenVINO computes, is a network of images alone."""
    translator, image = img2img.load(run).with_style(2), draw()
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled.append(self))
    fast = optimise(translator, "eval", "fp32", compile=True)
    (network,) = compiled
    assert network is fast.generator and getattr(network, "latent", None) is None
    assert np.abs(fast(image).astype(int) - translator(image)).max() <= 1
    assert not np.array_equal(translator(image), img2img.load(run)(image)) and translator.style is not None


def test_a_model_with_styles_begins_no_training_without(run: Path, data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, tmp_path / "next", {"generator": {"kind": "unet"}}, finetune={"init": (run,)})
    with pytest.raises(UsageError, match="use bicyclegan"):
        train(config, quiet=True)
    styles = {"name": "bicyclegan", "generator": {}}
    begun = train(tiny_config(data, tmp_path / "more", styles, finetune={"init": (run,)}), quiet=True)
    assert img2img.load(begun).draws_styles


def test_exported(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    translator, image = img2img.load(run).with_style(3), draw()
    done = export_onnx(translator, tmp_path / "model.onnx")
    assert max(done.differences.values()) <= 1
    loaded = load_translator(tmp_path / "model.onnx")
    assert np.abs(loaded(image).astype(int) - translator(image)).max() <= 1
    with pytest.raises(UsageError, match="exported with --raw"):
        loaded.with_style(1)
    assert max(export_onnx(img2img.load(run), tmp_path / "raw.onnx", raw=True).differences.values()) < 1e-3
    with pytest.raises(UsageError, match="export it as ONNX"):
        export_reference(run, tmp_path / "model.pth")


def test_the_pictures_of_a_run_show_styles(run: Path) -> None:
    """Source, the mean style, three random ones, and target, of 16 pixels with a border of 2."""
    picture = read_image(sorted((run / "samples").iterdir())[-1])
    assert picture.shape[1] == 6 * 18 + 2
    row = [picture[2:18, 2 + 18 * column : 18 + 18 * column] for column in range(1, 5)]
    assert all(not np.array_equal(one, other) for one, other in itertools.combinations(row, 2))
