"""NoGAN: the generator alone, the discriminator alone, then both, in one run that goes on wherever it was stopped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.configs import tiny_config
from helpers.data import write_pairs
from helpers.runs import assert_equal
from safetensors.torch import load_file

import img2img
from img2img.config import RunConfig
from img2img.core.errors import UsageError
from img2img.methods.pix2pix import Pix2PixConfig
from img2img.training.checkpoint import find_checkpoints
from img2img.training.curriculum import earlier_config, own_length
from img2img.training.train import train
from img2img.training.validation import Validator

NOGAN = {"pretrain_generator": 0.5, "pretrain_discriminator": 0.25}


def config(data: Path, output: Path, **method: Any) -> RunConfig:
    settings = {"generator": {"kind": "unet", "channels": 4, "depth": 2, "keep_luminance": True}, **NOGAN, **method}
    about = {"derive": "gray", "holdout": 0.3}
    return tiny_config(data / "trainB", output, settings, steps=16, checkpoint_every=2, ema=0.5, data=about)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data"), 7)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(data, tmp_path_factory.mktemp("whole") / "run"), quiet=True)


def weights_of(run: Path, network: str) -> dict[str, torch.Tensor]:
    return load_file(find_checkpoints(run / "checkpoints")[-1] / f"{network}.safetensors")


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_shares(data: Path, tmp_path: Path) -> None:
    both = config(data, tmp_path / "run")
    discriminator = earlier_config(both)
    assert discriminator is not None
    generator = earlier_config(discriminator)
    assert generator is not None and earlier_config(generator) is None
    assert [own_length(each, 5)[0] for each in (both, discriminator, generator)] == [4, 4, 8]
    assert generator.output == tmp_path / "run" / "discriminator" / "generator"
    assert {each.data.size for each in (both, discriminator, generator)} == {16}
    without = config(data, tmp_path / "run", pretrain_discriminator=0.0)
    generator = earlier_config(without)
    assert generator is not None and generator.output == tmp_path / "run" / "generator" and generator.steps == 8


def test_each_stage_trains_what_it_says_and_begins_with_the_one_before(whole: Path) -> None:
    one, two = whole / "discriminator" / "generator", whole / "discriminator"
    kept = load_file(one / "latest" / "generator.safetensors")
    assert not are_equal(kept, weights_of(one, "generator")), "a moving average"
    learned = weights_of(two, "generator")
    assert are_equal(learned, kept) and any("running_mean" in name for name in kept), "the second stage leaves it alone"
    assert are_equal(kept, load_file(two / "latest" / "generator.safetensors"))
    assert not are_equal(learned, weights_of(whole, "generator"))
    first, second, third = (weights_of(run, "discriminator") for run in (one, two, whole))
    assert not are_equal(first, second) and not are_equal(second, third)
    assert max((second[name] - third[name]).abs().max() for name in second if "weight" in name) < 0.01
    logs = [(run / "log.jsonl").read_text() for run in (one, two, whole)]
    assert ["G/l1" in log for log in logs] == [True, False, True]
    assert ["D/real" in log for log in logs] == [False, True, True]
    assert ["G/adversarial" in log for log in logs] == [False, False, True]
    assert img2img.load(whole).config.generator.keeps_luminance


def test_a_resume_with_too_few_updates_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        saved = Validator.save_latest

        def stop(self: Any, generators: Any, encoders: Any, progress: Any) -> None:
            saved(self, generators, encoders, progress)
            if progress.update == 6:
                raise StopError

        patch.setattr(Validator, "save_latest", stop)
        with pytest.raises(StopError):
            train(config(data, tmp_path / "run"), quiet=True)
    shorter = config(data, tmp_path / "run").model_copy(update={"steps": 5})
    with pytest.raises(UsageError, match="generator stage has 6 updates already"):
        train(shorter, resume=tmp_path / "run", quiet=True)


def test_a_trained_generator_needs_no_stage(whole: Path, data: Path, tmp_path: Path) -> None:
    begun = config(data, tmp_path / "run", generator={"kind": "unet"})
    begun = begun.model_copy(update={"finetune": begun.finetune.model_copy(update={"init": (whole,)})})
    with pytest.raises(UsageError, match="leave it out"):
        train(begun, quiet=True)


class StopError(Exception):
    pass


@pytest.mark.parametrize(("stage", "at"), [("generator", 4), ("discriminator", 2), ("discriminator", 4), ("run", 2)])
def test_stopped_in_each_stage(whole: Path, data: Path, tmp_path: Path, stage: str, at: int) -> None:
    saved = Validator.save_latest

    def stop(self: Any, generators: Any, encoders: Any, progress: Any) -> None:
        saved(self, generators, encoders, progress)
        if progress.update == at and self.folder.name == stage:
            raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validator, "save_latest", stop)
        with pytest.raises(StopError):
            train(config(data, tmp_path / "run"), quiet=True)
    torch.manual_seed(999)
    train(resume=tmp_path / "run", quiet=True)
    for part in (".", "discriminator", "discriminator/generator"):
        assert_equal(whole / part, tmp_path / "run" / part)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pretrain_generator": 0.7, "pretrain_discriminator": 0.3}, "leave no updates for both"),
        ({"pretrain_discriminator": 0.3}, "needs a trained generator"),
        ({"pretrain_generator": 0.3, "l1_weight": 0.0}, "nothing to learn from"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Pix2PixConfig(**options)  # type: ignore[arg-type]
