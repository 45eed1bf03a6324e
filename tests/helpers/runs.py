"""Runs in processes of their own: started, killed, compared."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file

from helpers.forked import Forked, fork
from img2img.training.checkpoint import find_checkpoints


def final_state(run: Path) -> dict[str, Any]:
    """All that the last checkpoint holds, tensors by name."""
    latest = find_checkpoints(run / "checkpoints")[-1]
    state: dict[str, Any] = {}
    for file in sorted(latest.glob("*.safetensors")):
        state |= {f"{file.stem}/{name}": tensor for name, tensor in load_file(file).items()}
    saved = torch.load(latest / "state.pt", weights_only=True)
    for name, optimizer in saved["optimizers"].items():
        for index, values in optimizer["state"].items():
            state |= {f"{name}/{index}/{key}": value for key, value in values.items()}
    state["random"] = torch.cat([each["random"]["torch"] for each in saved["processes"]])
    state["processes"] = len(saved["processes"])
    state["watched"] = repr(saved["diagnostics"]) + repr([each["meter"] for each in saved["processes"]])
    progress = json.loads((latest / "progress.json").read_text())
    return {**state, "progress": progress}


def assert_equal(run: Path, other: Path) -> None:
    a, b = final_state(run), final_state(other)
    assert a.keys() == b.keys()
    for name, value in a.items():
        same = torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        assert same, f"{name} differs"


def lines(run: Path) -> list[Any]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in log]


def free_port() -> int:
    """Below those that the system gives to outgoing connections, one of which might else take it before the launcher does."""
    for port in random.sample(range(15000, 30000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def launch(run: Path, config: Path | None, processes: int, *options: str) -> Forked:
    """`img2img train` in processes of its own; a new run reads `config`, else it is resumed, with these options."""
    what = ["--config", str(config)] if config else ["--resume", str(run)]
    return fork(["train", *what, *options], run.with_name(f"{run.name}.said"), processes, free_port())


def launch_as_users_do(run: Path, config: Path, processes: int) -> subprocess.Popen[bytes]:
    """As `launch`, in a new Python; if there are several processes, in four or more, by Accelerate."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launcher += ["--main_process_port", str(free_port())]
    command = [*launcher, "-m", "img2img", "train", "--config", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with run.with_name(f"{run.name}.said").open("wb") as said:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=said, stderr=said)


def finish(run: Path, config: Path | None, processes: int, *options: str) -> None:
    wait_for(launch(run, config, processes, *options), run)


def wait_for(process: Forked | subprocess.Popen[bytes], run: Path) -> None:
    """Until a training has ended, as it should."""
    assert process.wait(300) == 0, run.with_name(f"{run.name}.said").read_text()[-5000:]


def kill_when(process: Forked, reached: Any) -> bool:
    """Kills the whole process group as soon as `reached()`; says whether it was still running."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if reached():
            try:
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            except psutil.NoSuchProcess:
                return False
            for member in family:  # torchrun's processes have sessions of their own
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()
            psutil.wait_procs(family)
            return True
        time.sleep(0.0005)
    return False
