"""Gives damaged and hostile files to everything that reads files: each must end with a result or a sentence.

    python tools/fuzz.py
    python tools/fuzz.py weights config --count 100000

Small valid files are changed at random: bits, lengths, numbers, pieces left out, repeated, or taken from another file. Each is read
in a process with a limit to its memory and time. A finding is any exception but img2img's own, a crash, a read that takes too long or
too much memory, and any change of the folder beside the file that is read, such as code in a pickle would make. Findings are kept in --keep, one file for each place.
"""

import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file

from img2img.config import read_config, run_type, write_config
from img2img.core.errors import UserError
from img2img.data.classes import read_classes
from img2img.images import read_image, write_image
from img2img.images.labels import read_indices
from img2img.interop.importing import import_file
from img2img.interop.onnx import load_onnx
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import UNetConfig, build_generator

Target = Literal["weights", "model", "config", "classes", "images", "labels", "onnx"]
CHUNK = 500  # inputs that one process reads
SECONDS = 20  # for one input
MEMORY = 6 * 2**30  # more than a process that has read everything
BOUNDARIES = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8, b"\0" * 8]
WORDS = [
    b"1e999",
    b"-1",
    b"999999999999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'"../../x"',
    b'"/etc/passwd"',
    b"true",
    b"&a [*a,*a]",
]
Random = random.Random


@dataclass(frozen=True)
class Reader:
    """What reads a kind of file."""

    seeds: Callable[[Path], list[Path]]
    """Makes valid files in a folder."""
    read: Callable[[Path], object]
    """Reads one of them, at the place where it was."""


def _translator() -> Translator:
    torch.manual_seed(0)
    config = UNetConfig(channels=2, depth=2).resolve(3, 3, 16, "instance")
    about = TranslatorConfig(method="test", generator=config, size=16, training=Training(img2img="0"))
    return Translator(about, build_generator(config))


class _Code:
    """Makes a folder if its pickle is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def _make_weights(folder: Path) -> list[Path]:
    state = _translator().generator.state_dict()
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    (folder / "code.pth").write_bytes(pickle.dumps({"a": [1, 2], "b": _Code(folder / "ran")}))
    save_file(state, folder / "a.safetensors")
    return sorted(folder.iterdir())


def _make_model(folder: Path) -> list[Path]:
    _translator().save(folder / "model")
    return [folder / "model" / name for name in ("config.json", "generator.safetensors")]


def _make_config(folder: Path) -> list[Path]:
    for name in ("pix2pix", "cyclegan", "gan"):
        write_config(folder / f"{name}.yaml", run_type(name)(method={"name": name}))
    return sorted(folder.iterdir())


def _make_classes(folder: Path) -> list[Path]:
    (folder / "classes.yaml").write_text('0: {name: sky, colour: "#4682b4"}\n1: {name: sea, colour: [0, 90, 255]}\n')
    (folder / "list.yaml").write_text("- sky\n- {name: sea}\n- grass\n")
    return sorted(folder.iterdir())


def _make_images(folder: Path) -> list[Path]:
    values = np.random.default_rng(0)
    colour, gray = values.integers(0, 256, (12, 10, 4), np.uint8), values.integers(0, 65536, (12, 10, 1), np.uint16)
    for suffix in ("png", "jpg", "webp", "bmp", "tiff", "gif"):
        write_image(folder / f"a.{suffix}", colour[..., :3])
    for suffix in ("png", "webp", "tiff"):
        write_image(folder / f"b.{suffix}", colour)
    for suffix in ("png", "tiff", "npy"):
        write_image(folder / f"c.{suffix}", gray)
    return sorted(folder.iterdir())


def _make_labels(folder: Path) -> list[Path]:
    labels = np.random.default_rng(0).integers(0, 9, (12, 10, 1), np.uint8)
    for name in ("a.png", "a.tiff", "a.npy"):
        write_image(folder / name, labels)
    return sorted(folder.iterdir())


def _make_onnx(folder: Path) -> list[Path]:
    from img2img.interop.onnx import export_onnx

    export_onnx(_translator(), folder / "a.onnx")
    return [folder / "a.onnx"]


READERS: dict[Target, Reader] = {
    "weights": Reader(_make_weights, import_file),
    "model": Reader(_make_model, lambda file: Translator.load(file.parent, "cpu")),
    "config": Reader(_make_config, read_config),
    "classes": Reader(_make_classes, read_classes),
    "images": Reader(_make_images, read_image),
    "labels": Reader(_make_labels, read_indices),
    "onnx": Reader(_make_onnx, load_onnx),
}


def mutate(data: bytes, other: bytes, draw: Random) -> bytes:
    """One to four changes."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        place = draw.randrange(len(found) + 1)
        length = min(draw.choice((1, 2, 4, 8, 64, 1024)), len(found) - place)
        kind = draw.randrange(9)
        if kind == 0 and found:
            found[place - 1] ^= 1 << draw.randrange(8)
        elif kind == 1 and found:
            found[place - 1] = draw.randrange(256)
        elif kind == 2:
            del found[place:]
        elif kind == 3:
            del found[place : place + length]
        elif kind == 4:
            found[place:place] = found[place : place + length] * draw.choice((1, 3, 100))
        elif kind == 5:
            boundary = draw.choice(BOUNDARIES)
            found[place : place + len(boundary)] = boundary
        elif kind == 6:
            start = draw.randrange(len(other) + 1)
            found[place : place + length] = other[start : start + draw.choice((4, 64, 1024))]
        elif kind == 7:  # a number or a word of a text
            start = place
            while start < len(found) and not chr(found[start]).isalnum():
                start += 1
            end = start
            while end < len(found) and (chr(found[end]).isalnum() or found[end] in b'."_-'):
                end += 1
            found[start:end] = draw.choice(WORDS)
        else:
            found[place:place] = draw.choice(WORDS)
    return bytes(found[:200_000])


def _read_chunk(reader: Reader, seeds: list[Path], draw: Random, count: int, current: Path, found: Path) -> None:
    """In a process of its own."""
    contents = {seed: seed.read_bytes() for seed in seeds}
    before = {path: path.stat().st_mtime_ns for path in seeds[0].parent.rglob("*")}
    null = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(null, number)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for _ in range(count):
        seed = draw.choice(seeds)
        data = mutate(contents[seed], contents[draw.choice(seeds)], draw)
        seed.write_bytes(data)
        current.write_text(json.dumps([str(seed), data.hex()]))
        signal.alarm(SECONDS)  # which ends the process
        try:
            reader.read(seed)
        except UserError:
            pass
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            ours = [each for each in traceback.extract_tb(error.__traceback__) if "/img2img/" in each.filename] or [
                place
            ]
            where = f"{type(error).__name__}: {re.sub('[0-9]+', 'N', str(error))[:120]} in {Path(ours[-1].filename).name}:{ours[-1].lineno}"
            with found.open("a") as file:
                file.write(json.dumps([where, seed.name, data.hex()]) + "\n")
        signal.alarm(0)
        seed.write_bytes(contents[seed])
    after = {path: path.stat().st_mtime_ns for path in seeds[0].parent.rglob("*") if path not in seeds}
    if after != {path: when for path, when in before.items() if path not in seeds}:
        with found.open("a") as file:
            file.write(json.dumps(["a file was touched", "", ""]) + "\n")


def try_target(
    name: Target, count: int, seed: int, folder: Path, advance: Callable[[int], None]
) -> dict[str, tuple[str, bytes]]:
    """What was found: by place, the name and bytes of a file."""
    reader, findings = READERS[name], folder / "found"
    (folder / "seeds").mkdir()
    seeds = reader.seeds(folder / "seeds")
    kept: dict[str, tuple[str, bytes]] = {}
    contents = {file: file.read_bytes() for file in seeds}
    for number, first in enumerate(range(0, count, CHUNK)):
        child = os.fork()
        if not child:
            code = 1
            try:
                _read_chunk(reader, seeds, Random(f"{seed}/{name}/{number}"), min(CHUNK, count - first), folder / "current", findings)  # fmt: skip
                code = 0
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            file, data = json.loads((folder / "current").read_text())
            what = "too slow" if status == -signal.SIGALRM else f"the process ended with {status}"
            kept.setdefault(f"{name}: {what}", (Path(file).name, bytes.fromhex(data)))
        for file, data in contents.items():
            file.write_bytes(data)
        advance(min(CHUNK, count - first))
    for line in findings.read_text().splitlines() if findings.is_file() else ():
        where, file_name, data = json.loads(line)
        before = kept.get(f"{name}: {where}")
        if before is None or len(before[1]) > len(data) // 2:  # the smallest
            kept[f"{name}: {where}"] = file_name, bytes.fromhex(data)
    return kept


def main(names: tyro.conf.Positional[tuple[Target, ...]] = tuple(READERS), count: int = 5000, seed: int = 0, keep: Path | None = None) -> None:  # fmt: skip
    """Prints what was found.

    Args:
        names: what to read; by default everything.
        count: files of each kind.
        seed: of the changes.
        keep: a folder for files that found something.
    """
    torch.set_num_threads(1)
    console = Console(width=160, highlight=False)
    found: dict[str, tuple[str, bytes]] = {}
    with tempfile.TemporaryDirectory() as temporary, Progress(console=console, transient=True) as bar:
        for name in names:
            folder = Path(temporary, name)
            folder.mkdir()
            task = bar.add_task(name, total=count)
            found |= try_target(name, count, seed, folder, lambda done, task=task: bar.advance(task, done))  # type: ignore[misc]
            shutil.rmtree(folder)
    for number, (what, (file_name, data)) in enumerate(found.items()):
        console.print(what, markup=False)
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{number}-{file_name}").write_bytes(data)
    console.print(f"{len(found)} findings in {count * len(names)} files.")
    sys.exit(bool(found))


if __name__ == "__main__":
    tyro.cli(main)
