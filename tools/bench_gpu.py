"""What a GPU makes of training and conversion: parity with the CPU, training steps, conversion, loading.

    python tools/bench_gpu.py parity train convert loader

Each line is JSON. `train` measures layouts with and without cuDNN's search for algorithms, beside the papers' plain loop;
`gpu_ms` is the time of the kernels alone: far below `ms`, the host is what limits. On a CPU everything runs at tiny
sizes, which shows only that it runs.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import bench_train
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor
from torch.utils.data import DataLoader

from img2img.config import run_type
from img2img.core.processes import build_accelerator
from img2img.data.base import collate
from img2img.data.paired import PairedImages, find_pairs
from img2img.data.transforms import JointTransform
from img2img.images import write_image
from img2img.inference import batching
from img2img.inference.convert import convert as convert_images
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import ResNetConfig, UNetConfig, build_generator, initialise
from img2img.networks.layers import choose_memory_format
from img2img.training.logging import Meter
from img2img.training.recipes import apply_recipe
from img2img.training.trainer import Trainer

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
WARM_UP = 12 if GPU else 1
METHODS: dict[str, dict[str, Any]] = {
    "pix2pix": {},
    "pix2pix small": {},
    "cyclegan": {},
    "cut": {},
    "pix2pixhd": {"perceptual": {"weight": 0}},
    "spade": {"perceptual": {"weight": 0}},
}
Measurement = Literal["parity", "train", "compiled", "convert", "loader"]


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def wait() -> None:
    if GPU:
        torch.cuda.synchronize()


def timed(step: Callable[[], object], images: int, seconds: float) -> dict[str, float]:
    """Images a second, milliseconds a step, and those of the kernels alone."""
    for _ in range(WARM_UP):
        step()
    wait()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(10 if GPU else 1):
            step()
            count += 1
        wait()
    took = time.perf_counter() - began
    found: dict[str, float] = {"images_s": round(images * count / took, 1), "ms": round(1e3 * took / count, 2)}
    if not GPU:
        return found
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            step()
        wait()
    events = seen.key_averages()
    kernels = sum(event.count for event in events) // 3
    gpu_ms = round(sum(event.self_device_time_total for event in events) / 3e3, 2)
    return found | {"gpu_ms": gpu_ms, "kernels": kernels, "gb": round(torch.cuda.max_memory_allocated() / 1e9, 1)}


def forever(batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    while True:
        yield batch


def config_of(name: str, batch_size: int, size: int) -> Any:
    method, small = name.split()[0], "small" in name
    settings: dict[str, Any] = {"name": method, **METHODS[name]}
    if not GPU:
        kind = {"pix2pix": {"kind": "unet"}, "cyclegan": {"kind": "resnet"}, "cut": {"kind": "resnet"}}.get(method, {})
        settings["generator"] = {**kind, "channels": 4}
    made = run_type(method)(
        method=settings, data={"size": size}, batch_size=batch_size, recipe="small" if small else "paper"
    )
    return apply_recipe(made).model_copy(update={"batch_size": batch_size})


def train_ours(name: str, batch_size: int, layout: str, searches: bool, seconds: float, compiled: bool = False) -> None:
    size = 128 if not GPU else 512 if name == "pix2pixhd" else 256
    about = {"what": "train", "method": name, "batch": batch_size, "layout": layout, "searches": searches}
    torch.backends.cudnn.benchmark = searches
    channels = 36 if name == "spade" else 3
    try:
        torch.manual_seed(0)
        config = config_of(name, batch_size, size)
        method = config.method.build(channels, 3, size)
        precision = "bf16" if GPU else "no"
        formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
        own = choose_memory_format(method.networks.values(), DEVICE, precision)
        if layout == "auto":
            about["chosen"] = str(own)
        trainer = Trainer(
            method,
            build_accelerator(DEVICE, precision, 1),
            config.ema,
            formats.get(layout, own),
            compiled,
        )
        source = torch.rand(batch_size, 3, size, size) * 2 - 1
        if channels != 3:
            labels = torch.randint(channels, (batch_size, size, size))
            source = F.one_hot(labels, channels).permute(0, 3, 1, 2).float()
        target = torch.rand(batch_size, 3, size, size, device=DEVICE) * 2 - 1
        batches, meter = forever({"source": source.to(DEVICE), "target": target}), Meter()
        measured = timed(lambda: trainer._update(batches, 1.0, meter), batch_size, seconds)
        say(**about, compiled=compiled, **measured)
    except Exception as error:  # the others are measured nonetheless
        say(**about, compiled=compiled, error=repr(error)[:300])
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch._dynamo.reset()


def train(seconds: float) -> None:
    """Ours, and beside it the papers' loop in fp32 and bf16."""
    for name in METHODS:
        for batch_size in (1, 16) if GPU else (1, 2):
            for layout in ("contiguous", "channels_last"):
                for searches in (False, True) if GPU else (False,):
                    train_ours(name, batch_size, layout, searches, seconds)
            if name not in ("pix2pix", "cyclegan"):
                continue
            config = config_of(name, batch_size, 256 if GPU else 128)
            for precision in ("fp32", "bf16"):
                method = config.method.build(3, 3, config.data.size)
                networks = {key: network.to(DEVICE) for key, network in method.networks.items()}
                batch = {key: value.to(DEVICE) for key, value in bench_train._batch(config).items()}
                loop = bench_train._pix2pix if name == "pix2pix" else bench_train._cyclegan
                step = loop(networks, batch)

                def cast(step: Callable[[], None] = step, half: bool = precision == "bf16") -> None:
                    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
                        step()

                measured = timed(cast, batch_size, seconds)
                say(what="plain", method=name, batch=batch_size, precision=precision, **measured)


def compiled(seconds: float) -> None:
    """With torch.compile."""
    for name in ("pix2pix", "cyclegan"):
        for batch_size in (1, 16) if GPU else (1,):
            train_ours(name, batch_size, "auto", False, seconds, compiled=True)


def parity() -> None:
    """How far the GPU's fp32 is from the CPU's, with and without TF32 convolutions."""
    image = F.interpolate(torch.rand(1, 3, 32, 32), scale_factor=8, mode="bicubic").clamp(0, 1) * 2 - 1
    for kind in ("unet", "resnet"):
        truth = build_translator(kind, "cpu")(image)
        for precision in ("tf32", "ieee"):
            translator = build_translator(kind, DEVICE.type)
            translator.tf32 = precision == "tf32"
            difference = (translator(image).cpu() - truth).abs()
            steps = round(difference.mean().item() * 32767.5, 2)
            say(what="parity", network=kind, precision=precision, mean_16_bit_steps=steps)
        strips = build_translator(kind, DEVICE.type)
        apart = (strips(image, tile=64).cpu() - strips(image, tile=0).cpu()).abs().max().item()
        say(what="strips", network=kind, largest=apart)


def build_translator(kind: str, device: str) -> Translator:
    chosen: Any = (ResNetConfig if kind == "resnet" else UNetConfig)(channels=64 if GPU else 8).resolve(3, 3, 256)
    torch.manual_seed(0)
    network = initialise(build_generator(chosen)).eval().to(device)
    about = TranslatorConfig(method="pix2pix", generator=chosen, size=256, training=Training(img2img="0"))
    return Translator(about, network)


def draw_folder(root: Path, height: int, width: int, count: int) -> Path:
    for side in "AB":
        (root / f"train{side}").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise = torch.from_numpy(np.random.default_rng(number).random((1, 3, height // 8, width // 8), np.float32))
            image = F.interpolate(noise, (height, width), mode="bilinear")[0].permute(1, 2, 0)
            write_image(root / f"train{side}" / f"{number}.jpg", (image.numpy() * 255).astype(np.uint8))
    return root


def convert() -> None:
    """Many small images, and two large ones."""
    for height, width, count in ((256, 256, 1000 if GPU else 8), (4000, 6000, 2) if GPU else (512, 768, 1)):
        with tempfile.TemporaryDirectory() as folder:
            source = draw_folder(Path(folder), height, width, count) / "trainA"
            for kind in ("unet", "resnet"):
                trials: Any = [("png", 2, 8, None), ("jpg", 2, 8, None), ("png", 12, 64, None), ("jpg", 12, 64, None)]
                if height > 1000:
                    trials = [("jpg", 2, 8, None), ("jpg", 2, 8, 0)]
                for suffix, threads, pixels, tile in trials:
                    batching.THREADS = batching.MOST_THREADS = threads
                    vars(batching).update(dict.fromkeys(("BATCH_PIXELS", "GPU_BATCH_PIXELS"), pixels * 65536))
                    target = Path(folder, f"{kind}-{suffix}-{threads}-{tile}")
                    began = time.perf_counter()
                    done = convert_images(
                        build_translator(kind, DEVICE.type),
                        source,
                        target,
                        format=suffix,
                        tile=tile,
                        device=DEVICE.type,
                    )
                    took = time.perf_counter() - began
                    times = {
                        key: round(value, 1) for key, value in vars(done.times).items() if isinstance(value, float)
                    }
                    say(
                        what="convert", size=(height, width), network=kind, format=suffix, threads=threads, pixels=pixels,
                        tile=tile, images_s=round(count / took, 2), failed=len(done.failures), seconds=times,
                    )  # fmt: skip


def loader() -> None:
    """Pairs a second of large JPEGs."""
    for side in (512, 2048) if GPU else (128,):
        with tempfile.TemporaryDirectory() as folder:
            pairs = find_pairs(draw_folder(Path(folder), side, side, 32 if GPU else 8))["train"].pairs
            data = PairedImages(pairs, JointTransform(256 if GPU else 64), 3, 3, 0)
            for workers in (1, 8, 16) if GPU else (2,):
                keys = [[(epoch, index) for index in range(8)] for epoch in range(100 if side < 1000 else 30)]
                began = time.perf_counter()
                for _ in DataLoader(data, batch_sampler=keys, num_workers=workers, collate_fn=collate, pin_memory=GPU):  # type: ignore[arg-type]
                    pass
                rate = round(8 * len(keys) / (time.perf_counter() - began))
                say(what="loader", side=side, workers=workers, pairs_s=rate)


def main(measurements: tyro.conf.Positional[tuple[Measurement, ...]], seconds: float = 2.0) -> None:
    """Measures, and prints lines of JSON.

    Args:
        measurements: What to measure.
        seconds: Of each training, after a warm-up.
    """
    say(what="machine", device=torch.cuda.get_device_name() if GPU else "cpu", torch=torch.__version__)
    measure: dict[Measurement, Callable[[], None]] = {
        "parity": parity, "convert": convert, "loader": loader,
        "train": partial(train, seconds), "compiled": partial(compiled, seconds),
    }  # fmt: skip
    for name in measurements:
        measure[name]()


if __name__ == "__main__":
    tyro.cli(main)
