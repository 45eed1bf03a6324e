"""A conversion that is killed loses nothing, and several processes share one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.data import picture

import img2img
from img2img.images import write_image


def fill(folder: Path, count: int) -> None:
    for number in range(count):
        write_image(folder / "in" / f"{number:02}.png", picture(40, 24 + 8 * (number % 2), seed=number))
    (folder / "in" / "bad.png").write_bytes(b"nothing")


def start(folder: Path, model: Path, target: str, *launcher: str) -> subprocess.Popen[bytes]:
    arguments = ["convert", str(folder / "in"), str(folder / target), "--model", str(model), "--device", "cpu"]
    arguments += ["--skip-existing", "--report", str(folder / f"{target}.jsonl")]
    command = [sys.executable, "-m", *launcher, "img2img", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")} if folder.is_dir() else {}


def report(path: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found: dict[str, str] = {Path(line["source"]).name: line["status"] for line in lines}
    assert len(found) == len(lines)
    return found


def kill_after(process: subprocess.Popen[bytes], folder: Path, rank: str | None) -> None:
    """kill -9 of the conversion, or of one of its processes, when the first output is there; waits for all to end."""
    deadline = time.monotonic() + 60
    while not outputs(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for member in family:
        try:
            if rank and member.environ().get("RANK") == rank and "img2img.images.worker" not in member.cmdline():
                os.kill(member.pid, signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    if not rank:
        process.kill()
    process.communicate(timeout=60)
    psutil.wait_procs(family, timeout=30)


@pytest.mark.parametrize("launcher", [(), ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m")])
def test_killed_and_continued_nothing_is_lost_or_done_twice(trained: Path, tmp_path: Path, launcher: Any) -> None:
    fill(tmp_path, 40)
    kill_after(start(tmp_path, trained, "killed", *launcher), tmp_path / "killed", "1" if launcher else None)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.png")}
    assert before, "it was killed after its first output"
    last = start(tmp_path, trained, "killed", *launcher)
    text, errors = last.communicate(timeout=120)
    assert last.returncode == 1, errors.decode()[-2000:]
    assert text.decode().count("converted") == 1, "one of several processes speaks for all"
    assert errors.decode().count("bad.png") == 1
    img2img.convert(trained, tmp_path / "in", tmp_path / "whole", device="cpu")
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.png")}
    assert {name: after[name] for name in before} == before, "what was there was not made again"
    expected = {path.name: "skipped" if path.name in before else "done" for path in (tmp_path / "in").iterdir()}
    assert report(tmp_path / "killed.jsonl") == expected | {"bad.png": "failed"}
    assert not [path for path in (tmp_path / "killed").iterdir() if path.name.startswith(".")]
