"""A run that is killed, at any moment, and resumed ends with the same bits as one that was never stopped."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from helpers.configs import tiny_config
from helpers.runs import assert_equal, final_state, finish, kill_when, launch, launch_as_users_do, lines

import img2img
from img2img.config import write_config
from img2img.core.errors import UsageError
from img2img.training.checkpoint import find_checkpoints
from img2img.training.train import train

METHOD = {"generator": {"kind": "unet", "channels": 4, "depth": 2, "dropout": 0.5}}


PROJECTED: dict[str, Any] = {
    **METHOD,
    "discriminator": {"kind": "projected", "channels": 4, "mixing": "cross-scale", "patch": True},
    "adversarial": "hinge",
    "augment": ("auto", "colour", "translation"),
    "perceptual": {"weight": 10.0},
    "r1": 1.0,
    "r2": 0.5,
    "r1_every": 2,
}
LABELLED: dict[str, dict[str, Any]] = {
    "spade": {"name": "spade", "encoder": True},
    "pix2pixhd": {"name": "pix2pixhd", "encoder": True, "pool": 2, "coarse_share": 0.0},
}
NOISE: dict[str, dict[str, Any]] = {
    "gan": {"name": "gan", "discriminator_steps": 2, "instance_noise": 0.1, "augment": ("translation",)},
    "vae": {"name": "vae"},
    "lapgan": {"name": "lapgan", "discriminator_steps": 2},
    "stylegan2": {"name": "stylegan2", "path_every": 2, "r1_every": 2},
    "infogan": {"name": "infogan", "discriminator_steps": 3},
    "projected-gan": {"name": "gan", "discriminator": {"kind": "projected", "channels": 2}, "adversarial": "hinge"},
    "stargan": {"name": "stargan"},
    "progressive": {
        "name": "gan",
        "generator": {"kind": "progressive", "channels": 2, "latent": 4, "grow_updates": 2},
        "discriminator": {"kind": "progressive", "channels": 2},
    },
}
UNPAIRED: dict[str, dict[str, Any]] = {
    "cyclegan": {
        "name": "cyclegan",
        "pool": 3,
        "augment": ("colour", "translation", "cutout"),
        "r1": 1.0,
        "r1_every": 2,
    },
    "fastcut": {"name": "fastcut"},
    "unsb": {"name": "unsb"},
    "cut": {"name": "cut", "adversarial": "wasserstein", "gradient_penalty": 10.0},
}


@pytest.mark.parametrize(
    ("method", "accumulation"),
    [
        *((name, batches) for name in ("pix2pix", "cyclegan", "spade") for batches in (1, 2)),
        *(
            (name, 1)
            for name in (
                "bicyclegan",
                "cut",
                "fastcut",
                "unsb",
                "pix2pixhd",
                "infogan",
                "vae",
                "lapgan",
                "stylegan2",
                "stargan",
            )
        ),
        *(("gan", batches) for batches in (1, 2)),
        ("progressive", 1),
        ("projected", 2),
        ("projected-gan", 1),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    pairs: Path, unpaired: Path, labelled: Path, classes: Path, tmp_path: Path, method: str, accumulation: int
) -> None:
    options: dict[str, Any] = {"ema": 0.9, "checkpoint_every": 3, "accumulation": accumulation, "batch_size": 2}
    options["log_every"] = 4  # the run is stopped between two lines of the log
    data = pairs if method in ("pix2pix", "bicyclegan", "projected") else labelled if method in LABELLED else unpaired
    data = classes if method in NOISE else data
    options |= {"data": {"size": 64}} if method == "spade" else {}
    options |= {"data": {"size": 32}} if method == "projected" else {}
    settings = {**UNPAIRED, **LABELLED, **NOISE, "projected": PROJECTED, "bicyclegan": {"name": "bicyclegan"}}.get(
        method, METHOD
    )
    whole = train(tiny_config(data, tmp_path / "whole", settings, steps=8, **options), quiet=True)

    class StopError(Exception):
        pass

    from img2img.training.validation import Validator

    keeper: Any = Validator
    saved = keeper.save_latest

    def stop(self: Any, generators: Any, encoders: Any, progress: Any) -> None:
        saved(self, generators, encoders, progress)
        if progress.update == 6:
            raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "save_latest", stop)
        with pytest.raises(StopError):
            train(tiny_config(data, tmp_path / "parts", settings, steps=8, **options), quiet=True)
    torch.manual_seed(999)  # a resume must not depend on what is there
    train(resume=tmp_path / "parts", quiet=True)
    assert_equal(whole, tmp_path / "parts")
    assert lines(whole) == lines(tmp_path / "parts"), "the log has each step once, with equal losses"


@pytest.mark.parametrize(("method", "processes", "workers"), [("pix2pix", 1, 2), ("pix2pix", 2, 0), ("cyclegan", 2, 1)])
def test_killed_while_training_and_while_saving(
    pairs: Path, unpaired: Path, tmp_path: Path, method: str, processes: int, workers: int
) -> None:
    options: dict[str, Any] = {"steps": 60, "checkpoint_every": 2, "validate_every": 20, "workers": workers, "ema": 0.9}
    data = pairs if method == "pix2pix" else unpaired
    for name in ("whole", "killed"):
        config = tiny_config(data, tmp_path / name, UNPAIRED.get(method, METHOD), **options)
        write_config(tmp_path / f"{name}.yaml", config)
    finish(tmp_path / "whole", tmp_path / "whole.yaml", processes)

    run = tmp_path / "killed"
    folder = run / "checkpoints"

    def reached_update_6() -> bool:
        return any(int(path.name[5:]) >= 6 for path in folder.glob("step-*"))

    def saving() -> bool:
        late = any(int(path.name[5:]) >= 14 for path in folder.glob("step-*"))
        return late and any(folder.glob(".partial-*"))

    kills = kill_when(launch(run, tmp_path / "killed.yaml", processes), reached_update_6)
    kills += kill_when(launch(run, None, processes), saving)
    assert kills == 2, "the run must have been killed twice"
    finish(run, None, processes)
    assert_equal(tmp_path / "whole", run)
    assert final_state(run)["processes"] == processes
    assert not list(folder.glob(".partial-*"))


def test_a_run_may_be_trained_longer(pairs: Path, tmp_path: Path) -> None:
    run = train(tiny_config(pairs, tmp_path / "run", steps=2), quiet=True)
    from img2img.training.run_folder import load_run_config

    train(load_run_config(run).model_copy(update={"steps": 5}), resume=run, quiet=True)
    assert final_state(run)["progress"]["update"] == 5


def test_what_cannot_be_resumed_is_said(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the folder of a run"):
        train(resume=tmp_path)
    run = train(tiny_config(pairs, tmp_path / "run", steps=2), quiet=True)
    wider = tiny_config(pairs, run, {"generator": {"kind": "unet", "channels": 8, "depth": 2}}, steps=4)
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(UsageError, match="can't be resumed with these settings: its generator is another network"):
        train(wider, resume=run, quiet=True)
    assert (run / "config.yaml").read_bytes() == before, "a refused resume must not spoil the next one"
    with pytest.raises(UsageError, match="--resume"):
        train(tiny_config(pairs, run), quiet=True)


def test_a_checkpoint_that_runs_code_is_refused(pairs: Path, tmp_path: Path) -> None:
    run = train(tiny_config(pairs, tmp_path / "run", steps=2), quiet=True)

    class Evil:
        def __reduce__(self) -> Any:
            return (os.system, (f"touch {tmp_path / 'owned'}",))

    torch.save(
        {"optimizers": Evil(), "scaler": {}, "processes": []}, find_checkpoints(run / "checkpoints")[-1] / "state.pt"
    )
    with pytest.raises(UsageError, match="can't be resumed"):
        train(resume=run, quiet=True)
    assert not (tmp_path / "owned").exists()


def test_a_run_killed_before_its_first_checkpoint_starts_again(pairs: Path, tmp_path: Path) -> None:
    whole = train(tiny_config(pairs, tmp_path / "whole", METHOD), quiet=True)
    run = tmp_path / "run"
    for leftover in (run / ".partial-somewhere-1-x", run / "samples" / ".partial-somewhere-1-y"):
        leftover.mkdir(parents=True)
    write_config(run / "config.yaml", tiny_config(pairs, run, METHOD))
    (run / "log.jsonl").write_text('{"step": 1}\n{"ste')
    train(resume=run, quiet=True)
    assert_equal(whole, run)
    assert lines(whole) == lines(run)
    assert not list(run.rglob(".partial-*"))


def test_as_many_checkpoints_are_kept_as_asked_and_what_is_not_complete_is_none(pairs: Path, tmp_path: Path) -> None:
    run = train(tiny_config(pairs, tmp_path / "run", steps=4, checkpoint_every=1, keep_checkpoints=2), quiet=True)
    folder = run / "checkpoints"
    (folder / "step-00000009").mkdir()
    assert [path.name for path in find_checkpoints(folder)] == ["step-00000003", "step-00000004"]
    assert sorted(path.name for path in folder.iterdir())[:-1] == ["step-00000003", "step-00000004"]


def test_from_the_first_file_on_a_run_can_be_resumed(pairs: Path, tmp_path: Path) -> None:
    """Else a run that died early could neither be resumed nor be started again."""

    class StopError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("img2img.training.train.RunLog", stop)
        with pytest.raises(StopError):
            train(tiny_config(pairs, tmp_path / "run", METHOD), quiet=True)
    train(resume=tmp_path / "run", quiet=True)


def test_a_kill_between_checkpoint_and_translator_is_mended(pairs: Path, tmp_path: Path) -> None:
    run = train(tiny_config(pairs, tmp_path / "run"), quiet=True)
    shutil.rmtree(run / "latest")
    train(resume=run, quiet=True)
    assert img2img.load(run / "latest").config.training.updates == 4


def test_two_runs_cannot_share_a_folder(pairs: Path, tmp_path: Path) -> None:
    run = train(tiny_config(pairs, tmp_path / "run"), quiet=True)
    with FileLock(run / ".lock"), pytest.raises(UsageError, match="in use by another process"):
        train(resume=run, quiet=True)
    with pytest.raises(UsageError) as caught:  # whose traceback keeps the failed run alive
        train(
            tiny_config(pairs, run, {"generator": {"kind": "unet", "channels": 8, "depth": 2}}), resume=run, quiet=True
        )
    train(resume=run, quiet=True)
    del caught


def test_another_batch_size_sees_as_many_images(pairs: Path, tmp_path: Path) -> None:
    config = tiny_config(pairs, tmp_path / "run", steps=None, epochs=1)
    run = train(config, quiet=True)
    train(config.model_copy(update={"epochs": 3, "batch_size": 4}), resume=run, quiet=True)
    assert final_state(run)["progress"]["update"] == 6 + 3
    assert final_state(run)["progress"]["samples"] == 6 + 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reaches_the_whole_group_and_still_saves(pairs: Path, tmp_path: Path, number: int) -> None:
    config = tiny_config(pairs, tmp_path / "run", METHOD, steps=100000, checkpoint_every=100000, workers=1)
    write_config(tmp_path / "run.yaml", config)
    start: Any = launch_as_users_do if number == signal.SIGINT else launch
    process = start(tmp_path / "run", tmp_path / "run.yaml", 1)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and len(log.read_text()) > 100):
        time.sleep(0.01)
    os.killpg(process.pid, number)
    assert process.wait(60) == 130
    (checkpoint,) = find_checkpoints(tmp_path / "run" / "checkpoints")
    assert img2img.load(tmp_path / "run" / "latest").config.training.updates == int(checkpoint.name[5:])


def test_a_finished_run_says_so_and_keeps_its_config(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(pairs, tmp_path / "run")
    run = train(config, quiet=True)
    before = (run / "config.yaml").read_bytes()
    train(config.model_copy(update={"steps": 2}), resume=run)
    assert "4 updates are done already" in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == before
