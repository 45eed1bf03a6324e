"""The commands as a user types them: exit codes, sentences, help."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.data import picture, write_pairs

from img2img.cli import COMMANDS, main
from img2img.images import write_image

TINY = [
    "--size",
    "16",
    "--generator.channels",
    "4",
    "--generator.depth",
    "2",
    "--discriminator.channels",
    "4",
    "--discriminator.layers",
    "1",
    "--steps",
    "2",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--mixed-precision",
    "no",
]


def test_train_evaluate_convert_check(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["train", "pix2pix", "--data", str(pairs), "--output", str(run), "--direction", "BtoA", *TINY]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["direction"] == "BtoA"
    assert main(["train", "--resume", str(run), "--steps", "3"]) == 0
    assert main(["evaluate", "--model", str(run), "--data", str(pairs), "--json", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["direction"] == "BtoA"
    convert = ["convert", str(pairs / "valB"), str(out), "--model", str(run), "--report", str(tmp_path / "r.jsonl")]
    assert main(convert) == 0
    assert "2 converted, 0 skipped, 0 failed" in capsys.readouterr().out
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 2
    assert main(convert) == 1, "the targets exist"
    assert capsys.readouterr().err.count("the target exists") == 1, "one line for all that failed alike"
    assert main([*convert, "--skip-existing"]) == 0
    assert main([*convert, "--overwrite"]) == 0
    assert main(["evaluate", str(out), str(pairs / "valA")]) == 0
    assert main(["check", str(pairs)]) == 0
    assert "train: 6 pairs" in capsys.readouterr().out


def test_a_yaml_file_is_the_base_and_flags_override_it(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "method: {name: pix2pix, generator: {kind: resnet, channels: 4, blocks: 1}, discriminator: {kind: pixel, channels: 4}}\n"
        f"data: {{path: {pairs}, size: 16}}\nsteps: 1\nworkers: 0\ndevice: cpu\nlog_every: 7\n"
    )
    arguments = [
        "train",
        "pix2pix",
        "--config",
        str(tmp_path / "a.yaml"),
        "--output",
        str(tmp_path / "run"),
        "--steps",
        "2",
    ]
    assert main(arguments) == 0
    resolved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (resolved["steps"], resolved["log_every"], resolved["method"]["generator"]["blocks"]) == (2, 7, 1)


def test_networks_are_chosen_by_kind_and_bring_their_own_options(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = [
        "--generator.kind",
        "resnet",
        "--generator.blocks",
        "1",
        "--generator.channels",
        "4",
        "--discriminator.kind=pixel",
    ]
    rest = ["--size", "16", "--steps", "1", "--workers", "0", "--device", "cpu"]
    assert main(["train", "pix2pix", "--data", str(pairs), "--output", str(run), *options, *rest]) == 0
    with pytest.raises(SystemExit) as done:
        main(["train", "pix2pix", "--generator.kind", "resnet", "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert "--generator.blocks" in text and "--generator.depth" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([command, "--help"])
    except SystemExit as done:
        code = int(done.code or 0)
    assert code == 0 and "usage: img2img" in capsys.readouterr().out


def test_the_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "no command 'trian'"),
        (["train"], "which method?"),
        (["train", "pix2pux", "--data", "x"], "no method 'pix2pux'"),
        (["train", "pix2pix"], "Give --data"),
        (["train", "pix2pix", "--data", "/nowhere"], "no such folder"),
        (["train", "pix2pix", "--data", "PAIRS", "--size", "100"], "use 96 or 112"),
        (["train", "pix2pix", "--data", "PAIRS", "--device", "cuda:77"], "cuda:77"),
        (["train", "pix2pix", "--data", "PAIRS", "--device", "abacus"], "--device abacus"),
        (["train", "pix2pix", "--data", "PAIRS", "--generator.kind", "vnet"], "there are unet, resnet"),
        (["train", "pix2pix", "--data", "PAIRS", "--config", "/nowhere.yaml"], "nowhere.yaml"),
        (["train", "--resume", "/nowhere"], "no such folder"),
        (["train", "--resume"], "--resume needs a value"),
        (["convert", "/nowhere", "out", "--model", "/nowhere"], "does not exist"),
        (["convert", "PAIRS", "out", "--model", "/nowhere"], "no such folder"),
        (["convert", "PAIRS", "out", "--model", "PAIRS"], "no translator"),
        (["convert", "PAIRS", "out", "--model", "x", "--overwrite", "--skip-existing"], "exclude each other"),
        (["evaluate", "--model", "x"], "--model and --data"),
        (["evaluate", "PAIRS"], "two folders"),
        (["check", "/nowhere"], "no such folder"),
        (["check"], "Give the data set's folder"),
        (["demo", "--pairs", "0"], "at least 1"),
    ],
)
def test_mistakes_are_sentences_with_exit_code_2(
    arguments: list[str], words: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main([str(pairs) if argument == "PAIRS" else argument for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"


@pytest.mark.parametrize(
    "arguments", [["--batch-size", "0"], ["--size", "4"], ["--no-such-flag"], ["--lr", "fast"]], ids=str
)
def test_bad_values_fail_before_anything_is_touched(
    arguments: list[str], pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["train", "pix2pix", "--data", str(pairs), "--output", str(tmp_path / "run"), *arguments])
    assert done.value.code == 2 and not (tmp_path / "run").exists()
    captured = capsys.readouterr()
    assert "pydantic" not in captured.out + captured.err


def test_bad_data_is_exit_code_2_and_a_bad_file_1(trained: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "good.png", picture(8, 8))
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(trained)]) == 1
    data = write_pairs(tmp_path / "data", 2)
    (data / "trainA" / "0.png").write_bytes(b"")
    assert main(["train", "pix2pix", "--data", str(data), "--output", str(tmp_path / "run"), *TINY]) == 2
    assert not (tmp_path / "run").exists()
    assert main(["check", str(data)]) == 1


def test_the_module_runs_as_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "img2img", "train", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2 and "no method 'nothing'" in done.stderr and "Traceback" not in done.stderr
