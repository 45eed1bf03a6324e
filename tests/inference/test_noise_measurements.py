"""Measurements made from noise: trained on, sampled, compared."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers.configs import tiny_config
from helpers.data import write_bands
from helpers.translators import sampler

from img2img.core.errors import UsageError
from img2img.data.class_folders import read_plain_images
from img2img.images import read_image
from img2img.images.tensors import build_sheet
from img2img.inference.evaluate_samples import evaluate_samples
from img2img.inference.invert import invert
from img2img.inference.sample import sample
from img2img.models import Latents, NoiseGenerator, find_latents
from img2img.networks.generators.base import Codes
from img2img.training.train import train
from img2img.training.validation import draw_contact_sheet

LIMITS = (-1000.0, 3000.0)


def measuring(kind: str = "dcgan", **values: Any) -> NoiseGenerator:
    model = sampler(kind, **values)
    model.config = model.config.model_copy(update={"range": LIMITS})
    return model


def test_samples_are_values() -> None:
    plain, model = sampler(), measuring()
    values = model.sample(3)
    assert values.dtype == np.float32 and values.shape == (3, 32, 32, 1)
    np.testing.assert_allclose(values, plain.sample(3) / 255.0 * 4000 - 1000, atol=4000 / 255)
    assert np.array_equal(model.show(values), plain.sample(3))
    np.testing.assert_allclose(model.scale(values) * 4000 - 1000, values, atol=0.01)
    assert plain.show(plain.sample(1)).dtype == np.uint8
    many = np.zeros((2, 4, 4, 5), np.float32)
    assert model.show(many).shape == (2, 4, 4, 3) and model.show(many[..., :2]).shape == (2, 4, 4, 1)
    assert "measurements of 1 band, from -1000 to 3000" in repr(model)


def test_files_hold_values_and_sheets_are_pictures(tmp_path: Path) -> None:
    plain, model = sampler(), measuring()
    files = sample(model, tmp_path / "single", count=3)
    assert [file.name for file in files] == ["seed0000.tif", "seed0001.tif", "seed0002.tif", "sheet.png"]
    np.testing.assert_allclose(tifffile.imread(files[2]), model.sample(3)[2, ..., 0], atol=0.01)
    sample(plain, tmp_path / "plain", count=3)
    assert np.array_equal(read_image(tmp_path / "plain" / "sheet.png"), read_image(files[3]))
    assert np.array_equal(draw_contact_sheet(model), draw_contact_sheet(plain))
    walk = sample(model, tmp_path / "walk", interpolate=(0, 1), steps=3)
    assert {file.name for file in walk} == {"step0000.tif", "step0001.tif", "step0002.tif", "walk.gif", "sheet.png"}
    np.testing.assert_allclose(tifffile.imread(walk[0]), model.sample(1)[0, ..., 0], atol=0.01)
    Latents(images=tuple(find_latents(model, [1]))).save(tmp_path / "latents.json")
    (image, _) = sample(model, tmp_path / "again", latents=tmp_path / "latents.json")
    np.testing.assert_allclose(tifffile.imread(image), model.sample(2)[1, ..., 0], atol=0.01)
    with pytest.raises(UsageError, match=r"seed0000\.tif exists"):
        sample(model, tmp_path / "single", count=3)


def test_sweeps_and_mixtures_are_shown(tmp_path: Path) -> None:
    codes = Codes(categorical=(3,), continuous=1)
    (sweep,) = sample(measuring(codes=codes), tmp_path / "sweep", sweep=0, count=2)
    assert np.array_equal(read_image(sweep), build_sheet(sampler(codes=codes).sweep(0, 2)))
    model = measuring("style")
    files = sample(model, tmp_path / "mix", style_mix=("0..1", "2"), layers="0-1")
    assert [file.name for file in files] == ["mix0000_0000.tif", "mix0001_0000.tif", "sheet.png"]
    assert tifffile.imread(files[0]).dtype == np.float32
    sample(sampler("style"), tmp_path / "plain", style_mix=("0..1", "2"), layers="0-1")
    assert np.array_equal(read_image(files[2]), read_image(tmp_path / "plain" / "sheet.png"))
    with pytest.raises(UsageError, match="makes measurements"):
        invert(model, np.zeros((32, 32, 1), np.uint8))


def test_a_run_has_the_range_of_its_data(tmp_path: Path) -> None:
    write_bands(tmp_path / "pairs", count=12)
    data = (tmp_path / "data").mkdir() or tmp_path / "data"
    (tmp_path / "pairs" / "trainA").rename(data / "train")
    (tmp_path / "pairs" / "valA").rename(data / "val")
    config = tiny_config(data, tmp_path / "run", {"name": "gan"}, data={"range": LIMITS})
    train(config, quiet=True)
    model = NoiseGenerator.load(tmp_path / "run")
    assert model.config.range == LIMITS and model.sample(1).shape == (1, 32, 32, 4)
    real = read_plain_images([data / "train" / "0.tif"], 32, "short", 4, limits=LIMITS)
    unit = (tifffile.imread(data / "train" / "0.tif").astype(np.float32) + 1000) / 4000
    np.testing.assert_allclose(real[0], unit * 255, atol=1)
    for number in range(10):
        (data / "train" / f"{number}.tif").rename(data / "val" / f"more{number}.tif")
    found = evaluate_samples(model, data, count=12)
    assert (found.about["real"], found.about["size"]) == (12, 32) and found.metrics["kid"] > 0
