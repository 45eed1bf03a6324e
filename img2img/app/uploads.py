"""What the browser sends: files by the names that people gave them, never decoded here; and archives of them."""

import itertools
import os
import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from img2img.core.errors import UsageError, UserError
from img2img.inference.report import Outcome

MOST_FILES = 100_000  # in an archive
MOST_BYTES = 2**34  # of its files, unpacked
PIECE = 2**20
LONGEST = 150  # characters of a file's name


@dataclass(frozen=True)
class Upload:
    """A file that was sent."""

    path: Path
    """Where it lies; named by the server."""
    name: str
    """What it was called, made safe."""


def clean_name(name: str) -> str:
    """A file's name without folders, control characters and what hides it."""
    last = unicodedata.normalize("NFC", name.replace("\\", "/")).rpartition("/")[2]
    kept = "".join(letter for letter in last if letter.isprintable()).strip().lstrip(".") or "image"
    stem, dot, suffix = kept.rpartition(".")
    return f"{stem[: LONGEST - len(suffix)]}.{suffix[:20]}" if dot else kept[:LONGEST]


def collect(uploads: Sequence[Upload], folder: Path) -> list[Outcome]:
    """Puts uploaded images, and those of zip files, into a folder; what can't be taken is accounted for.

    Raises:
        UserError: if an archive is damaged or too large.
    """
    refused: list[Outcome] = []
    folder.mkdir(parents=True)
    alone = len(uploads) == 1
    for upload in uploads:
        if upload.name.lower().endswith(".zip"):
            refused += unpack(upload, folder if alone else _free(folder / Path(upload.name).stem))
        else:
            _link(upload.path, _free(folder / upload.name))
    return refused


def unpack(upload: Upload, folder: Path) -> list[Outcome]:
    """Unpacks a zip file into a folder; entries that lead out of it are refused.

    Raises:
        UserError: if it is damaged, encrypted or too large.
    """
    refused, left = [], MOST_BYTES
    try:
        with zipfile.ZipFile(upload.path) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise UserError(
                    f"{upload.name} holds more than {MOST_FILES:,} files or {MOST_BYTES / 1e9:.0f} GB; send it in parts."
                )
            for entry in entries:
                if entry.is_dir():
                    continue
                parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
                link = stat.S_ISLNK(entry.external_attr >> 16)
                if link or not parts or any(part in ("/", "..") or ":" in part for part in parts):
                    reason = "a link, which is not followed" if link else "its name leads out of the archive"
                    refused.append(Outcome(f"{upload.name}/{entry.filename}", "", "failed", reason))
                    continue
                target = folder.joinpath(*parts[:-1]) / parts[-1]
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, _free(target).open("xb") as file:
                    while piece := source.read(PIECE):
                        left -= len(piece)
                        if left < 0:  # its table of contents lies
                            raise UserError(f"{upload.name} unpacks to more than it says; it is not taken.")
                        file.write(piece)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{upload.name} is damaged, or no zip file: {error}.") from None
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or packed in a way that Python doesn't know
        raise UsageError(f"{upload.name} can't be unpacked: {error}.") from None
    except OSError as error:
        raise UserError(f"{upload.name} can't be unpacked: {error.strerror or error}.") from None
    except ValueError as error:
        raise UsageError(f"{upload.name} can't be unpacked: {error}.") from None
    return refused


def pack(target: Path, folder: Path, report: str) -> None:
    """Writes a zip file of all files in a folder, and a report beside them.

    Raises:
        UserError: if it can't be written.
    """
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # images are packed already
            for file in _list_files(folder):
                archive.write(file, file.relative_to(folder).as_posix())
            archive.writestr("report.jsonl", report, zipfile.ZIP_DEFLATED)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise UserError(f"the results can't be packed: {error.strerror or error}.") from None


def _list_files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file())


def _free(path: Path) -> Path:
    """The path, or if it is taken one with a number."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not name.exists())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
