"""Measurements made of label maps: from the data set to the converted file, and to a smaller translator."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from helpers.configs import tiny_config
from helpers.data import write_labelled

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.data.base import DataConfig
from img2img.data.labelled import LabelledData
from img2img.data.transforms import JointTransform
from img2img.images import ImageError, read_image
from img2img.images.labels import read_indices
from img2img.inference.convert import convert
from img2img.inference.evaluate import evaluate
from img2img.models import Translator
from img2img.training.train import train

LIMITS = (-1000.0, 2000.0)


def write_measured(folder: Path, count: int, size: int = 16, split: str = "train", first: int = 0) -> Path:
    """As `write_labelled`, with two bands of int16 for the colours."""
    write_labelled(folder, count, size, split, first)
    for file in sorted((folder / f"{split}_img").iterdir()):
        bands = read_image(file)[..., :2].astype(np.int16) * 10 - 500
        file.unlink()
        tifffile.imwrite(file.with_suffix(".tif"), bands, photometric="minisblack", planarconfig="contig")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("measured")
    data = write_measured(write_measured(folder / "data", 8), 3, split="val", first=8)
    config = tiny_config(data, folder / "run", data={"target_range": LIMITS, "classes": 4})
    train(config, quiet=True)
    return data, folder / "run"


def test_samples_and_validation_pairs_are_scaled(trained: tuple[Path, Path]) -> None:
    data = LabelledData(DataConfig(path=trained[0], target_range=LIMITS, size=16, classes=4))
    report = data.check()
    assert (report.errors, report.out_channels, report.in_channels) == ([], 2, 5)
    data.divide(0)
    pair = data.train[0]
    truth = (tifffile.imread(pair.target).astype(np.float32) + 1000) / 3000
    sample = data.build_training_set(JointTransform(16, jitter=1, flip=0), 5, 2, 0)[0, 0]
    np.testing.assert_allclose(sample["target"].permute(1, 2, 0) / 2 + 0.5, truth, atol=1e-5)
    maps, target = data.read(pair, None, "short", 5, 2, None)
    np.testing.assert_allclose(target, truth, atol=1e-6)
    assert maps.dtype == np.int32


def test_a_folder_of_label_maps_becomes_values(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    model = Translator.load(run)
    assert (model.config.in_range, model.config.out_range, model.out_channels) == (None, LIMITS, 2)
    assert convert(run, data / "val_label", tmp_path / "out", format="tif", device="cpu").count("done") == 3
    made = tifffile.imread(tmp_path / "out" / "8.tif")
    assert made.dtype == np.float32 and made.shape == (16, 16, 2) and np.ptp(made) > 10
    maps = read_indices(data / "val_label" / "8.png"), read_indices(data / "val_inst" / "8.png")
    direct = model(maps)
    assert direct.dtype == np.float32 and np.abs(direct - made).max() < 5
    found = evaluate(model, data)
    errors = []
    for name in ("8", "9", "10"):
        maps = read_indices(data / "val_label" / f"{name}.png"), read_indices(data / "val_inst" / f"{name}.png")
        errors.append(np.abs(model(maps) - tifffile.imread(data / "val_img" / f"{name}.tif")).mean() / 3000)
    assert found.metrics["l1"] == pytest.approx(np.mean(errors), abs=1e-4)


def test_a_format_that_cannot_hold_them_is_refused_before_the_work(trained: tuple[Path, Path], tmp_path: Path) -> None:
    (data, run), out = trained, tmp_path / "out"
    with pytest.raises(
        UsageError,
        match=r"^no output can be written as \.png: its format can't hold values from -1000 to 2000 in .* enough\. Give --format tif, or npy\.$",
    ):
        convert(run, data / "val_label", out, device="cpu")
    assert not any(out.glob("*"))
    with pytest.raises(UsageError, match=r"Give the output a name that ends in \.tif or \.npy"):
        convert(run, data / "val_label" / "8.png", tmp_path / "one.png", instances=data / "val_inst", device="cpu")
    assert convert(
        run, data / "val_label" / "8.png", tmp_path / "one.tif", instances=data / "val_inst", device="cpu"
    ).count("done")
    out.mkdir(exist_ok=True)
    for number in (8, 9, 10):
        (out / f"{number}.png").touch()
    report = convert(run, data / "val_label", out, existing="skip", device="cpu")
    assert report.count("skipped") == 3, "there is nothing to write"


def test_of_mixed_formats_some_are_written(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    for kind in ("label", "inst"):
        (tmp_path / f"my_{kind}").mkdir()
        for number, name in ((8, "8.png"), (9, "9.npy")):
            values = read_indices(data / f"val_{kind}" / f"{number}.png")
            if name.endswith("npy"):
                np.save(tmp_path / f"my_{kind}" / name, values)
            else:
                (tmp_path / f"my_{kind}" / name).write_bytes((data / f"val_{kind}" / name).read_bytes())
    report = convert(run, tmp_path / "my_label", tmp_path / "out", device="cpu")
    assert (report.count("done"), report.count("failed")) == (1, 1)


def test_a_segmenter_reads_no_measurements(trained: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="makes measurements; leave it out"):
        evaluate(Translator.load(trained[1]), trained[0], segmenter=torch.nn.Identity())


def test_label_maps_have_no_range(trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("range", "source_range"):
        config = DataConfig(path=trained[0], **{option: LIMITS})
        with pytest.raises(UsageError, match=r"--data\.target-range"):
            LabelledData(config)
        with pytest.raises(UsageError, match=r"--data\.target-range"):
            LabelledData.refuse_options(config, "spade")
    errors = LabelledData(DataConfig(path=trained[0], classes=4)).check().errors
    assert any("--data.target-range" in error and "Repair" not in error for error in errors)
    wrong = DataConfig(path=trained[0], target_range=LIMITS, classes=4, out_channels=1)
    assert any("the files have 2 bands" in error for error in LabelledData(wrong).check().errors)


def test_the_check_has_names_of_its_own_for_options(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(trained[0]), "--range", "0", "1"]) == 2
    assert "of the images: --target-range." in " ".join(capsys.readouterr().err.split())
    assert main(["check", str(trained[0]), "--classes", "4"]) == 1
    assert "train with their range: --target-range LOW HIGH" in " ".join(capsys.readouterr().out.split())
    assert main(["check", str(trained[0] / "train_img"), "--kind", "images", "--target-range", "0", "1"]) == 2
    assert "have one range: give --range" in " ".join(capsys.readouterr().err.split())
    assert main(["check", str(trained[0]), "--classes", "4", "--target-range", "5000", "6000"]) == 1
    assert "so none is in the range 5000 6000" in " ".join(capsys.readouterr().out.split())
    assert main(["check", str(trained[0]), "--target-range", "5", "1"]) == 2
    assert "target_range: give two numbers, the lower one first" in " ".join(capsys.readouterr().err.split())


def test_bands_are_no_label_maps(trained: tuple[Path, Path]) -> None:
    with pytest.raises(ImageError, match="or holds several bands or floats"):
        read_indices(trained[0] / "train_img" / "0.tif")


def test_a_small_translator_of_them(trained: tuple[Path, Path], tmp_path: Path) -> None:
    from img2img.compression.compress import compress

    data, run = trained
    found = compress(run, data, tmp_path / "small", macs=0.5, steps=2, batch_size=2, quiet=True, device="cpu")
    student = img2img.load(tmp_path / "small")
    assert isinstance(student, Translator) and student.config.out_range == LIMITS and student.config.classes
    kept = tifffile.imread(tmp_path / "small" / "teacher" / "val" / "8.tif")
    assert kept.shape == (16, 16, 2) and kept.min() > 100
    maps = read_indices(data / "val_label" / "8.png"), read_indices(data / "val_inst" / "8.png")
    assert np.abs(Translator.load(run)(maps) - kept).max() < 5
    assert found.comparison.to_teacher["l1"] < 1


def test_label_maps_are_no_volumes(tmp_path: Path) -> None:
    write_measured(tmp_path, 1)
    (tmp_path / "train_label" / "0.png").rename(tmp_path / "train_label" / "0.nii.gz")
    errors = LabelledData(DataConfig(path=tmp_path, target_range=LIMITS, classes=4, use_instances=False)).check().errors
    assert any("0.nii.gz is a volume, but a label map must be an image" in error for error in errors)
