"""Kills a training run five times, twice while a checkpoint is being written, and compares it with one that was left alone.

    python tools/kill_resume.py --data DIR --workers 2
    python tools/kill_resume.py --data DIR --processes 2
    python tools/kill_resume.py --data DIR --method cyclegan --processes 2

Prints where it was killed, and whether every tensor of the last checkpoints is equal, bit for bit.
"""

import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import tyro
from safetensors.torch import load_file


def main(
    data: Path,
    method: str = "pix2pix",
    processes: int = 1,
    workers: int = 0,
    steps: int = 60,
    size: int = 64,
    channels: int = 16,
    seed: int = 0,
) -> int:
    """Trains twice, and compares.

    Args:
        data: A data set that suits the method.
        method: What to train.
        processes: How many train together.
        workers: Loading processes in each.
        steps: Optimizer updates.
        size: Training size in pixels.
        channels: Width of both networks.
        seed: Of the moments.
    """
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        options = (
            f"--size {size} --steps {steps} --workers {workers} --generator.channels {channels} --ema 0.9 --device cpu"
        )
        options += f" --discriminator.channels {channels} --checkpoint-every 3 --validate-every {steps} --data {data}"
        start = ["train", method, *options.split(), "--output"]
        _launch([*start, str(whole)], processes).wait()
        command = [*start, str(killed)]
        for kill in range(5):
            after, saving = _latest_update(killed) + moments.randint(1, steps // 8), kill in (1, 3)
            process = _launch(command, processes)
            _kill_when(process, lambda a=after, s=saving: _reached(killed, a, s))  # type: ignore[misc]
            print(
                f"killed after update {_latest_update(killed)}{', while a checkpoint was written' if saving else ''}",
                flush=True,
            )
            command = ["train", "--resume", str(killed)]
        _launch(command, processes).wait()
        differing = _differences(_last(whole), _last(killed))
    print(
        json.dumps(
            {"method": method, "processes": processes, "workers": workers, "updates": steps, "differing": differing}
        )
    )
    return 1 if differing else 0


def _launch(arguments: list[str], processes: int) -> subprocess.Popen[bytes]:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["accelerate.commands.launch", "--cpu", "--num_processes", str(processes), "-m"]
    return subprocess.Popen([*launcher, "img2img", *arguments], stderr=subprocess.DEVNULL, start_new_session=True)


def _reached(run: Path, after: int, saving: bool) -> bool:
    if saving:
        return _latest_update(run) >= after and any((run / "checkpoints").glob(".partial-*"))
    log = run / "log.jsonl"
    return _latest_update(run) >= after and log.exists() and random.random() < 0.2


def _kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    while process.poll() is None:
        if reached():
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()
            psutil.wait_procs(family)
            return
        time.sleep(0.0005)
    sys.exit("the run ended before it could be killed; give more --steps")


def _last(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


def _latest_update(run: Path) -> int:
    return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)


def _tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    found = {f"{f.stem}.{name}": t for f in checkpoint.glob("*.safetensors") for name, t in load_file(f).items()}
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    for phase, optimizer in state["optimizers"].items():
        for index, values in optimizer["state"].items():
            found |= {f"{phase}.{index}.{name}": value for name, value in values.items()}
    found["diagnostics"] = torch.tensor(list(repr(state["diagnostics"]).encode()))
    for rank, own in enumerate(state["processes"]):
        found |= {f"sum.{rank}.{name}": value for name, value in own["meter"]["sums"].items()}
        found[f"random.{rank}"] = own["random"]["torch"]
    return found


def _differences(one: Path, other: Path) -> list[str]:
    a, b = _tensors(one), _tensors(other)
    return [name for name in a | b if name not in a or name not in b or not torch.equal(a[name], b[name])]


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
