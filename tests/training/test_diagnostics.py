"""What GAN users watch by hand, as sentences."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.configs import tiny_config

from img2img.training.checkpoint import find_checkpoints
from img2img.training.diagnostics import Diagnostics
from img2img.training.train import train


def run(updates: int, every: int = 20, role: Any = "", **functions: Any) -> list[tuple[int, str]]:
    """What is said while accuracy, gradient, source and fake are functions of the update."""
    diagnostics, said = Diagnostics(), []
    random = torch.Generator().manual_seed(0)
    for update in range(every, updates + 1, every):
        source = torch.rand(1, 3, 16, 16, generator=random) * 2 - 1
        fake = functions.get("fake", lambda source, _: -source)(source, update)
        side, prefix = {"": ("", ""), "AtoB": ("B_", "AtoB_")}[role]
        means = {
            f"D/{side}accuracy": functions.get("accuracy", lambda _: 0.8)(update),
            f"G/{prefix}gradient": functions.get("gradient", lambda _: 1.0)(update),
        }
        sentences, _ = diagnostics.observe(update, means, {role: (source, fake, -source)})
        said += [(update, sentence) for sentence in sentences]
    return said


def test_a_healthy_run_says_nothing() -> None:
    assert run(4000, accuracy=lambda u: 0.7 + 0.2 * (u % 3 - 1), gradient=lambda u: 1 + u % 5) == []


@pytest.mark.parametrize("role", ["", "AtoB"])
def test_the_discriminator_has_won(role: Any) -> None:
    said = run(
        2000, role=role, accuracy=lambda u: 0.8 if u < 600 else 0.995, gradient=lambda u: 1.0 if u < 800 else 0.01
    )
    assert len(said) == 1, "said once"
    update, sentence = said[0]
    assert 980 <= update <= 1020
    assert "the discriminator has won" in sentence and "--r1" in sentence and (f"({role})" in sentence) == bool(role)


def test_being_right_is_not_winning_while_the_gradient_lasts() -> None:
    assert run(2000, accuracy=lambda _: 1.0) == []
    assert run(2000, gradient=lambda u: 1 / u) == [], "a gradient that fades while D is often wrong is convergence"


def test_the_generator_has_won() -> None:
    ((update, sentence),) = run(2000, accuracy=lambda u: 0.7 if u <= 500 else 0.5)
    assert 600 < update <= 740 and "the generator has won" in sentence and "--discriminator.channels" in sentence


def test_images_from_noise_are_compared_with_the_real_ones() -> None:
    """There is nothing that they could copy; and the first of them are gray, which is no collapse."""
    diagnostics, random, said = Diagnostics(), torch.Generator().manual_seed(0), []
    for update in range(20, 801, 20):
        real = torch.rand(4, 1, 32, 32, generator=random) * 2 - 1
        spread = 0.0 if update < 120 or update > 600 else 1.0
        fake = spread * (torch.rand(4, 1, 32, 32, generator=random) * 2 - 1)
        sentences, numbers = diagnostics.observe(
            update, {"D/accuracy": 0.8, "G/gradient": 1.0}, {"": (real, fake, real)}
        )
        said += [(update, sentence) for sentence in sentences]
        assert "diagnostics/change" not in numbers
    ((update, sentence),) = said
    assert 600 < update <= 800 and "as much as the real images do (mode collapse)" in sentence


def test_mode_collapse() -> None:
    one = torch.rand(1, 3, 16, 16) * 2 - 1

    def fake(source: torch.Tensor, update: int) -> torch.Tensor:
        return -source if update <= 1000 else one + 0.01 * source

    ((update, sentence),) = run(2000, fake=fake)
    assert 1000 < update <= 1000 + 33 * 20 and "hardly vary" in sentence and "mode collapse" in sentence


def test_inputs_that_do_not_vary_are_no_collapse() -> None:
    diagnostics = Diagnostics()
    same = torch.rand(1, 3, 16, 16)
    for update in range(20, 2000, 20):
        assert diagnostics.observe(update, {}, {"": (same, same * -1, torch.rand(1, 3, 16, 16))})[0] == []


def test_copies_of_the_input() -> None:
    ((update, sentence),) = run(1000, fake=lambda source, _: source + 0.004)
    assert "the output copies the input" in sentence and 200 < update <= 560
    begins = run(1000, fake=lambda source, update: source * (1 - 0.00018 * update))
    assert begins == [], "a generator that computes the change of the source begins with a copy"
    assert run(1000, fake=lambda source, _: source[:, :1]) == [], "between different channels nothing can be a copy"


def test_a_discriminator_that_has_not_begun_is_no_victory_of_the_generator() -> None:
    assert run(3000, accuracy=lambda _: 0.5) == []


def test_outputs_need_not_vary_more_than_the_targets() -> None:
    diagnostics, random = Diagnostics(), torch.Generator().manual_seed(0)
    for update in range(20, 2000, 20):
        source, target = (torch.rand(1, 3, 16, 16, generator=random) for _ in range(2))
        few = 0.05 * target
        assert diagnostics.observe(update, {}, {"": (source, 0.05 * source, few)})[0] == []


def test_where_targets_are_near_the_sources_outputs_may_be_so_too() -> None:
    diagnostics, random = Diagnostics(), torch.Generator().manual_seed(0)
    for update in range(20, 2000, 20):
        source = torch.rand(1, 3, 16, 16, generator=random)
        assert diagnostics.observe(update, {}, {"": (source, source + 0.008, source + 0.01)})[0] == []


def test_what_ended_and_comes_again_is_said_again() -> None:
    said = run(3000, accuracy=lambda u: 0.5 if 600 < u < 1200 or u > 2000 else 0.8)
    assert len(said) == 2


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("noise", [False, True])
def test_a_fine_grid(period: int, noise: bool) -> None:
    """Dots of 2 or 4 pixels, as transposed convolutions leave them; not stripes that the targets have, too."""
    dots = torch.zeros(64, 64)
    dots[::period, ::period] = 0.05
    for on_fake, on_target, expected in ((dots, 0, True), (0, 0, False), (dots, dots, False)):
        diagnostics, said, numbers, random = Diagnostics(), [], {}, torch.Generator().manual_seed(0)
        for update in range(20, 1201, 20):
            smooth = torch.rand(2, 3, 8, 8, generator=random) * 1.6 - 0.8
            source, target = torch.nn.functional.interpolate(smooth, size=(64, 64), mode="bicubic").split(1)
            fake = 0.9 * target + on_fake + 0.001 * torch.randn(target.shape, generator=random)
            target = target + on_target + 0.001 * torch.randn(target.shape, generator=random)
            sentences, numbers = diagnostics.observe(update, {}, {"": (target if noise else source, fake, target)})
            said += [(update, each) for each in sentences]
        assert (numbers["diagnostics/grid"] > 3) == (on_fake is dots)
        assert [update for update, _ in said] == ([1000] if expected else [])
        if expected:
            assert "--generator.kind resnet" in said[0][1] if noise else "--generator.upsampling resize" in said[0][1]


def test_its_state_goes_on_where_it_was() -> None:
    diagnostics, other = Diagnostics(), Diagnostics()
    random = torch.Generator().manual_seed(0)

    def step(watcher: Diagnostics, update: int, source: torch.Tensor) -> Any:
        return watcher.observe(update, {"D/accuracy": 0.5, "G/gradient": 1.0}, {"": (source, source + 0.001, -source)})

    images = [torch.rand(2, 3, 32, 32, generator=random) for _ in range(60)]
    for update, image in enumerate(images[:10]):
        step(diagnostics, update * 20, image)
    other.load_state_dict(diagnostics.state_dict())
    for update, image in enumerate(images[10:], 10):
        assert step(diagnostics, update * 20, image) == step(other, update * 20, image)


def test_it_stands_in_the_log_in_tensorboard_and_in_the_summary(
    unpaired: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("img2img.training.diagnostics.ENOUGH", 6)
    monkeypatch.setattr("img2img.training.diagnostics.PATIENCE", 6)
    monkeypatch.setattr("img2img.training.diagnostics.COLLAPSED", 100.0)  # so that anything counts
    settings = {"name": "cyclegan"}
    config = tiny_config(unpaired, tmp_path / "run", settings, steps=12, features="none", best="l1")
    run = train(config)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    warnings = [line["warning"] for line in lines if "warning" in line]
    assert len(warnings) == 2 and all("hardly vary" in text for text in warnings)
    assert {"diagnostics/variety_AtoB", "diagnostics/change_BtoA"} <= lines[-3].keys()
    shown = " ".join(capsys.readouterr().err.split())
    assert shown.count("hardly vary") == 4, "when it happens, and at the end"
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert "warnings/text_summary" in events.Tags()["tensors"]


def test_it_stops_only_when_asked(unpaired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("img2img.training.diagnostics.ENOUGH", 6)
    monkeypatch.setattr("img2img.training.diagnostics.PATIENCE", 6)
    monkeypatch.setattr("img2img.training.diagnostics.COLLAPSED", 100.0)
    settings = {"name": "cyclegan"}
    config = tiny_config(unpaired, tmp_path / "run", settings, steps=20, features="none", best="l1", diagnostics="stop")
    with pytest.raises(KeyboardInterrupt):
        train(config, quiet=True)
    (checkpoint,) = find_checkpoints(tmp_path / "run" / "checkpoints")
    assert 6 <= int(checkpoint.name[5:]) < 12
