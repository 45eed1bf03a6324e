"""Label maps are indices, as they stand in their files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.data import picture
from PIL import Image

from img2img.images import ImageError
from img2img.images.labels import read_indices

MAP = np.arange(24, dtype=np.uint8).reshape(4, 6)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif"])
def test_8_bits(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(MAP).save(tmp_path / f"a.{suffix}")
    found = read_indices(tmp_path / f"a.{suffix}")
    assert found.dtype == np.int64 and np.array_equal(found, MAP)


def test_16_and_32_bits(tmp_path: Path) -> None:
    Image.fromarray(MAP.astype(np.uint16) * 2600).save(tmp_path / "a.png")
    assert np.array_equal(read_indices(tmp_path / "a.png"), MAP.astype(int) * 2600)
    Image.fromarray(MAP.astype(np.int32) * 100_000).save(tmp_path / "a.tif")
    assert np.array_equal(read_indices(tmp_path / "a.tif"), MAP.astype(int) * 100_000)
    np.save(tmp_path / "a.npy", MAP.astype(np.int64) * 2**40)
    assert np.array_equal(read_indices(tmp_path / "a.npy"), MAP.astype(int) * 2**40)
    Image.fromarray(MAP > 10).save(tmp_path / "bits.png")
    assert np.array_equal(read_indices(tmp_path / "bits.png"), MAP > 10)


def test_a_palette_gives_its_indices(tmp_path: Path) -> None:
    image = Image.fromarray(MAP, "P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(tmp_path / "a.png", transparency=3)
    assert np.array_equal(read_indices(tmp_path / "a.png"), MAP)


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("a.png", Image.fromarray(picture(4, 6)), "holds colours, not indices"),
        ("a.png", Image.fromarray(picture(4, 6, 4)), "holds colours, not indices"),
        ("a.jpg", Image.fromarray(MAP), "is a JPEG"),
        ("a.tif", Image.fromarray(MAP.astype(np.float32)), "holds floats"),
    ],
)
def test_what_is_no_label_map_is_said(tmp_path: Path, name: str, image: Any, words: str) -> None:
    image.save(tmp_path / name)
    with pytest.raises(ImageError, match=words):
        read_indices(tmp_path / name)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    np.save(tmp_path / "b.npy", np.zeros((2, 3, 4), int))
    np.save(tmp_path / "c.npy", np.zeros((2, 3)))
    for name, words in {
        "a.png": "can't be read",
        "b.npy": "of shape",
        "c.npy": "float64",
        "d.png": "does not exist",
    }.items():
        with pytest.raises(ImageError, match=rf"{name}.*{words}"):
            read_indices(tmp_path / name)
