"""Several processes on a CPU: starts those that `accelerate launch` was asked for and does not start."""

import os
import re
import sys
from collections.abc import Mapping, Sequence

import psutil

from img2img.errors import UsageError

LAUNCHER = re.compile(r"^launch$|accelerate-launch$|accelerate\.commands\.launch$")
RANKS = ("RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def ensure_processes(arguments: Sequence[str]) -> None:
    """Replaces this process by torchrun with as many as were asked for, if Accelerate started only one.

    Without MPI, `accelerate launch --cpu --num_processes 2` (1.15) starts one process and says nothing: training would
    go on alone, half as fast, with half the batch. Each gets its share of the cores, where torchrun would give it one.

    Args:
        arguments: of `img2img`, to be repeated.

    Raises:
        UsageError: if several machines were asked for.
    """
    if not launched_alone(os.environ):
        return
    parent = psutil.Process().parent()
    count, machines = asked_for(parent.cmdline() if parent else [])
    if machines > 1:
        raise UsageError(
            "accelerate launch starts only one process on a CPU. Start them on each machine with: "
            "torchrun --nnodes N --nproc-per-node M --rdzv-endpoint HOST:PORT -m img2img ..."
        )
    if count < 2:
        return
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (psutil.cpu_count() or 1) // count))
    changed = {"MASTER_ADDR": "", "MASTER_PORT": "", "OMP_NUM_THREADS": threads}
    os.execve(sys.executable, [*command, "-m", "img2img", *arguments], {**os.environ, **changed})


def launched_alone(environment: Mapping[str, str]) -> bool:
    """Whether `accelerate launch` set out for several processes (it names a master) and gave this one no rank."""
    several = "ACCELERATE_MIXED_PRECISION" in environment and environment.get("MASTER_ADDR")
    return bool(several) and not any(name in environment for name in RANKS)


def asked_for(command: Sequence[str]) -> tuple[int, int]:
    """The processes and the machines that a launcher's command line asks for, each 1 if it doesn't say."""
    start = next((place for place, word in enumerate(command) if LAUNCHER.search(word)), len(command))
    values: dict[str, str] = {}
    options = command[start + 1 :]
    for word, following in zip(options, [*options[1:], ""], strict=False):
        if word in ("-m", "--module"):  # what follows belongs to the program
            break
        name, equals, value = word.partition("=")
        values[name.replace("-", "_")] = value if equals else following
    counts = [values.get(name, "1") for name in ("__num_processes", "__num_machines")]
    processes, machines = (int(count) if count.isdigit() else 1 for count in counts)
    return processes, machines
