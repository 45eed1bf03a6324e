import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from img2img.core.errors import UserError
from img2img.core.files import (
    HOST,
    PARTIAL,
    UMASK,
    ExistsError,
    recover,
    remove_leftovers,
    whole_folder,
    write_whole,
)


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


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced and renamed, in their order."""
    seen: list[str] = []
    sync, rename, replace = os.fsync, os.rename, os.replace

    def note_sync(handle: int) -> None:
        seen.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")
        sync(handle)

    def note_rename(a: Path, b: Path) -> None:
        seen.append(f"rename {Path(a).name} {Path(b).name}")
        rename(a, b)

    def note_replace(a: Path, b: Path) -> None:
        seen.append(f"rename {Path(a).name} {Path(b).name}")
        replace(a, b)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    monkeypatch.setattr(os, "replace", note_replace)
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_bytes_are_on_the_disk_before_a_file_has_its_name(tmp_path: Path, calls: list[str]) -> None:
    write_whole(tmp_path / "a.bin", b"one")
    (sync, rename) = calls
    temporary = sync.removeprefix("sync ")
    assert temporary.startswith(PARTIAL) and rename == f"rename {temporary} a.bin"
    calls.clear()
    write_whole(tmp_path / "b.bin", b"one", replace=False)
    assert len(calls) == 1 and calls[0].startswith(f"sync {PARTIAL}")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_all_files_of_a_folder_are_on_the_disk_before_it_has_its_name(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "a").mkdir()
    with whole_folder(tmp_path / "a") as new:
        (new / "sub").mkdir()
        for name in ("one", "two", "sub/three"):
            (new / name).write_text("")
    names = [call.split()[-1] for call in calls]
    assert sorted(names[:3]) == ["one", "three", "two"] and all(call.startswith("sync") for call in calls[:3])
    assert names[3:] == [".a.older", "a", tmp_path.name] and calls[-1].startswith("sync")


def test_folders_can_be_read_by_those_who_may(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o777 & ~UMASK


def test_a_file_that_somebody_else_wrote_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    (tmp_path / "a.bin").write_bytes(b"theirs")
    for links in (True, False):
        if not links:
            monkeypatch.setattr(os, "link", refuse)
            write_whole(tmp_path / "b.bin", b"ours", replace=False)
        with pytest.raises(ExistsError, match="exists by now"):
            write_whole(tmp_path / "a.bin", b"ours", replace=False)
        assert (tmp_path / "a.bin").read_bytes() == b"theirs"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "b.bin"]


def test_an_older_folder_is_put_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with whole_folder(tmp_path / "a") as new:
        (new / "file").write_text("one")
    rename, count = os.rename, 0

    def fail_second(a: Path, b: Path) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(errno.EIO, "broken")
        rename(a, b)

    monkeypatch.setattr(os, "rename", fail_second)
    with pytest.raises(UserError, match="can't be written: broken"), whole_folder(tmp_path / "a") as new:
        (new / "file").write_text("two")
    assert (tmp_path / "a" / "file").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_leftovers_of_the_living_and_of_other_machines_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        "alive": f"{PARTIAL}{HOST}-{os.getpid()}-x",
        "dead": f"{PARTIAL}{HOST}-{dead.pid}-x",
        "elsewhere": f"{PARTIAL}other.host-{dead.pid}-x",
    }
    for name in names.values():
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {names["alive"], names["elsewhere"]}
    remove_leftovers(tmp_path, of_all=True)
    assert not list(tmp_path.iterdir())
