"""A large image in strips against the same image at once, and against plain tiles: numbers, times, and a picture.

    python tools/compare_tiles.py --model my-run --image photo.png --tile 256

The picture: above the input, strips and plain tiles side by side; below the whole image's result, and how far both are from it, ×4.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

import img2img
from img2img.core.device import choose_device, tune_allocator
from img2img.images import convert_channels, read_image, resize, write_image
from img2img.images.tensors import to_array, to_tensor


def main(model: Path, image: Path, tile: int = 256, output: Path = Path("tiles.png"), device: str = "auto") -> None:
    """Prints JSON and writes a picture.

    Args:
        model: A translator's or a run's folder, with instance norm if tiles are to go wrong.
        image: Small enough to be translated at once.
        tile: Height and width of tiles and strips in pixels.
        output: The picture.
        device: auto, cpu, cuda.
    """
    tune_allocator()
    translator = img2img.Translator.load(model, choose_device(device))
    source = to_tensor(convert_channels(read_image(image), translator.in_channels))[None]

    def in_tiles() -> Tensor:
        rows = [
            torch.cat([translator(part, tile=0) for part in row.split(tile, dim=3)], dim=3)
            for row in source.split(tile, 2)
        ]
        return torch.cat(rows, dim=2)

    whole, seconds = timed(lambda: translator(source, tile=0))
    strips, seconds_strips = timed(lambda: translator(source, tile=tile))
    tiles, seconds_tiles = timed(in_tiles)
    found = {
        "size": list(source.shape[-2:]),
        "seconds": {"whole": seconds, "strips": seconds_strips, "tiles": seconds_tiles},
        "largest_difference": {
            "strips": distance(strips, whole).max().item(),
            "tiles": distance(tiles, whole).max().item(),
        },
        "mean_difference": {
            "strips": distance(strips, whole).mean().item(),
            "tiles": distance(tiles, whole).mean().item(),
        },
    }
    print(json.dumps(found, indent=1))
    columns = (source, whole), (strips, 1 - 4 * distance(strips, whole)), (tiles, 1 - 4 * distance(tiles, whole))
    parts = [np.concatenate([convert_channels(to_array(each[0]), 3) for each in column]) for column in columns]
    picture = np.concatenate(parts, axis=1)
    shrink = min(1.0, 1800 / picture.shape[1])
    write_image(output, resize(picture, round(picture.shape[0] * shrink), round(picture.shape[1] * shrink)))


def distance(image: Tensor, truth: Tensor) -> Tensor:
    """Of values in [-1, 1]."""
    return (image - truth).abs()


def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What comes out, on the CPU, and the seconds."""
    started = time.perf_counter()
    done = work().cpu()
    return done, round(time.perf_counter() - started, 2)


if __name__ == "__main__":
    tyro.cli(main)
