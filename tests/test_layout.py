"""The rooms of DESIGN.md: imports run downward only, and siblings don't import each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import img2img

ROOT = Path(img2img.__file__).parent
FRONT = {"app", "cli", "compression", "demo", "__init__", "__main__"}
"""What people call; these use each other: the command demo the demo."""
LEVELS = [
    {"core"},
    {"networks", "losses", "images"},
    {"data", "metrics"},
    {"methods"},
    {"config", "tiling", "pages"},
    {"models"},
    {"interop"},
    {"training", "inference"},
    FRONT,
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
    wrong = {
        other
        for other in imported_rooms(file)
        if other != room and HEIGHT[other] >= HEIGHT[room] and not {room, other} <= FRONT
    }
    assert not wrong, f"{file.relative_to(ROOT)} must not import {wrong}"


def test_there_are_nine_levels_and_no_circles() -> None:
    """Also not within a room: a file that needs another's names is not needed by it."""
    assert len(LEVELS) <= 9
    modules = {
        ".".join(["img2img", *f.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): f for f in FILES
    }
    needs = {name: {other for other in _imported_modules(file) if other in modules} for name, file in modules.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in needs[name] - {name}:
                visit(other, (*path, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def _imported_modules(file: Path) -> set[str]:
    """The modules whose names a file takes, lazily or not; of a package's own files not the package itself, which re-exports them."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("img2img"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    package = ".".join(["img2img", *file.relative_to(ROOT).parts[:-1]])
    return found - {package, "img2img"}


def test_a_file_has_a_known_room() -> None:
    assert "training" in imported_rooms(ROOT / "demo.py"), "the test must see imports"


def test_importing_is_fast_and_lazy() -> None:
    code = "import sys, img2img; assert 'torch' not in sys.modules; img2img.load; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        _ = img2img.nothing
