"""Measurements from the data set to the converted file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers.configs import tiny_config
from helpers.data import write_bands

from img2img.core.errors import UsageError
from img2img.data.base import DataConfig
from img2img.data.paired import PairedData
from img2img.data.transforms import JointTransform
from img2img.data.unpaired import UnpairedData
from img2img.inference.convert import convert
from img2img.inference.evaluate import evaluate
from img2img.models import Translator
from img2img.training.train import train

SOURCE, TARGET = (-1000.0, 3000.0), (0.0, 10000.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bands")
    data = write_bands(folder / "data")
    train(tiny_config(data, folder / "run", data={"source_range": SOURCE, "target_range": TARGET}), quiet=True)
    return data, folder / "run"


def open_data(kind: Any, folder: Path) -> tuple[Any, Any]:
    """Bands as data of a kind, checked and divided; and the first sample."""
    data = kind(DataConfig(path=write_bands(folder), source_range=SOURCE, target_range=TARGET, size=32))
    report = data.check()
    assert (report.in_channels, report.out_channels, report.errors) == (4, 1, [])
    data.divide(0)
    return data, data.build_training_set(JointTransform(32, jitter=1, flip=0), 4, 1, 0)[0, 0]


def test_samples_are_scaled_by_their_side(tmp_path: Path) -> None:
    data, sample = open_data(PairedData, tmp_path)
    values = tifffile.imread(data.train[0].source)
    np.testing.assert_allclose(sample["source"].numpy(), (values.transpose(2, 0, 1) + 1000) / 2000 - 1, atol=1e-5)
    np.testing.assert_allclose(sample["target"][0].numpy(), sample["source"][0].numpy(), atol=2e-3)


@pytest.mark.parametrize(
    "options", [{"rotate": 20}, {"quarter_turns": True}, {"resize": "stretch"}, {"vertical_flip": 1}]
)
@pytest.mark.parametrize("bands", [1, 2, 4, 5, 12])
def test_bands_are_augmented_alike(options: dict[str, Any], bands: int) -> None:
    plane = np.random.default_rng(0).random((40, 48, 1)).astype(np.float32)
    source, target = JointTransform(32, **options)(np.repeat(plane, bands, axis=2), plane, 3)
    assert source.shape == (32, 32, bands)
    np.testing.assert_allclose(
        source, np.repeat(target.reshape(32, 32, 1), bands, axis=2), atol=0.02
    )  # OpenCV warps in steps of 1/32


def test_ranges_turn_with_the_direction(tmp_path: Path) -> None:
    data, sample = open_data(UnpairedData, tmp_path)
    assert all(-1 <= sample[side].min() < -0.5 and 0.5 < sample[side].max() <= 1 for side in ("source", "target"))
    assert data.validation_set("BtoA").pairs[0].ranges == (TARGET, SOURCE)
    assert data.validation_set("AtoB").pairs[0].ranges == (SOURCE, TARGET)


def test_a_run_knows_its_ranges(trained: tuple[Path, Path]) -> None:
    config = Translator.load(trained[1]).config
    assert (config.in_range, config.out_range) == (SOURCE, TARGET)
    assert (config.generator.in_channels, config.generator.out_channels) == (4, 1)


def test_a_folder_is_converted_to_values(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    report = convert(run, data / "valA", tmp_path / "out", device="cpu")
    assert report.count("done") == 2
    made = tifffile.imread(tmp_path / "out" / "0.tif")
    assert made.dtype == np.int16 and made.shape == (32, 32) and made.max() > 300
    values = tifffile.imread(data / "valA" / "0.tif")
    model = Translator.load(run)
    direct = model(values)
    assert direct.dtype == np.int16 and direct.shape == (32, 32, 1)
    assert np.abs(direct[..., 0].astype(int) - made).max() <= 2
    convert(run, data / "valA", tmp_path / "png", format="png", device="cpu")
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == ["0.png", "1.png"]


def test_scores_are_of_scaled_values(trained: tuple[Path, Path]) -> None:
    data, run = trained
    model = Translator.load(run)
    found = evaluate(model, data)
    differences = []
    for place in range(2):
        made = model(tifffile.imread(data / "valA" / f"{place}.tif").astype(np.float32))[..., 0]
        differences.append(np.abs(made / 10000 - tifffile.imread(data / "valB" / f"{place}.tif") / 10000).mean())
    assert found.metrics["l1"] == pytest.approx(np.mean(differences), abs=1e-4)
    assert found.copy_input is None  # four bands are no depth map


def test_other_numbers_of_bands_are_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run = trained[1]
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((16, 16, 3), np.int16), photometric="minisblack", planarconfig="contig"
    )
    report = convert(run, tmp_path / "a.tif", tmp_path / "b.tif", device="cpu")
    assert "it has 3 bands, and this translator takes 4" in next(iter(report.outcomes)).reason
    mixed = write_bands(tmp_path / "mixed")
    tifffile.imwrite(
        mixed / "trainB" / "1.tif", np.zeros((32, 32, 2), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    errors = PairedData(DataConfig(path=mixed, source_range=SOURCE, target_range=TARGET, size=32)).check().errors
    assert any("target: the numbers of bands differ: 7 files have 1, 1 files have 2" in error for error in errors)


def test_what_a_range_is_for(tmp_path: Path) -> None:
    data = write_bands(tmp_path)
    assert any(
        "--data.range" in error
        for error in PairedData(DataConfig(path=write_bands(tmp_path / "b", bands=6))).check().errors
    )
    clipped = PairedData(DataConfig(path=data, range=(0, 1000), size=32)).check()
    assert any("are clipped" in warning for warning in clipped.warnings)
    wide = PairedData(DataConfig(path=data, range=(-1e6, 1e6), size=32)).check()
    assert any("hardly any contrast" in warning for warning in wide.warnings)
    with pytest.raises(ValueError, match="the lower one first"):
        DataConfig(path=data, range=(5, 1))
    with pytest.raises(UsageError, match="colour-jitter"):
        PairedData.refuse_options(DataConfig(path=data, range=(0, 1), colour_jitter=0.5), "pix2pix")


def test_sides_of_other_bands_without_pairs(tmp_path: Path) -> None:
    data = write_bands(tmp_path)
    for path in sorted((data / "valB").iterdir()):
        path.rename(path.with_stem(f"other{path.stem}"))
    opened = UnpairedData(DataConfig(path=data, source_range=SOURCE, target_range=TARGET, size=32))
    opened.check()
    opened.divide(0)
    images = opened.validation_set("")
    source, _ = images.read(images.pairs[0], 32, "short", 4, 1, None)
    assert source.shape == (32, 32, 4)
    assert images.build_dataset(images.pairs, JointTransform(32), 4, 1, 0)[0, 0]["source"].shape == (4, 32, 32)


def test_channels_that_bands_do_not_have(tmp_path: Path) -> None:
    settings: Any = {"path": write_bands(tmp_path), "source_range": SOURCE, "target_range": TARGET, "size": 32}
    errors = PairedData(DataConfig(**settings, in_channels=3)).check().errors
    assert errors == ["--data.in-channels 3: the files have 4 bands; leave it out."]
    assert PairedData(DataConfig(**settings, in_channels=4)).check().errors == []


def test_arrays_beside_images_are_no_images(tmp_path: Path) -> None:
    for side in ("trainA", "trainB"):
        (tmp_path / side).mkdir()
        tifffile.imwrite(tmp_path / side / "a.tif", np.zeros((32, 32), np.uint8))
    np.save(tmp_path / "trainA" / "a.npy", np.zeros(7))
    report = PairedData(DataConfig(path=tmp_path, size=32)).check()
    assert report.splits == {"train": 1} and report.errors == []


def test_a_model_goes_on_with_its_ranges(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    begun: Any = {"finetune": {"init": (run,)}, "steps": 1}
    with pytest.raises(UsageError, match="makes measurements from 0 to 10000"):
        train(tiny_config(data, tmp_path / "a", data={"source_range": SOURCE}, **begun), quiet=True)
    ranges = {"source_range": SOURCE, "target_range": (0.0, 12000.0)}
    train(tiny_config(data, tmp_path / "b", data=ranges, **begun), quiet=True)
    assert Translator.load(tmp_path / "b").config.out_range == (0, 12000)
