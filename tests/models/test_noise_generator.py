"""NoiseGenerator: images from noise; the same seed, the same image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.translators import sampler
from torch import nn

import img2img
from img2img.core.errors import UsageError, UserError
from img2img.models import NoiseGenerator
from img2img.models.latents import draw_codes, draw_noise, slerp
from img2img.networks import NOISE_GENERATORS
from img2img.networks.generators.base import Codes


@pytest.mark.parametrize("kind", list(NOISE_GENERATORS))
@pytest.mark.parametrize("classes", [(), ("cat", "dog", "7")])
def test_a_seed_determines_an_image_alone_and_among_others(kind: str, classes: tuple[str, ...]) -> None:
    made = sampler(kind, classes)
    many = made.sample(21, seed=3)
    assert many.shape == (21, 32, 32, 1) and many.dtype == np.uint8
    assert all((many[k] == made.sample(1, seed=3 + k)[0]).all() for k in (0, 7, 8, 20))
    assert (many[5:16] == made.sample(11, seed=8)).all()
    assert len({image.tobytes() for image in many}) == 21


def test_saved_and_loaded_it_makes_the_same(tmp_path: Path) -> None:
    made = sampler("biggan", ("cat", "dog"))
    made.save(tmp_path / "model")
    loaded = img2img.load(tmp_path / "model")
    assert isinstance(loaded, NoiseGenerator) and loaded.config == made.config
    assert (loaded.sample(5, labels="dog", truncation=0.5) == made.sample(5, labels="dog", truncation=0.5)).all()
    made.save(tmp_path / "model")  # takes the place of the older one
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="other files"):
        made.save(tmp_path / "other")


def test_it_is_no_translator(tmp_path: Path, trained: Path) -> None:
    sampler().save(tmp_path / "model")
    with pytest.raises(UsageError, match="makes images from noise, not from images: use img2img sample"):
        img2img.convert(tmp_path / "model", trained, tmp_path / "out")
    with pytest.raises(UsageError, match="is a translator, which makes images from images"):
        NoiseGenerator.load(trained)


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "sampler"}', '{"kind": "sampler", "method": "gan", "x": 1}'])
def test_a_damaged_config_is_a_sentence(tmp_path: Path, text: str) -> None:
    sampler().save(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json"):
        img2img.load(tmp_path)


def test_classes_are_asked_for_by_name_or_number() -> None:
    made = sampler(classes=("cat", "dog", "1"))

    def numbers(labels: Any, count: int = 3) -> list[int]:
        found = made.numbers(labels, range(5, 5 + count))
        assert found is not None
        return found.tolist()

    assert numbers(None) == [2, 0, 1], "each in turn, by the seed"
    assert numbers("dog") == [1, 1, 1] and numbers(["cat", "1", 0]) == [0, 2, 0]
    assert numbers("1") == [2, 2, 2] and numbers(1) == [2, 2, 2], "a name comes before a number"
    assert numbers("2") == [2, 2, 2]
    for wrong, words in (
        ("bird", "no class 'bird'; there are cat, dog, 1"),
        (5, "no class 5"),
        (["cat"], "1 labels for 3"),
    ):
        with pytest.raises(UsageError, match=words):
            numbers(wrong)
    with pytest.raises(UsageError, match="knows no classes"):
        sampler().sample(1, labels=0)


def test_truncated_noise_is_normal_noise_drawn_again() -> None:
    whole = torch.cat([draw_noise(100, seed) for seed in range(200)])
    cut = torch.cat([draw_noise(100, seed, 0.7) for seed in range(200)])
    assert cut.abs().max() <= 0.7
    kept = whole.abs() <= 0.7
    assert torch.equal(cut[kept], whole[kept]), "what is within stays"
    normal = torch.distributions.Normal(0, 1)
    share = (normal.cdf(torch.tensor(0.3)) - 0.5) / (normal.cdf(torch.tensor(0.7)) - 0.5)
    assert (cut.abs() < 0.3).float().mean() == pytest.approx(share.item(), abs=0.01)
    assert draw_noise(50, 3, 0.01).abs().max() <= 0.01
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="above 0"):
            sampler().sample(1, truncation=wrong)


def test_truncation_makes_images_more_alike() -> None:
    made = sampler("biggan")
    spread = [made.sample(64, truncation=t).astype(float).std(0).mean() for t in (None, 0.5, 0.1)]
    assert spread[0] > 1.05 * spread[1] > 1.1 * spread[2]


def test_standing_statistics_are_those_of_the_noise() -> None:
    made = sampler()
    norm = next(layer for layer in made.generator.modules() if isinstance(layer, nn.BatchNorm2d))
    convolution = made.generator.stem[0]  # type: ignore[index]
    noise = made.noise(range(16 * 64))[:, :, None, None]
    with torch.no_grad():
        values = convolution(noise).transpose(0, 1).flatten(1)
    assert norm.running_mean is not None and norm.running_var is not None
    assert torch.allclose(norm.running_mean, values.mean(1), atol=1e-3)
    assert torch.allclose(norm.running_var, values.var(1), rtol=0.05)
    narrow = made._network(0.5)
    other = next(layer for layer in narrow.modules() if isinstance(layer, nn.BatchNorm2d))
    assert other.running_var is not None and (other.running_var < norm.running_var).all(), "truncated noise has its own"
    assert made._network(None) is made.generator and made._network(0.5) is not narrow
    assert not any(layer.training for layer in (*made.generator.modules(), *narrow.modules()))


def test_spherical_interpolation() -> None:
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    assert torch.allclose(slerp(a, b, 0.5), torch.tensor([1.0, 1.0]) * 3 / 2**0.5)
    assert torch.allclose(slerp(a, b, 0.0), a) and torch.allclose(slerp(a, b, 1.0), b)
    assert torch.allclose(slerp(a, 2 * a, 0.5), 1.5 * a), "no direction to turn in"


@pytest.mark.parametrize("how", ["spherical", "linear"])
def test_a_walk_leads_from_one_seed_to_the_other(how: Any) -> None:
    made = sampler(classes=("a", "b"))
    walk = made.interpolate(4, 9, 6, how=how, labels="b")
    assert walk.shape == (6, 32, 32, 1)
    assert (walk[0] == made.sample(1, seed=4, labels="b")[0]).all() and (
        walk[-1] == made.sample(1, seed=9, labels="b")[0]
    ).all()
    steps = np.abs(np.diff(walk.astype(float), axis=0)).mean((1, 2, 3))
    assert steps.max() < np.abs(walk[0].astype(float) - walk[-1]).mean(), "no jump"
    with pytest.raises(UsageError, match="at least 2"):
        made.interpolate(0, 1, 1)


def test_codes_and_noise_are_independent() -> None:
    codes = Codes(categorical=(10,), continuous=2)
    noise = torch.stack([draw_noise(20, seed) for seed in range(1000)])
    drawn = torch.stack([draw_codes(codes, seed, {}) for seed in range(1000)])[:, 10:]
    both = torch.corrcoef(torch.cat([noise, noise.abs(), drawn], dim=1).t())[40:, :40]
    assert both.abs().max() < 0.15
    for seed in (2**32, -1):
        with pytest.raises(UsageError, match=f"seed {seed}: give 0 to 4294967295"):
            sampler().sample(1, seed=seed)


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("generator", {"size": None}, "size and channels"),
        ("classes", [], "0 names for 2 classes"),
        ("codes", {}, "leave no noise"),
    ],
)
def test_configs_that_do_not_fit_together(tmp_path: Path, part: str, value: Any, words: str) -> None:
    sampler(classes=("a", "b")).save(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values[part] = {**values["generator"], **value} if part == "generator" else value
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match=words):
        img2img.load(tmp_path)


def test_a_sweep_changes_one_code() -> None:
    codes = Codes(categorical=(3,), continuous=1)
    made = sampler(codes=codes)
    rows = made.sweep(0, 2, seed=5)
    assert rows.shape == (2, 3, 32, 32, 1)
    assert (rows[1, 2] == made.sample(1, seed=6, codes={0: 2})[0]).all()
    assert made.sweep(1, 2, steps=4).shape == (2, 4, 32, 32, 1)
    a, b = (draw_codes(codes, 5, {0: value}) for value in (0, 2))
    assert a[:3].tolist() == [1, 0, 0] and b[:3].tolist() == [0, 0, 1] and a[3] == b[3]
    assert draw_codes(codes, 5, {1: -0.5})[3] == -0.5
    for code, value, words in ((2, 0, "no code 2"), (0, 3, "no value 3")):
        with pytest.raises(UsageError, match=words):
            made.sample(1, codes={code: value})
    with pytest.raises(UsageError, match="no code 2"):
        made.sweep(2, 1)
    with pytest.raises(UsageError, match="has no codes"):
        sampler().sample(1, codes={0: 1})


def test_models_say_what_they_are(trained: Path) -> None:
    assert repr(sampler()) == "<NoiseGenerator of gan: noise → gray images; 32 pixels; on cpu>"
    said = repr(img2img.load(trained))
    assert said.startswith("<Translator of pix2pix: RGB images → RGB images; 16 pixels") and said.endswith("on cpu>"), (
        said
    )


def test_the_config_says_what_it_is(tmp_path: Path) -> None:
    sampler(codes=Codes()).save(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["kind"] == "sampler" and saved["codes"] == {"categorical": [10], "continuous": 2}
    assert saved["training"]["updates"] == 7


def test_images_are_the_network_s() -> None:
    made = sampler("biggan", ("a", "b"))
    noise, labels = made.noise(range(11)), torch.tensor([0, 1] * 5 + [1])
    with torch.no_grad():
        wanted = made.generator(noise, labels)
    truth = ((wanted.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round()
    assert np.abs(made.images(noise, labels) - truth).max() <= 1


def test_codes_go_straight_between_two_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = sampler(codes=Codes(categorical=(3,), continuous=1)), []
    monkeypatch.setattr(made, "images", lambda noise, *_: seen.append(noise))
    made.interpolate(1, 2, 3)
    a, middle, b = seen[0]
    assert torch.allclose(middle[8:], (a[8:] + b[8:]) / 2) and not torch.allclose(middle[:8], (a[:8] + b[:8]) / 2)
