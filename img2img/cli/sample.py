"""`img2img sample`: images from noise."""

import sys
from pathlib import Path
from typing import Literal

from img2img.cli.usage import run_command


def command(
    model: Path,
    output: Path,
    count: int = 64,
    seed: int = 0,
    label: tuple[str, ...] = (),
    truncation: float | None = None,
    interpolate: tuple[int, int] | None = None,
    how: Literal["spherical", "linear"] = "spherical",
    sweep: int | None = None,
    steps: int | None = None,
    latents: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> int:
    """Makes images from noise with what gan or infogan trained. The same seed gives the same image in every run.

    Args:
        model: The folder of a run of gan or infogan, or of its model.
        output: The folder for the images: seed0000.png, seed0001.png …, and sheet.png with all of them (up to 100).
        count: How many images; with --sweep how many rows.
        seed: Of the first image; the next ones have the next seeds.
        label: The classes asked for, by name or number; by default all in turn.
        truncation: Draw noise beyond this again, such as 0.7: more typical, less varied images.
        interpolate: Two seeds: the images on the way from one to the other, and walk.gif.
        how: The way between two seeds.
        sweep: Number of an InfoGAN's code, from 0: images that differ in it only.
        steps: Images of --interpolate, by default 16, or of --sweep of a continuous code, by default 10.
        latents: A file of latents that img2img serve saved: draw its images instead.
        overwrite: Replace files that exist.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    from rich.progress import Progress

    from img2img.core.device import tune_allocator
    from img2img.inference import sample as room
    from img2img.interop import resolve_model
    from img2img.models import NoiseGenerator

    tune_allocator()
    generator = NoiseGenerator.load(resolve_model(model), device)
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(
            "sampling", total=count if interpolate is None and sweep is None and latents is None else None
        )
        files = room.sample(
            generator, output, count=count, seed=seed, labels=label, truncation=truncation, interpolate=interpolate, how=how,
            sweep=sweep, steps=steps, latents=latents, overwrite=overwrite, advance=lambda images: bar.advance(task, images),
        )  # fmt: skip
    print(f"{len(files)} files in {output}; {files[-1]} shows them.")
    return 0


def sample(arguments: list[str]) -> int:
    """`img2img sample`."""
    return run_command(command, "sample", arguments)
