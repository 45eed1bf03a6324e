"""README and docs are true: their commands run, in their order, and take the options that are shown."""

import contextlib
import io
import re
import runpy
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.data import write_bands, write_classes, write_labelled, write_pairs, write_unpaired, write_volumes

import img2img
from img2img.cli import COMMANDS, main
from img2img.interop import export_reference
from img2img.methods import METHODS, load_method
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import (
    DISCRIMINATORS,
    GENERATORS,
    NOISE_DISCRIMINATORS,
    NOISE_GENERATORS,
    ResNetConfig,
    build_generator,
)

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text() for page in PAGES}
LAUNCHER = {
    "--num_processes",
    "--cpu",
    "--array",
    "--gpus",
    "--wrap",
    "--nnodes",
    "--nproc-per-node",
    "--rdzv-backend",
    "--rdzv-endpoint",
    "--nodes",
    "--ntasks-per-node",
    "--gpus-per-node",
    "--multi_gpu",
    "--num_machines",
    "--machine_rank",
    "--main_process_ip",
    "--main_process_port",
    "--logdir",
    "--strict",
    "--write",
    "--compare",
}
"""Options of other programs: accelerate, tensorboard, mkdocs, tools/check_same_bytes.py."""


def read_blocks(page: str, language: str) -> list[str]:
    """The code blocks of a language, also indented ones."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", TEXTS[page], re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def read_commands(page: str) -> list[str]:
    """The commands of `img2img` that a page shows."""
    lines = [line for block in read_blocks(page, "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("img2img ")]


def test_the_gate_runs_the_readme_s_own_command() -> None:
    (tests,) = [line for line in TEXTS["README.md"].splitlines() if line.endswith("pytest")]
    assert "pip install" in tests and "grep -m1 'pytest$' README.md" in (ROOT / ".ci" / "run").read_text()
    assert sum("pip install" in line and "img2img demo" in line for line in TEXTS["README.md"].splitlines()) == 1


@pytest.fixture
def workplace(tmp_path: Path, trained: Path) -> Path:
    """A folder with what the commands name."""
    data = write_pairs(write_pairs(tmp_path / "my-data", 3), 2, split="val", first=3)
    write_pairs(write_unpaired(tmp_path / "my-unpaired", 24, 22), 10, split="test", first=200)
    write_labelled(write_labelled(tmp_path / "my-labels", 3, 64), 2, 64, split="val", first=3)
    write_classes(write_classes(tmp_path / "my-images"), split="val")
    write_bands(tmp_path / "my-bands")
    write_volumes(tmp_path / "my-volumes")
    config = ResNetConfig(channels=4, blocks=1).resolve(3, 3, 16)
    settings = TranslatorConfig(method="cyclegan", generator=config, size=16, training=Training(img2img="0"))
    Translator(settings, build_generator(config)).save(tmp_path / "one")
    export_reference(tmp_path / "one", tmp_path / "latest_net_G.pth")
    for name in ("my-inputs", "photos"):
        (tmp_path / name).symlink_to(data / "valA")
    (tmp_path / "photo.png").symlink_to(data / "valA" / "3.png")
    shutil.copytree(trained, tmp_path / "my-run")
    return tmp_path


def shorten(arguments: list[str]) -> list[str]:
    """The same command, with tiny networks and one update."""
    if arguments[0] == "demo":
        return [
            "demo",
            *["--pairs", "4", "--held-out", "2", "--size", "32", "--steps", "2", "--channels", "4", "--device", "cpu"],
        ]
    if arguments[0] == "compress":
        resumed = "--resume" in arguments
        return [
            *arguments,
            *([] if resumed else ["--macs", "0.5", "--size", "16", "--steps", "1", "--device", "cpu"]),
            "--accept",
            "9",
        ]
    if arguments[0] != "train":
        return arguments
    if "--resume" in arguments:
        return [*arguments, "--steps", "2"]
    small = (
        "--size 16 --generator.channels 4 --discriminator.channels 4 --discriminator.layers 1 --steps 1 --device cpu"
    )
    if arguments[1] == "unsb":
        small += " --energy.layers 1 --energy.channels 4"
    if arguments[1] == "stylegan2":
        small += " --generator.most-channels 4 --discriminator.most-channels 4 --generator.latent 8"
    if arguments[1] in ("gan", "infogan", "lapgan", "stylegan2", "vae"):
        small = small.replace("--size 16", "--size 32").replace("--discriminator.layers 1", "--batch-size 4")
    if arguments[1] == "vae":
        small = small.replace("--discriminator.channels 4", "--image-encoder.channels 4")
    if arguments[1] in ("spade", "pix2pixhd"):
        small = small.replace("--size 16", "--size 64") + " --perceptual.weight 0"
    if arguments[1] == "spade":
        small += " --image-encoder.channels 4"
    if "--pretrain-discriminator" in arguments:  # each stage takes one
        small = small.replace("--steps 1 ", "--steps 8 ")
    if "--init" in arguments:  # the architecture is the model's
        small = small.replace("--generator.channels 4 ", "")
    kept, replaced = (
        [],
        {each for each in small.split() if each.startswith("--")} | {"--epochs", "--warmup-discriminator"},
    )
    skip = False
    for word in arguments[2:]:
        skip = word in replaced if word.startswith("--") else skip
        kept += [] if skip else [word]
    return [*arguments[:2], *kept, *small.split()]


@pytest.mark.parametrize("page", [name for name in TEXTS if read_commands(name)])
def test_the_commands_of_a_page_run_in_their_order(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("img2img.app.server.serve", lambda places, **options: None)  # has tests of its own
    for line in read_commands(page):
        arguments = shorten(shlex.split(line, comments=True)[1:])
        if "--output" in arguments and arguments[0] == "train":  # the page makes it itself
            shutil.rmtree(arguments[arguments.index("--output") + 1], ignore_errors=True)
        assert main(arguments) == 0, line


def test_options_in_the_text_exist() -> None:
    shown = io.StringIO()

    def show(*arguments: str) -> None:
        with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
            main([*arguments, "--help"])

    for method in METHODS:
        show("train", method)
    for role, kinds in (("generator", NOISE_GENERATORS), ("discriminator", NOISE_DISCRIMINATORS)):
        for kind in kinds:
            show("train", "gan", f"--{role}.kind", kind)
    for role, every in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
        for kind in every:
            show("train", "pix2pix", f"--{role}.kind", kind)
    for command in set(COMMANDS) - {"train"}:
        show(command)
    known = set(re.findall(r"--[a-z0-9.-]+", shown.getvalue())) | {"--config", "--resume", "--help"} | LAUNCHER
    for name, text in TEXTS.items():
        text = re.sub(r"^python tools/.*", "", text, flags=re.MULTILINE)
        for option in set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_.-]*[a-z]", text)):
            assert option in known, f"{name} has {option}, which no command takes"


@pytest.mark.parametrize("page", [name for name in TEXTS if read_blocks(name, "python")])
def test_python_examples_run(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    if page == "add-a-paper.md":
        pytest.skip("its code is that of img2img/methods/template.py, which is trained in a test of its own")
    if page == "serve.md":
        pytest.skip("tests/app runs it against a server")
    monkeypatch.chdir(workplace)
    space: dict[str, Any] = {"photo": Image.new("RGB", (20, 10))}
    for block in read_blocks(page, "python"):
        exec(block, space)
    assert space["painting"].size == (20, 10) and space["report"].count("done") == 2


def test_the_options_page_is_that_of_the_settings() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "write_options.py"))
    assert TEXTS["options.md"] == tool["write_options"](), "run python tools/write_options.py"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        prose = re.sub(r"^ *```.*?^ *```", "", TEXTS[page.name], flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_methods_are_all_there() -> None:
    for method in METHODS:
        assert f"`{method}`" in TEXTS["README.md"] and load_method(method).paper


def test_every_public_name_is_there() -> None:
    for name in img2img.__all__:
        assert getattr(img2img, name) is not None
