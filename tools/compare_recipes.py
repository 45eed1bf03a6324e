"""Trains recipes for equal minutes, with several seeds, and draws what they make: a table, and a contact sheet.

    python tools/compare_recipes.py pix2pix --data line2shaded --size 128 --minutes 9 --seeds 0 1 --output compared \
        --recipe "paper=--recipe paper" "small=--recipe small" [--judge judge.py]

Each run trains on one core. How many updates go into the minutes is measured beforehand, on an otherwise idle core, so
that the learning rate's schedule is whole. The judge is a Python file with a class `Judge` that maps uint8 images
(B, 3, H, W) to features (B, D) of a network that nothing was trained with.
"""

import json
import os
import resource
import runpy
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor

from img2img.data.paired import find_pairs
from img2img.images import Array, convert_channels, read_image, write_image
from img2img.metrics.distribution import distances, features

CALIBRATION = 30  # updates
COLUMNS = 14  # of the contact sheet
NEVER = "1000000"


@dataclass
class Trial:
    """One recipe with one seed."""

    name: str
    seed: int
    updates: int
    seconds: float
    megabytes: float
    scores: dict[str, float]
    images: Path


def main(
    method: Annotated[str, tyro.conf.Positional],
    data: Path,
    output: Path,
    recipe: list[str],
    size: int = 128,
    minutes: float = 9,
    seeds: tuple[int, ...] = (0,),
    judge: Path | None = None,
    direction: str | None = None,
) -> None:
    """Compares recipes.

    Args:
        method: As of `img2img train`.
        data: A data set whose val or test split has pairs of the same names.
        output: A new folder.
        recipe: NAME=OPTIONS of `img2img train`, several.
        size: Pixels.
        minutes: Of training, each.
        seeds: One run of each recipe a seed.
        judge: A Python file with a class Judge.
        direction: Of methods that learn both.
    """
    output.mkdir(parents=True)
    splits = find_pairs(data)
    split = next(splits[name] for name in ("val", "test") if name in splits)
    network = runpy.run_path(str(judge))["Judge"]() if judge else None
    truth = [convert_channels(read_image(pair.target), 3) for pair in split.pairs]
    real = features(network, truth, torch.device("cpu")) if network else None
    trials = []
    for name, options in (each.split("=", 1) for each in recipe):
        common = ["train", method, "--data", data, "--size", size, "--validate-every", NEVER, *shlex.split(options)]
        rate = measure_updates([*common, "--steps", CALIBRATION, "--output", output / f"{name}-calibration"])
        updates = max(1, round(rate * minutes * 60))
        for seed in seeds:
            run = output / f"{name}-{seed}"
            seconds, megabytes = call([*common, "--steps", updates, "--seed", seed, "--log-every", 50, "--output", run])
            way = ["--direction", direction] if direction else []
            images, scores = output / f"{name}-{seed}-images", output / f"{name}-{seed}.json"
            images.mkdir()
            model = run / direction / "latest" if direction else run / "latest"
            call(["evaluate", "--model", model, "--data", data, "--features", "lite", "--json", scores, *way])
            call(["convert", split.pairs[0].source.parent, images, "--model", model, *way])
            found = json.loads(scores.read_text())["metrics"]
            if network is not None and real is not None:
                found |= ask_judge(network, [images / f"{pair.name}.png" for pair in split.pairs], real)
            trials.append(Trial(name, seed, updates, seconds, megabytes, found, images))
            print_table(trials)
    draw(output / "contact-sheet.png", trials, [(pair.name, pair.source, pair.target) for pair in split.pairs])


def call(arguments: list[Any]) -> tuple[float, float]:
    """Calls img2img on one core; gives its seconds, and the most memory in MB that a call has taken so far."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    started = time.perf_counter()
    command = [sys.executable, "-m", "img2img", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}\n{done.stderr[-2000:]}")
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def measure_updates(arguments: list[Any]) -> float:
    """Updates a second of a short run."""
    folder = Path(arguments[-1])
    call([*arguments, "--log-every", 5])
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    speeds = [line["images_per_second"] for line in lines if "images_per_second" in line][1:]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    return statistics.median(speeds) / config["batch_size"] / config["accumulation"]


def ask_judge(network: Any, files: list[Path], real: Tensor) -> dict[str, float]:
    """The Fréchet distance and KID of images to the truth, and the mean cosine distance of each to its own."""
    images: list[Array] = [convert_channels(read_image(file), 3) for file in files]
    made = features(network, images, torch.device("cpu"))
    found = distances(made, real)
    cosine = (1 - F.cosine_similarity(made, real)).mean().item()
    return {"judge FD": found["fid"], "judge KID": found["kid"], "judge distance": cosine}


def print_table(trials: list[Trial]) -> None:
    names = list(trials[0].scores)
    table = Table("recipe", "seed", "updates", "s/update", "MB", *names)
    for each in trials:
        row = each.seed, each.updates, f"{each.seconds / each.updates:.3f}", f"{each.megabytes:.0f}"
        table.add_row(each.name, *map(str, row), *(f"{each.scores[name]:.4f}" for name in names))
    Console(width=180).print(table)


def draw(file: Path, trials: list[Trial], pairs: list[tuple[str, Path, Path]]) -> None:
    """A row of sources, a row for each trial, and the targets."""
    places = np.linspace(0, len(pairs) - 1, min(COLUMNS, len(pairs))).astype(int)
    chosen = [pairs[place] for place in places]
    rows = [[source for _, source, _ in chosen]]
    rows += [[each.images / f"{name}.png" for name, _, _ in chosen] for each in trials]
    rows += [[target for _, _, target in chosen]]
    read = [np.concatenate([convert_channels(read_image(file), 3) for file in row], 1) for row in rows]
    write_image(file, np.concatenate(read))


if __name__ == "__main__":
    tyro.cli(main)
