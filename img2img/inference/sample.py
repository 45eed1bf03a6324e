"""Images from noise, into a folder: single ones, the way between two, and what a code does."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from img2img.core.errors import UsageError
from img2img.images import Array, Picture, write_image, write_picture
from img2img.images.bands import Bands
from img2img.images.tensors import build_sheet
from img2img.models import NoiseGenerator, Walk, collect_styles, draw_latents, read_latents

COLUMNS = 10  # of the sheet
MOST_SHOWN = 100
MOST_MIXED = 400
AT_ONCE = 64  # images in memory
FRAME = 80  # milliseconds of a walk's frames
Ticker = Callable[[int], None]


def sample(
    generator: NoiseGenerator,
    output: Path | str,
    *,
    count: int = 64,
    seed: int = 0,
    labels: Sequence[int | str] = (),
    truncation: float | None = None,
    interpolate: tuple[int | str, int | str] | None = None,
    how: Walk | None = None,
    style_mix: tuple[int | str, int | str] | None = None,
    layers: str | None = None,
    sweep: int | None = None,
    steps: int | None = None,
    latents: Path | str | None = None,
    overwrite: bool = False,
    advance: Ticker = lambda images: None,
) -> list[Path]:
    """Writes images that a generator makes, and a picture of them all.

    Args:
        output: the folder; it is made.
        count: images, or with `sweep` rows of them.
        labels: classes asked for, by number or name, as many of each; by default all in turn.
        truncation: as of `NoiseGenerator.sample`.
        interpolate: two seeds: the images on the way from one to the other, and a GIF of the walk. Of a generator with styles, each may be
            a file of latents instead, such as `img2img invert` writes.
        how: which way, as of `NoiseGenerator.interpolate`.
        style_mix: of a generator with styles: two seeds, ranges of seeds such as ``0..4``, or files of latents: each image of the first with the styles
            of each image of the second in `layers`.
        layers: which: a range such as ``0-3``, from 0, the coarsest; without `style_mix`, those whose styles `truncation` is about.
        sweep: number of a code of an InfoGAN: for each seed the images that differ in it only.
        steps: images of a walk, by default 16, or values of a continuous code, by default 10.
        latents: a file of latents, such as `img2img serve` saves: its images instead of those of seeds.
        advance: is told how many images were written.

    Returns:
        The files: images as ``seed0007.png`` (measurements as ``.tif``; of a file of latents, ``image0000.png``), and ``sheet.png``; a walk's as ``step0000.png``, and ``walk.gif``; of a sweep
        ``sweep0.png``; of mixed styles ``mix0000_0000.png``.

    Raises:
        UsageError: for what can't be asked for, or if a file is there.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; give a folder.")
    if latents is not None:
        others = truncation, interpolate, style_mix, layers, sweep, steps
        if (count, seed, tuple(labels)) != (64, 0, ()) or any(each is not None for each in others):
            raise UsageError("--latents says what to draw; leave the options that choose images out.")
        found = read_latents(Path(latents))
        names = [f"image{number:04d}" for number in range(len(found.images))]

        def draw(part: slice) -> Array:
            return draw_latents(generator, found.images[part], found.truncation)

        return _write_single(generator, folder, names, draw, overwrite, advance)
    if sum(each is not None for each in (interpolate, sweep, style_mix)) > 1:
        raise UsageError("--interpolate, --style-mix and --sweep exclude each other.")
    if style_mix is not None and how is not None:
        raise UsageError("--how is a way between two seeds, which --style-mix has none of; leave it out.")
    if style_mix is not None and layers is None:
        raise UsageError("--style-mix needs --layers, such as --style-mix 0..4 7 --layers 0-3.")
    if style_mix is None and layers is not None:
        if truncation is None:
            raise UsageError("--layers belongs to --style-mix or --truncation.")
        generator = generator.with_truncated_layers(_parse_layers(layers))
    if sweep is not None and labels:
        raise UsageError("--sweep changes a code of an infogan, which knows no classes; leave --label out.")
    if steps is not None and sweep is None and interpolate is None:
        raise UsageError("--steps belongs to --interpolate or --sweep.")
    if count < 1:
        raise UsageError(f"--count {count}: ask for at least 1.")
    if sweep is not None:
        rows = generator.sweep(sweep, count, steps=10 if steps is None else steps, seed=seed, truncation=truncation)
        files: dict[str, Array | Picture] = {f"sweep{sweep}.png": build_sheet(generator.show(rows))}
    elif interpolate is not None:
        if len(labels) > 1:
            raise UsageError("--interpolate: one --label is enough.")
        label, steps = (labels[0] if labels else None), 16 if steps is None else steps
        walk = _walk(generator, interpolate, steps, how, label, truncation)
        files = _name_files(generator, [f"step{number:04d}" for number in range(len(walk))], walk)
        files["walk.gif"] = build_walk(list(generator.show(walk)))
        files["sheet.png"] = build_sheet(generator.show(walk)[None])
    elif style_mix is not None and layers is not None:
        sides = [_find_styles(generator, side, labels, truncation) for side in style_mix]
        if len(sides[0]) * len(sides[1]) > MOST_MIXED:
            raise UsageError(
                f"--style-mix: {len(sides[0])} × {len(sides[1])} images are too many for one sheet; ask for at most {MOST_MIXED}."
            )
        grid = generator.mix(sides[0], sides[1], _parse_layers(layers))
        names = [f"mix{row:04d}_{column:04d}" for row in range(grid.shape[0]) for column in range(grid.shape[1])]
        files = _name_files(generator, names, grid.reshape(-1, *grid.shape[2:]))
        shown = [generator.show(each) for each in (grid, *(generator.paint(side) for side in sides))]
        files["sheet.png"] = build_sheet(_frame_mix(*shown))
    else:
        return _sample_single(generator, folder, range(seed, seed + count), labels, truncation, overwrite, advance)
    _refuse_existing(folder, list(files), overwrite)
    return _write(folder, files)


def _walk(
    generator: NoiseGenerator,
    ends: tuple[int | str, int | str],
    steps: int,
    how: Walk | None,
    label: int | str | None,
    truncation: float | None,
) -> Array:
    """The images on the way between two seeds, or between the styles of files."""
    seeds = [_parse_seeds(end) for end in ends]
    if all(seeds) and all(len(each or ()) == 1 for each in seeds):
        first, last = (each.start for each in seeds if each)
        return generator.interpolate(first, last, steps, how=how, labels=label, truncation=truncation)
    if how not in (None, "style"):
        raise UsageError(f"--how {how} is the way between two seeds; between files, styles are mixed: leave it out.")
    if steps < 2:
        raise UsageError(f"{steps} steps lead nowhere; take at least 2.")
    found = [_find_styles(generator, end, () if label is None else (label,), truncation) for end in ends]
    if any(len(each) != 1 for each in found):
        raise UsageError("--interpolate leads from one image to another; give two seeds, or files of one image each.")
    return generator.paint(
        torch.stack([torch.lerp(found[0][0], found[1][0], share) for share in torch.linspace(0, 1, steps)])
    )


def _parse_seeds(word: int | str) -> range | None:
    """Of a seed, or a range of seeds such as ``0..4``; None of anything else."""
    found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", str(word))
    if found is None:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first or last - first >= MOST_SHOWN:
        raise UsageError(f"{word}: give a range of 1 to {MOST_SHOWN} seeds, such as 0..4.")
    return range(first, last + 1)


def _find_styles(
    generator: NoiseGenerator, word: int | str, labels: Sequence[int | str], truncation: float | None
) -> Tensor:
    """The styles of seeds, or of a file of latents: (B, layers, latent)."""
    seeds = _parse_seeds(word)
    if seeds is None:
        if not Path(str(word)).is_file():
            raise UsageError(
                f"{word}: there is no such file; give a seed, a range such as 0..4, or a file of img2img invert."
            )
        found = read_latents(Path(str(word)))
        styles = collect_styles(generator, found.images, found.truncation)
        return styles if truncation is None else generator.truncate(styles, truncation)
    wanted = [labels[place % len(labels)] for place in range(len(seeds))] if labels else None
    return generator.styles(generator.noise(seeds, truncation), generator.numbers(wanted, seeds), truncation)


def _parse_layers(word: str) -> range:
    """Of ``0-3``, or of one layer."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise UsageError(f"--layers {word}: give a layer, or a range such as 0-3.")
    return range(int(found[1]), int(found[2] or found[1]) + 1)


def _frame_mix(grid: Array, coarse: Array, fine: Array) -> Array:
    """A grid of mixed images, with what is mixed at its left and above it."""
    corner = np.full_like(fine[:1], 255)
    below = np.concatenate([coarse[:, None], grid], axis=1)
    return np.concatenate([np.concatenate([corner, fine])[None], below])


def _sample_single(
    generator: NoiseGenerator,
    folder: Path,
    seeds: range,
    labels: Sequence[int | str],
    truncation: float | None,
    overwrite: bool,
    advance: Ticker,
) -> list[Path]:
    """An image for each seed, and the first of them on a sheet."""
    wanted = [labels[place % len(labels)] for place in range(len(seeds))] if labels else None
    numbers = generator.numbers(wanted, seeds)

    def draw(part: slice) -> Array:
        noise = generator.noise(seeds[part], truncation)
        return generator.images(noise, None if numbers is None else numbers[part], truncation)

    return _write_single(generator, folder, [f"seed{number:04d}" for number in seeds], draw, overwrite, advance)


def _write_single(
    generator: NoiseGenerator,
    folder: Path,
    names: Sequence[str],
    draw: Callable[[slice], Array],
    overwrite: bool,
    advance: Ticker,
) -> list[Path]:
    """Images by name, some at a time, and the first of them on a sheet."""
    _refuse_existing(folder, [*(f"{name}{_find_ending(generator)}" for name in names), "sheet.png"], overwrite)
    written: list[Path] = []
    shown: list[Array] = []
    for start in range(0, len(names), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        images = draw(part)
        written += _write(folder, _name_files(generator, names[part], images))
        shown += list(generator.show(images))[: max(0, MOST_SHOWN - len(shown))]
        advance(len(images))
    return written + _write(folder, {"sheet.png": _arrange_sheet(shown)})


def build_walk(images: Sequence[Array]) -> Picture:
    """Images there and back, as an animation."""
    there_and_back = [*images, *images[-2:0:-1]]
    return Picture(there_and_back, durations=[FRAME] * len(there_and_back))


def _arrange_sheet(images: Sequence[Array]) -> Array:
    """Images (H, W, C), uint8, in rows, as one RGB array."""
    columns = min(COLUMNS, len(images))
    blank = [np.full_like(images[0], 255)] * (-len(images) % columns)
    cells = np.stack([*images, *blank])
    return build_sheet(cells.reshape(-1, columns, *cells.shape[1:]))


def _find_ending(generator: NoiseGenerator) -> str:
    return ".png" if generator.config.range is None else ".tif"


def _name_files(generator: NoiseGenerator, names: Sequence[str], images: Array) -> dict[str, Array | Picture]:
    """Images by the names of their files, which hold measurements as such."""
    limits, ending = generator.config.range, _find_ending(generator)
    if limits is None:
        return {f"{name}{ending}": image for name, image in zip(names, images, strict=True)}
    unit, bands = generator.scale(images), Bands(limits, "float32")
    return {f"{name}{ending}": Picture([image], bands=bands) for name, image in zip(names, unit, strict=True)}


def _write(folder: Path, files: Mapping[str, Array | Picture]) -> list[Path]:
    for name, content in files.items():
        if isinstance(content, Picture):
            write_picture(folder / name, content)
        else:
            write_image(folder / name, content)
    return [folder / name for name in files]


def _refuse_existing(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise UsageError(f"{folder / there[0]} exists; choose another --output, or --overwrite.")
