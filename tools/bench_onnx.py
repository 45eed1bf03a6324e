"""How far ONNX files are from PyTorch, network by network and size by size, and how fast onnxruntime computes them.

    python tools/bench_onnx.py [--threads 2] [--repeats 5] [--only unet resnet]

Differences are the largest of values in [-1, 1], between onnxruntime and PyTorch in fp32, of the papers' networks with random weights whose
outputs fill the range; of 8-bit images in and out, in steps of 255. Speeds are medians of interleaved runs of single images of 256 pixels: onnxruntime, PyTorch as
it stands, and the copies that `img2img convert` computes with (`inference.engine.faster`).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from img2img.core.device import tune_allocator
from img2img.data.classes import Classes
from img2img.inference.engine import optimise
from img2img.interop.onnx import OnnxGenerator, export_onnx, load_onnx
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import Pix2PixHDConfig, ResNetConfig, SPADEConfig, UNetConfig, build_generator, initialise

NETWORKS: dict[str, Any] = {
    "unet": UNetConfig(),
    "unet-resize-attention": UNetConfig(channels=32, upsampling="resize", attention=3),
    "resnet": ResNetConfig(),
    "resnet-batch": ResNetConfig(norm="batch"),
    "cut": ResNetConfig(downsampling="blur", upsampling="blur"),
    "pix2pixhd": Pix2PixHDConfig(channels=32, enhancers=1),
    "spade": SPADEConfig(channels=16),
    "spade-instance": SPADEConfig(channels=16, norm="instance"),
}
SIZES = ((64, 64), (97, 131), (256, 256), (333, 257), (511, 512))


def made(name: str) -> Translator:
    torch.manual_seed(0)
    labels = name.startswith("spade")
    config = NETWORKS[name].resolve(12 if labels else 3, 3, 256)
    network = initialise(build_generator(config), "xavier", 1.0).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
    about = TranslatorConfig(
        method="pix2pix", generator=config, size=256, classes=Classes(count=12) if labels else None, training=Training(img2img="0")
    )  # fmt: skip
    return Translator(about, network)


def input_of(translator: Translator, height: int, width: int) -> torch.Tensor:
    if translator.config.classes is None:
        return torch.rand(1, 3, height, width) * 2 - 1
    return torch.randint(0, 12, (1, -(-height // 16), -(-width // 16))).repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :height, :width]  # fmt: skip


def seconds(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(options.threads)
    far = Table("network", *(f"{width}×{height}" for height, width in SIZES), "8-bit steps", title="largest difference")
    fast = Table("network", "onnxruntime", "PyTorch", "convert, fp32", "convert, bf16", title="images/s at 256 pixels")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            translator, file = made(name), Path(folder, f"{name}.onnx")
            export_onnx(translator, file, raw=True)
            packed = export_onnx(translator, Path(folder, f"{name}-packed.onnx"))
            loaded = load_onnx(file)
            assert isinstance(loaded.generator, OnnxGenerator)
            differences = []
            for height, width in SIZES:
                image = input_of(translator, height, width)
                wanted = translator(image, tile=0)
                differences.append(float((loaded(image, tile=0) - wanted).abs().max()))
            far.add_row(name, *(f"{each:.1e}" for each in differences), f"{max(packed.differences.values()):.0f}")
            image = input_of(translator, 256, 256)
            runs: dict[str, Callable[[], Any]] = {"onnx": partial(loaded, image), "torch": partial(translator, image)}
            for dtype in ("fp32", "bf16"):
                quick = optimise(translator, "eval", dtype, False)  # type: ignore[arg-type]
                runs[dtype] = partial(quick, image)
            speed = {each: 1 / value for each, value in seconds(runs, options.repeats).items()}
            fast.add_row(name, *(f"{speed[each]:.2f} ({speed[each] / speed['torch']:.2f}×)" for each in runs))
    console = Console()
    console.print(far)
    console.print(fast)
    console.print(f"onnxruntime {onnxruntime.__version__}, PyTorch {torch.__version__}, {options.threads} threads")


if __name__ == "__main__":
    main()
