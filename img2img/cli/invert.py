"""`img2img invert`: the styles of photos."""

import sys
from pathlib import Path

from tyro.conf import Positional

from img2img.cli.usage import run_command
from img2img.core.errors import UsageError


def command(
    model: Positional[Path],
    photos: Positional[tuple[Path, ...]],
    output: Path,
    steps: int = 500,
    per_layer: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
) -> int:
    """Finds the styles of which a model that stylegan2 trained makes photos. img2img sample mixes and moves them.

    For photo.jpg, OUTPUT gets photo.json, the styles, and photo.png, the image that the model makes of them; sheet.png shows
    the photos and these images.

    Args:
        model: The folder of a run of stylegan2, or of its model.
        photos: Images; the middle square of each is taken.
        output: The folder for what is found.
        steps: Of the optimisation, for each photo.
        per_layer: Find a style for each layer (W+): nearer to the photo, but worse to change.
        seed: Of the noise in the optimisation.
        overwrite: Replace files that exist.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    import numpy as np
    from rich.progress import Progress

    from img2img.core.device import tune_allocator
    from img2img.images import read_image, write_image
    from img2img.images.tensors import build_sheet
    from img2img.inference.invert import crop_square, invert, refuse_measurements
    from img2img.interop import resolve_model
    from img2img.models import Latent, Latents, NoiseGenerator

    names = [photo.stem for photo in photos]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"several photos are called {min(twice)}; find their styles in folders of their own.")
    if not photos:
        raise UsageError("give a photo, or several.")
    if "sheet" in names:
        raise UsageError("a photo can't be called sheet, for sheet.png shows them all; rename it.")
    files = [output / f"{name}.{kind}" for name in names for kind in ("json", "png")]
    for photo in photos:
        if photo.is_dir():
            raise UsageError(f"{photo} is a folder; give its photos, such as {photo}/*.png.")
        if photo.resolve() in {file.resolve() for file in (*files, output / "sheet.png")}:
            raise UsageError(f"{photo} would be replaced by what is found; choose another --output.")
    if not overwrite and (there := [file for file in (*files, output / "sheet.png") if file.exists()]):
        raise UsageError(f"{there[0]} exists; choose another --output, or --overwrite.")
    tune_allocator()
    generator = NoiseGenerator.load(resolve_model(model), device)
    layers = generator.styled_network().layers
    refuse_measurements(generator)
    pictures = [read_image(photo) for photo in photos]
    rows = []
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("inverting", total=steps * len(photos))
        for photo, name, picture in zip(photos, names, pictures, strict=True):
            found = invert(
                generator, picture, steps=steps, per_layer=per_layer, seed=seed, advance=lambda: bar.advance(task)
            )
            latent = Latent(styles=tuple(tuple(style) for style in found.styles.tolist()))
            made = generator.paint(found.styles.expand(layers, -1)[None])[0]
            write_image(output / f"{name}.png", made)
            Latents(images=(latent,)).save(output / f"{name}.json")
            rows.append([crop_square(picture, generator), made])
            print(f"{photo}: perceptual distance {found.distance:.3f}")
    write_image(output / "sheet.png", build_sheet(np.stack([np.stack(row) for row in rows])))
    print(f"The styles are in {output}; {output / 'sheet.png'} shows the photos and what is made of their styles.")
    return 0


def invert(arguments: list[str]) -> int:
    """`img2img invert`."""
    return run_command(command, "invert", arguments)
