"""`img2img` in processes of its own that are forked from one which has imported everything: at once, where Python needs six seconds."""

import atexit
import multiprocessing
import os
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

PRELOADED = [
    *("img2img.cli.train", "img2img.training.train", "img2img.training.trainer", "img2img.methods.pix2pix"),
    *("albumentations", "skimage.metrics.simple_metrics", "scipy.stats", "torch.utils.tensorboard", "torch._dynamo"),
    *("torch.distributed.tensor", "torch.multiprocessing", "torchvision"),
]  # the second and third line: what the first imports while it trains


STARTED: "list[Forked]" = []


class Forked:
    """A process, as of `subprocess`."""

    def __init__(self, process: ForkServerProcess) -> None:
        self.process, self.pid = process, process.pid or 0
        STARTED.append(self)

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError
        return self.process.exitcode

    def kill(self) -> None:
        if self.poll() is None:  # its number may be another's by now
            self.process.kill()


def fork(arguments: Sequence[str], said: Path, processes: int, port: int) -> Forked:
    """Starts `img2img` with these arguments, in so many processes; what they say goes into a file."""
    return _start_forked(_run, list(arguments), os.getcwd(), str(said), processes, port)  # noqa: PTH109


def call(function: Callable[..., object], arguments: tuple[object, ...], processes: int) -> None:
    """Calls a function of a test's file with the rank and these arguments, in so many processes, which must end well."""
    process = _start_forked(_call, function, arguments, processes)
    try:
        assert process.wait(300) == 0, "what went wrong is in the error output"
    finally:
        process.kill()


def stop_forked() -> None:
    """Kills those that a failed test has left."""
    for process in STARTED:
        process.kill()


def _start_forked(function: Callable[..., object], *arguments: object) -> Forked:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # of the first, which reads it while it imports, and so of all
        process = context.Process(target=_enter, args=(dict(os.environ), function, arguments))
        process.start()
    return Forked(process)


def _enter(environment: dict[str, str], function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """With the environment of now, where the server has that of the first."""
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def _call(function: Callable[..., object], arguments: tuple[object, ...], processes: int) -> None:
    from torch.multiprocessing import start_processes

    start_processes(function, arguments, processes, start_method="fork")


def _run(arguments: list[str], folder: str, said: str, processes: int, port: int) -> None:
    """Leads a group of its own."""
    from torch.multiprocessing import start_processes

    multiprocessing.set_start_method("fork", force=True)  # of a loader's workers, as where nothing is set
    os.setsid()
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(handle, number)
    os.chdir(folder)
    if processes == 1:
        _start(arguments)
    start_processes(_be_rank, (arguments, processes, port), processes, start_method="fork")


def _be_rank(rank: int, arguments: list[str], processes: int, port: int) -> None:
    """As torchrun tells each."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    _start(arguments)


def _start(arguments: list[str]) -> None:
    from img2img.cli import main
    from img2img.core.processes import exit_process

    code = main(arguments)
    atexit._run_exitfuncs()  # as Python does at its end, but not in processes that it has forked
    exit_process(code)
