"""Runs of unpaired methods: what they leave, how they are judged, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.configs import tiny_config
from helpers.data import picture, write_pairs, write_unpaired

import img2img
from img2img.cli import main
from img2img.config import read_config, run_type
from img2img.core.errors import UsageError
from img2img.data.base import choose_held_out
from img2img.data.unpaired import find_unpaired
from img2img.images import read_image, write_image
from img2img.inference.evaluate import evaluate
from img2img.models import find_translator
from img2img.training.train import train


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny CycleGAN between colour and gray, with enough test images for KID."""
    root = tmp_path_factory.mktemp("both")
    data = write_pairs(write_unpaired(root / "data"), 11, split="test", first=200)
    for file in (*(data / "trainB").iterdir(), *(data / "testB").iterdir()):
        write_image(file, read_image(file)[..., :1])
    config = tiny_config(data, root / "run", {"name": "cyclegan", "identity_weight": 0.0}, ema=0.5)
    return train(config, quiet=True)


def test_both_directions_are_saved_and_found(both_ways: Path) -> None:
    names = {path.name for path in both_ways.iterdir()} - {".lock"}
    assert names == {"AtoB", "BtoA", "checkpoints", "config.yaml", "index.html", "log.jsonl", "samples", "tensorboard"}
    for role, direction, channels in (("AtoB", "AtoB", (3, 1)), ("BtoA", "BtoA", (1, 3))):
        assert {path.name for path in (both_ways / role).iterdir()} == {"best", "latest"}
        translator = img2img.load(both_ways, direction=direction)  # type: ignore[arg-type]
        assert translator.config.direction == direction
        assert (translator.in_channels, translator.out_channels) == channels
        assert img2img.load(both_ways / role).config == translator.config
    assert img2img.load(both_ways).config.direction == "AtoB"
    with pytest.raises(UsageError, match="translates AtoB only"):
        img2img.load(both_ways / "AtoB", direction="BtoA")
    with pytest.raises(UsageError, match="there are AtoB and BtoA"):
        img2img.load(both_ways, direction="there")  # type: ignore[arg-type]


def test_each_direction_has_its_own_scores_and_best(both_ways: Path) -> None:
    log = [json.loads(line) for line in (both_ways / "log.jsonl").read_text().splitlines()]
    scores = {name.removeprefix("val/"): value for name, value in log[-1].items() if name.startswith("val/")}
    kinds = ("l1", "psnr", "ssim", "perceptual", "kid", "fid")
    assert set(scores) == {f"{role}/{kind}" for role in ("AtoB", "BtoA") for kind in kinds}
    for direction, role in (("AtoB", "AtoB"), ("BtoA", "BtoA")):
        best = img2img.load(both_ways, direction=direction).config.training.scores  # type: ignore[arg-type]
        assert best == {kind: pytest.approx(scores[f"{role}/{kind}"]) for kind in kinds}
    progress = json.loads(next((both_ways / "checkpoints").glob("*/progress.json")).read_text())
    assert progress["best"] == {role: pytest.approx(scores[f"{role}/kid"]) for role in ("AtoB", "BtoA")}


def test_pictures_show_the_way_there_and_back(both_ways: Path) -> None:
    for role in ("AtoB", "BtoA"):
        picture = read_image(both_ways / "samples" / f"00000004-{role}.png")
        assert picture.shape[1] == 4 * 18 + 2, "source, translation, back, truth"


def test_convert_and_evaluate_take_a_direction(
    both_ways: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = both_ways.parent / "data"
    back = ["--model", str(both_ways), "--direction", "BtoA"]
    assert main(["convert", str(data / "testB"), str(tmp_path / "out"), *back]) == 0
    assert read_image(tmp_path / "out" / "200.png").shape == (16, 16, 3)
    assert "other way" not in capsys.readouterr().err
    assert main(["convert", str(data / "testA"), str(tmp_path / "there"), "--model", str(both_ways)]) == 0
    assert read_image(tmp_path / "there" / "200.png").shape == (16, 16, 1)
    assert "--direction BtoA is the other way" in capsys.readouterr().err
    evaluate = ["evaluate", "--data", str(data), "--json", str(tmp_path / "scores.json")]
    assert main([*evaluate, *back]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["direction"] == "BtoA"
    assert main([*evaluate, "--model", str(both_ways)]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["direction"] == "AtoB"


def test_a_translator_that_is_being_replaced_is_found(both_ways: Path, tmp_path: Path) -> None:
    run = shutil.copytree(both_ways, tmp_path / "run")
    shutil.rmtree(run / "BtoA" / "latest")
    (run / "BtoA" / "best").rename(run / "BtoA" / ".best.older")
    assert find_translator(run, "BtoA").name == ".best.older"
    train(resume=run, quiet=True)  # finished: mends what a kill left
    assert {path.name for path in (run / "BtoA").iterdir()} == {"best", "latest"}


@pytest.mark.parametrize("method", ["cut", "fastcut"])
def test_one_sided_methods_leave_one_translator(unpaired: Path, tmp_path: Path, method: str) -> None:
    config = tiny_config(unpaired, tmp_path / "run", {"name": method}, data={"direction": "BtoA"}, best="psnr")
    run = train(config, quiet=True)
    translator = img2img.load(run)
    assert translator.config.direction == "BtoA" and translator.config.method == method
    assert (run / "best").is_dir() and not (run / "AtoB").exists()
    assert (run / "samples" / "00000004.png").exists()


def test_a_best_of_another_kind_is_not_compared_with(unpaired: Path, tmp_path: Path) -> None:
    write_pairs(unpaired, 8, split="test", first=300)
    config = tiny_config(unpaired, tmp_path / "run", {"name": "cut"}, steps=1)
    run = train(config, quiet=True)

    def best() -> tuple[str, dict[str, float]]:
        latest = sorted((run / "checkpoints").iterdir())[-1]
        progress = json.loads((latest / "progress.json").read_text())
        return progress["best_by"], progress["best"]

    by, values = best()
    assert by == "kid (lite)" and values[""] > 0
    train(config.model_copy(update={"steps": 2, "best": "ssim"}), resume=run, quiet=True)
    by, values = best()
    assert by == "ssim" and img2img.load(run / "best").config.training.updates == 2
    train(config.model_copy(update={"steps": 3, "features": "none"}), resume=run, quiet=True)
    assert best()[0] == "perceptual", "without features, what is left"


def test_kid_can_be_asked_for_with_pairs_too(pairs: Path, tmp_path: Path) -> None:
    write_pairs(pairs, 10, split="val", first=6)
    run = train(tiny_config(pairs, tmp_path / "run", best="kid"), quiet=True)
    assert "kid" in img2img.load(run / "best").config.training.scores


def test_another_size_cannot_go_on_with_the_pools(unpaired: Path, tmp_path: Path) -> None:
    config = tiny_config(unpaired, tmp_path / "run", {"name": "cyclegan"}, steps=2)
    run = train(config, quiet=True)
    larger = config.model_copy(update={"steps": 4, "data": config.data.model_copy(update={"size": 32})})
    with pytest.raises(UsageError, match="leave --size as it was"):
        train(larger, resume=run, quiet=True)


def test_what_a_kill_left_half_saved_is_removed(unpaired: Path, tmp_path: Path) -> None:
    run = train(tiny_config(unpaired, tmp_path / "run", {"name": "cyclegan"}, steps=2), quiet=True)
    (run / "AtoB" / ".partial-elsewhere-1-latest-x").mkdir()
    train(resume=run, quiet=True)
    assert not list((run / "AtoB").glob(".partial*"))


def test_without_a_test_side_nothing_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_unpaired(tmp_path / "data")
    run = train(tiny_config(data, tmp_path / "run", {"name": "cyclegan"}))
    assert not (run / "AtoB" / "best").exists() and (run / "AtoB" / "latest").exists()
    assert "nothing is validated" in " ".join(capsys.readouterr().err.split())
    assert read_image(run / "samples" / "00000004-AtoB.png").shape[1] == 3 * 18 + 2, "no truth is known"
    held = train(tiny_config(data, tmp_path / "held", {"name": "cyclegan"}, data={"holdout": 0.2}), quiet=True)
    log = [json.loads(line) for line in (held / "log.jsonl").read_text().splitlines()]
    assert not any(name.startswith("val/") for line in log for name in line), "one image a side is too few for KID"
    many = write_unpaired(tmp_path / "many", 22, 21)
    shutil.copytree(many / "trainA", many / "trainB", dirs_exist_ok=True)  # pairs by chance: nothing of them was learnt
    seen: list[str] = []
    found = evaluate(held, many, direction="BtoA", holdout=0.5, look=lambda name, *_: seen.append(name))
    sources = find_unpaired(many, direction="BtoA")["train"].sources
    assert seen == [str(sources[place]) for place in sorted(choose_held_out(len(sources), 0.5, ""))]
    assert found.metrics.keys() == {"kid", "fid"} and found.about["split"] == "train, held out"
    with pytest.raises(UsageError, match="--best l1 compares pairs"):
        train(tiny_config(data, tmp_path / "l1", {"name": "cut"}, data={"holdout": 0.2}, best="l1"), quiet=True)


@pytest.mark.parametrize(
    ("method", "values", "words"),
    [
        ({"name": "cyclegan"}, {"data": {"derive": "gray"}}, "makes pairs"),
        ({"name": "cut"}, {"data": {"colour_jitter": 0.5}}, "leave it out"),
        ({"name": "cyclegan"}, {"data": {"direction": "BtoA"}}, "leave --direction out"),
        ({"name": "cyclegan"}, {"data": {"in_channels": 1}}, "--identity-weight 0"),
        ({"name": "cut"}, {"data": {"in_channels": 1}}, "same channels"),
        ({"name": "fastcut", "generator": {"kind": "resnet", "channels": 4, "blocks": 2}}, {}, "at least 5"),
        ({"name": "cyclegan"}, {"features": "none", "best": "kid"}, "leave --features none out"),
        ({"name": "cyclegan"}, {"best": "kid"}, "needs 10 validation images a side, but there are 4"),
        ({"name": "cut", "adversarial": "wasserstein"}, {}, "--gradient-penalty 10"),
        ({"name": "cyclegan"}, {"features": "random", "feature_weights": Path(__file__)}, "leave one out"),
        (
            {
                "name": "cyclegan",
                "gradient_penalty": 10,
                "discriminator": {"kind": "patch", "norm": "batch", "layers": 1},
            },
            {},
            "norm instance",
        ),
        ({"name": "cyclegan"}, {"features": "inception", "feature_weights": Path("nothing.pth")}, "nothing.pth"),
    ],
)
def test_what_cannot_work_is_said_before_training(
    unpaired: Path, tmp_path: Path, method: dict[str, Any], values: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        train(tiny_config(unpaired, tmp_path / "run", method, **values), quiet=True)
    assert not (tmp_path / "run").exists(), "the corrected command must work"


@pytest.mark.parametrize(
    "settings",
    [{"adversarial": kind} for kind in ("vanilla", "nonsaturating", "hinge", "relativistic", "relativistic-average")]
    + [
        {"r1": 10.0, "r1_every": 2},
        {"gradient_penalty": 10.0, "adversarial": "wasserstein"},
        {"augment": ("colour", "translation", "cutout")},
    ]
    + [{"discriminator": {"kind": "patch", "channels": 4, "layers": 1, "spectral_norm": True}}],
)
@pytest.mark.parametrize("method", ["pix2pix", "cyclegan", "fastcut"])
def test_the_adversarial_family_trains_everywhere(
    pairs: Path, unpaired: Path, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    data = pairs if method == "pix2pix" else unpaired
    plain = {"kind": "patch", "channels": 4, "layers": 1, "norm": "instance"}
    settings = {"name": method, "discriminator": plain, **settings}
    config = tiny_config(data, tmp_path / "run", settings, steps=3, mixed_precision="bf16", features="none", best="l1")
    log = [json.loads(line) for line in (train(config, quiet=True) / "log.jsonl").read_text().splitlines()]
    losses = [name for line in log for name in line]
    if "r1" in settings:
        regular = [any(name.endswith("r1") for name in line) for line in log if "lr" in line]
        assert regular == [True, False, True], "lazily"
    assert ("gradient_penalty" in settings) == any(name.endswith("penalty") for name in losses)


def test_the_papers_lengths_are_the_defaults_and_can_be_overridden(tmp_path: Path) -> None:
    assert [run_type(name)(method={"name": name}).epochs for name in ("pix2pix", "cyclegan", "cut", "fastcut")] == [
        200,
        200,
        400,
        200,
    ]
    assert run_type("fastcut")(method={"name": "fastcut"}).decay == 0.25
    (tmp_path / "c.yaml").write_text("method: fastcut\nepochs: 7\n")
    config = read_config(tmp_path / "c.yaml")
    assert (config.epochs, config.decay) == (7, 0.25)


class TestCheck:
    def test_an_unpaired_set_is_recognised(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = write_unpaired(tmp_path / "data", 24, 21)
        assert main(["check", str(data)]) == 0
        shown = capsys.readouterr().out
        assert (
            "train: 24 and 21 images, unpaired" in shown
            and "No problems" in shown
            and "--kind paired lists them" in shown
        )
        assert main(["check", str(data), "--kind", "paired"]) == 1

    def test_a_paired_set_can_be_checked_as_unpaired(self, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", str(pairs)]) == 0
        assert "6 pairs" in capsys.readouterr().out
        assert main(["check", str(pairs), "--kind", "unpaired"]) == 0
        assert "6 and 6 images, unpaired" in capsys.readouterr().out

    def test_an_empty_side(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_unpaired(tmp_path, 3, 1)
        next((tmp_path / "trainB").iterdir()).unlink()
        assert main(["check", str(tmp_path)]) == 1
        assert "error: train: there are no target images" in capsys.readouterr().out


def test_sides_of_odd_sizes_train(tmp_path: Path) -> None:
    data = write_unpaired(tmp_path / "data")
    write_image(data / "trainA" / "wide.png", picture(17, 61, seed=70))
    write_image(data / "trainB" / "tiny.png", picture(1, 1, seed=71))
    write_image(data / "trainB" / "deep.png", picture(30, 20, seed=72, dtype=np.uint16))
    run = train(tiny_config(data, tmp_path / "run", {"name": "cyclegan"}, steps=7), quiet=True)
    assert img2img.load(run)(picture(13, 29)).shape == (13, 29, 3)


def test_the_command_line_lists_each_methods_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    for method, own, not_own in (
        ("cyclegan", "--cycle-weight", "--nce-weight"),
        ("cut", "--nce-weight", "--l1-weight"),
    ):
        with pytest.raises(SystemExit):
            main(["train", method, "--help"])
        shown = capsys.readouterr().out
        assert own in shown and not_own not in shown and "--gradient-penalty" in shown and "--augment" in shown


def test_networks_that_a_method_cannot_use_are_refused(capsys: pytest.CaptureFixture[str], unpaired: Path) -> None:
    assert main(["train", "cut", "--data", str(unpaired), "--generator.kind", "unet"]) == 2
    assert "cut works with resnet only" in capsys.readouterr().err
