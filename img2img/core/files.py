"""Files and folders that are whole or absent, also when the process is killed while it writes them."""

import errno
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from img2img.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor  # slow to import, and processes that decode have no need of it

PARTIAL = ".partial-"  # the names of what is not finished begin with this, the host and the process
HOST = re.sub(r"[^A-Za-z0-9.]", "_", platform.node())[:64]


class ExistsError(UserError):
    """A file is there that may not be replaced."""


def write_whole(path: Path, data: bytes | Iterable[bytes], replace: bool = True, durable: bool = True) -> None:
    """Writes a file, at once or in parts, beside its place, then renames it there.

    Args:
        replace: whether it may take the place of a file that exists.
        durable: whether to wait until the disk has it: without, it is safe when the process is killed, but not when the power fails.

    Raises:
        UserError: if it can't be written; nothing is left behind then.
        ExistsError: if it may not be replaced.
    """
    temporary: Path | None = None
    try:
        handle, temporary = make_temporary(path.parent)
        with os.fdopen(handle, "wb") as file:
            file.writelines((data,) if isinstance(data, bytes) else data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        move_into_place(temporary, path, replace)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, FileExistsError) and not replace:
            raise ExistsError(f"{path} exists by now.") from None
        if isinstance(error, OSError):
            raise UserError(f"{path} can't be written: {error.strerror or error}.") from None
        raise


def make_temporary(folder: Path) -> tuple[int, Path]:
    """Opens a file for what is to be moved into place, in a folder that is made if need be: its handle and its path.

    Raises:
        OSError: if it can't be made.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=_prefix(), dir=folder)
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_prefix(), dir=folder)
    return handle, Path(name)


def move_into_place(temporary: Path, path: Path, replace: bool = True) -> None:
    """Gives a file that is complete its name.

    Raises:
        OSError: if that can't be done; a `FileExistsError` if it may not replace another.
    """
    temporary.chmod(0o666 & ~UMASK)  # mkstemp makes files that only their owner can read
    if not replace:
        try:
            os.link(temporary, path)  # unlike renaming, this fails if somebody was faster
            temporary.unlink()
            return
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if path.exists():
                raise FileExistsError(errno.EEXIST, "it exists by now") from None
    temporary.replace(path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder to fill; when the block ends well, it takes the place of `path`.

    An older folder at `path` is moved aside first and deleted last: killed between the two renames, it is found again
    by `recover`. When the block fails, the temporary folder is removed and the older one stays.

    Raises:
        UserError: if it can't be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{_prefix()}{path.name}-", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~UMASK)
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        aside = backup_path(path)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        temporary.rename(path)
        _sync(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        recover(path)
        raise UserError(f"{path} can't be written: {error.strerror or error}.") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]") -> None:
    """Writes a safetensors file of any tensors, taken to the CPU."""
    from safetensors.torch import save

    path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def digest_tensors(tensors: "Mapping[str, Tensor]") -> str:
    """Of tensors and their names, in hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def backup_path(path: Path) -> Path:
    """Where `whole_folder` keeps the older folder while the new one takes its place."""
    return path.with_name(f".{path.name}.older")


def recover(path: Path) -> None:
    """Puts the older folder back if a process died between the two renames of `whole_folder`; for its only writer."""
    if not path.exists() and backup_path(path).exists():
        with suppress(OSError):
            backup_path(path).rename(path)


def remove_leftovers(folder: Path, of_all: bool = False) -> None:
    """Removes what dead processes left unfinished in a folder; `of_all`: also those of other machines, where nobody else can be writing."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        leftovers = [Path(entry.path) for entry in entries if entry.name.startswith(PARTIAL)]
    for leftover in leftovers:
        owner = re.match(rf"{re.escape(PARTIAL)}(.*?)-(\d+)-", leftover.name)
        if owner is None:  # somebody else's, by chance of that name
            continue
        alive = owner[1] != HOST or psutil.pid_exists(int(owner[2]))
        if of_all or not alive:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _prefix() -> str:
    return f"{PARTIAL}{HOST}-{os.getpid()}-"


def _read_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


UMASK = _read_umask()  # once, for reading it is changing it, and there are threads


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
