"""Two processes with batch 1 train as one with batch 2."""

import importlib.util
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import accelerate
import psutil
import pytest
import torch
from helpers.configs import tiny_config
from helpers.data import write_classes
from helpers.runs import finish, launch_as_users_do, wait_for
from safetensors.torch import load_file

from img2img.config import write_config
from img2img.core.processes import (
    ProcessRank,
    build_accelerator,
    count_cores,
    is_launched_alone,
    is_lost_process,
    parse_launcher,
)
from img2img.interop import load
from img2img.models import NoiseGenerator, Translator
from img2img.training.checkpoint import find_checkpoints

DISCRIMINATOR = {"kind": "patch", "channels": 4, "layers": 1, "norm": "instance"}
METHODS: dict[str, dict[str, Any]] = {
    "pix2pix": {"generator": {"kind": "unet", "channels": 4, "depth": 2, "norm": "instance", "dropout": 0.0}},
    "nogan": {
        "generator": {"kind": "unet", "channels": 4, "depth": 2, "norm": "instance", "dropout": 0.0},
        "pretrain_generator": 0.4,
        "pretrain_discriminator": 0.3,
    },
    "projected": {
        "generator": {"kind": "unet", "channels": 4, "depth": 2, "norm": "instance", "dropout": 0.0},
        "discriminator": {"kind": "projected", "channels": 4},
        "adversarial": "hinge",
        "perceptual": {"weight": 10.0},
    },
    "cyclegan": {"name": "cyclegan", "pool": 3},
    "cut": {
        "name": "cut",
        "initialisation_gain": 1.0,
        "projection_channels": 32,  # so many that no patch leaves all of them inactive, where gradients are huge
    },  # 256 patches are all places of 16×16 pixels, however they are drawn
}
LABELLED: dict[str, dict[str, Any]] = {
    "spade": {
        "name": "spade",
        "lr": 2e-5,
        "discriminator_lr": 2e-5,
        "betas": (0.5, 0.999),
        "initialisation_gain": 1.0,
    },
    "pix2pixhd": {"name": "pix2pixhd", "encoder": True, "frozen_share": 0.5},
}
METHODS |= LABELLED


def latest(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    return {f"{f.stem}/{name}": t for f in checkpoint.glob("*.safetensors") for name, t in load_file(f).items()}


@pytest.mark.parametrize(
    ("method", "accumulation"),
    [
        ("pix2pix", 1),
        ("pix2pix", 2),
        ("nogan", 1),
        ("cyclegan", 1),
        ("cut", 1),
        ("projected", 1),
        ("spade", 1),
        ("pix2pixhd", 1),
    ],
)
def test_two_processes_equal_one_with_twice_the_batch(
    pairs: Path, unpaired: Path, labelled: Path, tmp_path: Path, method: str, accumulation: int
) -> None:
    """CycleGAN with a pool, which must hold the same images; SPADE with batch norm over processes; pix2pixHD in two stages, a part of it frozen; NoGAN in three."""
    options: dict[str, Any] = {"steps": 6, "validate_every": 3, "accumulation": accumulation, "features": "none"}
    options |= {} if method in ("pix2pix", "nogan", "projected") else {"best": "l1"}
    options |= {"data": {"size": 64}} if method == "spade" else {}
    options |= {"data": {"size": 32}} if method == "projected" else {}
    settings = METHODS[method] if method in LABELLED else {"discriminator": DISCRIMINATOR, **METHODS[method]}
    data = pairs if method in ("pix2pix", "nogan", "projected") else labelled if method in LABELLED else unpaired
    for name, processes in (("one", 1), ("two", 2)):
        config = tiny_config(data, tmp_path / name, settings, batch_size=2 // processes, **options)
        write_config(tmp_path / f"{name}.yaml", config)
        if processes > 1 and method == "cyclegan":
            wait_for(launch_as_users_do(tmp_path / name, tmp_path / f"{name}.yaml", processes), tmp_path / name)
        else:
            finish(tmp_path / name, tmp_path / f"{name}.yaml", processes)
    one, two = latest(tmp_path / "one"), latest(tmp_path / "two")
    assert one.keys() == two.keys()
    assert ("pool_A/images" in one) == (method == "cyclegan")
    for name, tensor in one.items():
        if re.search(r"generator/(stem|blocks\.\d\.(conv_1|norm_s\.shift))\.bias|norm\.running_mean", name):
            continue  # norms cancel such biases, so their gradients are rounding noise; and the means that they shift
        if name.endswith(("._u", "._v")):
            continue  # of singular values that are nearly equal, rounding decides on the direction
        assert torch.allclose(tensor, two[name], atol=1e-4), name  # a twelfth of what Adam's six steps can change
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(logs[0]) == len(logs[1]) == {"pix2pixhd": 4, "nogan": 3}.get(method, 8)
    for a, b in zip(*logs, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"images_per_second"}:
            near = 1e-2 if key.endswith("gradient") else 2e-3  # where an activation changes its sign, gradients jump
            assert a[key] == pytest.approx(b[key], rel=near, abs=1e-5), key


def test_a_run_goes_on_in_any_number_of_processes_and_workers(pairs: Path, tmp_path: Path) -> None:
    """Each update sees the images that it would have seen in one process, whoever reads them."""
    settings = {"discriminator": DISCRIMINATOR, **METHODS["pix2pix"]}
    options: dict[str, Any] = {"features": "none", "checkpoint_every": 2, "batch_size": 6, "decay": 0.0}
    for name, steps in (("whole", 8), ("parts", 2)):
        write_config(tmp_path / f"{name}.yaml", tiny_config(pairs, tmp_path / name, settings, steps=steps, **options))
        finish(tmp_path / name, tmp_path / f"{name}.yaml", 1)
    for steps, processes, workers in ((4, 3, 0), (6, 2, 2), (8, 1, 1)):
        batch, run = 6 // processes, tmp_path / "parts"
        given = f"--steps {steps} --batch-size {batch} --workers {workers}"
        finish(run, None, processes, *given.split())
    whole, parts = latest(tmp_path / "whole"), latest(tmp_path / "parts")
    for name, tensor in whole.items():
        assert torch.allclose(tensor, parts[name], atol=2e-5), name
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    a, b = ([line for line in map(json.loads, log) if "lr" in line] for log in logs)
    assert [line["step"] for line in a] == [line["step"] for line in b] == list(range(1, 9))
    for one, other in zip(a, b, strict=True):
        losses = [key for key in one if key.startswith("G/") and not key.endswith("gradient")]
        assert losses and [one[key] for key in losses] == pytest.approx([other[key] for key in losses], rel=2e-3)


def test_cores_are_shared_by_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    for processes, cores in (("", 12), ("1", 12), ("5", 2), ("40", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert count_cores() == cores


def test_no_step_searches_for_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, weight = build_accelerator(torch.device("cpu"), "no", 1), torch.nn.Parameter(torch.ones(1))
    optimizer = accelerator.prepare(torch.optim.Adam([weight]))
    searched: list[str] = []
    monkeypatch.setattr(importlib.util, "_find_spec", lambda name, *rest: searched.append(name))
    weight.sum().backward()
    optimizer.step()
    assert weight.item() < 1 and not searched


def test_processes_wait_for_one_that_downloads_or_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL gives up after ten minutes otherwise."""
    given: list[Any] = []
    monkeypatch.setattr(accelerate, "Accelerator", lambda **options: given.extend(options["kwargs_handlers"]))
    build_accelerator(torch.device("cpu"), "no", 1)
    [timeout] = [handler.timeout for handler in given if hasattr(handler, "timeout")]
    assert timeout.total_seconds() >= 3600


@pytest.mark.parametrize(
    ("number", "code", "sentence"),
    [
        (signal.SIGKILL, -9, "img2img: another process of this run has ended"),
        (signal.SIGTERM, 130, "everything is saved"),
    ],
)
def test_when_one_process_is_stopped_the_others_end_with_a_sentence(
    pairs: Path, tmp_path: Path, number: signal.Signals, code: int, sentence: str
) -> None:
    run = tmp_path / "run"
    write_config(tmp_path / "run.yaml", tiny_config(pairs, run, steps=100_000, checkpoint_every=2))
    launcher = launch_as_users_do(run, tmp_path / "run.yaml", 2)
    try:
        until = time.monotonic() + 120
        while not find_checkpoints(run / "checkpoints") and time.monotonic() < until:
            time.sleep(0.01)
        family = psutil.Process(launcher.pid).children(recursive=True)
        [second] = [each for each in family if each.environ().get("RANK") == "1"]
        second.send_signal(number)
        assert launcher.wait(60) == 1
    finally:
        launcher.kill()
    said = (tmp_path / "run.said").read_text()
    codes = set(re.findall(r"exitcode *: (-?\d+)", said))  # torchrun's report; it may end the others before they can
    assert str(code) in codes and codes <= {str(code), "1", "-15"}, said
    assert (sentence in said or "-15" in codes) and "[rank" not in said, said


@pytest.mark.parametrize(
    ("said", "count", "lost"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1", 2, True),
        ("Rank 1 successfully reached monitoredBarrier, but the remote process exited", 3, True),
        ("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation", 2, False),
        ("Broken pipe", 1, False),
        ("CUDA out of memory", 2, False),
    ],
)
def test_a_lost_process_is_told_from_other_errors(
    monkeypatch: pytest.MonkeyPatch, said: str, count: int, lost: bool
) -> None:
    monkeypatch.setattr("img2img.core.processes.current_rank", lambda: ProcessRank(0, count))
    assert is_lost_process(RuntimeError(said)) == lost


@pytest.mark.parametrize(
    ("environment", "alone"),
    [
        ({}, False),
        ({"MASTER_ADDR": "127.0.0.1"}, False),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, False),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"}, True),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "RANK": "0"}, False),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "PMI_SIZE": "2"}, False),
    ],
)
def test_a_launcher_that_started_too_few_is_noticed(environment: dict[str, str], alone: bool) -> None:
    assert is_launched_alone(environment) == alone


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("/launchpad/bin/accelerate launch --cpu --num_processes 2 -m img2img train pix2pix", (2, 1)),
        ("/usr/bin/python -m accelerate.commands.launch --num-processes=3 -m img2img", (3, 1)),
        ("accelerate launch -m img2img --num_processes 2", (1, 1)),
        ("accelerate launch --num_processes 4 --num_machines 2 -m img2img", (4, 2)),
        ("bash", (1, 1)),
    ],
)
def test_how_many_were_asked_for(command: str, asked: tuple[int, int]) -> None:
    assert parse_launcher(command.split()) == asked


@pytest.mark.parametrize("name", ["gan", "infogan", "stargan"])
def test_two_processes_make_images_from_noise(classes: Path, tmp_path: Path, name: str) -> None:
    """Their noise, or the domains that are asked for, differ, so they equal no single process; but they stay together, and do the same again."""
    steps: dict[str, Any] = {"steps": 5, "validate_every": 5, "ema": 0.5, "features": "lite", "best": "kid"}
    write_classes(classes, 10, split="val")  # as many of each class as its KID needs
    for run in ("one", "two"):
        settings = {"name": name, "discriminator_steps": 2}
        write_config(tmp_path / f"{run}.yaml", tiny_config(classes, tmp_path / run, settings, batch_size=2, **steps))
        finish(tmp_path / run, tmp_path / f"{run}.yaml", 2)
    one, two = latest(tmp_path / "one"), latest(tmp_path / "two")
    assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    saved = torch.load(find_checkpoints(tmp_path / "one" / "checkpoints")[-1] / "state.pt", weights_only=True)
    states = [each["random"]["torch"] for each in saved["processes"]]
    assert len(states) == 2 and not torch.equal(*states), "each process draws noise of its own"
    lines = [json.loads(line) for line in (tmp_path / "one" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 5] and lines[-1]["val/kid"] is not None
    assert isinstance(load(tmp_path / "one" / "best"), Translator if name == "stargan" else NoiseGenerator)
    trained = [line["step"] for line in lines if "G/adversarial" in line]
    assert trained == [2, 4], "the generator is due at every second update"
