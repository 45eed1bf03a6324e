import re
from pathlib import Path

import pytest

from img2img.cli import main

SHORT = [
    "--pairs",
    "6",
    "--held-out",
    "3",
    "--size",
    "16",
    "--steps",
    "4",
    "--channels",
    "4",
    "--batch-size",
    "2",
    "--device",
    "cpu",
]


def test_the_demo_runs_twice_and_writes_a_page_that_needs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "demo"
    for _ in range(2):
        assert main(["demo", "--output", str(output), *SHORT]) == 0
    page = (output / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 9
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "self-contained"
    assert all(name in page for name in ("G/l1", "D/real", "val/psnr", "copy of the input", "img2img train pix2pix"))
    assert len(list((output / "converted").iterdir())) == 3
    assert "PSNR" in capsys.readouterr().out


def test_the_demo_touches_no_folder_that_is_not_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    assert main(["demo", "--output", str(tmp_path), *SHORT]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    "mistake", [["--size", "50"], ["--device", "abacus"], ["--seed", "-1"], ["--steps", "0"]], ids=str
)
def test_mistakes_are_said_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: list[str]
) -> None:
    assert main(["demo", "--output", str(tmp_path / "demo"), *SHORT, *mistake]) == 2
    assert mistake[0][2:] in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
