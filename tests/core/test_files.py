import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from img2img.core.errors import UserError
from img2img.core.files import recover, remove_leftovers, whole_folder, write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.bin"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]
    assert path.stat().st_mode & 0o444 == 0o444


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        write_whole(tmp_path / "file" / "a.bin", b"x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="taken"):
        write_whole(tmp_path / "taken", b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken"]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with whole_folder(tmp_path / "a") as new:
            (new / "file").write_text(text)
    assert (tmp_path / "a" / "file").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failure_keeps_the_older_folder(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a") as new:
        (new / "file").write_text("one")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "a") as new:
        (new / "file").write_text("two")
        raise RuntimeError
    assert (tmp_path / "a" / "file").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("moment", ["inside", "between"])
def test_a_killed_process_leaves_the_older_folder_to_be_found(tmp_path: Path, moment: str) -> None:
    with whole_folder(tmp_path / "a") as new:
        (new / "file").write_text("one")
    code = f"""
import os, signal, pathlib
from img2img.core.files import whole_folder
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
rename, calls = pathlib.Path.rename, []
def second(self, target):
    calls.append(target)
    return die() if len(calls) == 2 else rename(self, target)
pathlib.Path.rename = second
with whole_folder(pathlib.Path({str(tmp_path / "a")!r})) as new:
    (new / "file").write_text("two")
    if {moment!r} == "inside":
        die()
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    recover(tmp_path / "a")
    remove_leftovers(tmp_path)
    assert (tmp_path / "a" / "file").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_is_not_ours_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / ".partial-mine" / "sub").mkdir(parents=True)
    (tmp_path / ".partial-mine" / "sub" / "precious.txt").write_text("")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path, of_all=True)
    assert (tmp_path / ".partial-mine" / "sub" / "precious.txt").exists()
