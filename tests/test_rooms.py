"""The rooms of DESIGN.md: imports run downward only, and siblings don't import each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import img2img

ROOT = Path(img2img.__file__).parent
LEVELS = [
    {"errors"},
    {"files", "machine", "launch", "downloads"},
    {"images"},
    {"networks", "losses", "data", "metrics"},
    {"methods", "strips"},
    {"config"},
    {"translator"},
    {"interop"},
    {"training", "inference", "web"},
    {"demo"},
    {"cli"},
    {"__init__", "__main__"},
]
HEIGHT = {room: height for height, rooms in enumerate(LEVELS) for room in rooms}


def room_of(file: Path) -> str:
    return file.relative_to(ROOT).with_suffix("").parts[0]


def imported_rooms(file: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "img2img" else [f"img2img.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("img2img.")}
    return {room for room in rooms if room in HEIGHT}


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_downward(file: Path) -> None:
    room = room_of(file)
    assert room in HEIGHT, f"{room} has no place in the order of the rooms"
    if room == "__init__":  # imports lazily, for users
        return
    wrong = {other for other in imported_rooms(file) if other != room and HEIGHT[other] >= HEIGHT[room]}
    assert not wrong, f"{file.relative_to(ROOT)} must not import {wrong}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_holds_two_ideas(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 350


def test_a_file_has_a_known_room() -> None:
    assert "training" in imported_rooms(ROOT / "demo.py"), "the test must see imports"


def test_importing_is_fast_and_lazy() -> None:
    code = "import sys, img2img; assert 'torch' not in sys.modules; img2img.load; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        _ = img2img.nothing
