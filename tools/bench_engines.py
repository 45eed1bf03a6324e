"""Converted images/s of translators by PyTorch, OpenVINO, and in int8, as ratios to the first translator by PyTorch.

    python tools/bench_engines.py TEACHER STUDENT
    python tools/bench_engines.py TEACHER STUDENT --photos FOLDER --images 200

Each measurement is a conversion in a process of its own, JPEG to PNG, all variants in turn; medians are printed as JSON, with the PSNR to
what the same translator makes in fp32. Seconds for imports, compiling and calibrating are beside the rate, not in it.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from tyro.conf import Positional

from img2img.images import read_image, write_image
from img2img.images.tensors import to_array, to_tensor
from img2img.inference.convert import convert
from img2img.inference.engine import Backend, DType

VARIANTS: dict[str, tuple[Backend, DType]] = {
    "torch": ("torch", "auto"),
    "openvino": ("openvino", "auto"),
    "int8": ("openvino", "int8"),
}


def main(
    models: Positional[tuple[Path, ...]],
    photos: Path | None = None,
    images: int = 64,
    size: int = 256,
    repeats: int = 3,
    variants: tuple[str, ...] = tuple(VARIANTS),
    one: str | None = None,
    output: Path | None = None,
) -> None:
    """Measures, and prints JSON.

    Args:
        models: Translators; the first is what others are compared with.
        photos: Images to convert; by default smooth noise is drawn.
        images: How many, of the photos or drawn.
        size: Height and width in pixels, to which photos are scaled.
        repeats: Processes a variant.
        variants: Of torch, openvino and int8.
        one: Measure only this variant of the first model, in this process, on the photos.
        output: Of one variant.
    """
    if one is not None:
        assert photos is not None and output is not None
        engine, dtype = ("torch", "fp32") if one == "exact" else VARIANTS[one]
        assert engine in get_args(Backend)
        report = convert(models[0], photos, output, engine=engine, dtype=dtype, format="png", existing="overwrite")  # type: ignore[arg-type]
        assert not report.failures, report.remarks()
        print(json.dumps({**vars(report.times), "notes": report.notes}))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "photos")
        _prepare(source, photos, images, size)
        exact = {
            model: _measure(model, source, Path(folder, "exact", str(k)), "exact")[1] for k, model in enumerate(models)
        }
        found: dict[str, Any] = {}
        for _ in range(repeats):
            for model in models:
                for variant in variants:
                    times, made = _measure(model, source, Path(folder, "made"), variant)
                    entry = found.setdefault(f"{model} {variant}", {"rates": [], "notes": times["notes"]})
                    entry["rates"].append(images / times["total"])
                    entry["network"], entry["waiting"] = (round(times[name], 2) for name in ("network", "waiting"))
                    entry["psnr"] = round(_psnr(made, exact[model]), 1)
    for entry in found.values():
        entry["rate"] = round(statistics.median(entry["rates"]), 2)
    first = next(iter(found.values()))["rate"]
    for entry in found.values():
        entry["ratio"] = round(entry["rate"] / first, 2)
        entry["rates"] = [round(rate, 2) for rate in entry["rates"]]
    about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "images": images, "size": size}
    print(json.dumps({**about, "found": found}, indent=1))


def _prepare(folder: Path, photos: Path | None, images: int, size: int) -> None:
    random = np.random.default_rng(0)
    files = sorted(file for file in photos.rglob("*") if file.is_file())[:images] if photos else [None] * images
    for number, file in enumerate(files):
        image = random.integers(0, 255, (8, 8, 3), dtype=np.uint8) if file is None else read_image(file)[..., :3]
        scaled = F.interpolate(to_tensor(image)[None], size=size, mode="bicubic")[0]
        write_image(folder / f"{number:04d}.jpg", to_array(scaled))


def _measure(model: Path, photos: Path, output: Path, variant: str) -> tuple[dict[str, Any], Path]:
    arguments = [str(model), "--photos", str(photos), "--one", variant, "--output", str(output)]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result, output


def _psnr(made: Path, exact: Path) -> float:
    errors = [
        np.square(read_image(file) / 255.0 - read_image(exact / file.name) / 255.0).mean() for file in made.iterdir()
    ]
    return float(10 * np.log10(1 / max(float(np.mean(errors)), 1e-12)))


if __name__ == "__main__":
    tyro.cli(main)
