"""Large folders: seconds until all files are listed, until the first image is converted, and peak memory.

    python tools/bench_scale.py --files 100000 1000000
    python tools/bench_scale.py --loader

The folder holds hard links to a few small PNGs, so many in each sub-folder. Each measurement is a process of its own, and the last line is JSON. The conversion
is stopped at its hundredth image; its network is tiny. With --loader: training images a second of one worker, of large and small files, in a folder
and in shards.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import tyro

from img2img.data.base import DataConfig
from img2img.data.class_folders import ClassFolderData
from img2img.data.write_shards import plan_shards, write_shards
from img2img.images import write_image
from img2img.inference.convert import convert
from img2img.inference.plan import Plan
from img2img.inference.report import Stopped
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import build_generator, initialise
from img2img.networks.generators.resnet import ResNetConfig

PICTURES = 64  # that the links lead to
LINKS = 50_000  # to one file, of which file systems allow 65,000

Task = Literal["list", "convert", "find", "check"]


def main(
    files: tuple[int, ...] = (100_000,),
    a_folder: int = 10_000,
    tasks: tuple[Task, ...] = ("list", "convert"),
    loader: bool = False,
    task: Task | None = None,
    folder: Path | None = None,
) -> None:
    """Measures, and prints JSON.

    Args:
        files: How many are in the folder, one measurement each.
        a_folder: How many are in each sub-folder.
        tasks: What is measured: listing, converting, finding a data set's files, checking them.
        loader: Measure the loader instead.
        task: (What a measurement's process does.)
        folder: (Where.)
    """
    if task is not None and folder is not None:
        print(json.dumps(measure(task, folder)))
        return
    if loader:
        print(json.dumps([measure_loader(size, suffix) for size in (256, 512, 2048) for suffix in ("jpg", "png")]))
        return
    found = []
    for count in files:
        with tempfile.TemporaryDirectory() as name:
            fill_folder(Path(name), count, a_folder)
            for each in tasks:
                command = [sys.executable, __file__, "--task", each, "--folder", name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append({"files": count, "task": each, **json.loads(done.stdout.splitlines()[-1])})
                print(found[-1], file=sys.stderr)
    print(json.dumps(found))


def fill_folder(folder: Path, files: int, a_folder: int) -> None:
    """Makes so many links, below ``in``."""
    random = np.random.default_rng(0)
    linked = max(PICTURES, -(-files // LINKS))
    for number in range(linked):
        write_image(folder / f"{number}.png", random.integers(0, 255, (32, 32, 3), np.uint8))
    for number in range(files):
        below = folder / "in" / f"{number // a_folder:05}"
        if number % a_folder == 0:
            below.mkdir(parents=True)
        os.link(folder / f"{number % linked}.png", f"{below}/{number:08}.png")


def measure(task: Task, folder: Path) -> dict[str, float]:
    """Seconds, and the peak of memory beyond what the libraries take."""
    before, started = peak_memory(), time.perf_counter()
    if task == "list":
        count = sum(1 for _ in Plan(folder / "in", folder / "out").jobs(lambda number, outcome: None))
        values: dict[str, float] = {"listed": count}
    elif task == "convert":
        values = {"first_image_s": time_first_image(folder)}
    else:
        data = ClassFolderData(DataConfig(path=folder / "in"))
        if task == "check":
            data.check()
        values = {"found": sum(len(folder.files) for folder in data.splits.values())} if task == "find" else {}
    return {**values, "seconds": round(time.perf_counter() - started, 2), "memory_mb": round(peak_memory() - before)}


def time_first_image(folder: Path) -> float:
    """Seconds until the first image is done; the conversion stops at its hundredth."""
    first, started = [0.0], time.perf_counter()

    def watch(done: float, total: int) -> None:
        if done and not first[0]:
            first[0] = round(time.perf_counter() - started, 2)
        if done >= 100:
            raise KeyboardInterrupt

    chosen = ResNetConfig(channels=8, blocks=1).resolve(3, 3, 32)
    about = TranslatorConfig(method="bench", generator=chosen, size=32, training=Training(img2img="0"))
    translator = Translator(about, initialise(build_generator(chosen)).eval())
    try:
        convert(
            translator,
            folder / "in",
            folder / "out",
            existing="overwrite",
            device="cpu",
            progress=watch,
        )
    except Stopped as stopped:
        assert stopped.report.count("done") >= 100
    return first[0]


def measure_loader(size: int, suffix: str) -> dict[str, float | str]:
    """Training images of 256 pixels a second of one worker, of photo-like files of so many pixels."""
    count = max(24, 200 * 256 // size)
    random = np.random.default_rng(0)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            coarse = random.integers(0, 255, (size // 16, size // 16, 3), np.uint8)
            image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
            noisy = image.astype(int) + random.normal(0, 3, image.shape)
            write_image(Path(name, "in", f"{number:04}.{suffix}"), noisy.clip(0, 255).astype(np.uint8))
        data = ClassFolderData(DataConfig(path=Path(name, "in")))
        write_shards(Path(name, "shards"), plan_shards(data.list_samples(), 10**8))
        bytes_a_file = sum(file.stat().st_size for file in Path(name, "in").iterdir()) / count
        found: dict[str, float | str] = {"pixels": size, "format": suffix, "kilobytes": round(bytes_a_file / 1000)}
        for where in ("in", "shards"):
            opened = ClassFolderData(DataConfig(path=Path(name, where)))
            opened.divide(0)
            images = opened.build_training_set(DataConfig(size=256).build_transform(), 3, 3, 0)
            rates = []
            for epoch in range(4):
                started = time.perf_counter()
                for place in range(count):
                    images[epoch, place]
                rates.append(count / (time.perf_counter() - started))
            found["folder" if where == "in" else "shards"] = round(max(rates), 1)
    return found


def peak_memory() -> float:
    """Of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    tyro.cli(main)
