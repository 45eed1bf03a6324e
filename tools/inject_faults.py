"""Lets every change of a folder fail in turn, or the process die there, and sees whether anything is lost.

    python tools/inject_faults.py
    python tools/inject_faults.py train --every 10

Each scenario is a command on tiny data. It runs once to count its changes of the folder (files opened for writing, renamed,
linked, removed, synced; folders made and removed), and then once for each of them and each fault: the process is killed there, or
the call fails because the disk is full, broken, or not ours. It also runs with a limit to the size of files, which cuts off
whatever is longer. After each fault: a sentence and no traceback, nothing half-written, what was there before is still there;
and the command that a person would give next ends with the same bytes as a run without faults. Exit code 1: something was lost.
"""

import errno
import hashlib
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file

from img2img.cli import main as run_command
from img2img.core.files import PARTIAL
from img2img.images import write_image
from img2img.training.checkpoint import find_checkpoints

PRELOADED = [
    *("img2img.cli.compress", "img2img.cli.convert", "img2img.cli.export", "img2img.cli.import_", "img2img.cli.index"),
    *("img2img.cli.sample", "img2img.cli.shard", "img2img.cli.train"),
    *("img2img.training.train", "img2img.training.trainer", "img2img.methods.pix2pix", "img2img.methods.gan"),
    *("img2img.inference.convert", "img2img.interop.importing", "img2img.interop.exporting", "img2img.models"),
    *("albumentations", "scipy.stats", "skimage.metrics.simple_metrics", "torch._dynamo", "torch.distributed.tensor"),
    *("torch.utils.tensorboard", "torchvision", "img2img.data.paired", "img2img.data.class_folders"),
]  # what the commands import; here once, before the first fork
Fault = Literal["kill", "full", "broken", "forbidden"]
ERRORS = {"full": errno.ENOSPC, "broken": errno.EIO, "forbidden": errno.EACCES}
LIMITS = (2000, 10_000, 50_000)  # bytes of a file; what is said must fit
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
Name = Literal["train", "convert", "sample", "import", "export", "compress", "shard", "index", "shards"]
TINY = ["--generator.channels", "4", "--generator.depth", "2", "--discriminator.channels", "4", "--discriminator.layers", "1"]  # fmt: skip
QUICK = ["--size", "16", "--steps", "4", "--batch-size", "2", "--recipe", "paper", "--features", "none", "--ema", "0.9"]
PLAIN = ["--device", "cpu", "--mixed-precision", "no", "--checkpoint-every", "2", "--validate-every", "2"]


class Shim:
    """Counts the changes of a folder, and lets one of them fail."""

    def __init__(self, folder: Path, at: int = 0, fault: Fault = "kill") -> None:
        self.folder, self.at, self.fault, self.count = str(folder), at, fault, 0

    def install(self) -> None:
        """For good: to be called in a process of its own."""
        sync = os.fsync

        def checked_sync(handle: int) -> None:
            self.strike("fsync", str(Path(f"/proc/self/fd/{handle}").readlink()))
            sync(handle)

        os.fsync = checked_sync  # type: ignore[assignment]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            _, mode, flags = given
            if not (flags & WRITING if isinstance(flags, int) else set(mode or "") & set("wax+")):
                return
        elif event not in CHANGES:
            return
        path = given[0]
        self.strike(event, os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "")

    def strike(self, what: str, path: str) -> None:
        """Counts a change, and lets it fail if it is the one."""
        if not path.startswith(self.folder):
            return
        self.count += 1
        if self.count != self.at:
            return
        os.write(2, f"[{self.fault} at {what} {path}]\n".encode())
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        code = ERRORS[self.fault]
        raise OSError(code, os.strerror(code), path)


@dataclass(frozen=True)
class Scenario:
    """A command, what comes next, and what must be there in the end."""

    command: Callable[[Path], list[str]]
    """Of the folder that it works in."""
    following: Callable[[Path], list[str]]
    """What a person gives next."""
    results: tuple[str, ...]
    """Patterns of files whose bytes must be those of a run without faults."""
    partly: bool = False
    """Whether some of the results may be there after a fault; each must be whole then."""


def _next_training(folder: Path) -> list[str]:
    return ["train", "--resume", str(folder / "run")] if (folder / "run/config.yaml").is_file() else _train(folder)


def _train(folder: Path) -> list[str]:
    return ["train", "pix2pix", "--data", str(folder / "data"), *QUICK, *PLAIN, *TINY, "--output", str(folder / "run")]


def _convert(folder: Path) -> list[str]:
    return ["convert", str(folder / "data/trainA"), str(folder / "out"), "--model", str(folder / "model"), "--device", "cpu", "--dtype", "fp32"]  # fmt: skip


def _sample(folder: Path) -> list[str]:
    return ["sample", "--model", str(folder / "gan"), "--count", "3", "--output", str(folder / "out"), "--device", "cpu"]  # fmt: skip


def _import(folder: Path) -> list[str]:
    return ["import", str(folder / "net_G.pth"), "--output", str(folder / "out")]


def _export(folder: Path) -> list[str]:
    return ["export", str(folder / "model"), str(folder / "out.pth"), "--to", "reference"]


def _compress(folder: Path) -> list[str]:
    small = ["--macs", "0.5", "--steps", "4", "--size", "32", "--batch-size", "2", "--device", "cpu"]
    places = [str(folder / "model"), "--data", str(folder / "photos"), "--output", str(folder / "run")]
    return ["compress", *places, *small, "--accept", "1000"]


def _next_compression(folder: Path) -> list[str]:
    run = folder / "run"
    begun = (run / "config.yaml").is_file()
    return ["compress", "--resume", str(run), "--accept", "1000"] if begun else _compress(folder)


def _shard(folder: Path) -> list[str]:
    return ["shard", str(folder / "data"), str(folder / "out"), "--size-mb", "0.005"]


def _index(folder: Path) -> list[str]:
    return ["index", str(folder / "photos")]


def _convert_shards(folder: Path) -> list[str]:
    return ["convert", str(folder / "tars"), str(folder / "out"), "--model", str(folder / "model"), "--device", "cpu", "--dtype", "fp32"]  # fmt: skip


SCENARIOS: dict[Name, Scenario] = {
    "train": Scenario(
        _train,
        _next_training,
        ("run/latest/*", "run/best/*.safetensors", "run/checkpoints/step-00000004/*.safetensors", "run/samples/*"),
    ),
    "convert": Scenario(_convert, lambda f: [*_convert(f), "--skip-existing"], ("out/*.png",), partly=True),
    "sample": Scenario(_sample, lambda f: [*_sample(f), "--overwrite"], ("out/*.png",), partly=True),
    "import": Scenario(_import, lambda f: [*_import(f), "--overwrite"], ("out/*",)),
    "export": Scenario(_export, lambda f: [*_export(f), "--overwrite"], ("out.pth",), partly=True),
    "compress": Scenario(_compress, _next_compression, ("run/latest/*.safetensors", "run/teacher/**/*.png")),
    "shard": Scenario(_shard, _shard, ("out/*.tar", "out/*.parquet"), partly=True),
    "index": Scenario(_index, _index, ("photos/index.parquet",), partly=True),
    "shards": Scenario(
        _convert_shards, lambda f: [*_convert_shards(f), "--skip-existing"], ("out/*.tar",), partly=True
    ),
}


def prepare(folder: Path) -> None:
    """Data, a translator, a generator, and weights of another project."""
    random = np.random.default_rng(0)
    for side in ("trainA", "trainB", "valA", "valB"):
        for name in "abc":
            (folder / "data" / side).mkdir(parents=True, exist_ok=True)
            write_image(folder / "data" / side / f"{name}.png", random.integers(0, 256, (20, 20, 3), np.uint8))
    (folder / "photos").mkdir()
    for name in "abcdef":
        write_image(folder / "photos" / f"{name}.png", random.integers(0, 256, (32, 32, 3), np.uint8))
    more = [
        "--data",
        str(folder / "data"),
        "--recipe",
        "paper",
        "--features",
        "none",
        "--steps",
        "1",
        "--device",
        "cpu",
    ]
    small = [*more, "--size", "32", "--generator.channels", "4", "--discriminator.channels", "4"]
    norm = ["--generator.norm", "instance"]
    plain = ["--generator.depth", "5", *norm]
    for command in (
        ["train", "pix2pix", *small, *plain, "--output", str(folder / "made")],
        ["train", "gan", "--unconditional", *small, "--batch-size", "4", "--output", str(folder / "noise")],
        ["export", str(folder / "made"), str(folder / "net_G.pth"), "--to", "reference"],
        ["shard", str(folder / "photos"), str(folder / "tars"), "--size-mb", "0.01"],
    ):
        if code := _in_child(partial(run_command, command), folder / "log"):
            sys.exit(f"{' '.join(command)} ended with {code}:\n{(folder / 'log').read_text()}")
    (folder / "made/latest").rename(folder / "model")
    (folder / "noise/latest").rename(folder / "gan")
    for name in ("made", "noise"):
        shutil.rmtree(folder / name)


def _in_child(do: Callable[[], int], log: Path) -> int:
    """In a process of its own; gives its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    code = 99
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        null = os.open(os.devnull, os.O_RDWR)
        for number, target in ((0, null), (1, null), (2, handle)):
            os.dup2(target, number)
        code = do()
    except BaseException:
        traceback.print_exc()
    finally:  # whatever happens, it must not go on as the parent
        os._exit(code)


def find_losses(folder: Path, scenario: Scenario, truth: dict[str, str], code: int, log: str) -> list[str]:
    """What is wrong right after a fault."""
    wrong = []
    if "Traceback" in log or code in (99, -signal.SIGSEGV, -signal.SIGABRT):
        wrong.append("a traceback")
    if code == 1 and "img2img" not in log and not scenario.partly:
        wrong.append("no sentence")
    if code == 0 and digest(folder, scenario.results) != truth:
        wrong.append("exit code 0, but not all is there")
    if scenario.partly:
        wrong += [f"{name} is half-written" for name, found in digest(folder, scenario.results).items() if truth.get(name) != found]  # fmt: skip
    for checkpoint in find_checkpoints(folder / "run/checkpoints"):
        try:
            torch.load(checkpoint / "state.pt", weights_only=True)
            for file in checkpoint.glob("*.safetensors"):
                load_file(file)
        except Exception as error:
            wrong.append(f"{checkpoint.name} can't be loaded ({error})")
    return wrong


def digest(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """Of the files that match; models' configs without the time and the version."""
    files = [file for pattern in patterns for file in folder.glob(pattern) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.blake2b(_stable_bytes(file)).hexdigest() for file in sorted(files)}


def _stable_bytes(file: Path) -> bytes:
    data = file.read_bytes()
    return b"" if file.name in ("README.md", "config.json") and data else data  # they name the time


def test_scenario(name: Name, base: Path, work: Path, every: int, bar: Progress) -> list[str]:
    """All faults of a scenario; gives what went wrong."""
    scenario, losses, struck = SCENARIOS[name], [], 0
    folder, log = work / "here", work / "log"

    def attempt(shim: Shim | None, limit: int | None = None) -> tuple[int, str]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)

        def command() -> int:
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            if shim:
                shim.install()
            code = run_command(scenario.command(folder))
            if shim and not shim.at:
                (work / "count").write_text(str(shim.count))
            return code

        code = _in_child(command, log)
        return code, log.read_text(errors="replace")

    code, said = attempt(Shim(folder))
    if code:
        sys.exit(f"{name} fails without a fault:\n{said}")
    truth, count = digest(folder, scenario.results), int((work / "count").read_text())
    faults: list[Fault] = ["kill", "full", "broken", "forbidden"]
    points = [(at, fault) for at in range(1, count + 1) for fault in faults][::every]
    task = bar.add_task(name, total=len(points) + len(LIMITS))
    for shim, limit in [*((Shim(folder, *point), None) for point in points), *((None, limit) for limit in LIMITS)]:
        code, said = attempt(shim, limit)
        struck += shim is not None and f"[{shim.fault} at " in said
        wrong = find_losses(folder, scenario, truth, code, said)
        after = _in_child(lambda: run_command(scenario.following(folder)), log)
        if after or digest(folder, scenario.results) != truth:
            tail = " ".join(log.read_text(errors="replace").split())[-300:]
            changed = [key for key, value in digest(folder, scenario.results).items() if truth.get(key) != value]
            missing = sorted(truth.keys() - digest(folder, scenario.results).keys())
            wrong.append(f"the next command ends with {after} ({changed=} {missing=} {tail})")
        left = [str(path.relative_to(folder)) for path in folder.rglob(f"{PARTIAL}*")]
        if left and (shim is None or shim.fault != "kill"):
            wrong.append(f"left behind: {left[0]}")
        if wrong:
            where = said.partition("[")[2].partition("]")[0] or f"files cut off at {limit} bytes"
            losses.append(f"{name}, {where}: {'; '.join(wrong)}\n{said[-1500:] if 'a traceback' in wrong else ''}")
        bar.advance(task)
    if struck < 0.8 * len(points):  # the last may not: TensorBoard writes as often as it has time for
        losses.append(f"{name}: only {struck} of {len(points)} faults happened")
    return losses


def main(names: tyro.conf.Positional[tuple[Name, ...]] = tuple(SCENARIOS), every: int = 1) -> None:
    """Prints what was lost.

    Args:
        names: of the scenarios; by default all.
        every: try each n-th fault only.
    """
    torch.set_num_threads(1)
    for module in PRELOADED:
        importlib.import_module(module)
    console, losses = Console(width=160, highlight=False), []
    with tempfile.TemporaryDirectory() as temporary, Progress(console=console, transient=True) as bar:
        base = Path(temporary, "base")
        prepare(base)
        for name in names:
            work = Path(temporary, name)
            work.mkdir()
            losses += test_scenario(name, base, work, every, bar)
    for loss in losses:
        console.print(loss, markup=False)
    console.print("Nothing was lost." if not losses else f"{len(losses)} faults lost something.")
    sys.exit(bool(losses))


if __name__ == "__main__":
    tyro.cli(main)
