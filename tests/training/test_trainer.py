"""The loop and its measured traps (DESIGN.md §3)."""

import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from helpers.configs import tiny_config
from torch import nn

from img2img.config import resolve_config
from img2img.core.errors import UsageError
from img2img.core.processes import build_accelerator
from img2img.data.base import DataConfig
from img2img.images import read_image
from img2img.inference.evaluate import evaluate
from img2img.interop import load
from img2img.methods.base import Outputs, Phase
from img2img.networks.weights import SpectralNorm, add_spectral_norm
from img2img.training import trainer as room
from img2img.training.checkpoint import find_checkpoints, random_state, set_random_state
from img2img.training.diagnostics import DivergedError, assert_finite, assert_finite_weights
from img2img.training.ema import EMA
from img2img.training.logging import Meter
from img2img.training.train import main, set_up, train
from img2img.training.trainer import Schedule, Trainer, total_updates
from img2img.training.validation import TranslatorEvaluator

CPU = torch.device("cpu")


class Toy:
    """Two linear networks that play against each other, with phases that a test can choose."""

    generators: ClassVar[dict[Any, str]] = {"": "generator"}
    generator_configs: ClassVar[dict[Any, Any]] = {}
    encoders: ClassVar[dict[Any, Any]] = {}
    memories: ClassVar[dict[str, Any]] = {}

    def __init__(self, every: int = 1, d_lr: float = 0.1) -> None:
        torch.manual_seed(0)
        self.networks: dict[str, nn.Module] = {"generator": nn.Linear(2, 2), "discriminator": nn.Linear(2, 1)}
        self.phases = (
            Phase("D", ("discriminator",), (self.d,), d_lr, (0.5, 0.9), every),
            Phase("G", ("generator",), (self.g,), 0.1, (0.5, 0.9)),
        )

    def forward(self, batch: Any, update: int) -> Outputs:
        return Outputs(update, {"fake": self.networks["generator"](batch["source"])})

    def d(self, batch: Any, outputs: Any) -> Any:
        return {"D/gap": self.networks["discriminator"](outputs.images["fake"].detach()).mean()}

    def g(self, batch: Any, outputs: Any) -> Any:
        assert not any(p.requires_grad for p in self.networks["discriminator"].parameters())
        return {"G/gap": -self.networks["discriminator"](outputs.images["fake"]).mean()}


def toy_trainer(accumulation: int = 1, **options: Any) -> tuple[Toy, Trainer]:
    method = Toy(**options)
    return method, Trainer(method, build_accelerator(CPU, "no", accumulation))


def test_the_discriminator_collects_nothing_in_the_generators_phase() -> None:
    method, trainer = toy_trainer()
    trainer._backward({"source": torch.randn(4, 2)}, 1.0)
    for network in trainer.bare.values():
        assert all(p.requires_grad for p in network.parameters())
        assert all(p.grad is None or not p.grad.any() for p in network.parameters())
    assert method.networks == trainer.wrapped


def test_accumulated_batches_equal_one_large_batch() -> None:
    """With a fixed discriminator: else the last of the accumulated batches is judged by the updated one."""
    source = torch.randn(8, 2)
    weights = []
    for accumulation in (1, 4):
        _, trainer = toy_trainer(accumulation, d_lr=0.0)
        for _ in range(3):
            for part in source.chunk(accumulation):
                trainer._backward({"source": part}, 1.0)
        weights.append([p.detach().clone() for p in trainer.bare["generator"].parameters()])
        steps = [state["step"] for state in trainer.optimizers["D"].optimizer.state.values()]
        assert steps == [3, 3], "the optimizer steps once per accumulated batch"
    for a, b in zip(*weights, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_every_counts_updates_and_not_micro_batches() -> None:
    _, trainer = toy_trainer(accumulation=2, every=3)
    meter = Meter()
    batches = iter([{"source": torch.randn(4, 2)} for _ in range(12)])
    for _ in range(6):
        trainer._update(batches, 1.0, meter)
    assert meter.counts == {"D/gap": 4, "G/gap": 12}
    assert meter.images == 48 == trainer.state.progress.samples


def test_what_comes_after_a_phase_is_done_once_an_update_after_its_step() -> None:
    method, trainer = toy_trainer(accumulation=2)
    seen: list[torch.Tensor] = []

    def after() -> None:
        seen.append(method.networks["discriminator"].weight.detach().clone())  # type: ignore[arg-type]

    method.phases = (replace(method.phases[0], after=after), method.phases[1])
    before = trainer.bare["discriminator"].weight.detach().clone()
    for _ in range(4):
        trainer._backward({"source": torch.ones(3, 2)}, 1.0)
    assert len(seen) == 2 and not torch.equal(seen[0], before)
    assert torch.equal(seen[1], trainer.bare["discriminator"].weight)


def test_gradients_noted_on_the_way_back_don_t_depend_on_the_accumulation() -> None:
    def g(self: Toy, batch: Any, outputs: Outputs) -> Any:
        seen = outputs.images["fake"].view_as(outputs.images["fake"])
        seen.register_hook(lambda gradient: outputs.metrics.update(length=gradient.norm()))
        return {"G/gap": -self.networks["discriminator"](seen).mean()}

    found = []
    for accumulation in (1, 2):
        method, trainer = toy_trainer(accumulation=accumulation)
        method.phases = (replace(method.phases[1], parts=(partial(g, method),)),)
        found.append(trainer._backward({"source": torch.ones(3, 2)}, 1.0)[0]["length"].item())
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[0] > 0


def test_a_line_of_the_log_has_the_losses_since_the_one_before(pairs: Path, tmp_path: Path) -> None:
    values = []
    for every in (1, 2):
        config = tiny_config(pairs, tmp_path / str(every), steps=4, validate_every=100, log_every=every)
        log = (train(config, quiet=True) / "log.jsonl").read_text().splitlines()
        values.append([line["G/l1"] for line in map(json.loads, log) if "G/l1" in line])
    assert values[1] == pytest.approx([sum(values[0][:2]) / 2, sum(values[0][2:]) / 2], rel=1e-4)


def test_weights_that_are_no_numbers_stop_a_run_before_they_are_saved(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(self: Any, losses: Any, images: int) -> None:  # between two updates, so that no loss shows it
        add(self, losses, images)
        runs[0].trainer.bare["generator"].head[1].weight.data.fill_(float("nan"))

    add, runs = Meter.add, [set_up(resolve_config(tiny_config(pairs, tmp_path / "run", steps=1)), False, True)]
    monkeypatch.setattr(Meter, "add", spoil)
    with pytest.raises(DivergedError, match="generator"):
        main(runs[0])
    assert not find_checkpoints(tmp_path / "run" / "checkpoints")


def test_the_learning_rate_is_the_phases_times_the_schedule() -> None:
    _, trainer = toy_trainer()
    trainer._backward({"source": torch.randn(4, 2)}, 0.25)
    assert {group["lr"] for o in trainer.optimizers.values() for group in o.param_groups} == {0.025}


def test_the_schedule_is_constant_then_falls_to_zero() -> None:
    halfway, never = (Schedule(10, 1, 1, 1, 1, decay) for decay in (0.5, 0.0))
    factors = [halfway.learning_rate_factor(update) for update in range(10)]
    assert factors[:6] == [1.0] * 6
    assert factors[6:] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert never.learning_rate_factor(9) == 1.0
    assert total_updates(None, 2, 10, 4) == 5
    assert total_updates(7, 2, 10, 4) == 7


def test_the_moving_average() -> None:
    network = nn.BatchNorm2d(1)
    with torch.no_grad():
        network.weight.fill_(0.0)
    ema = EMA(network, 0.9)
    with torch.no_grad():
        network.weight.fill_(1.0)
        network.running_mean.fill_(1.0)  # type: ignore[union-attr, operator]
        network.num_batches_tracked.fill_(7)  # type: ignore[union-attr, operator]
    expected = 0.0
    for update in range(20):
        ema.update(network)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay)
    assert ema.network.weight.item() == pytest.approx(expected)
    assert ema.network.running_mean.item() == pytest.approx(expected)
    assert ema.network.num_batches_tracked.item() == 7
    assert not any(p.requires_grad for p in ema.network.parameters())


def test_random_states_come_back() -> None:
    import random

    import numpy as np

    def draw() -> list[float]:
        return [torch.rand(1).item(), np.random.rand(), random.random(), random.gauss(0, 1), np.random.randn()]

    draw()
    state = random_state()
    first = draw()
    set_random_state(state)
    assert draw() == first


def test_losses_and_weights_that_are_no_numbers_are_named() -> None:
    with pytest.raises(DivergedError, match="G/l1 became nan by update 7"):
        assert_finite({"D/real": torch.tensor(1.0), "G/l1": torch.tensor(float("nan"))}, 7)
    network = nn.Linear(2, 2)
    assert_finite_weights([("generator", network)], 1)
    with torch.no_grad():
        network.weight[0, 0] = float("inf")
    with pytest.raises(DivergedError, match="generator"):
        assert_finite_weights([("generator", network)], 1)


@pytest.mark.parametrize("log_every", [1, 1000])
def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_the_last_checkpoint(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    from img2img.methods.pix2pix import Pix2Pix

    losses, calls = Pix2Pix.generator_losses, []

    def breaks(self: Any, batch: Any, outputs: Any) -> Any:
        calls.append(1)
        found = losses(self, batch, outputs)
        return {**found, "G/l1": found["G/l1"] * float("nan")} if len(calls) == 4 else found

    monkeypatch.setattr(Pix2Pix, "generator_losses", breaks)
    config = tiny_config(pairs, tmp_path / "run", steps=10, checkpoint_every=2, log_every=log_every)
    with pytest.raises(DivergedError, match="G/l1"):
        train(config, quiet=True)
    assert [path.name for path in find_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000002"]
    state = load(tmp_path / "run" / "latest").generator.state_dict()
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_a_run_leaves_what_a_user_needs(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names - {".lock"} == {
        "best",
        "best-l1",
        "latest",
        "checkpoints",
        "config.yaml",
        "index.html",
        "log.jsonl",
        "samples",
        "tensorboard",
    }
    assert len(find_checkpoints(trained / "checkpoints")) == 1, "older checkpoints are pruned"
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    steps = [line for line in log if "lr" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert {"D/real", "D/fake", "G/l1", "G/adversarial", "epoch", "images_per_second"} <= steps[0].keys()
    assert {"val/l1", "val/psnr", "val/ssim"} <= log[-1].keys()
    picture = read_image(trained / "samples" / "00000004.png")
    assert picture.shape == (2 * 18 + 2, 3 * 18 + 2, 3)
    assert load(trained).config.training.updates == 4
    assert load(trained).config.training.scores["l1"] == pytest.approx(log[-1]["val/l1"])


def test_ctrl_c_saves_and_says_how_to_go_on(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(pairs, tmp_path / "run", steps=50, checkpoint_every=40)
    validate, handler = room.Trainer._update, signal.getsignal(signal.SIGINT)

    def interrupt(self: Any, *arguments: Any) -> None:
        validate(self, *arguments)
        if self.state.progress.update == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room.Trainer, "_update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert [path.name for path in find_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000003"]
    assert f"img2img train --resume {tmp_path / 'run'}" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("precision", ["bf16", "no"])
@pytest.mark.parametrize("channels_last", ["auto", "yes"])
def test_precisions_and_memory_formats_train(pairs: Path, tmp_path: Path, precision: str, channels_last: str) -> None:
    config = tiny_config(pairs, tmp_path / "run", mixed_precision=precision, channels_last=channels_last, steps=2)
    run = set_up(resolve_config(config), False, True)
    wanted = channels_last == "yes" or precision == "bf16"
    assert run.trainer.memory_format == (torch.channels_last if wanted else torch.contiguous_format)
    main(run)
    assert all(p.dtype == torch.float32 for p in load(tmp_path / "run").generator.parameters())


def test_runs_without_validation_or_with_held_out_pairs(tmp_path: Path) -> None:
    from helpers.data import write_pairs

    from img2img.cli import main as command_line

    data = write_pairs(tmp_path / "pairs", 6)
    alone = train(tiny_config(data, tmp_path / "alone", steps=2), quiet=True)
    assert not (alone / "best").exists() and (alone / "latest").exists()
    held = train(tiny_config(data, tmp_path / "held", steps=2, data={"holdout": 0.3}), quiet=True)
    assert (held / "best").exists()
    log = [json.loads(line) for line in (held / "log.jsonl").read_text().splitlines()]
    scored = evaluate(held / "latest", data, holdout=0.3)
    assert scored.metrics["psnr"] == pytest.approx(log[-1]["val/psnr"])
    assert (scored.about["split"], scored.about["count"]) == ("train, held out", 2) and "remark" not in scored.about
    command = f"img2img evaluate --model {held} --data {data}"
    assert f"{command} --holdout 0.3<" in (held / "index.html").read_text()
    assert f"{command.replace('held', 'alone')}<" in (alone / "index.html").read_text()
    for wrong, words in (
        ({"holdout": 1.5}, "from 0 to 1"),
        ({"holdout": 0.3, "split": "train"}, "leave out --split train"),
    ):
        with pytest.raises(UsageError, match=words):
            evaluate(held, data, **wrong)
    assert command_line(["evaluate", "--model", str(held), "--data", str(data), "--holdout", "0.95"]) == 2
    write_pairs(data, 2, split="val")
    assert evaluate(held, data, holdout=0.3).about["split"] == "val", "as training would choose"


@pytest.mark.parametrize("derive", ["gray", "edges", "lowres"])
def test_photos_alone_can_be_trained_on(tmp_path: Path, derive: str) -> None:
    from helpers.data import write_pairs

    data = write_pairs(tmp_path / "pairs", 3) / "trainB"
    run = train(tiny_config(data, tmp_path / "run", steps=2, data={"derive": derive}), quiet=True)
    assert load(run).in_channels == (3 if derive == "lowres" else 1)


@pytest.mark.parametrize("interval", [1, 2])
def test_a_nan_never_becomes_the_best(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: int
) -> None:
    from img2img.methods.pix2pix import Pix2Pix

    losses = Pix2Pix.generator_losses

    def broken(self: Any, batch: Any, outputs: Any) -> Any:
        return {name: value * float("nan") for name, value in losses(self, batch, outputs).items()}

    monkeypatch.setattr(Pix2Pix, "generator_losses", broken)
    with pytest.raises(DivergedError):
        train(tiny_config(pairs, tmp_path / "run", validate_every=interval, log_every=1000), quiet=True)
    assert not (tmp_path / "run" / "best").exists()


def test_an_image_that_goes_bad_after_the_check_is_a_sentence(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from img2img.core.errors import UserError

    for workers in (0, 1):
        config = tiny_config(pairs, tmp_path / f"run{workers}", workers=workers)
        run = set_up(resolve_config(config), False, True)
        for number in range(6):
            (pairs / "trainA" / f"{number}.png").write_bytes(b"gone bad")
        with pytest.raises(UserError) as caught:
            main(run)
        assert ".png" in str(caught.value) and "Traceback" not in str(caught.value)
        from helpers.data import write_pairs

        write_pairs(pairs, 6)


def test_settings_that_exclude_each_other(pairs: Path, tmp_path: Path) -> None:
    from img2img.core.errors import UsageError

    photos = pairs / "trainB"
    for values, words in [
        ({"mixed_precision": "fp16"}, "needs a GPU"),
        ({"mixed_precision": "fp16", "accumulation": 2}, "exclude each other"),
        ({"data": {"path": photos, "derive": "gray", "colour_jitter": 0.1}}, "colour-jitter"),
        ({"data": {"path": photos, "derive": "gray", "in_channels": 3}}, "have 1"),
        ({"method": {"generator": {"kind": "unet", "depth": 2, "in_channels": 1}}}, "doesn't fit"),
    ]:
        with pytest.raises(UsageError, match=words):
            train(tiny_config(pairs, tmp_path / "run", **values), quiet=True)  # type: ignore[arg-type]
        assert not (tmp_path / "run").exists()


def test_held_out_pairs_come_before_a_test_split(pairs: Path) -> None:
    from helpers.data import write_pairs

    from img2img.data.paired import PairedData

    write_pairs(pairs, 3, split="test", first=20)
    data = PairedData(DataConfig(path=pairs))
    data.divide(0.5)
    assert (data.length, data.validation_set("").split) == (6, "val")
    for share, wanted in ((0.5, (3, 3, "train, held out")), (0.0, (6, 3, "test"))):
        data = PairedData(DataConfig(path=pairs))
        del data.splits["val"]
        data.divide(share)
        held = data.validation_set("")
        assert (data.length, len(held.pairs), held.split) == wanted


@pytest.mark.parametrize("option", [{"augment": ["colour", "cutout"]}, {"feature_matching": 10.0}])
def test_a_pixel_discriminator_takes_every_option(pairs: Path, tmp_path: Path, option: dict[str, Any]) -> None:
    """Of one pixel: it has no levels to leave out, and no smallest size."""
    method = {"discriminator": {"kind": "pixel", "channels": 4}, **option}
    run = train(tiny_config(pairs, tmp_path / "run", method, steps=2))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert ("G/features" in lines[0]) == ("feature_matching" in option)


def test_best_looks_best_among_those_of_the_lowest_l1(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has a far lower L1 than the first, which looked best; the fourth looks better than the second, with an L1 near its; the fifth's is too high."""
    found = [(0.3, 0.1), (0.1, 0.5), (0.108, 0.5), (0.109, 0.4), (0.12, 0.2), (0.108, 0.45)]
    bests, lowest = [1, 2, 2, 4, 4, 4], [1, 2, 2, 2, 2, 2]
    for steps in range(1, len(found) + 1):
        scores = iter(found)
        score = lambda *_, left=scores: dict(zip(("l1", "perceptual"), next(left), strict=True))  # noqa: E731
        monkeypatch.setattr(TranslatorEvaluator, "score", score)
        run = train(tiny_config(pairs, tmp_path / f"run-{steps}", steps=steps, validate_every=1), quiet=True)
        assert load(run / "best").config.training.updates == bests[steps - 1]
        assert load(run / "best-l1").config.training.updates == lowest[steps - 1]
    assert load(run).config.training.scores == {"l1": 0.109, "perceptual": 0.4}


@pytest.mark.parametrize(("best", "update"), [("l1", 2), ("psnr", 3)])
def test_best_is_the_lowest_or_the_highest_score(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: str, update: int
) -> None:
    scores = iter([0.3, 0.1, 0.4, 0.2])
    monkeypatch.setattr(TranslatorEvaluator, "score", lambda *_: dict.fromkeys(("l1", "psnr"), next(scores)))
    run = train(tiny_config(pairs, tmp_path / "run", steps=4, validate_every=1, best=best))
    training = load(run / "best").config.training
    assert training.updates == update and training.scores[best] == [0.3, 0.1, 0.4, 0.2][update - 1]
    assert load(run / "latest").config.training.updates == 4


class Twice(Toy):
    """Its discriminator has spectral norm, and judges real images and generated ones one after the other."""

    def __init__(self) -> None:
        super().__init__()
        add_spectral_norm(self.networks["discriminator"])

    def d(self, batch: Any, outputs: Any) -> Any:
        judge = self.networks["discriminator"]
        return {"D/gap": (judge(outputs.images["fake"].detach()) - judge(batch["source"])).mean()}


def test_a_weight_with_spectral_norm_is_computed_once_a_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Twice()
    trainer = Trainer(method, build_accelerator(CPU, "no", 1))
    count: list[Any] = []
    iterate = SpectralNorm._iterate
    monkeypatch.setattr(
        SpectralNorm, "_iterate", lambda self, matrix: (count.append(matrix.clone()), iterate(self, matrix))[1]
    )
    trainer._backward({"source": torch.randn(3, 2)}, 1.0)
    assert len(count) == 2, "once for each phase"
    assert not torch.equal(count[0], count[1]), "anew for the next, for the weight has changed"


def test_an_epoch_that_takes_long_has_checkpoints(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(tiny_config(pairs, tmp_path / "few", steps=4, checkpoint_every=100, keep_checkpoints=9), quiet=True)
    assert [path.name[-1] for path in find_checkpoints(run / "checkpoints")] == ["4"]
    monkeypatch.setattr(room, "AT_LEAST_EVERY", 0.0)
    run = train(tiny_config(pairs, tmp_path / "many", steps=4, checkpoint_every=100, keep_checkpoints=9), quiet=True)
    assert [path.name[-1] for path in find_checkpoints(run / "checkpoints")] == ["1", "2", "3", "4"]
