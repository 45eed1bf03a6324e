"""Published models and data sets by name: downloaded once, checked, imported."""

import json
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from img2img.core.downloads import cache_folder, digest_file, download
from img2img.core.errors import UsageError, UserError, list_some
from img2img.core.files import whole_folder, write_whole
from img2img.interop.importing import Imported, ImportOptions, import_file
from img2img.interop.published import DATASETS, MODELS, Published

MOST_UNPACKED = 60_000_000_000  # bytes of a data set
Progress = Callable[[int, int | None], None]
Say = Callable[[str], None]


def find_published(name: str, kind: str) -> Published:
    """What was published under a name, such as ``horse2zebra`` or ``pix2pix/sat2map``; of two data sets the one with pairs.

    Raises:
        UsageError: if nothing was, or several things were.
    """
    shelf = MODELS if kind == "model" else DATASETS
    found = [each for each in shelf if name in (each.name, each.whole_name)]
    if not found:
        given = [each.name for each in shelf]
        names = ", ".join(sorted(each.name if given.count(each.name) == 1 else each.whole_name for each in shelf))
        other = [each for each in (DATASETS if kind == "model" else MODELS) if name in (each.name, each.whole_name)]
        hint = f" There is a {other[0].kind} of that name{': add --dataset' if kind == 'model' else '; leave --dataset out'}." if other else ""  # fmt: skip
        raise UsageError(f"{name}: no {kind} of that name is known.{hint} There are {names}.")
    if len(found) > 1 and kind == "dataset":  # with and without pairs
        return next(each for each in found if each.project == "pix2pix")
    if len(found) > 1:
        raise UsageError(
            f"{name}: there are several: {' and '.join(each.whole_name for each in found)}; give the whole name."
        )
    return found[0]


def fetch_model(published: Published, say: Say, progress: Progress, checksum: str = "") -> tuple[Path, Imported]:
    """Downloads a model, or takes it from the cache, and imports it.

    Args:
        say: is told what is downloaded, and from where.
        progress: is told how many bytes are there, and how many there will be.
        checksum: ``sha256:…`` instead of what is known.

    Returns:
        The file of its weights, and its translator.

    Raises:
        UserError: if it can't be downloaded, or isn't what it should be.
    """
    file = _download_or_reuse(published, say, progress, checksum)
    if published.member:
        file = _extract_member(file, published)
    try:
        imported = import_file(file, ImportOptions(direction=published.direction))
    except UsageError as error:
        file.unlink(missing_ok=True)
        raise UsageError(f"{published.url} is not the weights that it should be: {error}") from None
    data = f"{published.name}, published by {published.project}: {published.url}"
    config = imported.translator.config
    training = config.training.model_copy(update={"data": data})
    imported.translator.config = config.model_copy(update={"training": training})
    return file, imported


def fetch_dataset(published: Published, target: Path, say: Say, progress: Progress, checksum: str = "") -> None:
    """Downloads a data set and unpacks it, whole or not at all.

    Raises:
        UserError: if it can't be downloaded or unpacked, or the folder is there already.
    """
    if target.exists():
        raise UsageError(f"{target} is there already; choose another --output.")
    file = _download_or_reuse(published, say, progress, checksum)
    say(f"Unpacking it into {target}.")
    try:
        with whole_folder(target) as new, tempfile.TemporaryDirectory(dir=new) as folder:
            _unpack(file, Path(folder))
            inside = [each for each in Path(folder).iterdir() if not each.name.startswith((".", "__MACOSX"))]
            top = inside[0] if len(inside) == 1 and inside[0].is_dir() else Path(folder)
            if not any(each.is_file() for each in top.rglob("*")):
                raise UserError(f"{published.url} is empty.")
            for each in list(top.iterdir()):
                shutil.move(each, new / each.name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error, RuntimeError) as error:
        file.unlink(missing_ok=True)
        raise UserError(f"{published.url} is damaged ({error}); fetch it again.") from None
    file.unlink(missing_ok=True)  # it takes as much space as what came out


def _download_or_reuse(published: Published, say: Say, progress: Progress, checksum: str) -> Path:
    """The file, from the cache if it is there, whole and as it was."""
    folder = cache_folder() / f"{published.kind}s" / published.project
    file = folder / published.url.rpartition("/")[2]
    note = folder / f"{file.name}.json"
    if checksum:
        published = replace(published, size=None, checksum=checksum)
    if file.is_file():
        known = checksum or _read_note(note)
        if known and digest_file(file, known.partition(":")[0]) == known:
            return file
        say(f"{file} is not what was downloaded, so it is downloaded again.")
        file.unlink()
    megabytes = f"{published.size / 1e6:.0f} MB, " if published.size else ""
    say(f"Downloading {published.whole_name} ({megabytes}{published.licence}) from {published.url} to {file}.")
    download(published.url, file, size=published.size, checksum=published.checksum, advance=progress)
    found = digest_file(file, "sha256")
    if not published.checksum:
        say(f"Nobody has published a checksum of it that is known here; this one is {found}, and is remembered.")
    write_whole(note, json.dumps({"url": published.url, "checksum": found}).encode())
    return file


def _read_note(note: Path) -> str:
    try:
        return str(json.loads(note.read_bytes())["checksum"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _extract_member(archive: Path, published: Published) -> Path:
    """The one file of an archive that is asked for; its name there decides nothing but which it is."""
    file = archive.with_name(f"{published.name}.pth")
    try:
        with tarfile.open(archive) as opened:
            found = [
                each
                for each in opened.getmembers()
                if each.isfile() and f"/{each.name}".endswith(f"/{published.member}")
            ]
            if not found:
                raise UserError(f"{published.url} has no {published.member}.")
            taken = opened.extractfile(found[0])
            assert taken is not None
            write_whole(file, taken.read())
    except (tarfile.TarError, EOFError) as error:
        archive.unlink(missing_ok=True)
        raise UserError(f"{published.url} is damaged ({error}); fetch it again.") from None
    return file


def _unpack(file: Path, folder: Path) -> None:
    """Everything in an archive, which may not leave the folder."""
    with _open_archive(file) as (names, unpacked, extract):
        wrong = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
        if wrong:
            raise UserError(f"{file} wants to write outside of its folder ({list_some(wrong, 2)}); it is not unpacked.")
        if unpacked > MOST_UNPACKED:
            raise UserError(f"{file} would take {unpacked / 1e9:.0f} GB; it is not unpacked.")
        extract(folder)


@contextmanager
def _open_archive(file: Path) -> Iterator[tuple[list[str], int, Callable[[Path], None]]]:
    """The names in an archive, the bytes that they take, and what unpacks them."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            yield [info.filename for info in infos], sum(info.file_size for info in infos), archive.extractall
        return
    with tarfile.open(file) as tar:
        members = tar.getmembers()
        yield (
            [member.name for member in members],
            sum(member.size for member in members),
            lambda folder: tar.extractall(folder, filter="data"),
        )
