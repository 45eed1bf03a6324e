"""StyleGAN2 against its papers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.configs import TINY, tiny_config
from helpers.data import write_classes
from torch import Tensor

from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.images import read_image, write_image
from img2img.inference.evaluate_samples import evaluate_samples
from img2img.inference.invert import invert
from img2img.inference.sample import sample
from img2img.methods.stylegan2 import MeanPath, StyleGAN2, StyleGAN2Config, measure_paths
from img2img.models import Latent, NoiseGenerator, find_latents, read_latents, vary
from img2img.networks import StyleConfig, StyleDiscriminator, StyleDiscriminatorConfig, StyleGenerator
from img2img.networks.generators.style import ModulatedConv, list_style_widths
from img2img.training.train import train

LAYERS = 8  # of 32 pixels


def tiny(classes: int = 0, **settings: Any) -> StyleGAN2:
    torch.manual_seed(0)
    return StyleGAN2Config.model_validate({**TINY["stylegan2"], **settings}).build(3, 3, 32, classes)


def build(classes: int = 0, size: int = 32) -> StyleGenerator:
    torch.manual_seed(0)
    config = StyleConfig(
        latent=8, channels=2, most_channels=4, mapping_layers=2, size=size, out_channels=3, classes=classes
    )
    return StyleGenerator(config)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(write_classes(tmp_path_factory.mktemp("data")), split="val")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run"
    settings = {"name": "stylegan2", "path_every": 2}
    return train(tiny_config(data, output, settings), quiet=True)


@pytest.fixture(scope="module")
def model(run: Path) -> NoiseGenerator:
    return NoiseGenerator.load(run)


def test_the_defaults_are_the_papers() -> None:
    config = StyleGAN2Config()
    assert (config.r1, config.r1_every, config.path_length, config.path_every, config.style_mixing) == (
        10,
        16,
        2,
        4,
        0.9,
    )
    assert (config.lr, config.betas, config.adversarial) == (2e-3, (0.0, 0.99), "nonsaturating")
    assert (config.generator.latent, config.generator.mapping_layers) == (512, 8)
    assert list_style_widths(1024, 32, 512) == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert StyleConfig(size=1024).layers == 18


@pytest.mark.parametrize("doubles", [False, True])
def test_scaled_images_are_the_papers_modulated_weights(doubles: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(3, 5, 3, style=4, doubles=doubles)
    torch.nn.init.normal_(layer.style.bias)
    x, style = torch.randn(2, 3, 6, 6), torch.randn(2, 4)
    scales = layer.style(style)
    expected = []
    for image, scale in zip(x, scales, strict=True):
        weight = layer.weight / 27**0.5 * scale[None, :, None, None]  # eq. 1
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()  # eq. 3
        if not doubles:
            expected.append(F.conv2d(image[None], weight, padding=1))
            continue
        spread = torch.zeros(1, 3, 12, 12)
        spread[:, :, ::2, ::2] = image
        taps = torch.tensor([1.0, 3, 3, 1])
        smooth = (torch.outer(taps, taps) / 16).expand(5, 1, 4, 4)  # of sum 4, for three of four pixels are new
        full = F.conv2d(F.pad(spread, (2, 2, 2, 2))[:, :, :15, :15], weight.flip(2, 3))
        expected.append(F.conv2d(F.pad(full, (1, 1, 1, 1)), smooth, groups=5)[:, :, :12, :12])
    assert torch.allclose(layer(x, style), torch.cat(expected), atol=1e-4)


def test_outputs_have_a_deviation_of_one_whatever_the_style() -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(32, 64, 3, style=4)
    x = torch.randn(2, 32, 20, 20)
    for size in (1e-3, 1.0, 1e6):
        done = layer(x, size * torch.randn(2, 4))[..., 1:-1, 1:-1]
        assert done.std().item() == pytest.approx(1, abs=0.05)
    plain = ModulatedConv(32, 3, 1, style=4, demodulates=False)
    assert torch.allclose(plain(x, torch.zeros(2, 4)), F.conv2d(x, plain.weight / 32**0.5), atol=1e-5), "at first 1"


def test_noise_is_drawn_in_training_only() -> None:
    network, z = build(), torch.randn(2, 8)
    for layer in network.modules():
        if hasattr(layer, "strength"):
            torch.nn.init.constant_(layer.strength, 1.0)
    assert not torch.equal(network(z), network(z))
    network.eval()
    assert torch.equal(network(z), network(z))
    assert torch.allclose(network(z)[:1], network(z[:1]), atol=1e-5)


def test_two_styles_are_mixed_at_a_layer() -> None:
    network = build().eval()
    a, b = torch.randn(2, 8), torch.randn(2, 8)
    first, second = network.spread(network.mapping(a)), network.spread(network.mapping(b))
    mixed = network.synthesise(torch.cat([first[:, :3], second[:, 3:]], 1))
    assert torch.allclose(network(a, None, b, 3), mixed, atol=1e-6)
    assert torch.allclose(network(a, None, b, LAYERS), network(a), atol=1e-6)
    method, calls = tiny(style_mixing=0.5), []
    method.networks["generator"].register_forward_pre_hook(lambda _, given: calls.append(given))
    torch.manual_seed(0)
    for _ in range(60):
        method.generate(a, None)
    crossovers = {given[3] for given in calls if len(given) == 4}
    assert 15 < sum(len(given) == 4 for given in calls) < 45
    assert crossovers <= set(range(1, LAYERS)) and len(crossovers) > 3


def test_path_lengths_are_those_of_the_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(size=8).eval()
    z = torch.randn(2, 8)
    directions = torch.randn(2, 3, 8, 8)
    monkeypatch.setattr(torch, "randn_like", lambda _: directions)
    lengths = measure_paths(network, z, None)
    styles = network.spread(network.mapping(z)).detach()
    for k in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda w: network.synthesise(w[None])[0], styles[k])
        slope = torch.einsum("chw,chwld->ld", directions[k] / 8, jacobian)
        assert lengths[k].item() == pytest.approx(slope.square().sum(1).mean().sqrt().item(), rel=1e-4)
    lengths.sum().backward()
    assert network.mapping.layers[0].weight.grad is not None  # type: ignore[union-attr]


def test_the_path_penalty_is_due_every_so_often() -> None:
    method = tiny(path_every=3)
    batch = {"target": torch.rand(4, 3, 32, 32) * 2 - 1}
    due = {}
    for update in range(6):
        outputs = method.forward(batch, update)
        losses = method.generator_losses(batch, outputs)
        due[update] = "G/path" in losses
        if due[update]:
            assert losses["G/path"].item() > 0 and outputs.metrics["G/path_length"] > 0
    assert due == {0: False, 1: False, 2: True, 3: False, 4: False, 5: True}
    assert float(method.paths.mean) > 0
    paths = MeanPath()
    assert paths.update(torch.tensor([2.0, 4.0])).item() == pytest.approx(0.03)
    assert paths.update(torch.tensor([3.0])).item() == pytest.approx(0.03 * 0.99 + 0.03)
    other = MeanPath()
    other.load_state_dict(paths.state_dict())
    assert other.mean == paths.mean


def test_classes_matter_to_both_networks() -> None:
    network = build(classes=3).eval()
    z, labels = torch.randn(2, 8), torch.tensor([0, 2])
    assert not torch.allclose(network(z, labels), network(z, torch.tensor([1, 2]))[:1].expand(2, -1, -1, -1))
    shares = torch.eye(3)[labels]
    assert torch.allclose(network(z, labels), network(z, shares), atol=1e-6)
    judge = StyleDiscriminator(StyleDiscriminatorConfig(channels=2, most_channels=4), 3, 32, classes=3, outputs=5)
    images = torch.rand(2, 3, 32, 32)
    logits, second = judge(images, labels, True)
    assert logits.shape == (2,) and second.shape == (2, 5)
    assert not torch.allclose(logits, judge(images, torch.tensor([1, 1])))


def test_styles_are_truncated_towards_their_mean(model: NoiseGenerator) -> None:
    generator = model.generator
    assert isinstance(generator, StyleGenerator)
    z, labels = model.noise(range(4)), model.numbers(None, range(4))
    styles = generator.mapping(z, labels).detach()
    many = model.noise(range(4096)), model.numbers(None, range(4096))
    assert torch.allclose(generator.mean_style, generator.mapping(*many).mean(0), atol=1e-4)
    half = model.styles(z, labels, 0.5)
    assert torch.allclose(half[:, 3], generator.mean_style + 0.5 * (styles - generator.mean_style), atol=1e-5)
    same = model.sample(3, truncation=0.0)
    assert np.array_equal(same[0], same[1]), "all are the mean image"
    assert np.array_equal(model.sample(3, truncation=1.0), model.sample(3))
    assert not np.array_equal(model.sample(3, truncation=0.5), model.sample(3))
    coarse = model.with_truncated_layers(range(0, 2)).styles(z, labels, 0.0)
    assert torch.allclose(coarse[:, :2], generator.mean_style.expand(4, 2, -1), atol=1e-5)
    assert torch.allclose(coarse[:, 2], styles, atol=1e-5), "fine layers stay"
    with pytest.raises(UsageError, match="0 to 7"):
        model.with_truncated_layers(range(3, 9))
    with pytest.raises(UsageError, match="0 to 2"):
        model.sample(1, truncation=-1)


def test_images_are_those_of_their_styles(model: NoiseGenerator) -> None:
    z, labels = model.noise([5, 6]), model.numbers(None, [5, 6])
    styles = model.styles(z, labels)
    assert styles.shape == (2, LAYERS, 8)
    assert np.abs(model.paint(styles).astype(int) - model.images(z, labels)).max() <= 1
    grid = model.mix(styles, styles, range(0, 3))
    assert grid.shape == (2, 2, 32, 32, 1) and np.array_equal(grid[0, 0], model.paint(styles)[0])
    expected = torch.cat([styles[1:, :3], styles[:1, 3:]], 1)
    assert np.array_equal(grid[0, 1], model.paint(expected)[0])
    for wrong in (range(0), range(0, LAYERS + 1)):
        with pytest.raises(UsageError, match="0 to 7"):
            model.mix(styles, styles, wrong)
    with pytest.raises(UsageError, match="another model"):
        model.paint(styles[:, :2])
    walk = model.interpolate(5, 6, 3, labels=0)
    ends = model.styles(z, torch.tensor([0, 0]))
    assert np.array_equal(walk[1], model.paint(ends.mean(0, keepdim=True))[0]), "half of the way between styles"


def test_styles_are_mixed_from_the_command_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", "--model", str(run), "--device", "cpu", "--output"]
    assert main([*command, str(tmp_path / "a"), "--style-mix", "0..1", "4..6", "--layers", "0-3"]) == 0
    assert {file.name for file in (tmp_path / "a").iterdir()} == {
        *(f"mix{row:04d}_{column:04d}.png" for row in range(2) for column in range(3)),
        "sheet.png",
    }
    assert read_image(tmp_path / "a" / "sheet.png").shape == (3 * 34 + 2, 4 * 34 + 2, 3), "with what is mixed beside"
    for wrong, says in (
        (["--style-mix", "0", "1"], "needs --layers"),
        (["--style-mix", "0", "1", "--layers", "7-9"], "0 to 7"),
        (["--style-mix", "0", "1", "--layers", "1", "--how", "linear"], "--how"),
        (["--style-mix", "0..40", "0..40", "--layers", "1"], "too many"),
        (["--layers", "1"], "--style-mix or --truncation"),
        (["--style-mix", "0", "1", "--layers", "x"], "a range such as 0-3"),
        (["--style-mix", "3..1", "1", "--layers", "1"], "3..1"),
        (["--style-mix", "no.json", "1", "--layers", "1"], "no.json: there is no such file"),
        (["--style-mix", "0", "1", "--layers", "1", "--interpolate", "1", "2"], "exclude each other"),
    ):
        assert main([*command, str(tmp_path / "b"), *wrong]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_the_style_of_an_image_is_found(model: NoiseGenerator) -> None:
    generator = model.generator
    assert isinstance(generator, StyleGenerator)
    photo = model.sample(1, seed=11)[0]
    before = [p.requires_grad for p in generator.parameters()]
    short, long = (invert(model, photo, steps=steps) for steps in (1, 60))
    assert long.styles.shape == (1, 8) and long.distance < 0.5 * short.distance
    assert invert(model, photo, steps=3, per_layer=True).styles.shape == (LAYERS, 8)
    again = invert(model, photo, steps=60)
    assert torch.equal(again.styles, long.styles), "the seed decides"
    assert [p.requires_grad for p in generator.parameters()] == before and all(
        p.grad is None for p in generator.parameters()
    )


def test_photos_are_inverted_and_moved(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 4)).astype(np.uint8)
    write_image(tmp_path / "one.png", photo)
    write_image(tmp_path / "two.png", photo[..., :1].astype(np.uint16) * 257)
    photos = [str(tmp_path / "one.png"), str(tmp_path / "two.png")]
    command = ["invert", str(run), *photos, "--steps", "2", "--device", "cpu", "--output", str(tmp_path / "found")]
    assert main(command) == 0
    assert {file.name for file in (tmp_path / "found").iterdir()} == {
        "one.json", "one.png", "two.json", "two.png", "sheet.png"
    }  # fmt: skip
    assert main(command) == 2 and "exists" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--per-layer"]) == 0
    beside = ["invert", str(run), photos[0], "--device", "cpu", "--overwrite", "--output", str(tmp_path)]
    assert main(beside) == 2 and "would be replaced" in capsys.readouterr().err
    assert np.array_equal(read_image(tmp_path / "one.png"), photo), "a photo is never replaced"
    assert main(["invert", str(run), str(tmp_path), "--output", str(tmp_path / "x")]) == 2
    assert "is a folder" in capsys.readouterr().err
    file = tmp_path / "found" / "one.json"
    assert len(read_latents(file).images[0].styles) == LAYERS
    sampled = ["sample", "--model", str(run), "--device", "cpu", "--output"]
    assert main([*sampled, str(tmp_path / "same"), "--latents", str(file)]) == 0
    assert np.array_equal(read_image(tmp_path / "same" / "image0000.png"), read_image(tmp_path / "found" / "one.png"))
    assert main([*sampled, str(tmp_path / "walk"), "--interpolate", str(file), "3", "--steps", "4"]) == 0
    assert np.array_equal(read_image(tmp_path / "walk" / "step0000.png"), read_image(tmp_path / "found" / "one.png"))
    assert (
        main([*sampled, str(tmp_path / "mean"), "--interpolate", str(file), "3", "--truncation", "0", "--steps", "3"])
        == 0
    )
    means = [read_image(tmp_path / "mean" / f"step000{step}.png").astype(int) for step in (0, 2)]
    assert np.abs(means[0] - means[1]).max() <= 1, "files are truncated, too"
    assert main([*sampled, str(tmp_path / "no"), "--interpolate", photos[0], "3"]) == 2
    assert "is no file of latents" in capsys.readouterr().err
    assert main([*sampled, str(tmp_path / "mix"), "--style-mix", str(file), "3", "--layers", "4-7"]) == 0
    values = json.loads(file.read_text())
    values["images"][0]["styles"] = [[1.0] * 5]
    file.write_text(json.dumps(values))
    assert main([*sampled, str(tmp_path / "no"), "--latents", str(file)]) == 2
    assert "another model" in capsys.readouterr().err


def test_latents_are_noise_or_styles() -> None:
    with pytest.raises(UsageError, match="noise, or of styles"):
        Latent()
    with pytest.raises(UsageError, match="noise, or of styles"):
        Latent(noise=(1.0,), styles=((1.0,),))


def test_others_have_no_styles(tmp_path: Path, data: Path) -> None:
    other = NoiseGenerator.load(train(tiny_config(data, tmp_path / "gan", {"name": "gan"}), quiet=True))
    with pytest.raises(UsageError, match="stylegan2"):
        other.styles(other.noise([0]))
    with pytest.raises(UsageError, match="stylegan2"):
        invert(other, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="stylegan2"):
        sample(other, tmp_path / "out", style_mix=(0, 1), layers="0")


@pytest.mark.parametrize("options", [{"orthogonal": 1e-4}, {"weight_clip": 0.01}])
def test_what_is_about_plain_weights_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="are scaled"):
        tiny(**options)


def test_its_networks_work_with_other_methods_and_discriminators() -> None:
    from img2img.methods.gan import GANConfig

    style = TINY["stylegan2"]["generator"]
    method = GANConfig.model_validate(
        {"generator": {"kind": "style", **style}, "discriminator": {"kind": "dcgan"}}
    ).build(3, 3, 32)
    batch: dict[str, Tensor] = {"target": torch.rand(2, 3, 32, 32)}
    assert method.forward(batch).images["fake"].shape == (2, 3, 32, 32)
    tiny(discriminator={"kind": "projected", "channels": 2}).forward(batch)


def test_codes_and_styles_go_together(tmp_path: Path, data: Path) -> None:
    style = {"kind": "style", **TINY["stylegan2"]["generator"]}
    config = tiny_config(data, tmp_path / "run", {"name": "infogan", "generator": style})
    made = NoiseGenerator.load(train(config, quiet=True))
    assert made.interpolate(1, 2, 3).shape[0] == 3
    assert made.styles(made.noise([0])).shape == (1, LAYERS, made.config.generator.latent)


def test_variations_know_nothing_of_truncated_styles(model: NoiseGenerator) -> None:
    (latent,) = find_latents(model, [3], truncation=0.1)
    assert vary(model, latent, 0, 0.3, 0.1) == vary(model, latent, 0, 0.3, None)
    with pytest.raises(UsageError, match="styles of photos"):
        vary(model, Latent(styles=((1.0,) * 8,)), 0, 0.3, None)


def test_it_is_evaluated_with_its_path_length(model: NoiseGenerator, data: Path) -> None:
    scores = evaluate_samples(model, data, count=10, features="random").metrics
    assert scores["ppl"] is not None and scores["ppl"] > 0
