"""Training images that are wider than high: `--size` is their height, `--width` their width."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.configs import tiny_config
from helpers.data import write_labelled, write_unpaired
from PIL import Image

import img2img
from img2img.core.errors import UsageError
from img2img.images import write_image
from img2img.training.train import train


@pytest.mark.parametrize(
    "method",
    [
        {"name": "pix2pix", "generator": {"kind": "unet", "channels": 4, "depth": 2}},
        {"name": "cyclegan"},
        {"name": "fastcut"},
        {"name": "pix2pixhd", "encoder": True, "pool": 2},
        {"name": "spade", "encoder": True},
    ],
    ids=lambda method: method["name"],
)
def test_every_method_trains_so(tmp_path: Path, method: Any) -> None:
    unpaired = method["name"] in ("cyclegan", "fastcut")
    data = write_unpaired(tmp_path / "data", 3, 3, 32) if unpaired else write_labelled(tmp_path / "data", 3, 32)
    size = 64 if method["name"] == "spade" else 16
    run = train(
        tiny_config(data, tmp_path / "run", method, steps=2, data={"size": size, "width": 2 * size}), quiet=True
    )
    direction: Any = {"direction": "AtoB"} if method["name"] == "cyclegan" else {}
    config = img2img.load(run, **direction).config
    assert (config.size, config.width) == (size, 2 * size)
    picture = Image.open(sorted((run / "samples").glob("*.png"))[-1])
    assert picture.width > 2 * size * 2, "columns as wide as the images"
    if method["name"] == "pix2pixhd":
        assert img2img.load(run / "coarse").config.width == size


def test_what_does_not_fit_is_said(pairs: Path, tmp_path: Path) -> None:
    write_image(pairs / "trainA" / "0.png", np.zeros((16, 16, 3), np.uint8))
    for data, words in (
        ({"width": 18}, "--width 18: this generator needs a multiple of 4"),
        ({"width": 32, "quarter_turns": True}, "square"),
    ):
        with pytest.raises(UsageError, match=words):
            train(tiny_config(pairs, tmp_path / "run", data=data), quiet=True)
