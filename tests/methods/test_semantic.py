"""Semantic consistency of methods without pairs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.configs import TINY, tiny_config
from helpers.data import write_unpaired
from torch import Tensor

from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.data.base import DataConfig
from img2img.data.labelled_sources import LabelledSourcesData
from img2img.data.transforms import JointTransform
from img2img.images import read_image, write_image
from img2img.methods import load_method
from img2img.methods.base import Outputs
from img2img.methods.semantic import cross_entropy
from img2img.models import Translator
from img2img.networks.segmenter import Segmenter
from img2img.training.train import train

CLASSES = 3
NAMES = ("cyclegan", "cut", "fastcut", "unsb")


def tiny(name: str, classes: int = CLASSES, **settings: Any) -> Any:
    torch.manual_seed(0)
    patch = {"discriminator": {"kind": "patch", "channels": 4, "layers": 1}}
    values = {
        **TINY[name],
        **patch,
        "semantic_weight": 2.0,
        "segmenter_channels": 4,
        "initialisation_gain": 0.2,
        **settings,
    }
    return load_method(name).model_validate(values).build(3, 3, 16, classes)


def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    images = {name: torch.rand(2, 3, 16, 16) * 2 - 1 for name in ("source", "target")}
    labels = torch.randint(0, CLASSES, (2, 1, 16, 16), dtype=torch.int32)
    labels[0, 0, :4] = -1
    return {**images, "labels": labels}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Unpaired images, and label maps of the sources: 0 left, 1 right, 255 in a corner."""
    folder = write_unpaired(write_unpaired(tmp_path / "data"), 4, 4, split="test")
    for split in ("train", "test"):
        for file in (folder / f"{split}A").iterdir():
            labels = np.zeros((16, 16, 1), np.uint8)
            labels[:, 8:] = 1
            labels[:2, :2] = 255
            write_image(tmp_path / "labels" / split / f"{file.stem}.png", labels)
    return folder


def test_pixels_without_a_class_dont_count() -> None:
    logits, labels = torch.randn(2, CLASSES, 4, 4), torch.randint(0, CLASSES, (2, 4, 4))
    labels[:, 0] = -1
    expected = F.cross_entropy(logits[:, :, 1:], labels[:, 1:])
    assert cross_entropy(logits, labels).item() == pytest.approx(expected.item(), rel=1e-5)
    assert cross_entropy(logits, torch.full_like(labels, -1)).item() == 0


def test_the_segmenter_learns_where_things_are() -> None:
    torch.manual_seed(0)
    network = Segmenter(3, 2, 16, channels=8)
    images = torch.randn(4, 3, 16, 16) * 0.1
    labels = torch.zeros(4, 16, 16, dtype=torch.long)
    for k in range(4):
        labels[k, k : k + 8, 2:9] = 1
        images[k, 0, k : k + 8, 2:9] += 1
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        loss = cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (network(images).argmax(1) == labels).float().mean() > 0.97
    assert network(3 * images).abs().max() > 1, "logits have no bounds"


@pytest.mark.parametrize("name", NAMES)
def test_translations_must_have_the_labels_of_their_sources(name: str) -> None:
    method, data = tiny(name), batch()
    method.semantic.ready = math.inf
    outputs: Outputs = method.forward(data)
    assert method.phases[0].name == "S" and method.phases[0].trains == ("segmenter",)
    segmenter = method.networks["segmenter"]
    learned = method.semantic.segmenter_losses(data, outputs)["S/labels"]
    labels = data["labels"][:, 0].long()
    assert learned.item() == pytest.approx(
        F.cross_entropy(segmenter(data["source"]), labels, ignore_index=-1).item(), rel=1e-4
    )
    learned.backward()
    assert all(p.grad is None for n in method.networks if n != "segmenter" for p in method.networks[n].parameters())
    if name == "cyclegan":
        ways = [part(data, outputs) for part in method.phases[1].parts]
        assert "G/semantic" in ways[0] and "G/semantic" not in ways[1], "only sources have labels"
        losses, fake = ways[0], outputs.translations["AtoB"][1]
    else:
        fake = outputs.images["fake"]
        if name == "fastcut" and bool(outputs.images["flip"]):
            fake = fake.flip(3)
        losses = method.generator_losses(data, outputs)
    expected = 2 * F.cross_entropy(segmenter(fake), labels, ignore_index=-1)
    if not (name == "fastcut" and bool(outputs.images["flip"])):  # a convolution sees a mirrored image otherwise
        assert losses["G/semantic"].item() == pytest.approx(expected.item(), rel=1e-3)
    losses["G/semantic"].backward()
    generator = method.networks["generator_AtoB" if name == "cyclegan" else "generator"]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_mirrored_translations_have_mirrored_labels() -> None:
    method, data, flips = tiny("fastcut"), batch(), set()
    method.semantic.ready = math.inf
    for seed in range(8):
        torch.manual_seed(seed)
        outputs = method.forward(data)
        flip = bool(outputs.images["flip"])
        flips.add(flip)
        fake = outputs.images["fake"]
        method.semantic.segmenter_losses(data, outputs)
        labels = data["labels"][:, 0].long()
        found = method.networks["segmenter"](fake)
        expected = 2 * F.cross_entropy(found, labels.flip(2) if flip else labels, ignore_index=-1)
        assert method.generator_losses(data, outputs)["G/semantic"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert flips == {True, False}


def test_a_segmenter_that_knows_nothing_yet_teaches_nothing() -> None:
    method, data = tiny("cut"), batch()
    outputs = method.forward(data)
    assert method.semantic.segmenter_losses(data, outputs)["S/labels"] > 0.5 * math.log(CLASSES)
    assert method.generator_losses(data, outputs)["G/semantic"].item() == 0


def test_labels_are_cropped_and_mirrored_with_their_sources(data: Path) -> None:
    config = DataConfig(path=data, labels=data.parent / "labels", size=16, ignore_label=255)
    opened = LabelledSourcesData(config)
    report = opened.check()
    assert not report.errors and report.source_classes is not None and report.source_classes.count == 2
    assert report.classes is None, "the translator's sources are images"
    opened.learn(report)
    opened.divide(0.0)
    samples = opened.build_training_set(JointTransform(16, jitter=1.0, flip=0.5), 3, 3, 0)
    sides = set()
    for epoch in range(6):
        sample = samples[epoch, 0]
        file = opened.train.sources[samples.partners((epoch, 0))[0]]  # type: ignore[attr-defined]
        plain = torch.from_numpy(read_image(file)).permute(2, 0, 1).float() / 127.5 - 1
        mirrored = bool((sample["labels"][0, 5, 0] == 1).item())
        sides.add(mirrored)
        assert torch.allclose(sample["source"], plain.flip(2) if mirrored else plain, atol=1e-5)
        encoded = opened.encode({name: tensor[None] for name, tensor in sample.items()}, torch.float32)["labels"]
        corner = encoded[0, 0, :2, -2:] if mirrored else encoded[0, 0, :2, :2]
        assert (corner == -1).all() and set(encoded.unique().tolist()) == {-1, 0, 1}
    assert sides == {True, False}
    strays = opened.encode({"labels": torch.tensor([[[[0, 1, 2, 9, 255]]]])}, torch.float32)["labels"]
    assert strays.flatten().tolist() == [0, 1, -1, -1, -1], "labels that nobody checked are of no class"


@pytest.mark.parametrize("name", ["cyclegan", "unsb"])
def test_a_run_with_label_maps(data: Path, tmp_path: Path, name: str) -> None:
    settings = {"name": name, "semantic_weight": 1.0, "segmenter_channels": 4}
    about = {"labels": data.parent / "labels", "classes": 2, "ignore_label": 255}
    config = tiny_config(data, tmp_path / "run", settings, batch_size=2, data=about)
    run = train(config, quiet=True)
    line = json.loads((run / "log.jsonl").read_text().splitlines()[0])
    assert line["S/labels"] > 0 and 0 <= line["S/accuracy"] <= 1 and "G/semantic" in line
    model = Translator.load(run)
    assert model.config.classes is None and model(read_image(next((data / "testA").iterdir()))).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("method", "about", "says"),
    [
        ({"semantic_weight": 1.0}, {}, "--data.labels FOLDER"),
        ({}, {"labels": "labels", "ignore_label": 255}, "--semantic-weight 1"),
        ({"semantic_weight": 1.0}, {"labels": "none"}, "none"),
        ({"semantic_weight": 1.0}, {"labels": "few"}, "no label map for 4 of the training sources"),
        ({"semantic_weight": 1.0}, {"labels": "labels", "source_range": (0, 1), "target_range": (0, 1)}, "ranges"),
        ({"semantic_weight": 1.0}, {"labels": "labels", "classes": 1}, "out of range"),
        ({"semantic_weight": 1.0}, {"labels": "labels", "ignore_label": 255, "in_channels": 1}, "same channels"),
    ],
)
def test_what_cant_be_says_so(data: Path, tmp_path: Path, method: Any, about: Any, says: str) -> None:
    folder = data.parent
    write_image(folder / "few" / "A0.png", np.zeros((16, 16, 1), np.uint8))
    if "labels" in about:
        about = {**about, "labels": folder / about["labels"]}
    settings = {"name": "cyclegan", "identity_weight": 0.0, **method}
    with pytest.raises(UsageError, match=says):
        train(tiny_config(data, tmp_path / "run", settings, data=about), quiet=True)


def test_label_maps_belong_to_images_of_the_same_folder(tmp_path: Path) -> None:
    data, labels = write_unpaired(tmp_path / "data", 1, 4), tmp_path / "labels"
    (data / "trainA" / "A0.png").unlink()
    for place, value in (("a", 0), ("b", 1)):
        write_image(data / "trainA" / place / "0.png", np.full((16, 16, 3), value, np.uint8))
        write_image(labels / "trainA" / place / "0_label.png", np.full((16, 16, 1), value, np.uint8))
        write_image(labels / "trainB" / place / "0_label.png", np.full((16, 16, 1), 5, np.uint8))
    opened = LabelledSourcesData(DataConfig(path=data, labels=labels, size=16))
    assert {file.parent.name: read_image(maps)[0, 0, 0] for file, maps in opened.labels.items()} == {"a": 0, "b": 1}
    with pytest.raises(UsageError, match="are both of"):
        write_image(data / "trainA" / "c" / "0.png", np.zeros((16, 16, 3), np.uint8))
        LabelledSourcesData(DataConfig(path=data, labels=labels, size=16))


def test_the_check_reads_label_maps_of_sources(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = str(data.parent / "labels")
    assert main(["check", str(data), "--labels", labels, "--classes", "2", "--ignore-label", "255"]) == 0
    assert "label maps of 2 classes" in capsys.readouterr().out
    assert main(["check", str(data), "--labels", labels, "--classes", "1"]) != 0
    assert "out of range" in capsys.readouterr().out
    (data.parent / "labels" / "train" / "A0.png").unlink()
    assert main(["check", str(data), "--labels", labels, "--classes", "2"]) == 1
    assert f"error: --labels {labels} has no label map for 1 of the training sources: A0.png" in capsys.readouterr().out
