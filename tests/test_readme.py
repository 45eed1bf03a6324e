"""The README is true: its commands exist and take the options that it shows."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config, write_classes, write_labelled, write_pairs, write_unpaired

import img2img
from img2img.cli import COMMANDS, main
from img2img.cli.train import parse
from img2img.config import run_type
from img2img.interop import export_reference
from img2img.methods import METHODS
from img2img.networks import GENERATORS, NOISE_DISCRIMINATORS, NOISE_GENERATORS, ResNetConfig, build_generator
from img2img.translator import Training, Translator, TranslatorConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TEST_COMMAND = 'python3 -m venv .venv && .venv/bin/pip install -q -e ".[dev]" && .venv/bin/python -m pytest'


def test_the_first_screen_has_two_commands_and_the_gate_runs_the_second() -> None:
    first = [line.strip() for line in README.splitlines()[:16] if line.startswith("    ")]
    assert first == ["python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/img2img demo", TEST_COMMAND]
    gate = subprocess.run(["grep", "-m1", "pytest$", "README.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert gate.stdout.strip() == TEST_COMMAND
    assert "grep -m1 'pytest$' README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """A folder with what the README's commands name."""
    folder = tmp_path_factory.mktemp("readme")
    data = write_pairs(write_pairs(folder / "my-data", 3), 2, split="val", first=3)
    write_pairs(write_unpaired(folder / "my-unpaired", 24, 22), 10, split="test", first=200)
    write_labelled(write_labelled(folder / "my-labels", 3, 64), 2, 64, split="val", first=3)
    write_classes(write_classes(folder / "my-images"), split="val")
    config = ResNetConfig(channels=4, blocks=1).resolve(3, 3, 16)
    settings = TranslatorConfig(method="cyclegan", generator=config, size=16, training=Training(img2img="0"))
    Translator(settings, build_generator(config)).save(folder / "one")
    export_reference(folder / "one", folder / "latest_net_G.pth")
    for name in ("my-inputs", "photos"):
        (folder / name).symlink_to(data / "valA")
    (folder / "photo.png").symlink_to(data / "valA" / "3.png")
    return folder


def shortened(arguments: list[str], config: Any) -> list[str]:
    if arguments[0] == "train" and "--resume" not in arguments:
        small = "--size 16 --generator.channels 4 --discriminator.channels 4 --discriminator.layers 1 --steps 1 --device cpu"
        if arguments[1] in ("gan", "infogan"):
            small = small.replace("--size 16", "--size 32").replace("--discriminator.layers 1", "--batch-size 4")
        if arguments[1] in ("spade", "pix2pixhd"):
            small = small.replace("--size 16", "--size 64") + " --perceptual.weight 0"
        if arguments[1] == "spade":
            return [*arguments, *small.split(), "--image-encoder.channels", "4"]
        keep = ["--lora-apart"] if "--lora-apart" in arguments else []
        paired = [word for word in arguments[2:] if word != "--lora-apart"]
        for name, value in zip(paired[::2], paired[1::2], strict=True):
            if name not in (
                "--size",
                "--generator.channels",
                "--discriminator.channels",
                "--epochs",
                "--warmup-discriminator",
            ):
                keep += [name, value]
        return [*arguments[:2], *keep, *small.split()]
    return arguments


def test_the_commands_run_in_their_order(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    lines = [line.strip() for line in re.findall(r"^    (img2img .*)$", README, re.MULTILINE)]
    assert len(lines) >= 6
    for line in lines:
        arguments = shortened(shlex.split(line, comments=True)[1:], None)
        assert main(arguments) == 0, line
    assert (workplace / "my-run" / "best").is_dir()


def test_options_in_the_text_exist() -> None:
    import contextlib
    import io

    shown = io.StringIO()
    for method in METHODS:
        with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
            parse(run_type(method)(method={"name": method}), ["--help"], method)
    for role, kinds in (("generator", NOISE_GENERATORS), ("discriminator", NOISE_DISCRIMINATORS)):
        for kind in kinds:
            with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
                main(["train", "gan", f"--{role}.kind", kind, "--help"])
    for kind in GENERATORS:
        with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
            main(["train", "pix2pix", "--generator.kind", kind, "--help"])
    for command in set(COMMANDS) - {"train"}:
        with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
            main([command, "--help"])
    known = set(re.findall(r"--[a-z0-9.-]+", shown.getvalue())) | {
        "--config",
        "--resume",
        "--num_processes",
        "--cpu",
    }  # the last two are the launcher's
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_.-]*[a-z]", README)):
        assert option in known, f"the README names {option}, which no command has"


def test_the_python_example_runs(workplace: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from img2img.training.run import train

    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    folder = workplace / "python"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "my-data").symlink_to(workplace / "my-data")
    (folder / "photos").symlink_to(workplace / "photos")
    train(tiny_config(folder / "my-data", folder / "my-run", steps=1), quiet=True)
    space: dict[str, Any] = {"photo": Image.new("RGB", (20, 10))}
    exec(code, space)
    assert space["painting"].size == (20, 10) and space["report"].count("done") == 2 and "ssim" in space["scores"]


def test_every_public_name_is_there() -> None:
    for name in img2img.__all__:
        assert getattr(img2img, name) is not None
