"""From coarse to fine in one command: killed anywhere, it goes on, and ends with the same bits; and each stage by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.configs import tiny_config
from helpers.data import write_labelled
from helpers.runs import assert_equal, final_state, finish, kill_when, launch
from safetensors.torch import load_file

import img2img
from img2img.config import RunConfig, resolve_config, write_config
from img2img.core.errors import UsageError
from img2img.training.checkpoint import find_checkpoints
from img2img.training.curriculum import earlier_config, frozen_updates, load_stage_weights, own_length
from img2img.training.train import train
from img2img.training.validation import Validator

OPTIONS: dict[str, Any] = {"steps": 12, "checkpoint_every": 2, "validate_every": 3, "ema": 0.5, "log_every": 2}


def config(data: Path, output: Path, **method: Any) -> RunConfig:
    settings = {"name": "pix2pixhd", "encoder": True, "frozen_share": 0.34, **method}
    return tiny_config(data, output, settings, **OPTIONS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return write_labelled(write_labelled(folder, 6, 32), 2, 32, split="val", first=6)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    return train(config(data, tmp_path_factory.mktemp("whole") / "run"), quiet=True)


def test_stages(data: Path, tmp_path: Path) -> None:
    fine = config(data, tmp_path / "run")
    coarse = earlier_config(fine)
    assert coarse is not None and coarse.output == tmp_path / "run" / "coarse"
    assert (coarse.steps, coarse.data.size, coarse.method.generator.enhancers) == (6, 8, 0)
    assert own_length(fine, 6) == (6, 100) and own_length(coarse, 6) == (6, 100)
    assert earlier_config(coarse) is None
    assert frozen_updates(fine, 6) == 2 and frozen_updates(coarse, 6) == 0


def test_the_fine_stage_begins_with_what_the_coarse_one_learned(whole: Path, data: Path) -> None:
    """After the frozen share the inside has moved, but its weights come from the other run."""
    assert len(find_checkpoints(whole / "checkpoints")) == 1 == len(find_checkpoints(whole / "coarse" / "checkpoints"))
    before = load_file(whole / "coarse" / "latest" / "generator.safetensors")
    after = load_file(whole / "latest" / "generator.safetensors")
    name = "inside.stem.1.weight"
    assert not torch.equal(before[name], after[name])
    assert (before[name] - after[name]).abs().max() < 0.01 < (before[name]).abs().max()
    taken = load_stage_weights(config(data, whole))
    assert taken.keys() == {"generator", "encoder", "discriminator"} and torch.equal(
        taken["generator"][name], before[name]
    )
    discriminator = load_file(find_checkpoints(whole / "coarse" / "checkpoints")[-1] / "discriminator.safetensors")
    assert all(torch.equal(taken["discriminator"][key], tensor) for key, tensor in discriminator.items())
    translator = img2img.load(whole)
    assert translator.config.size == 16 and translator.styles is not None and translator.styles.shape == (4, 3, 2)


class StopError(Exception):
    pass


@pytest.mark.parametrize(("stage", "at"), [("coarse", 2), ("coarse", 6), ("fine", 0), ("fine", 2), ("fine", 4)])
def test_stopped_in_each_stage_and_between(whole: Path, data: Path, tmp_path: Path, stage: str, at: int) -> None:
    saved = Validator.save_latest
    built = Validator.__init__

    def stop(self: Any, generators: Any, encoders: Any, progress: Any) -> None:
        saved(self, generators, encoders, progress)
        if progress.update == at and (self.folder.name == "coarse") == (stage == "coarse"):
            raise StopError

    def stop_between(self: Any, settings: Any, *rest: Any) -> None:
        built(self, settings, *rest)
        if (settings.output / "coarse" / "latest").exists():
            raise StopError

    with pytest.MonkeyPatch.context() as patch:
        if at:
            patch.setattr(Validator, "save_latest", stop)
        else:
            patch.setattr(Validator, "__init__", stop_between)
        with pytest.raises(StopError):
            train(config(data, tmp_path / "run"), quiet=True)
    torch.manual_seed(999)
    train(resume=tmp_path / "run", quiet=True)
    assert_equal(whole, tmp_path / "run")
    assert_equal(whole / "coarse", tmp_path / "run" / "coarse")
    for file in ("generator", "encoder", "styles"):
        a, b = (load_file(run / "latest" / f"{file}.safetensors") for run in (whole, tmp_path / "run"))
        assert all(torch.equal(a[name], b[name]) for name in a), file


def test_killed_twice(whole: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_config(tmp_path / "run.yaml", config(data, run))
    killed = kill_when(launch(run, tmp_path / "run.yaml", 1), lambda: len(list(run.glob("coarse/checkpoints/step-*2"))))
    assert (run / "config.yaml").is_file(), "it can be resumed from the first moment on"
    killed |= kill_when(launch(run, None, 1), lambda: len(list(run.glob("checkpoints/step-*2"))))
    assert killed
    finish(run, None, 1)
    assert_equal(whole, run)


def test_a_kill_before_the_coarse_stage_has_its_config(whole: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_config(run / "config.yaml", config(data, run))
    (run / "coarse" / "tensorboard").mkdir(parents=True)
    (run / "coarse" / "log.jsonl").write_text("")
    train(resume=run, quiet=True)
    assert_equal(whole, run)


def test_paths_hold_elsewhere(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = config(
        data, Path("two"), coarse_run=Path("one"), perceptual={"weight": 0, "network": "vgg19", "file": "vgg.pth"}
    )
    done = resolve_config(settings)
    assert done.method.coarse_run == tmp_path / "one" and done.method.perceptual.file == tmp_path / "vgg.pth"


def test_each_stage_by_hand(whole: Path, data: Path, tmp_path: Path) -> None:
    one = config(data, tmp_path / "one", generator={"channels": 4, "downsampling": 1, "blocks": 1, "enhancers": 0})
    train(one.model_copy(update={"steps": 6, "data": one.data.model_copy(update={"size": 8})}), quiet=True)
    assert_equal(whole / "coarse", tmp_path / "one")
    two = config(data, tmp_path / "two", coarse_run=tmp_path / "one")
    train(two.model_copy(update={"steps": 6}), quiet=True)
    a, b = final_state(whole), final_state(tmp_path / "two")
    assert all(torch.equal(a[name], b[name]) for name in a if isinstance(a[name], torch.Tensor))


def test_what_can_not_work_is_said_before_the_coarse_stage(data: Path, tmp_path: Path) -> None:
    wrong = config(data, tmp_path / "run")
    wrong = wrong.model_copy(update={"data": wrong.data.model_copy(update={"size": 22})})
    with pytest.raises(UsageError, match="multiple of 4"):
        train(wrong, quiet=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="no such folder"):
        train(config(data, tmp_path / "run", coarse_run=tmp_path / "none"), quiet=True)
    coarse_is_wrong = config(data, tmp_path / "run", discriminator={"kind": "multiscale", "layers": 1, "scales": 3})
    with pytest.raises(UsageError, match=r"at 1/2 of the size.*--size 8.*--discriminator\.scales"):
        train(coarse_is_wrong, quiet=True)
    with pytest.raises(UsageError, match="this encoder needs a multiple of 16"):
        train(config(data, tmp_path / "run", instance_encoder={"downsampling": 4}), quiet=True)
    with pytest.raises(UsageError, match="this one has none"):
        plain = {"channels": 4, "downsampling": 1, "blocks": 1, "enhancers": 0}
        train(config(data, tmp_path / "run", generator=plain, coarse_run=tmp_path / "none"), quiet=True)
    assert not (tmp_path / "run").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(config(data, tmp_path / "full"), quiet=True)
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_three_stages(data: Path, tmp_path: Path) -> None:
    generator = {"channels": 4, "downsampling": 1, "blocks": 1, "enhancers": 2, "enhancer_blocks": 1}
    settings = config(data, tmp_path / "run", generator=generator, encoder=False)
    settings = settings.model_copy(update={"steps": 8, "data": settings.data.model_copy(update={"size": 32})})
    run = train(settings, quiet=True)
    for folder, size, steps in ((run, 32, 4), (run / "coarse", 16, 2), (run / "coarse" / "coarse", 8, 2)):
        assert img2img.load(folder / "latest").config.size == size
        assert find_checkpoints(folder / "checkpoints")[-1].name == f"step-{steps:08d}"


def test_longer_training_leaves_the_coarse_stage_as_it_is(data: Path, tmp_path: Path) -> None:
    run = train(config(data, tmp_path / "run"), quiet=True)
    before = final_state(run / "coarse")
    longer = config(data, tmp_path / "run").model_copy(update={"steps": 16})
    train(longer, resume=run, quiet=True)
    assert find_checkpoints(run / "checkpoints")[-1].name == "step-00000010", "16 without the 6 of the coarse stage"
    assert json.loads((find_checkpoints(run / "checkpoints")[-1] / "progress.json").read_text())["frozen_until"] == 2
    after = final_state(run / "coarse")
    assert all(torch.equal(before[name], after[name]) for name in before if isinstance(before[name], torch.Tensor))


def test_warnings_about_the_data_come_before_the_coarse_stage(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config(data, tmp_path / "run"))
    said = capsys.readouterr().err
    assert said.count("the number of classes is a guess") == 1
    assert said.index("the number of classes is a guess") < said.index("First stage")
