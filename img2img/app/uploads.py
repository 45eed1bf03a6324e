"""What the browser sends: files by the names that people gave them, never decoded here; and archives of them."""

import os
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from img2img.app.limits import ROOM
from img2img.core.errors import UsageError, UserError
from img2img.inference.progress import Watch
from img2img.inference.report import Outcome

MOST_FILES = 100_000  # in an archive
MOST_BYTES = 2**34  # of its files, unpacked
LONGEST = 150  # bytes of a file's name, with what may be added to it
LONGEST_PART = 240  # of a name in an archive
DEEPEST = 32  # folders


@dataclass(frozen=True)
class Upload:
    """A file that was sent."""

    path: Path
    """Where it lies; named by the server."""
    name: str
    """What it was called, made safe."""


def clean_name(name: str) -> str:
    """A file's name without folders, control characters and what hides it, and not too long."""
    last = unicodedata.normalize("NFC", name.replace("\\", "/")).rpartition("/")[2]
    kept = "".join(letter for letter in last if letter.isprintable()).strip().lstrip(".") or "image"
    stem, dot, suffix = kept.rpartition(".")
    return f"{_shorten(stem, LONGEST)}.{_shorten(suffix, 20)}" if dot else _shorten(kept, LONGEST)


def _shorten(text: str, most: int) -> str:
    return text.encode()[:most].decode("utf-8", "ignore")


def collect(uploads: Sequence[Upload], folder: Path, watch: Watch) -> list[Outcome]:
    """Puts uploaded images, and those of zip files, into a folder; what can't be taken is accounted for.

    Args:
        watch: is called between files, and may raise an exception to end it.

    Raises:
        UserError: if an archive is damaged or too large, or the disk is full.
    """
    refused: list[Outcome] = []
    folder.mkdir(parents=True)
    names = _Names()
    for upload in uploads:
        watch(0, len(uploads))
        if upload.name.lower().endswith(".zip"):
            inside = folder if len(uploads) == 1 else names.take(folder / Path(upload.name).stem)
            refused += unpack(upload, inside, watch)
        else:
            _link(upload.path, names.take(folder / upload.name))
    return refused


def unpack(upload: Upload, folder: Path, watch: Watch) -> list[Outcome]:
    """Unpacks a zip file into a folder; entries that lead out of it are refused.

    Raises:
        UserError: if it is damaged, encrypted or too large, or the disk is full.
    """
    refused, names = [], _Names()
    try:
        with zipfile.ZipFile(upload.path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            size = sum(entry.file_size for entry in entries)
            if len(entries) > MOST_FILES or size > MOST_BYTES:
                raise UserError(
                    f"{upload.name} holds more than {MOST_FILES:,} files or {MOST_BYTES / 1e9:.0f} GB; send it in parts."
                )
            if shutil.disk_usage(upload.path.parent).free < ROOM + 3 * size:  # unpacked, translated, and packed again
                raise UserError(f"the server's disk has no room for what is in {upload.name}.")
            for number, entry in enumerate(entries):
                if number % 64 == 0:
                    watch(0, len(entries))
                parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
                reason = _explain_refusal(entry, parts)
                if reason:
                    refused.append(Outcome(f"{upload.name}/{entry.filename}", "", "failed", reason))
                    continue
                target = names.take(folder.joinpath(*parts))
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)  # never more than the table of contents says
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{upload.name} is damaged, or no zip file: {error}.") from None
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or packed in a way that Python doesn't know
        raise UsageError(f"{upload.name} can't be unpacked: {error}.") from None
    except OSError as error:
        raise UserError(f"{upload.name} can't be unpacked: {error.strerror or error}.") from None
    return refused


def _explain_refusal(entry: zipfile.ZipInfo, parts: tuple[str, ...]) -> str:
    """Why an entry of an archive isn't taken; empty if it is."""
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link, which is not followed"
    if not parts or any(part in ("/", "..") or ":" in part or "\0" in part for part in parts):
        return "its name leads out of the archive"
    if len(parts) > DEEPEST or any(len(part.encode("utf-8", "replace")) > LONGEST_PART for part in parts):
        return f"its name is too long, or lies more than {DEEPEST} folders deep"
    return ""


def pack(target: Path, folder: Path, report: str) -> None:
    """Writes a zip file of all files in a folder, and a report beside them.

    Raises:
        UserError: if it can't be written.
    """
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # images are packed already
            for file in sorted(file for file in folder.rglob("*") if file.is_file()):
                archive.write(file, file.relative_to(folder).as_posix())
            archive.writestr("report.jsonl", report, zipfile.ZIP_DEFLATED)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise UserError(f"the results can't be packed: {error.strerror or error}.") from None


class _Names:
    """Gives files names that no other file has; of many with one wish, each in turn."""

    def __init__(self) -> None:
        self.next: dict[Path, int] = {}

    def take(self, path: Path) -> Path:
        """The path, or if it is taken one with a number."""
        wanted = path
        while wanted.exists():
            number = self.next.setdefault(path, 2)
            self.next[path] = number + 1
            wanted = path.with_name(f"{path.stem}-{number}{path.suffix}")
        return wanted


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
