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
    interpolate: tuple[str, str] | None = None,
    how: Literal["spherical", "linear", "style"] | None = None,
    style_mix: tuple[str, str] | None = None,
    layers: str | None = None,
    sweep: int | None = None,
    steps: int | None = None,
    latents: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> int:
    """Makes images from noise with what gan, stylegan2, lapgan, vae or infogan trained. The same seed gives the same image in every run.

    Args:
        model: The folder of a run of gan, stylegan2, lapgan, vae or infogan, or of its model.
        output: The folder for the images: seed0000.png, seed0001.png … (measurements: .tif), and sheet.png with all of them (up to 100).
        count: How many images; with --sweep how many rows.
        seed: Of the first image; the next ones have the next seeds.
        label: The classes asked for, by name or number; by default all in turn.
        truncation: Draw noise beyond this again, such as 0.7: more typical, less varied images. Of stylegan2, how far styles are from their mean: 0 gives the mean image, 1 changes nothing.
        interpolate: Two seeds: the images on the way from one to the other, and walk.gif. Of stylegan2, each may be a file of img2img invert, too.
        how: The way between two seeds; by default spherical, and of stylegan2 style: straight from style to style.
        style_mix: Of stylegan2: two seeds, ranges such as 0..4, or files of img2img invert: each image of the first with the styles of each image of the second in --layers.
        layers: Of --style-mix: which layers, such as 0-3; 0 is the coarsest. Else of --truncation: truncate only their styles.
        sweep: Number of an InfoGAN's code, from 0: images that differ in it only.
        steps: Images of --interpolate, by default 16, or of --sweep of a continuous code, by default 10.
        latents: A file of latents that img2img serve or img2img invert wrote: draw its images instead.
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
            "sampling", total=count if (interpolate, sweep, style_mix, latents) == (None,) * 4 else None
        )
        files = room.sample(
            generator, output, count=count, seed=seed, labels=label, truncation=truncation, interpolate=interpolate, how=how,
            style_mix=style_mix, layers=layers, sweep=sweep, steps=steps, latents=latents, overwrite=overwrite, advance=lambda images: bar.advance(task, images),
        )  # fmt: skip
    print(f"{len(files)} files in {output}; {files[-1]} shows them.")
    return 0


def sample(arguments: list[str]) -> int:
    """`img2img sample`."""
    return run_command(command, "sample", arguments)
