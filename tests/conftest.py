"""Tiny data and settings that all tests share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from img2img.config import RunConfig, run_type
from img2img.images import write_image

torch.set_num_threads(1)  # tiny tensors: a second thread only waits for the first


def picture(height: int, width: int, channels: int = 3, seed: int = 0, dtype: Any = np.uint8) -> Any:
    """A smooth random image: (H, W, C)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(6 * (x * random.normal() + y * random.normal()) + random.uniform(0, 6)) for _ in range(channels)]
    return np.rint((np.stack(waves, -1) + 1) / 2 * np.iinfo(dtype).max).astype(dtype)


def write_pairs(folder: Path, count: int, size: int = 16, split: str = "train", first: int = 0) -> Path:
    """trainA and trainB: B is A inverted."""
    for number in range(first, first + count):
        image = picture(size, size, seed=number)
        write_image(folder / f"{split}A" / f"{number}.png", image)
        write_image(folder / f"{split}B" / f"{number}.png", 255 - image)
    return folder


TINY: dict[str, dict[str, Any]] = {
    "pix2pix": {"generator": {"kind": "unet", "channels": 4, "depth": 2}},
    "cyclegan": {"generator": {"kind": "resnet", "channels": 4, "blocks": 1}, "pool": 3},
    "fastcut": {"generator": {"kind": "resnet", "channels": 4, "blocks": 5}, "projection_channels": 8},
    "cut": {"generator": {"kind": "resnet", "channels": 4, "blocks": 5}, "projection_channels": 8},
    "pix2pixhd": {
        "generator": {"channels": 4, "downsampling": 1, "blocks": 1, "enhancers": 1, "enhancer_blocks": 1},
        "discriminator": {"kind": "multiscale", "channels": 4, "layers": 1, "scales": 2},
        "perceptual": {"weight": 0},
        "instance_encoder": {"channels": 4, "downsampling": 1, "features": 2},
        "styles": 3,
    },
    "gan": {
        "generator": {"kind": "dcgan", "channels": 2, "latent": 8},
        "discriminator": {"kind": "dcgan", "channels": 2},
    },
    "infogan": {
        "generator": {"kind": "dcgan", "channels": 2, "latent": 8},
        "discriminator": {"kind": "dcgan", "channels": 2},
        "codes": {"categorical": (3,), "continuous": 1},
    },
    "spade": {
        "generator": {"channels": 2, "hidden": 4},
        "discriminator": {"kind": "multiscale", "channels": 4, "layers": 1, "scales": 2, "spectral_norm": True},
        "perceptual": {"weight": 0},
        "image_encoder": {"channels": 2, "size": 16, "latent": 4},
    },
}


def tiny_config(folder: Path, output: Path, method: dict[str, Any] | None = None, **values: Any) -> RunConfig[Any]:
    """A method, pix2pix unless it is named, with a few thousand weights at 16 pixels, on the CPU in fp32 unless `values` say otherwise."""
    name = (method or {}).get("name", "pix2pix")
    settings = {
        "name": name,
        "discriminator": {"kind": "patch", "channels": 4, "layers": 1},
        **TINY[name],
        **(method or {}),
    }
    from_noise = name in ("gan", "infogan")
    about_data = {"path": folder, "size": 32 if from_noise else 16, **values.pop("data", {})}
    values = {"batch_size": 4, "features": "none", **values} if from_noise else values
    defaults = {"steps": 4, "workers": 0, "device": "cpu", "mixed_precision": "no", "log_every": 1, "output": output}
    config: RunConfig[Any] = run_type(name)(method=settings, data=about_data, **{**defaults, **values})
    return config


COLOURS = np.array([[20, 20, 60], [200, 60, 40], [60, 180, 60], [240, 220, 80]], np.uint8)


def label_map(size: int, seed: int) -> tuple[Any, Any]:
    """Rectangles of the labels 1 to 3 on 0, and their numbers: two arrays (size, size) of uint8."""
    random = np.random.default_rng(seed)
    labels, instances = np.zeros((2, size, size), np.uint8)
    for number in range(1, 5):
        top, left = random.integers(0, size // 2, 2)
        height, width = random.integers(size // 4, size // 2 + 1, 2)
        labels[top : top + height, left : left + width] = (seed + number) % 3 + 1
        instances[top : top + height, left : left + width] = number
    return labels, instances


def write_labelled(folder: Path, count: int, size: int = 16, split: str = "train", first: int = 0) -> Path:
    """train_label, train_inst and train_img: rectangles of four classes, each in its colour, lighter or darker."""
    for number in range(first, first + count):
        labels, instances = label_map(size, number)
        shade = 0.6 + 0.1 * (instances % 5)
        for kind, array in (("label", labels), ("inst", instances)):
            (folder / f"{split}_{kind}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / f"{split}_{kind}" / f"{number}.png")
        image = np.rint(COLOURS[labels] * shade[..., None]).astype(np.uint8)
        write_image(folder / f"{split}_img" / f"{number}.png", image)
    return folder


def write_classes(folder: Path, count: int = 6, size: int = 32, split: str = "train") -> Path:
    """train/dark and train/light: waves in gray, dark or light."""
    for number in range(count):
        image = picture(size, size, 1, seed=number) // 2
        write_image(folder / split / "dark" / f"{number}.png", image)
        write_image(folder / split / "light" / f"{number}.png", 255 - image)
    return folder


def write_unpaired(folder: Path, sources: int = 5, targets: int = 4, size: int = 16, split: str = "train") -> Path:
    """trainA: waves; trainB: other waves, inverted, of other names."""
    for side, count, first in (("A", sources, 0), ("B", targets, 100)):
        for number in range(first, first + count):
            image = picture(size, size, seed=number)
            write_image(folder / f"{split}{side}" / f"{side}{number}.png", image if side == "A" else 255 - image)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Six training and two validation pairs of 16×16 pixels."""
    folder = write_pairs(tmp_path / "pairs", 6)
    return write_pairs(folder, 2, split="val", first=6)


@pytest.fixture
def unpaired(tmp_path: Path) -> Path:
    """Five and four unpaired training images of 16×16 pixels, and four test pairs."""
    folder = write_unpaired(tmp_path / "unpaired")
    return write_pairs(folder, 4, split="test", first=200)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Six label maps with instances and images of 32×32 pixels, and two for validation."""
    return write_labelled(write_labelled(tmp_path / "labelled", 6, 32), 2, 32, split="val", first=6)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Twelve gray training images of 32×32 pixels in two classes, and twelve for validation."""
    return write_classes(write_classes(tmp_path / "classes"), split="val")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run."""
    from img2img.training.run import train

    root = tmp_path_factory.mktemp("trained")
    data = write_pairs(write_pairs(root / "pairs", 4), 2, split="val", first=4)
    return train(tiny_config(data, root / "run", ema=0.5), quiet=True)
