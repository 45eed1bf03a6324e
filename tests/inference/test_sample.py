"""Images from noise: a run, the command, and what it writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.configs import tiny_config
from helpers.data import picture, write_classes
from helpers.translators import sampler
from PIL import Image
from safetensors.torch import load_file

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.images import read_image, read_picture, write_image
from img2img.inference.sample import sample
from img2img.models import Latents, NoiseGenerator, cross, draw_latents, find_latents, read_latents
from img2img.training.train import train
from img2img.training.validation import NoiseEvaluator

CODES: dict[str, Any] = {"name": "infogan"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished tiny runs: with classes, without, and with codes."""
    root = tmp_path_factory.mktemp("noise")
    data = write_classes(write_classes(root / "data"), split="val")
    settings: dict[str, Any] = {
        "gan": {"name": "gan"},
        "infogan": CODES,
        "plain": {"name": "gan", "unconditional": True},
    }
    options: dict[str, Any] = {"steps": 3, "ema": 0.5, "features": "random"}
    return {
        name: train(tiny_config(data, root / name, method, **options), quiet=True) for name, method in settings.items()
    }


def test_a_run_leaves_samplers_and_pictures(runs: dict[str, Path]) -> None:
    for name, columns, rows in (("gan", 2, 8), ("infogan", 3, 8), ("plain", 8, 8)):
        run = runs[name]
        for kind in ("best", "latest"):
            made = img2img.load(run / kind)
            assert isinstance(made, NoiseGenerator) and made.config.training.updates == 3
            assert made.config.classes == (("dark", "light") if name == "gan" else ())
            assert (made.config.codes is not None) == (name == "infogan")
        picture = read_image(run / "samples" / "00000003.png")
        assert picture.shape == (34 * rows + 2, 34 * columns + 2, 3)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert lines[-1]["val/kid"] is not None and lines[-1]["val/fid"] >= 0
        assert made.config.training.scores.keys() == {"kid", "fid"}


def test_images_are_written_by_seed(runs: dict[str, Path], tmp_path: Path) -> None:
    generator = NoiseGenerator.load(runs["gan"])
    files = sample(generator, tmp_path, count=12, seed=5, labels=("light", 0), truncation=0.8)
    assert [file.name for file in files] == [f"seed{number:04d}.png" for number in range(5, 17)] + ["sheet.png"]
    wanted = generator.sample(12, seed=5, labels=["light", 0] * 6, truncation=0.8)
    assert all((read_image(file) == image).all() for file, image in zip(files, wanted, strict=False))
    sheet = read_image(files[-1])
    assert sheet.shape == (2 * 34 + 2, 10 * 34 + 2, 3) and (sheet[36:, -34 * 8 :] == 255).all(), "two rows of ten"
    with pytest.raises(UsageError, match=r"seed0016\.png exists"):
        sample(generator, tmp_path, count=1, seed=16)
    sample(generator, tmp_path, count=1, seed=16, overwrite=True)


def test_a_walk_is_frames_and_a_gif(runs: dict[str, Path], tmp_path: Path) -> None:
    generator = NoiseGenerator.load(runs["gan"])
    files = sample(generator, tmp_path, interpolate=(3, 9), steps=5, labels=("dark",))
    assert [file.name for file in files] == [f"step{number:04d}.png" for number in range(5)] + ["walk.gif", "sheet.png"]
    assert (read_image(files[0]) == generator.sample(1, seed=3, labels="dark")[0]).all()
    with Image.open(tmp_path / "walk.gif") as gif:
        assert getattr(gif, "n_frames", 1) == len(read_picture(tmp_path / "walk.gif").frames) > 1
    for wrong in ({"labels": ("dark", "light")}, {"sweep": 0}):
        with pytest.raises(UsageError, match=r"one --label|exclude each other"):
            sample(generator, tmp_path / "no", interpolate=(0, 1), **wrong)


def test_a_sweep_is_a_sheet(runs: dict[str, Path], tmp_path: Path) -> None:
    for wrong, words in (({"steps": 0}, "at least 1"), ({"labels": ("a",)}, "leave --label out")):
        with pytest.raises(UsageError, match=words):
            sample(NoiseGenerator.load(runs["infogan"]), tmp_path, sweep=1, count=4, **wrong)  # type: ignore[arg-type]
    (file,) = sample(NoiseGenerator.load(runs["infogan"]), tmp_path, sweep=0, count=4)
    assert file.name == "sweep0.png" and read_image(file).shape == (4 * 34 + 2, 3 * 34 + 2, 3)


def test_the_command(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["sample", "--model", str(runs["gan"]), "--output", str(out)]
    assert main([*command, "--count", "3", "--label", "dark"]) == 0
    assert "4 files in" in capsys.readouterr().out
    first = {file.name: file.read_bytes() for file in out.iterdir()}
    assert main([*command, "--count", "3", "--label", "dark"]) == 2
    assert "exists; choose another --output, or --overwrite" in capsys.readouterr().err
    assert main([*command, "--count", "3", "--label", "dark", "--overwrite"]) == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == first, "the same seed, the same bytes"
    for wrong, words in (
        (["--label", "bird"], "no class 'bird'; there are dark, light"),
        (["--truncation", "0"], "above 0"),
        (["--sweep", "0"], "has none"),
        (["--count", "0"], "at least 1"),
        (["--interpolate", "1", "2", "--steps", "1"], "at least 2"),
        (["--seed", "-4"], "give 0 to 4294967295"),
        (["--seed", "18446744073709551616"], "give 0 to 4294967295"),
        (["--truncation", "1e-12"], "at least 0.001"),
        (["--steps", "4"], "--steps belongs to --interpolate or --sweep"),
    ):
        assert main([*command[:3], "--output", str(tmp_path / "no"), *wrong]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert main(["sample", "--model", str(tmp_path), "--output", str(out)]) == 2


def test_the_check_knows_images_of_one_kind(classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(classes)]) == 0
    shown = capsys.readouterr().out
    assert "train: 12 images of 2 classes" in shown and "2 classes; 1 channel; sizes 32×32 (24)" in shown
    write_image(tmp_path / "flat" / "a.png", picture(16, 16))
    assert main(["check", str(tmp_path / "flat"), "--kind", "images"]) == 0
    assert "train: 1 images from" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": {"size": 48}}, "--size 48: these networks make images of 32, 64, 128 or 256"),
        ({"data": {"width": 64}}, "--width: gan takes square images"),
        ({"data": {"direction": "BtoA"}}, "--direction: gan takes"),
        ({"data": {"derive": "gray"}}, "--data.derive: gan takes one folder"),
        ({"gradient_checkpointing": True}, "take a smaller --batch-size"),
        ({"best": "l1"}, "--best l1 compares pairs, and the validation images have no targets"),
        ({"best": "kid", "features": "none"}, "leave --features none out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    classes: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        train(tiny_config(classes, tmp_path / "run", {"name": "gan"}, **options), quiet=True)
    assert not (tmp_path / "run").exists()


def test_what_takes_no_classes_does_not_mind_them(classes: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_image(classes / "val" / f"loose{number}.png", picture(32, 32, 1, seed=number))
    with pytest.raises(UsageError, match="is no class of train"):
        train(tiny_config(classes, tmp_path / "no", {"name": "gan"}), quiet=True)
    for name, method in (("plain", {"name": "gan", "unconditional": True}), ("codes", CODES)):
        train(tiny_config(classes, tmp_path / name, method, steps=1), quiet=True)
    assert NoiseGenerator.load(tmp_path / "plain").config.resize == "short"


def test_the_paper_s_defaults() -> None:
    from img2img.config import run_type
    from img2img.data.base import DataConfig

    given = run_type("gan")(method={"name": "gan"}, data=DataConfig(size=32))
    assert (given.data.size, given.data.flip) == (32, 0), "also beside a DataConfig"

    config = run_type("gan")(method={"name": "gan"}, data={"size": 32})
    assert (config.batch_size, config.decay, config.data.flip, config.data.jitter, config.data.size) == (
        128,
        0,
        0,
        1,
        32,
    )
    assert (
        np.isclose(config.method.lr, 2e-4)
        and config.method.betas == (0.5, 0.999)
        and config.method.generator.latent == 100
    )


def test_a_run_clips_the_critic_and_averages_only_what_was_trained(classes: Path, tmp_path: Path) -> None:
    method = {"name": "gan", "adversarial": "wasserstein", "weight_clip": 0.01, "discriminator_steps": 3}
    run = train(tiny_config(classes, tmp_path / "run", method, steps=7, ema=0.9), quiet=True)
    (checkpoint,) = (run / "checkpoints").iterdir()
    weights = {
        name: tensor
        for name, tensor in load_file(checkpoint / "discriminator.safetensors").items()
        if "running" not in name
    }
    assert max(tensor.abs().max().item() for name, tensor in weights.items() if "num" not in name) <= 0.01
    assert json.loads((checkpoint / "progress.json").read_text())["ema_updates"] == {"generator": 2}


def test_best_has_the_lowest_score(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.3, 0.1, 0.2])
    monkeypatch.setattr(NoiseEvaluator, "_score", lambda *_: {"kid": next(scores), "fid": 1.0})
    config = tiny_config(classes, tmp_path / "run", {"name": "gan"}, steps=3, validate_every=1, features="random")
    run = train(config, quiet=True)
    assert (
        NoiseGenerator.load(run / "best").config.training.updates == 2
        and NoiseGenerator.load(run / "latest").config.training.updates == 3
    )


def test_latents_are_drawn_again_from_their_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = sampler("biggan", ("cat", "dog"))
    made.save(tmp_path / "model")
    first, second = find_latents(made, [3, 4], "dog", 0.7)
    mixed = cross(made, first, find_latents(made, [4], "cat", 0.7)[0], 0.5)
    assert mixed.classes == (0.5, 0.5)
    Latents(truncation=0.7, images=(first, second, mixed)).save(tmp_path / "latents.json")
    assert read_latents(tmp_path / "latents.json").images == (first, second, mixed)
    command = ["sample", "--model", str(tmp_path / "model"), "--latents", str(tmp_path / "latents.json"), "--output"]
    assert main([*command, str(tmp_path / "out")]) == 0
    images = [read_image(tmp_path / "out" / f"image000{number}.png") for number in range(3)]
    assert (images[0] == made.sample(1, seed=3, labels="dog", truncation=0.7)[0]).all()
    assert (images[1] == made.sample(1, seed=4, labels="dog", truncation=0.7)[0]).all()
    assert (images[2] == draw_latents(made, [mixed], 0.7)[0]).all() and (images[2] != images[0]).any()
    assert (tmp_path / "out" / "sheet.png").is_file()
    for option in (
        ["--seed", "1"],
        ["--count", "3"],
        ["--label", "cat"],
        ["--truncation", "1"],
        ["--interpolate", "1", "2"],
        ["--steps", "3"],
    ):
        assert main([*command, str(tmp_path / "other"), *option]) == 2
    assert "leave the options" in capsys.readouterr().err
    for text in ("", "{}", '{"images": [{"noise": [1, 2]}]}', '{"images": []}', '{"images": [{"noise": ["x"]}]}'):
        (tmp_path / "latents.json").write_text(text)
        assert main([*command, str(tmp_path / "other")]) == 2, text
    (tmp_path / "latents.json").unlink()
    assert main([*command, str(tmp_path / "other")]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "another model" in said and "no file of latents" in said
