"""Several processes: how they are started, how work is divided among them, and how results come together."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import psutil

from img2img.core.errors import UsageError, UserError

if TYPE_CHECKING:  # slow to import, and needless for the help
    import torch
    from accelerate import Accelerator

Item = TypeVar("Item")
T = TypeVar("T")

LAUNCHER = re.compile(r"^launch$|accelerate-launch$|accelerate\.commands\.launch$")
RANKS = ("RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def ensure_processes(arguments: Sequence[str]) -> None:
    """Replaces this process by torchrun with as many as were asked for, if Accelerate started only one.

    Without MPI, `accelerate launch --cpu --num_processes 2` (1.15) starts one process and says nothing: training would
    go on alone, half as fast, with half the batch. Each gets its share of the cores, where torchrun would give it one.
    `arguments` are those of `img2img`, to be repeated.

    Raises:
        UsageError: if several machines were asked for.
    """
    if not is_launched_alone(os.environ):
        return
    parent = psutil.Process().parent()
    count, machines = parse_launcher(parent.cmdline() if parent else [])
    if machines > 1:
        raise UsageError(
            "accelerate launch starts only one process on a CPU. Start them on each machine with: "
            "torchrun --nnodes N --nproc-per-node M --rdzv-endpoint HOST:PORT -m img2img ..."
        )
    if count < 2:
        return
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, count_cores() // count))
    changed = {"MASTER_ADDR": "", "MASTER_PORT": "", "OMP_NUM_THREADS": threads}
    os.execve(sys.executable, [*command, "-m", "img2img", *arguments], {**os.environ, **changed})


def is_launched_alone(environment: Mapping[str, str]) -> bool:
    """Whether `accelerate launch` set out for several processes (it names a master) and gave this one no rank."""
    several = "ACCELERATE_MIXED_PRECISION" in environment and environment.get("MASTER_ADDR")
    return bool(several) and not any(name in environment for name in RANKS)


def parse_launcher(command: Sequence[str]) -> tuple[int, int]:
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


TIMEOUT = timedelta(days=30)  # that the first to finish waits for the last
PATIENCE = timedelta(hours=2)  # that a process waits in training, where the first may download or write something large


@dataclass(frozen=True)
class ProcessRank:
    """Which of several processes this is."""

    index: int = 0
    count: int = 1

    def gather(self, things: list[Item]) -> list[Item]:
        """Those of all processes, for each of them; waits for the last."""
        if self.count == 1:
            return things
        from torch.distributed import all_gather_object

        everything: list[Any] = [None] * self.count
        all_gather_object(everything, things)
        return [thing for theirs in everything for thing in theirs]

    def share(self, thing: T) -> T:
        """The first process' own, in every process."""
        if self.count == 1:
            return thing
        from torch.distributed import broadcast_object_list

        things = [thing]
        broadcast_object_list(things, src=0)
        return things[0]


def count_cores() -> int:
    """Cores for this process: its share of those that the processes on this machine may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))


def current_rank() -> ProcessRank:
    """Of this process among those that can exchange something by now."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return ProcessRank()
    return ProcessRank(distributed.get_rank(), distributed.get_world_size())


def exit_process(code: int) -> NoReturn:
    """Ends this process; one of several doesn't wait for the interpreter to clean up.

    A thread of gloo may still hold a tensor of the last exchange. If it drops the tensor while the interpreter shuts
    down, it cannot get the interpreter's lock, and C++ aborts the process (torch 2.14), also after
    `destroy_process_group`.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        sys.exit(code)
    if code in (0, 130):  # after a failure the others may be stuck in an exchange, for which this would wait
        distributed.destroy_process_group()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    os._exit(code)


LOST = (
    "gloo/transport",
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited",
)


def is_lost_process(error: BaseException) -> bool:
    """Whether an error says that another process of the same run has ended, so that nothing can be exchanged with it."""
    said = str(error)
    return current_rank().count > 1 and "imed out" not in said and any(word in said for word in LOST)


def join_processes(device: str) -> tuple[ProcessRank, "torch.device"]:
    """This process' rank under `accelerate launch` or torchrun, else the only one; and its device.

    Raises:
        UsageError: for a device that this machine doesn't have.
    """
    from img2img.core.device import choose_device  # imports torch

    chosen = choose_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ProcessRank(), chosen
    from accelerate import PartialState

    state = PartialState(cpu=chosen.type == "cpu", timeout=TIMEOUT)
    return ProcessRank(state.process_index, state.num_processes), chosen if chosen.index is not None else state.device


def run_on_main(accelerator: "Accelerator", work: Callable[[], T]) -> T:
    """Does something in the main process, and gives its outcome, or raises its error, in every process.

    Raises:
        UserError: what `work` raised.
    """
    if accelerator.num_processes == 1:
        return work()
    outcome: Any = None
    if accelerator.is_main_process:
        try:
            outcome = work()
        except UserError as error:
            outcome = error
    outcome = current_rank().share(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    return outcome  # type: ignore[no-any-return]


def build_accelerator(
    device: "torch.device", precision: str, accumulation: int, freezes_parts: bool = False
) -> "Accelerator":
    """Accelerate for this run, whatever an earlier run in this process or the environment asked of it.

    `freezes_parts` says that a part of a network may be frozen for a while, for which processes must not wait.
    """
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
    os.environ.pop("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", None)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # Accelerate passes on no successor yet
    if find_spec("lomo_optim") is None:  # which it looks for in all folders at each step: a millisecond an update
        sys.modules.setdefault("lomo_optim", None)  # type: ignore[arg-type]
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision,
        gradient_accumulation_steps=accumulation,
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=PATIENCE),
            DistributedDataParallelKwargs(  # buffers: there are two forwards before a backward
                broadcast_buffers=False, find_unused_parameters=freezes_parts, gradient_as_bucket_view=True
            ),
        ],
    )
