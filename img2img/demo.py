"""`img2img demo`: draws a data set, checks it, trains on it, converts the held-out half, and writes a page to look at."""

import shutil
import time
from pathlib import Path

from rich.console import Console

from img2img.config import RunConfig
from img2img.core.device import choose_device
from img2img.core.errors import UsageError
from img2img.data.base import DataConfig
from img2img.data.paired import check_pairs, find_pairs
from img2img.data.synthetic import draw_data_set
from img2img.inference.convert import convert
from img2img.inference.evaluate import evaluate
from img2img.methods.pix2pix import Pix2PixConfig
from img2img.networks.discriminators.patchgan import PatchGANConfig
from img2img.networks.generators.unet import UNetConfig
from img2img.pages.demo import DemoPage, write_demo_page
from img2img.training.train import train

MARKER = ".img2img-demo"  # a folder with this file was made by the demo, which may replace it


def demo(
    output: Path = Path("checkpoints/demo"),
    pairs: int = 800,
    held_out: int = 48,
    size: int = 64,
    steps: int = 1600,
    channels: int = 32,
    batch_size: int = 8,
    seed: int = 0,
    device: str = "auto",
) -> int:
    """Draws a paired data set, trains pix2pix on it, converts the held-out outlines, and writes a page with the results.

    Needs no data and no network; about three minutes on two CPU cores.

    Args:
        output: Folder of the data set, the run, the converted images and the page; an older demo there is replaced.
        pairs: Pairs to train on.
        held_out: Pairs kept for the page.
        size: Height and width in pixels.
        steps: Optimizer updates.
        channels: Width of both networks.
        batch_size: Images an update.
        seed: Of the drawing and the training.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    started = time.perf_counter()
    console = Console(highlight=False)
    if min(pairs, held_out) < 1:
        raise UsageError("--pairs and --held-out must be at least 1.")
    data, run, converted = output / "data", output / "run", output / "converted"
    config = _config(data, run, size, steps, channels, batch_size, seed, device)
    choose_device(device)
    config.method.generator.resolve(3, 3, size)  # says whether the size goes, before anything is drawn
    _clear(output)
    console.print(f"1. Drawing {pairs} + {held_out} pairs at {size} pixels to {data}", soft_wrap=True)
    draw_data_set(data, pairs, held_out, size, seed)
    report = check_pairs(find_pairs(data))
    console.print(f"2. Checked: {' '.join(report.errors + report.warnings) or 'no problems'}")
    console.print("3. Training pix2pix: outlines → pictures")
    train(config)
    console.print(f"4. Converting the held-out outlines to {converted}", soft_wrap=True)
    conversion = convert(run / "latest", data / "testA", converted, device=device)
    result = evaluate(run / "latest", data, split="test", device=device)
    assert result.copy_input is not None
    rows = {"translation": result.metrics, "copy of the input": result.copy_input}
    for name, s in rows.items():
        text = f"PSNR {s['psnr']:5.2f} dB   SSIM {s['ssim']:.3f}   L1 {s['l1']:.4f}   perceptual {s['perceptual']:.4f}"
        console.print(f"   {name:18} {text}", markup=False)
    names = sorted(file.stem for file in (data / "testA").iterdir())
    triples = [
        tuple(folder / f"{name}.png" for folder in (data / "testA", converted, data / "testB")) for name in names
    ]
    seconds = time.perf_counter() - started
    write_demo_page(output / "index.html", DemoPage(triples, run / "log.jsonl", rows, seconds, size, steps))
    console.print(f"5. Look at it: {(output / 'index.html').resolve().as_uri()}", soft_wrap=True)
    return 1 if conversion.failures or result.failed else 0


def _config(
    data: Path, run: Path, size: int, steps: int, channels: int, batch_size: int, seed: int, device: str
) -> RunConfig[Pix2PixConfig]:
    """Small networks that learn fast: outlines tell everything here, so L1 and a weak PatchGAN do, and no noise is needed; without flips, for the light always comes from the left."""
    method = Pix2PixConfig(
        generator=UNetConfig(channels=channels, norm="batch", upsampling="resize", dropout=0.0),
        discriminator=PatchGANConfig(channels=channels, layers=2),
        adversarial_weight=0.1,
        lr=2e-3,
    )
    return RunConfig[Pix2PixConfig](
        method=method,
        recipe="paper",
        data=DataConfig(path=data, size=size, jitter=1, flip=0),
        output=run,
        steps=steps,
        batch_size=batch_size,
        ema=0.995,
        seed=seed,
        device=device,
        validate_every=max(1, steps // 4),
        checkpoint_every=max(1, steps // 2),
    )


def _clear(output: Path) -> None:
    """Makes room for a new demo, and touches nothing that isn't one."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output} is a file; give a folder.")
    if output.exists() and any(output.iterdir()):
        if not (output / MARKER).exists():
            raise UsageError(f"--output {output} holds other files; give an empty folder.")
        shutil.rmtree(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / MARKER).touch()
    except OSError as error:
        raise UsageError(f"--output {output} can't be made: {error.strerror}.") from None
