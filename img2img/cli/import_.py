"""`img2img import`: other projects' weights become translators."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from img2img.cli.usage import run_command
from img2img.core.errors import UsageError


def command(
    file: Positional[Path],
    output: Path,
    encoder: Path | None = None,
    norm: Literal["batch", "sync-batch", "instance", "none"] | None = None,
    dropout: float | None = None,
    padding: Literal["reflect", "replicate"] | None = None,
    upsampling: Literal["normal", "more", "most"] | None = None,
    mode: Literal["eval", "paper"] | None = None,
    value_range: tuple[int, int] | None = None,
    classes: int | None = None,
    edges: Literal["yes", "no"] | None = None,
    size: int | None = None,
    direction: Literal["AtoB", "BtoA"] | None = None,
    overwrite: bool = False,
) -> int:
    """Makes a translator of a file of weights of pytorch-CycleGAN-and-pix2pix, contrastive-unpaired-translation, pix2pixHD or SPADE.

    The architecture is told from the file's keys. What they can't tell is taken as published, and printed; the options below
    say it otherwise. A discriminator's file becomes a folder for img2img train --init-discriminator.

    Args:
        file: A state dict, .pth or .safetensors, such as latest_net_G.pth. No code in it is run.
        output: The translator's folder.
        encoder: The file of its encoder (latest_net_E.pth), if it was trained with one.
        norm: Of norms without weights.
        dropout: The probability, where there is dropout.
        padding: Of residual blocks.
        upsampling: Of SPADE: 5, 6 or 7 doublings.
        mode: eval (running statistics, no dropout) or paper (batch statistics and dropout).
        value_range: What black and white are for the network: -1 1, or 0 1.
        classes: How many labels its label maps have; 0 if it takes images.
        edges: Of label maps: whether it sees the edges of instances.
        size: Height and width of its training images in pixels.
        direction: Which side of a data set was the source.
        overwrite: Replace a translator that is in the output's folder.
    """
    from img2img.interop import ImportOptions, build_translator, print_assumptions, read_network, save_discriminator

    if not overwrite and output.is_dir() and any(output.iterdir()):
        raise UsageError(f"--output {output} is not empty; add --overwrite, or choose another.")
    if value_range not in (None, (-1, 1), (0, 1)):
        raise UsageError(f"--value-range {' '.join(map(str, value_range))}: there are -1 1 and 0 1.")
    if dropout is not None and not 0 <= dropout < 1:
        raise UsageError(f"--dropout {dropout}: give a probability from 0, below 1.")
    for name, number in (("size", size), ("classes", classes)):
        if number is not None and number < (1 if name == "size" else 0):
            raise UsageError(f"--{name} {number}: give a positive number.")
    known = ImportOptions(norm, dropout, padding, upsampling, mode, value_range, classes, edges and edges == "yes", size, direction)  # type: ignore[arg-type]  # fmt: skip
    found = read_network(file, changes=known.of_network)
    if found.family.part == "discriminator":
        others = {"encoder": encoder, "mode": mode, "value-range": value_range, "classes": classes, "edges": edges, "size": size, "direction": direction}  # fmt: skip
        wrong = next((name for name, value in others.items() if value is not None), None)
        if wrong:
            raise UsageError(f"--{wrong} is about translators, but {file} is {found.family.described}; leave it out.")
        save_discriminator(found, output)
        print("\n  ".join([f"{file}: {found.described}.", *found.guess.assumed]))
        print(f"It is in {output}, for img2img train --init-discriminator {output}.")
        return 0
    imported = build_translator(found, known, encoder)
    print_assumptions(imported, file)
    imported.translator.save(output)
    print(f"The translator is in {output}. Convert with it:\n  img2img convert SOURCE TARGET --model {output}")
    return 0


def import_(arguments: list[str]) -> int:
    """`img2img import`."""
    return run_command(command, "import", arguments)
