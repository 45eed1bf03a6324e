"""Converted images/s and peak memory, ours against the plainest loop, and which share of the machine's limit that is.

    python tools/bench_convert.py --generator resnet
    python tools/bench_convert.py --generator unet --images 200

The plainest loop is what research code does: PIL, one image after the other, eager fp32 NCHW, PNG. Each measurement is a process
of its own, ours and plain in turn, over one folder of JPEGs that the tool makes; the medians and their ratio are printed as JSON, with
where ours spends its time (decoding and encoding are summed over threads, beside the network), and the network alone against the
rate of one large convolution.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from img2img.core.device import choose_device, tune_allocator
from img2img.images import write_image
from img2img.images.tensors import to_array, to_tensor
from img2img.inference.convert import convert
from img2img.inference.engine import TORCH, DType, Engine
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import GENERATORS, build_generator, initialise

Side = Literal["ours", "plain", "limit"]


def main(
    generator: Literal["unet", "resnet"] = "resnet",
    size: int = 256,
    images: int = 64,
    channels: int = 64,
    dtype: DType = "auto",
    batch_size: int | None = None,
    format: str = "png",
    device: str = "auto",
    repeats: int = 3,
    side: Side | None = None,
    folder: Path | None = None,
) -> None:
    """Measures, and prints JSON.

    Args:
        generator: The network, with random weights.
        size: Height and width of the images in pixels.
        images: In the folder.
        channels: Width of the network.
        dtype: Of ours; plain is fp32.
        batch_size: Of ours; by default its own choice.
        format: Of the outputs.
        device: auto, cpu, cuda.
        repeats: Processes a side.
        side: Measure only this side, in this process.
        folder: Of the images, for one side.
    """
    if side is None:
        print(json.dumps(_all(sys.argv[1:], repeats, images, size), indent=1))
        return
    torch.manual_seed(0)
    settings = GENERATORS[generator][0].model_validate({"channels": channels}).resolve(3, 3, size)
    about = TranslatorConfig(method="bench", generator=settings, size=size, training=Training(img2img="0"))
    network = initialise(build_generator(settings)).eval().to(choose_device(device))
    translator = Translator(about, network)
    if side == "limit":
        print(json.dumps(_limit(translator, dtype, size)))
        return
    assert folder is not None
    with tempfile.TemporaryDirectory() as output:
        started, more = time.perf_counter(), {}
        if side == "plain":
            _plain(network, folder, Path(output), format)
        else:
            report = convert(
                translator, folder, output, format=format, dtype=dtype, batch_size=batch_size, existing="overwrite"
            )
            assert report.count("done") == images, report.remarks()
            more = {name: round(value, 3) for name, value in vars(report.times).items()}
        rate = images / (time.perf_counter() - started)
    print(json.dumps({"rate": rate, "gigabytes": _peak_memory(translator.device), **more}))


def _plain(network: torch.nn.Module, source: Path, target: Path, format: str) -> None:
    device = next(network.parameters()).device
    for file in sorted(source.iterdir()):
        image = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)
        with torch.no_grad():
            done = network(image[None].to(device).float() / 127.5 - 1)[0]
        array = ((done.permute(1, 2, 0).cpu().numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(array).save(target / f"{file.stem}.{format}")


def _all(arguments: list[str], repeats: int, images: int, size: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder), images, size)
        for _ in range(repeats):
            for side, measured in found.items():
                measured.append(_process([*arguments, "--side", side, "--folder", folder]))
        limit = _process([*arguments, "--side", "limit"])
    rates = {side: statistics.median(each["rate"] for each in measured) for side, measured in found.items()}
    memory = {side: statistics.median(each["gigabytes"] for each in measured) for side, measured in found.items()}
    return {
        "arguments": arguments,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "images_per_second": rates,
        "ratio": rates["ours"] / rates["plain"],
        "peak_gigabytes": memory,
        "all": found,
        "network_alone": limit,
    }


def _process(arguments: list[str]) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _make(folder: Path, images: int, size: int) -> None:
    random = np.random.default_rng(0)
    for number in range(images):
        small = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        smooth = F.interpolate(to_tensor(small)[None], size=size, mode="bicubic")[0]
        write_image(folder / f"{number:04d}.jpg", to_array(smooth))


def _limit(translator: Translator, dtype: DType, size: int) -> dict[str, Any]:
    """The network alone, on images in memory, and one large convolution of the same dtype: their rates in 10⁹ operations a second."""
    tune_allocator()
    sample = torch.randn(8, 3, size, size).tanh()
    engine = Engine(translator, "eval", dtype, samples=[sample[:1]])
    device, kind = translator.device, TORCH[engine.dtype]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        translator.generator(sample[:1].to(device))
    x = torch.randn(8, 256, 64, 64, device=device, dtype=kind).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=kind).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        network = _seconds(lambda: engine.for_8_bits(sample), device) / len(sample)
        one = _seconds(lambda: F.conv2d(x, weight, padding=1), device)
    rate = counter.get_total_flops() / network / 1e9
    peak = 2 * 8 * 256 * 256 * 9 * 64 * 64 / one / 1e9
    return {
        "dtype": engine.dtype,
        "images_per_second": 1 / network,
        "gflops": rate,
        "convolution_gflops": peak,
        "share": rate / peak,
    }


def _seconds(step: Any, device: torch.device) -> float:
    times = []
    for _ in range(12):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[3:])


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in kilobytes


if __name__ == "__main__":
    tyro.cli(main)
