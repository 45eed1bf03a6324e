"""A conversion that is killed again and again loses nothing: its outputs against those of one that was never stopped.

    python tools/kill_convert.py
    python tools/kill_convert.py --images 200 --kills 1 --processes 2

Makes a folder of images of several sizes and kinds, a tenth of them broken in ten ways, converts it without a stop, and again with
`kill -9` in between (of one process, if there are two), each time continued with --skip-existing. Then says whether both have
the same files, byte for byte, whether any output was made twice, and whether every broken file is reported.
"""

import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import tyro

from img2img.images import Picture, write_image, write_picture
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import ResNetConfig, build_generator, initialise

SIZES = [(64, 64), (64, 96), (80, 72), (33, 47)]


def main(images: int = 1000, kills: int = 3, processes: int = 1, channels: int = 32, seed: int = 0) -> None:
    """Compares the two, prints JSON, and fails if anything is lost.

    Args:
        images: In the folder, a tenth of them broken.
        kills: Times that the second conversion is killed.
        processes: On the CPU, by accelerate launch.
        channels: Width of the network.
        seed: Of images, weights and moments.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broken = make_folder(folder / "in", images, seed)
        make_model(folder / "model", channels, seed)
        whole = run(folder, "whole", processes)
        killed = run_killed(folder, kills, processes, random.Random(seed))
        outputs = [contents(folder / each) for each in ("whole", "killed")]
        reported = {line["source"] for line in killed["lines"] if line["status"] == "failed"}
        found: dict[str, Any] = {
            "images": images,
            "converted": len(outputs[0]),
            "whole_run": whole["counts"],
            "kills_after_outputs": killed["moments"],
            "last_run": killed["counts"],
            "differing_outputs": sorted(
                n for n in {*outputs[0], *outputs[1]} if outputs[0].get(n) != outputs[1].get(n)
            ),
            "made_twice": killed["made_twice"],
            "broken_not_reported": sorted(broken - reported),
            "good_but_failed": sorted(reported - broken),
            "left_over": sorted(path.name for path in (folder / "killed").rglob(".partial-*")),
        }
    print(json.dumps(found, indent=1))
    bad = ("differing_outputs", "made_twice", "broken_not_reported", "good_but_failed", "left_over")
    sys.exit(any(found[key] for key in bad))


def make_model(folder: Path, channels: int, seed: int = 0) -> None:
    """A translator with random weights."""
    torch.manual_seed(seed)
    settings = ResNetConfig(channels=channels, blocks=3).resolve(3, 3, 64)
    about = TranslatorConfig(method="bench", generator=settings, size=64, training=Training(img2img="0"))
    Translator(about, initialise(build_generator(settings))).save(folder)


def make_folder(folder: Path, images: int, seed: int = 0) -> set[str]:
    """Images of several sizes and kinds in sub-folders, and the paths of every tenth, which is broken."""
    draw, broken = np.random.default_rng(seed), set()
    for number in range(images):
        height, width = SIZES[number % len(SIZES)]
        image = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        path = folder / str(number % 5) / f"{number:04}{('.png', '.jpg', '.tif', '.webp', '.bmp', '.gif')[number % 6]}"
        if number % 10 == 9:
            name, data = list(BROKEN.items())[number // 10 % len(BROKEN)]
            path = path.with_suffix(name[name.rindex(".") :])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data(image[:height, :width], folder))
            broken.add(str(path))
        elif path.suffix == ".gif":
            write_picture(path, Picture([image[:height, :width], 255 - image[:height, :width]], [50, 50]))
        else:
            write_image(path, image[:height, :width])
    return broken


def encoded(image: Any, folder: Path, suffix: str) -> bytes:
    """An image file's bytes."""
    path = folder / f"temporary{suffix}"
    write_image(path, image)
    data = path.read_bytes()
    path.unlink()
    return data


def chunk(name: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(*_: Any) -> bytes:
    """A PNG that claims to be 60000 × 60000."""
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def pickled(*_: Any) -> bytes:
    """An array of objects."""
    import io

    file = io.BytesIO()
    np.save(file, np.array([[{}]]), allow_pickle=True)
    return file.getvalue()


BROKEN: dict[str, Callable[[Any, Path], bytes]] = {
    "empty.png": lambda *_: b"",
    "text.jpg": lambda *_: b"This is no image.\n" * 100,
    "noise.webp": lambda *_: random.Random(0).randbytes(5000),
    "cut.png": lambda image, folder: (data := encoded(image, folder, ".png"))[: len(data) // 2],
    "cut.jpg": lambda image, folder: (data := encoded(image, folder, ".jpg"))[: len(data) // 2],
    "flipped.png": lambda image, folder: (d := encoded(image, folder, ".png"))[:60] + bytes(40) + d[100:],
    "bomb.png": bomb,
    "lost.tif": lambda image, folder: b"II*\0" + struct.pack("<I", 10**9) + encoded(image, folder, ".tif")[8:],
    "pickle.npy": pickled,
    "cut.bmp": lambda image, folder: encoded(image, folder, ".bmp")[:1000],
}


def start(folder: Path, target: str, processes: int, *options: str) -> subprocess.Popen[bytes]:
    """A conversion in a process of its own, or several."""
    arguments = [
        "convert",
        str(folder / "in"),
        str(folder / target),
        "--model",
        str(folder / "model"),
        "--device",
        "cpu",
    ]
    arguments += ["--report", str(folder / f"{target}.jsonl"), *options]
    launcher = ["accelerate.commands.launch", "--cpu", "--num_processes", str(processes), "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *launcher, "img2img", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def run(folder: Path, target: str, processes: int, *options: str) -> dict[str, Any]:
    """A conversion to its end: its report, counted."""
    code = start(folder, target, processes, *options).wait()
    lines = [json.loads(line) for line in (folder / f"{target}.jsonl").read_text().splitlines()]
    counts = Counter(line["status"] for line in lines)
    assert code == (1 if counts["failed"] else 0), f"exit code {code}"
    assert len({line["source"] for line in lines}) == len(lines), "a file is reported twice"
    return {"lines": lines, "counts": dict(counts)}


def run_killed(folder: Path, kills: int, processes: int, draw: random.Random) -> dict[str, Any]:
    """The conversion in pieces; each kill comes when a random share of what was left is done."""
    goal = count(folder / "whole")
    moments: list[int] = []
    times: dict[str, int] = {}
    twice: set[str] = set()
    for _ in range(kills):
        before = count(folder / "killed")
        wanted = before + max(1, int((goal - before) * draw.uniform(0.05, 0.5)))
        process = start(folder, "killed", processes, "--skip-existing")
        while process.poll() is None and count(folder / "killed") < wanted:
            time.sleep(0.005)
        kill(process, processes)
        twice |= changed(folder / "killed", times)
        moments.append(len(times))
    last = run(folder, "killed", processes, "--skip-existing")
    twice |= changed(folder / "killed", times)
    return {"moments": moments, "made_twice": sorted(twice), **last}


def kill(process: subprocess.Popen[bytes], processes: int) -> None:
    """kill -9 of the conversion, or of its second process; then waits until all are gone."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    if processes == 1:
        process.kill()
    for member in family:
        if processes > 1 and _is_second(member):
            os.kill(member.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=60)


def _is_second(member: psutil.Process) -> bool:
    try:
        return member.environ().get("RANK") == "1" and "img2img.images.worker" not in member.cmdline()
    except psutil.Error:
        return False


def count(folder: Path) -> int:
    """Of the finished outputs."""
    return sum(not name.startswith(".") for _, _, names in os.walk(folder) for name in names)


def contents(folder: Path) -> dict[str, bytes]:
    """The finished outputs by name."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def changed(folder: Path, times: dict[str, int]) -> set[str]:
    """Outputs that were written again since the last call; remembers when each was written."""
    now = {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}
    again = {path for path, written in now.items() if times.get(path, written) != written}
    times.update(now)
    return again


if __name__ == "__main__":
    tyro.cli(main)
