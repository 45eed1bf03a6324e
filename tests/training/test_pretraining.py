"""Generators that first learn to restore masked images: `--pretrain`."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.configs import tiny_config
from helpers.data import write_unpaired
from helpers.runs import assert_equal, lines
from safetensors.torch import load_file

import img2img
from img2img.config import FinetuneConfig, read_config
from img2img.core.errors import UsageError
from img2img.methods.base import Outputs
from img2img.methods.cyclegan import CycleGANConfig
from img2img.methods.inpaint import Inpaint, InpaintConfig, mask_squares
from img2img.networks import ResNetConfig
from img2img.training import train as training
from img2img.training.checkpoint import find_checkpoints
from img2img.training.train import train
from img2img.training.validation import Validator


def config(folder: Path, output: Path, name: str, **values: Any) -> Any:
    options = {"steps": 4, "checkpoint_every": 2, "validate_every": 2, "features": "none", "best": "auto", **values}
    return tiny_config(folder, output, {"name": name, "pretrain": 4, "lr": 1e-4}, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unpaired(tmp_path_factory.mktemp("data"), 6, 5)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(data, tmp_path_factory.mktemp("whole") / "run", "cyclegan"), quiet=True)


def test_squares_are_masked() -> None:
    torch.manual_seed(0)
    images = torch.ones(200, 2, 32, 44)
    masked = mask_squares(images, 0.4)
    assert masked.mean() == pytest.approx(0.6, abs=0.02)
    assert torch.equal(masked[:, 0], masked[:, 1])
    cells = masked[:, 0].unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)
    assert torch.equal(cells.amin(3), cells.amax(3)), "each square of 4 × 4 pixels is whole, or masked"
    assert mask_squares(torch.ones(1, 1, 5, 7), 0.5).shape == (1, 1, 5, 7)


def test_the_loss_is_the_l1_distance_to_whole_images_of_both_sides() -> None:
    method = InpaintConfig(generator=ResNetConfig(channels=4, blocks=1)).build(3, 3, 16)
    batch = {"source": torch.rand(2, 3, 16, 16), "target": -torch.rand(2, 3, 16, 16)}
    outputs = method.forward(batch)
    assert isinstance(method, Inpaint) and isinstance(outputs, Outputs)
    wanted = F.l1_loss(outputs.images["restored"], torch.cat([batch["source"], batch["target"]]))
    assert method.generator_losses(batch, outputs)["G/l1"] == wanted
    masked = outputs.translations[""][0]
    assert (masked == 0).any() and ((masked > 0).any() and (masked < 0).any()), "of both sides, and masked"


def test_both_generators_begin_with_what_was_learned(whole: Path) -> None:
    before = load_file(whole / "pretrained" / "latest" / "generator.safetensors")
    assert len(find_checkpoints(whole / "pretrained" / "checkpoints")) == 1
    name = next(key for key, tensor in before.items() if tensor.ndim == 4)
    for direction in ("AtoB", "BtoA"):
        after = load_file(whole / direction / "latest" / "generator.safetensors")[name]
        assert 0 < (after - before[name]).abs().max() < 0.001, "it has moved by a few steps"
    assert lines(whole)[-1]["step"] == 4 == lines(whole / "pretrained")[-1]["step"], (
        "its updates come before all others"
    )
    assert img2img.load(whole / "pretrained").config.method == "inpaint"
    fresh = CycleGANConfig(generator=ResNetConfig(channels=4, blocks=1)).build(3, 3, 32)
    fresh.begin_from({"generator": before})
    for network in fresh.generators.values():
        assert all(torch.equal(tensor, before[key]) for key, tensor in fresh.networks[network].state_dict().items())


@pytest.mark.parametrize("stage", ["pretrained", "run"])
def test_stopped_in_each_stage_it_ends_with_the_same_bits(whole: Path, data: Path, tmp_path: Path, stage: str) -> None:
    saved = Validator.save_latest

    class StopError(Exception):
        pass

    def stop(self: Any, generators: Any, encoders: Any, progress: Any) -> None:
        saved(self, generators, encoders, progress)
        if progress.update == 2 and self.folder.name == stage:
            raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validator, "save_latest", stop)
        with pytest.raises(StopError):
            train(config(data, tmp_path / "run", "cyclegan"), quiet=True)
    torch.manual_seed(999)
    train(resume=tmp_path / "run", quiet=True)
    assert_equal(whole, tmp_path / "run")
    assert_equal(whole / "pretrained", tmp_path / "run" / "pretrained")


@pytest.mark.parametrize("name", ["cut", "fastcut"])
def test_cut_begins_with_it_too(data: Path, tmp_path: Path, name: str) -> None:
    run = train(config(data, tmp_path / "run", name, steps=1, data={"direction": "BtoA"}), quiet=True)
    before, after = (load_file(folder / "latest" / "generator.safetensors") for folder in (run / "pretrained", run))
    assert before.keys() == after.keys()
    assert all((after[key] - before[key]).abs().max() < 0.001 for key in before)


def test_sides_of_different_channels_are_refused_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    settings = {"name": "cyclegan", "pretrain": 2, "identity_weight": 0}
    mixed = tiny_config(data, tmp_path / "run", settings, data={"out_channels": 1})
    with pytest.raises(UsageError, match="leave --pretrain out"):
        train(mixed, quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_discriminator_to_begin_with_is_the_runs_not_the_pretrainings(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def fit(run: Any, introduction: str = "") -> bool:
        networks = run.method.networks.items()
        seen[run.folder.name] = {name: copy.deepcopy(network.state_dict()) for name, network in networks}
        return bool(real(run, introduction))

    real = training.fit
    monkeypatch.setattr(training, "fit", fit)
    finetune = {"init_discriminator": (whole,), "freeze_discriminator": 1}
    train(config(data, tmp_path / "run", "cyclegan", finetune=finetune, steps=2, features="auto"), quiet=True)
    assert set(seen["pretrained"]) == {"generator"}
    saved = load_file(find_checkpoints(whole / "checkpoints")[-1] / "discriminator_A.safetensors")
    assert all(torch.equal(seen["run"]["discriminator_A"][key].cpu(), tensor) for key, tensor in saved.items())
    before = load_file(tmp_path / "run" / "pretrained" / "latest" / "generator.safetensors")
    assert all(torch.equal(seen["run"]["generator_AtoB"][key].cpu(), tensor) for key, tensor in before.items())
    stage = read_config(tmp_path / "run" / "pretrained" / "config.yaml")
    assert stage.features == "none" and stage.finetune == FinetuneConfig()
