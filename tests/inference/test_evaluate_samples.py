"""Samples against real images, as sets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.configs import tiny_config
from helpers.data import picture, write_classes
from torch import Tensor, nn

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.images import write_image
from img2img.metrics import reference
from img2img.metrics.distribution import make_extractor
from img2img.metrics.samples import inception_score, precision_recall
from img2img.training.train import train


class Mean(nn.Module):
    """Mean colours as features, and as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += len(images)
        means = images.float().mean((2, 3)) / 255
        return torch.cat([means, images.float().std((2, 3)) / 255], dim=1), means


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("scored")
    data = write_classes(write_classes(root / "data"), split="val")
    return train(tiny_config(data, root / "run", {"name": "gan"}, steps=2), quiet=True), data


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "img2img" / "features"


def test_samples_are_compared_with_what_was_held_out(run: tuple[Path, Path], tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", 15)
    total = len(list(data.rglob("*.png")))
    found = img2img.evaluate_samples(run[0], data, features=Mean(), holdout=10 / total).about
    assert (found["split"], found["real"]) == ("train, held out", 10)


def test_samples_are_compared_with_the_validation_images(run: tuple[Path, Path], cache: Path) -> None:
    network = Mean()
    result = img2img.evaluate_samples(*run, features=network, count=15)
    assert result.metrics.keys() == {"kid", "fid", "precision", "recall", "inception_score"}
    assert (result.about["count"], result.about["real"], result.about["split"]) == (15, 12, "val")
    assert "FID of 12 images is biased" in result.about["remark"]
    assert network.calls == 15 + 12 and len(list(cache.iterdir())) == 1
    again = Mean()
    assert img2img.evaluate_samples(*run, features=again, count=15).metrics == result.metrics
    assert again.calls == 15, "the real images' features are remembered"


def test_features_are_remembered_by_content_and_weights(tmp_path: Path, cache: Path) -> None:
    files = [tmp_path / f"{name}.png" for name in "ab"]
    for number, file in enumerate(files):
        write_image(file, picture(8, 8, seed=number))
    asked: list[float] = []

    def found(network: nn.Module, files: list[Path], value: float) -> float:
        def compute() -> Tensor:
            asked.append(value)
            return torch.full((1, 1), value)

        return float(reference.cache_features(files, network, "32", compute))

    layer, other = nn.Linear(1, 1), nn.Linear(1, 1)
    assert found(layer, files, 1.0) == 1.0 and found(layer, files, 2.0) == 1.0
    (tmp_path / "moved").mkdir()
    moved = [file.rename(tmp_path / "moved" / f"x{file.name}") for file in files]
    assert found(layer, moved, 3.0) == 1.0, "names don't matter"
    assert found(other, moved, 4.0) == 4.0, "another network"
    write_image(moved[0], picture(8, 8, seed=9))
    assert found(layer, moved, 5.0) == 5.0, "other images"
    next(iter(cache.iterdir())).write_bytes(b"damaged")
    for file in cache.iterdir():
        file.write_bytes(b"damaged")
    assert found(layer, moved, 6.0) == 6.0
    assert asked == [1.0, 4.0, 5.0, 6.0]


def test_precision_is_quality_and_recall_is_variety() -> None:
    torch.manual_seed(0)
    truth = torch.randn(200, 4)
    assert precision_recall(truth, truth) == {"precision": 1.0, "recall": 1.0}
    narrow = precision_recall(0.1 * torch.randn(200, 4), truth)
    assert narrow["precision"] > 0.95 and narrow["recall"] < 0.2
    far = precision_recall(truth + 100, truth)
    assert far == {"precision": 0.0, "recall": 0.0}
    assert precision_recall(truth[:9], truth) == {}


def test_the_inception_score_lies_between_one_and_the_number_of_classes() -> None:
    sure = 100 * torch.eye(5).repeat(4, 1)
    assert inception_score(sure) == pytest.approx(5)
    assert inception_score(sure[:1].expand(20, -1)) == pytest.approx(1), "one class only"
    assert inception_score(torch.zeros(20, 5)) == pytest.approx(1), "no class at all"
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    q = p.mean(0)
    wanted = np.exp(float((p * (p / q).log()).sum(1).mean()))
    assert inception_score(p.log()) == pytest.approx(wanted, rel=1e-5)


def test_the_command(run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = map(str, run)
    command = ["evaluate", "--model", model, "--data", data, "--features", "random"]
    assert main([*command, "--json", str(tmp_path / "s.json")]) == 0
    shown = capsys.readouterr().out
    assert "KID" in shown and "recall" in shown and "a network with random weights" in shown and "is biased" in shown
    values: dict[str, Any] = json.loads((tmp_path / "s.json").read_text())
    assert values["metrics"].keys() == {"kid", "fid", "precision", "recall"} and values["count"] == 12
    for wrong, words in (
        (["--direction", "AtoB"], "are for translators"),
        (["--count", "3"], "at least 10 images a side, but there are 3 and 12"),
        (["--split", "test"], "has no split test; it has train, val"),
    ):
        assert main([*command, *wrong]) == 2
        assert words in capsys.readouterr().err


def test_translators_have_no_samples(trained: Path, pairs: Path) -> None:
    assert main(["evaluate", "--model", str(trained), "--data", str(pairs), "--count", "20"]) == 2
    with pytest.raises(UsageError, match="is a translator"):
        img2img.evaluate_samples(trained, pairs)


@pytest.mark.parametrize("architecture", ["resnet18", "efficientnet_b0"])
def test_a_classifier_of_torchvision(run: tuple[Path, Path], tmp_path: Path, architecture: Any) -> None:
    from torchvision import models

    torch.manual_seed(0)
    network = models.get_model(architecture, weights=None, num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    weights = tmp_path / "weights.pth"
    result = img2img.evaluate_samples(*run, features=architecture, feature_weights=weights, count=10)
    assert {"kid", "fid", "inception_score"} <= result.metrics.keys() and result.about[
        "features"
    ] == f"the given {architecture}"
    features, logits = make_extractor(architecture, weights)(torch.zeros(2, 3, 40, 50, dtype=torch.uint8))
    assert features.shape == (2, {"resnet18": 512, "efficientnet_b0": 1280}[architecture]) and logits.shape == (2, 7)
    last = network.fc if architecture == "resnet18" else network.classifier[1]
    assert torch.allclose(last(features), logits, atol=1e-5)
    with pytest.raises(UsageError, match="needs a file of its weights"):
        img2img.evaluate_samples(*run, features=architecture)
    with pytest.raises(UsageError, match=r"no weights of vgg16, as network\.state_dict"):
        img2img.evaluate_samples(*run, features="vgg16", feature_weights=weights)


def test_real_images_are_scaled_as_in_training(run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from img2img.inference import evaluate_samples

    asked: list[Any] = []
    real = evaluate_samples.read_plain_images
    monkeypatch.setattr(
        evaluate_samples,
        "read_plain_images",
        lambda *values, **others: asked.append(values[1:]) or real(*values, **others),
    )
    generator = img2img.NoiseGenerator.load(run[0])
    generator.config = generator.config.model_copy(update={"resize": "stretch"})
    img2img.evaluate_samples(generator, run[1], features=Mean(), count=10)
    assert asked == [(32, "stretch", 1)]
