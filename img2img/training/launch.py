"""Several processes on a CPU: starts those that `accelerate launch` was asked for and does not start."""

import os
import sys
from collections.abc import Mapping, Sequence

import psutil

from img2img.errors import UsageError

RANKS = ("RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def ensure_processes(arguments: Sequence[str]) -> None:
    """Replaces this process by torchrun with as many as were asked for, if Accelerate started only one.

    Without MPI, `accelerate launch --cpu --num_processes 2` (1.15) starts one process and says nothing: training would
    go on alone, half as fast, with half the batch.

    Args:
        arguments: of `img2img`, to be repeated.

    Raises:
        UsageError: if the number can't be told, or several machines were asked for.
    """
    if not launched_alone(os.environ):
        return
    parent = psutil.Process().parent()
    count = asked_for(parent.cmdline() if parent else [])
    if count is None:
        raise UsageError(
            "accelerate launch starts only one process on a CPU. Start them with: "
            "torchrun --nproc-per-node N -m img2img train ... (on several machines: with --nnodes and --rdzv-endpoint)."
        )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    os.execve(
        sys.executable, [*command, "-m", "img2img", *arguments], {**os.environ, "MASTER_ADDR": "", "MASTER_PORT": ""}
    )


def launched_alone(environment: Mapping[str, str]) -> bool:
    """Whether `accelerate launch` set out for several processes (it names a master) and gave this one no rank."""
    several = "ACCELERATE_MIXED_PRECISION" in environment and environment.get("MASTER_ADDR")
    return bool(several) and not any(name in environment for name in RANKS)


def asked_for(command: Sequence[str]) -> int | None:
    """The number in a launcher's `--num_processes N`; None if there is none, or if it is for several machines."""
    values: dict[str, str] = {}
    start = next((place for place, word in enumerate(command) if "launch" in word), len(command))
    command = command[start + 1 :]
    for place, word in enumerate(command):
        name, equals, value = word.replace("-", "_").partition("=")
        if word == "-m":  # what follows belongs to the program
            break
        values[name] = value if equals else command[place + 1] if place + 1 < len(command) else ""
    count = values.get("__num_processes", "")
    return int(count) if count.isdigit() and int(count) > 1 and values.get("__num_machines", "1") == "1" else None
