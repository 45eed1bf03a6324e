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
import tarfile
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file

from img2img.config import read_config, run_type, write_config
from img2img.core.errors import UserError
from img2img.core.stored import INDEXES, StoredPath
from img2img.data.classes import read_classes
from img2img.data.folder_index import FOLDERS, load_folder_index, recall_image
from img2img.data.index import INDEX, recall_facts, write_index
from img2img.data.shards import read_shards
from img2img.data.video import extract_frames
from img2img.data.write_folder_index import write_folder_index
from img2img.images import Rules, count_pixels, read_image, read_picture, write_image, write_picture
from img2img.images.labels import read_indices
from img2img.interop.importing import import_file
from img2img.interop.onnx import load_onnx
from img2img.models import Training, Translator, TranslatorConfig
from img2img.models.latents_file import Latent, Latents, read_latents
from img2img.networks import UNetConfig, build_generator

Target = Literal[
    "weights", "model", "config", "classes", "images", "labels", "onnx",
    "bands", "dicom", "nifti", "video", "shards", "index", "latents",
]  # fmt: skip
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


def _make_bands(folder: Path) -> list[Path]:
    import tifffile

    values = np.random.default_rng(0).normal(500, 300, (12, 10, 5))
    tifffile.imwrite(folder / "a.tif", values.astype(np.float32), planarconfig="contig", compression="zlib")
    no_data = [(42113, "s", 0, "-9999", True), (33550, "d", 3, (10.0, 10.0, 0.0), True)]
    tifffile.imwrite(
        folder / "b.tif", np.moveaxis(values, -1, 0).astype(np.int16), planarconfig="separate", extratags=no_data
    )
    np.save(folder / "c.npy", values.astype(np.float32))
    np.savez(folder / "d.npz", values.astype(np.int32))
    return sorted(folder.iterdir())


def _make_dicom(folder: Path) -> list[Path]:
    from pydicom import uid
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.pixels import set_pixel_data

    for name, syntax in (("a", uid.ExplicitVRLittleEndian), ("b", uid.ImplicitVRLittleEndian), ("c", uid.RLELossless)):
        data = FileDataset(name, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
        data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian if syntax.is_compressed else syntax
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        data.PatientName, data.Modality, data.ImageType = "Doe^J", "CT", ["ORIGINAL", "PRIMARY"]
        data.RescaleSlope, data.RescaleIntercept, data.WindowCenter, data.WindowWidth = 1, -1024, 40, 400
        data.PixelSpacing, data.ImagePositionPatient, data.PixelPaddingValue = [0.5, 0.75], [10, 20, 30], 0
        stored = np.random.default_rng(0).integers(0, 3000, (12, 10)).astype(np.uint16)
        set_pixel_data(data, stored, "MONOCHROME2", 12, generate_instance_uid=False)
        if syntax.is_compressed:
            data.compress(syntax, generate_instance_uid=False)
        data.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


def _make_nifti(folder: Path) -> list[Path]:
    import nibabel

    values = np.random.default_rng(0).integers(-900, 2900, (6, 5, 4))
    for name, dtype in (("a.nii", np.int16), ("b.nii.gz", np.float32)):
        nibabel.save(nibabel.Nifti1Image(values.astype(dtype), np.diag([1.5, 2, 3, 1])), folder / name)
    nibabel.save(nibabel.Nifti2Image(values[..., None].astype(np.uint8), np.eye(4)), folder / "c.nii")
    return sorted(folder.iterdir())


def _copy_bands(file: Path) -> None:
    """Reads all of it, and writes it with all that the file says of itself."""
    rules = Rules(range=(-1000, 3000))
    count_pixels(file, rules)
    picture = read_picture(file, rules)
    with tempfile.TemporaryDirectory() as folder:
        write_picture(Path(folder, file.name), picture)


def _make_video(folder: Path) -> list[Path]:
    import av

    images = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), np.uint8)
    for name, codec in (("a.mp4", "libx264"), ("b.webm", "libvpx-vp9"), ("c.avi", "mpeg4")):
        with av.open(str(folder / name), "w") as film:
            stream: Any = film.add_stream(codec, rate=2)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for image in images:
                film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            film.mux(stream.encode(None))
    return sorted(folder.iterdir())


def _take_frames(file: Path) -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        extract_frames(file)


def _make_shards(folder: Path) -> list[Path]:
    images = folder.with_name("members")
    images.mkdir()
    for key in "ab":
        for part in ("source", "target"):
            write_image(images / f"{key}.{part}.png", np.full((4, 4, 3), 9, np.uint8))
        (images / f"{key}.cls").write_text("sky")
    for name, layout in (("a-000000.tar", tarfile.USTAR_FORMAT), ("b-000000.tar", tarfile.PAX_FORMAT)):
        with tarfile.open(folder / name, "w", format=layout) as tar:
            for file in sorted(images.iterdir()):
                tar.add(file, file.name if layout == tarfile.USTAR_FORMAT else "ä" * 60 + file.name)
    return sorted(folder.iterdir())


def _read_shard(file: Path) -> None:
    INDEXES.clear()
    read_shards.cache_clear()
    for _, files in read_shards(str(file)).values():
        for stored in files:
            read_image(StoredPath(stored))


def _make_index(folder: Path) -> list[Path]:
    """Of a folder and of shards; not compressed, so that values are changed, too."""
    from pyarrow import parquet

    (folder / "images").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        write_image(folder / "images" / name, np.full((4, 4, 3), 9, np.uint8))
    write_folder_index(folder / "images", lambda _: lambda: None)
    (folder / "tars").mkdir()
    shards = _make_shards(folder / "tars")
    write_index(folder / "tars", [shard.name for shard in shards], {})
    files = [folder / "images" / INDEX, folder / "tars" / INDEX]
    for file in files:
        parquet.write_table(parquet.read_table(file), file, compression="none", use_dictionary=False)
    return files


def _read_index(file: Path) -> None:
    FOLDERS.clear()
    INDEXES.clear()
    read_shards.cache_clear()
    load_folder_index(file.parent)
    for image in file.parent.glob("*.png"):
        recall_image(image)
    if file.parent.name == "tars":
        for _, files in read_shards(str(file.parent)).values():
            for stored in files:
                recall_facts("image", [stored])
                stored.read_bytes()


def _make_latents(folder: Path) -> list[Path]:
    Latents(images=(Latent(noise=(0.5, -1.25), classes=(1.0, 0.0)),) * 2, truncation=0.7).save(folder / "a.json")
    Latents(images=(Latent(styles=((0.5, 1.0), (2.0, 3.0))),)).save(folder / "b.json")
    return sorted(folder.iterdir())


READERS: dict[Target, Reader] = {
    "weights": Reader(_make_weights, import_file),
    "model": Reader(_make_model, lambda file: Translator.load(file.parent, "cpu")),
    "config": Reader(_make_config, read_config),
    "classes": Reader(_make_classes, read_classes),
    "images": Reader(_make_images, read_image),
    "labels": Reader(_make_labels, read_indices),
    "onnx": Reader(_make_onnx, load_onnx),
    "bands": Reader(_make_bands, _copy_bands),
    "dicom": Reader(_make_dicom, _copy_bands),
    "nifti": Reader(_make_nifti, _copy_bands),
    "video": Reader(_make_video, _take_frames),
    "shards": Reader(_make_shards, _read_shard),
    "index": Reader(_make_index, _read_index),
    "latents": Reader(_make_latents, read_latents),
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
