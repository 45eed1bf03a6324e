"""`img2img compress`."""

import os
import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from img2img.cli.usage import run_command
from img2img.core.errors import UsageError


def command(
    model: Positional[str | None] = None,
    data: Path | None = None,
    output: Path | None = None,
    resume: Path | None = None,
    macs: float = 0.05,
    direction: Literal["AtoB", "BtoA"] | None = None,
    style: tuple[str, ...] = (),
    max_side: int | None = None,
    size: int | None = None,
    steps: int = 5000,
    batch_size: int = 8,
    adversarial: float = 0.0,
    holdout: float = 0.1,
    seed: int = 0,
    device: str | None = None,
    accept: float = 0.05,
) -> int:
    """Trains a small translator, the student, to make what a large one, its teacher, makes. The result is a run: every command takes it as MODEL.

    Args:
        model: The teacher: a translator's or a run's folder, another project's file of weights, or USER/NAME on the Hugging Face Hub.
        data: Photos, or label maps, of the kind that are to be converted: any folder of them, or a data set.
        output: The run's folder.
        resume: Go on with this run, which was stopped; of the other options, only --accept and --device can be given then.
        macs: The share of the teacher's multiply-adds that the student may take.
        direction: Which translator of a run that learned both ways; by default AtoB.
        style: Of a teacher between domains: the name of the one that the student learns.
        max_side: Scale images whose longer side has more pixels down to it.
        size: Height and width of the training images, which are cut out of those of --data; by default the teacher's.
        steps: Optimizer updates.
        batch_size: Images an update.
        adversarial: Weight of an adversarial loss; 0 for none. Real are the images of the data set's other side, if there is one, else the teacher's.
        holdout: Without a val or test split: the share of the images that are kept to compare the student with the teacher.
        seed: Of all random numbers.
        device: auto, cpu, cuda, cuda:1 or mps; by default auto.
        accept: The largest perceptual distance to the teacher at which the student is good enough; a PSNR of 30 dB will do, too.
    """
    from img2img.compression import compress as room

    if resume and model:
        raise UsageError("--resume goes on with the run's own settings; leave the model out.")
    if not resume and not (model and data and output):
        raise UsageError("which model, images and folder? img2img compress MODEL --data IMAGES --output RUN.")
    try:
        if resume:
            found = room.resume(resume, device=device, accept=accept)
        else:
            assert model and data and output
            found = room.compress(
                model, data, output, macs=macs, direction=direction, style=style, max_side=max_side, size=size, steps=steps,
                batch_size=batch_size, adversarial=adversarial, holdout=holdout, seed=seed, device=device or "auto", accept=accept,
            )  # fmt: skip
    except KeyboardInterrupt:
        place = resume or output
        if os.environ.get("RANK", "0") == "0" and place and (place / "config.yaml").is_file():
            print(f"To go on: img2img compress --resume {place}", file=sys.stderr)
        raise
    return 0 if found.accepted else 1


def compress(arguments: list[str]) -> int:
    """`img2img compress`."""
    given = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    others = [name for name in given if name not in ("--resume", "--accept", "--device", "--help")]
    if "--resume" in given and others:
        raise UsageError(f"--resume goes on with the run's own settings; leave {others[0]} out.")
    if "-h" not in arguments and "--help" not in arguments:
        from img2img.core.processes import ensure_processes

        ensure_processes(["compress", *arguments])
    return run_command(command, "compress", arguments)
