"""Folders of label maps: converted with their instance maps, in styles, and scored by a segmenter."""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.configs import tiny_config
from helpers.data import COLOURS, write_labelled
from PIL import Image

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.metrics.segmentation import Agreement, make_segmenter
from img2img.training.train import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return write_labelled(write_labelled(folder, 4, 32), 3, 32, split="val", first=6)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    method = {"name": "pix2pixhd", "encoder": True, "coarse_share": 0.0}
    return train(tiny_config(data, tmp_path_factory.mktemp("run") / "run", method, steps=2), quiet=True)


def test_a_folder_with_its_instances_beside(data: Path, run: Path, tmp_path: Path) -> None:
    report = img2img.convert(run, data / "val_label", tmp_path / "out", dtype="fp32")
    assert report.summary() == "3 converted, 0 skipped, 0 failed"
    assert repr(report) == "<Report: 3 converted, 0 skipped, 0 failed>"
    assert {outcome.bits for outcome in report.outcomes} == {8}
    translator = img2img.load(run)
    for file in sorted((data / "val_label").iterdir()):
        made = np.asarray(Image.open(tmp_path / "out" / file.name))
        labels, instances = Image.open(file), Image.open(data / "val_inst" / file.name)
        truth = np.asarray(translator(labels, instances))
        assert made.shape == (32, 32, 3) and np.abs(made.astype(int) - truth).max() <= 1


def test_instances_elsewhere_and_missing(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "val_label", tmp_path / "maps")
    shutil.copytree(data / "val_inst", tmp_path / "identities")
    with pytest.raises(UsageError, match="--instances DIR"):
        img2img.convert(run, tmp_path / "maps", tmp_path / "out")
    (tmp_path / "identities" / "7.png").unlink()
    (tmp_path / "maps" / "bad.png").write_bytes(b"broken")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "maps" / "colours.png")
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(tmp_path / "maps" / "beyond.png")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "identities" / "beyond.png")
    Image.fromarray(np.zeros((30, 32), np.uint8)).save(tmp_path / "identities" / "8.png")
    report = img2img.convert(run, tmp_path / "maps", tmp_path / "out", instances=tmp_path / "identities")
    reasons = {Path(outcome.source).name: outcome.reason for outcome in report.failures}
    assert reasons.keys() == {"7.png", "8.png", "bad.png", "colours.png", "beyond.png"}
    assert "no instance map of this name" in reasons["7.png"] and "8.png is 32×30 pixels" in reasons["8.png"]
    assert "colours" in reasons["colours.png"] and "label 9 at row 0" in reasons["beyond.png"]
    assert report.count("done") == 1
    out = tmp_path / "same"
    assert (
        main(
            [
                "convert",
                str(tmp_path / "maps" / "6.png"),
                str(out / "6.jpg"),
                "--model",
                str(run),
                "--instances",
                str(tmp_path / "maps"),
            ]
        )
        == 0
    )
    assert Image.open(out / "6.jpg").size == (32, 32)


def test_sizes_are_scaled_by_nearest_neighbour(data: Path, run: Path, tmp_path: Path) -> None:
    report = img2img.convert(run, data / "val_label", tmp_path / "out", size=48)
    assert report.failures == [] and {outcome.height for outcome in report.outcomes} == {48}
    report = img2img.convert(run, data / "val_label", tmp_path / "small", max_pixels=100)
    assert all("1,024 pixels" in outcome.reason for outcome in report.failures) and len(report.failures) == 3


def test_styles_from_the_command_line(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(data / "val_img" / "6.png")
    labels = str(data / "val_label" / "6.png")
    ways: list[list[str]] = [
        [], ["--style", "2"], ["--style", "1=2", "3=1"],
        ["--style-image", image, "--style-labels", labels, "--style-instances", str(data / "val_inst" / "6.png")],
    ]  # fmt: skip
    for number, way in enumerate(ways):
        arguments = ["convert", labels, str(tmp_path / f"{number}.png"), "--model", str(run), "--dtype", "fp32", *way]
        assert main(arguments) == 0
    assert capsys.readouterr().err == ""
    for wrong in (
        ["--style", "x"],
        ["--style", "1", "2"],
        ["--style", "99"],
        ["--style-labels", labels],
        ["--style-image", image],
        ["--style-image", image, "--style-instances", labels],
    ):
        assert main(["convert", labels, str(tmp_path / "no.png"), "--model", str(run), *wrong]) == 2
        assert "img2img: " in capsys.readouterr().err
    assert not (tmp_path / "no.png").exists()


def test_a_translator_of_images_has_no_instances(trained: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without instance maps"):
        img2img.convert(trained, data / "val_img", tmp_path / "out", instances=data / "val_inst")
    with pytest.raises(UsageError, match="no styles"):
        img2img.convert(trained, data / "val_img", tmp_path / "out", style=1)


def nearest_colour(images: torch.Tensor) -> torch.Tensor:
    """A segmenter of our drawings: the class whose colour has the nearest hue."""
    colours = torch.nn.functional.normalize(torch.from_numpy(COLOURS).float(), dim=1)
    pixels = torch.nn.functional.normalize((images + 1).clamp(min=1e-3), dim=1)
    return torch.einsum("bchw,kc->bkhw", pixels, colours)


def test_a_segmenter_scores_translations_and_real_images(data: Path, run: Path) -> None:
    result = img2img.evaluate(run, data, segmenter=nearest_colour)
    assert {
        "l1",
        "psnr",
        "ssim",
        "perceptual",
        "miou",
        "accuracy",
    } == result.metrics.keys() and result.copy_input is None
    assert result.real is not None and result.real["accuracy"] > 0.99 and result.real["miou"] > 0.97
    assert result.metrics["accuracy"] < result.real["accuracy"]
    with pytest.raises(UsageError, match="a plane for each class"):
        img2img.evaluate(run, data, segmenter=lambda images: images)
    with pytest.raises(UsageError, match="holds none in a layout"):
        img2img.evaluate(run, data / "val_img")


def test_agreement_by_hand() -> None:
    prediction, truth = np.array([[0, 0, 1], [1, 2, 2]]), np.array([[0, 1, 1], [1, 2, 255]])
    logits = torch.nn.functional.one_hot(torch.from_numpy(prediction), 4).permute(2, 0, 1)[None].float()
    agreement = Agreement(lambda _: {"out": logits}, 4, torch.device("cpu"))
    agreement.add(np.zeros((2, 3, 3), np.uint8), truth)
    scores = agreement.scores()
    assert scores["accuracy"] == pytest.approx(4 / 5) and scores["miou"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)


def test_a_segmenter_of_torchvision(data: Path, run: Path, tmp_path: Path) -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    torch.save(network.state_dict(), tmp_path / "segmenter.pth")
    name = "lraspp_mobilenet_v3_large"
    options: list[Any] = [
        "--segmenter",
        name,
        "--segmenter-weights",
        tmp_path / "segmenter.pth",
        "--json",
        tmp_path / "s.json",
    ]
    assert main(["evaluate", "--model", str(run), "--data", str(data), *map(str, options)]) == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    assert 0 <= scores["metrics"]["miou"] <= 1 and scores["real"].keys() == {"miou", "accuracy"}
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    for file in ("bad.pth", "none.pth"):
        with pytest.raises(UsageError, match=file.replace(".", r"\.")):
            make_segmenter("lraspp_mobilenet_v3_large", tmp_path / file)
    assert main(["evaluate", "--model", str(run), "--data", str(data), "--segmenter", name]) == 2


@pytest.mark.parametrize("ignored", [255, 2], ids=["beyond the classes", "one of them"])
@pytest.mark.parametrize("dtype", ["auto", "fp32"])
def test_ignored_pixels_are_converted(tmp_path: Path, ignored: int, dtype: Any) -> None:
    data = write_labelled(write_labelled(tmp_path / "data", 3, 32), 1, 32, split="val", first=6)
    for file in data.glob("*_label/*.png"):
        labels = np.array(Image.open(file))
        labels[:3] = ignored
        Image.fromarray(labels).save(file)
    method = {"name": "pix2pixhd", "encoder": True, "coarse_share": 0.0}
    run = train(tiny_config(data, tmp_path / "run", method, steps=1, data={"ignore_label": ignored}), quiet=True)
    report = img2img.convert(run, data / "val_label", tmp_path / "out", dtype=dtype)
    assert report.summary() == "1 converted, 0 skipped, 0 failed"
    translator = img2img.Translator.load(run)
    maps = [np.array(Image.open(data / f"val_{kind}" / "6.png")) for kind in ("label", "inst")]
    truth = translator(*maps)
    (mapped,) = translator.map([tuple(maps)])
    assert np.abs(mapped.astype(int) - truth).max() <= 1
    if dtype == "fp32":
        assert np.abs(np.asarray(Image.open(tmp_path / "out" / "6.png")).astype(int) - truth).max() <= 1
    image = Image.open(data / "val_img" / "6.png")
    assert translator(*maps, style=(image, *map(Image.fromarray, maps))).shape == truth.shape
    shown = translator.shown(torch.from_numpy(np.stack(maps).astype(np.int32))[None])
    assert (shown[0, :, :3] == -1).all(), "black"


def test_a_photo_model_is_told_that_these_are_label_maps(trained: Path, data: Path, tmp_path: Path) -> None:
    report = img2img.convert(trained, data / "val_label", tmp_path / "out")
    assert any("is called as folders of label maps are" in note for note in report.notes)


def test_styles_that_can_not_be_are_sentences(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert = ["convert", str(data / "val_label"), str(tmp_path / "out"), "--model", str(run)]
    image, labels = str(data / "val_img" / "6.png"), str(data / "val_label" / "6.png")
    for options, words in (
        (["--style", "9" * 25], "give a number from 0"),
        (["--style", "-1"], "give one from 0, or CLASS=NUMBER"),
        (["--style-image", image], "an image with its label map"),
        (["--style-image", image, "--style-labels", image], "the style can't be read"),
        (["--style-image", str(tmp_path / "none.png"), "--style-labels", labels], "the style can't be read"),
    ):
        assert main([*convert, *options]) == 2
        assert words in capsys.readouterr().err
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(tmp_path / "beyond.png")
    assert main([*convert, "--style-image", image, "--style-labels", str(tmp_path / "beyond.png")]) == 2
    assert "the label map of the style's image: label 9" in capsys.readouterr().err


def test_the_page_shows_label_maps_in_their_colours(data: Path, run: Path, tmp_path: Path) -> None:
    command = ["convert", str(data / "val_label"), str(tmp_path / "out"), "--model", str(run)]
    assert main([*command, "--page", str(tmp_path / "page.html")]) == 0
    shown = re.findall(r'src="data:image/png;base64,([^"]+)"', (tmp_path / "page.html").read_text())
    classes = img2img.load(run).config.classes
    labels = np.asarray(Image.open(sorted((data / "val_label").iterdir())[0]))
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[0])))) == classes.paint(labels)).all()
