import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data import picture, write_pairs, write_unpaired
from helpers.lpips import draw_weights
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.images import read_image, write_image
from img2img.inference.evaluate import compare, evaluate
from img2img.metrics.lpips import Lpips
from img2img.metrics.perceptual import PerceptualDistance
from img2img.models import Translator


def test_scores_are_those_of_the_converted_files(trained: Path, tmp_path: Path) -> None:
    data = trained.parent / "pairs"
    result = evaluate(trained, data)
    img2img.convert(trained, data / "valA", tmp_path / "out", dtype="fp32")
    images = [(read_image(tmp_path / "out" / f"{n}.png"), read_image(data / "valB" / f"{n}.png")) for n in (4, 5)]
    by_hand = {
        "l1": np.mean([np.abs(a / 255 - b / 255).mean() for a, b in images]),
        "psnr": np.mean([peak_signal_noise_ratio(b, a) for a, b in images]),
        "ssim": np.mean([structural_similarity(b, a, channel_axis=2) for a, b in images]),
        "perceptual": np.mean([PerceptualDistance()(a, b) for a, b in images]),
    }
    assert result.metrics == pytest.approx(by_hand, rel=1e-3)  # convert's network rounds differently
    assert compare(tmp_path / "out", data / "valB").metrics == pytest.approx(result.metrics)
    assert result.copy_input == pytest.approx(compare(data / "valA", data / "valB").metrics)
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert log[-1]["val/psnr"] == pytest.approx(evaluate(trained / "latest", data).metrics["psnr"])


def test_the_json_has_the_promised_shape(trained: Path, tmp_path: Path) -> None:
    result = evaluate(trained, trained.parent / "pairs", split="train")
    result.write(tmp_path / "scores.json")
    values = json.loads((tmp_path / "scores.json").read_text())
    assert set(values["metrics"]) == {"l1", "psnr", "ssim", "perceptual"}
    assert values["count"] == 4 == len(values["images"]) and values["split"] == "train"


def test_another_direction_and_size(trained: Path) -> None:
    data = trained.parent / "pairs"
    assert evaluate(trained, data, direction="BtoA").metrics != evaluate(trained, data).metrics
    assert evaluate(trained, data, size=8).about["size"] == 8


def test_files_that_cannot_be_scored_are_named(tmp_path: Path) -> None:
    for name, size in (("a", 8), ("b", 8), ("c", 8)):
        write_image(tmp_path / "x" / f"{name}.png", picture(size, size))
        write_image(tmp_path / "y" / f"{name}.bmp", picture(size if name != "b" else 9, size))
    write_image(tmp_path / "x" / "lonely.png", picture(8, 8))
    (tmp_path / "y" / "c.bmp").write_bytes(b"")
    result = compare(tmp_path / "x", tmp_path / "y")
    assert list(result.images) == ["a"] and result.metrics["l1"] == 0
    assert len(result.failed) == 3 and "different sizes" in result.failed["b"]
    result.write(tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"]["psnr"] is None, "JSON has no infinity"


def test_sets_without_pairs_are_compared_as_a_whole(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_unpaired(tmp_path / "data", 12, 14)
    with pytest.raises(UsageError, match=r"no file has a partner of the same name.*--features lite"):
        evaluate(trained, data)
    result = evaluate(trained, data, features="lite")
    assert set(result.metrics) == {"kid", "fid"} and result.copy_input is not None
    assert set(result.copy_input) == {"kid", "fid"} and not result.images
    assert result.about["count"] == 12 and result.about["features"] == "lite"
    unpaired = Translator.load(trained)
    unpaired.config = unpaired.config.model_copy(update={"method": "cut"})
    unpaired.save(tmp_path / "unpaired")  # of which nobody expects pairs
    assert main(["evaluate", "--model", str(tmp_path / "unpaired"), "--data", str(data)]) == 0
    shown = capsys.readouterr().out
    assert f"{result.metrics['kid']:.5f}" in shown and "EfficientNet-Lite0" in shown and "PSNR" not in shown
    from img2img.metrics.distribution import distances, features
    from img2img.metrics.perceptual import LiteFeatures

    img2img.convert(trained, data / "trainA", tmp_path / "out")
    folders = [[read_image(file) for file in sorted(f.iterdir())] for f in (tmp_path / "out", data / "trainB")]
    sets = [features(LiteFeatures(), images, torch.device("cpu")) for images in folders]
    assert distances(*sets) == pytest.approx(result.metrics, rel=1e-3, abs=1e-4)


def test_too_few_images_for_sets_are_said(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 10 images a side, but there are 12 and 3"):
        evaluate(trained, write_unpaired(tmp_path / "data", 12, 3), features="lite")


def test_pairs_may_be_compared_as_sets_too(trained: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", 11, split="test")
    result = evaluate(trained, data, features="random")
    assert set(result.metrics) == {"l1", "psnr", "ssim", "perceptual", "kid", "fid"} == set(result.copy_input or {})


def test_pairs_are_scored_by_lpips(trained: Path, tmp_path: Path) -> None:
    vgg = Lpips("vgg", draw_weights("vgg", tmp_path / "weights.pth"))
    data = trained.parent / "pairs"
    result = evaluate(trained, data, lpips=vgg)
    img2img.convert(trained, data / "valA", tmp_path / "out", dtype="fp32")
    of_files = compare(tmp_path / "out", data / "valB", lpips=vgg)
    assert result.metrics["lpips"] == pytest.approx(of_files.metrics["lpips"], rel=1e-3)
    copied = compare(data / "valA", data / "valB", lpips=vgg)
    assert result.copy_input is not None and result.copy_input["lpips"] == pytest.approx(copied.metrics["lpips"])
    sets = write_unpaired(tmp_path / "sets", 2)
    with pytest.raises(UsageError, match="--lpips compares pairs, and there are none in"):
        evaluate(trained, sets, lpips=vgg, features="lite")


def test_nothing_to_evaluate_is_said(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        evaluate(trained, tmp_path / "none")
    with pytest.raises(UsageError, match="has no split test"):
        evaluate(trained, trained.parent / "pairs", split="test")
    with pytest.raises(UsageError, match="no such folder"):
        compare(tmp_path / "none", tmp_path)
    write_pairs(tmp_path, 1)
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="no file has a partner"):
        compare(tmp_path / "trainA", tmp_path / "other")
