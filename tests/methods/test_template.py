"""The method that people copy trains, resumes and converts, without options that do nothing."""

from pathlib import Path

import pytest
import torch
from helpers.runs import assert_equal

import img2img
from img2img import methods
from img2img.cli import main
from img2img.config import run_type
from img2img.training.train import train


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that the docs tell to add."""
    monkeypatch.setitem(methods.METHODS, "template", "template.TemplateConfig")


def options(pairs: Path, run: Path, steps: int) -> list[str]:
    return [
        "train", "template", "--data", str(pairs), "--size", "16", "--output", str(run), "--steps", str(steps),
        "--generator.channels", "4", "--generator.depth", "2", "--device", "cpu", "--mixed-precision", "no", "--decay", "0",
    ]  # fmt: skip


def test_it_trains_resumes_and_converts(pairs: Path, tmp_path: Path) -> None:
    assert main(options(pairs, tmp_path / "whole", 6)) == 0
    assert main(options(pairs, tmp_path / "parts", 3)) == 0
    assert main(["train", "--resume", str(tmp_path / "parts"), "--steps", "6"]) == 0
    a, b = (img2img.load(tmp_path / name / "latest") for name in ("whole", "parts"))
    states = [each.generator.state_dict() for each in (a, b)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    report = img2img.convert(tmp_path / "whole", pairs / "valA", tmp_path / "out", device="cpu")
    assert report.count("done") == 2


def test_it_learns(pairs: Path, tmp_path: Path) -> None:
    config = run_type("template")(
        method={"name": "template", "generator": {"kind": "unet", "channels": 8, "depth": 2, "dropout": 0}, "lr": 2e-3},
        data={"path": pairs, "size": 16}, output=tmp_path / "run", steps=60, device="cpu", mixed_precision="no",
    )  # fmt: skip
    run = train(config, quiet=True)
    scores = img2img.evaluate(run, pairs, device="cpu")
    assert scores.copy_input is not None and scores.metrics["l1"] < 0.6 * scores.copy_input["l1"]


def test_it_has_no_options_of_an_adversary(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "template", "--help"])
    text = capsys.readouterr().out
    assert "--lr" in text and "--r1" not in text and "--discriminator" not in text.replace("-discriminator ", "")


def test_two_equal_runs(pairs: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main(options(pairs, tmp_path / name, 2)) == 0
    assert_equal(tmp_path / "a", tmp_path / "b")
