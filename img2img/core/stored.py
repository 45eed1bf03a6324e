"""Files that no path of this machine leads to: members of tar files (shards), and what lies behind a URL.

A `StoredPath` looks like any other path to whoever reads it: ``photos-000003.tar/cat.png``, ``s3://bucket/photos/cat.png``, or both at
once. Tar files are read where a member lies, without going through them from the start.
"""

import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from img2img.core.errors import UserError

URL = re.compile(r"^([a-z][a-z0-9+.-]+):/+(?=[^/])")  # of a path, too, which has lost a slash; a drive has one letter
TAR = ".tar"
DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp"}
T = TypeVar("T")


class StoreError(UserError):
    """A shard is damaged, or what lies behind a URL can't be reached."""


class StoredPath(type(Path())):  # type: ignore[misc]
    """A member of a tar file, or a file or folder behind a URL."""

    place: tuple[int, int] | None = None
    """Of a member: where it begins in the tar file, and its bytes; else it is looked up."""

    def __str__(self) -> str:
        return URL.sub(r"\1://", super().__str__())

    def absolute(self) -> Self:
        """The path itself, if it is a URL."""
        return self if URL.match(str(self)) else type(self)(super().absolute())

    def resolve(self, strict: bool = False) -> Self:
        """As `absolute`."""
        return self if URL.match(str(self)) else type(self)(super().resolve(strict))

    @property
    def container(self) -> str:
        """The tar file that it is a member of; empty if it is none."""
        return self._split()[0]

    @property
    def member(self) -> str:
        """Its name in the tar file; empty if it is in none."""
        return self._split()[1]

    def _split(self) -> tuple[str, str]:
        text, start = str(self), 0
        while (place := text.find(f"{TAR}/", start)) >= 0:
            head, start = text[: place + len(TAR)], place + 1
            if URL.match(text) or not _is_folder(head):  # a folder may be called so, too
                return head, text[place + len(TAR) + 1 :]
        return "", ""

    @property
    def _is_plain(self) -> bool:
        """Whether it is a file of this machine, such as a tar file itself."""
        return not self.member and not URL.match(str(self))

    def find(self) -> tuple[int, int]:
        """Where it begins in the tar file, and its bytes.

        Raises:
            FileNotFoundError: if it is not in there.
            StoreError: if the tar file can't be read.
        """
        container, member = self._split()
        return self.place or read_tar_index(container).find(member)

    def open(self, mode: str = "rb", *args: Any, **options: Any) -> IO[Any]:  # type: ignore[override]
        """Its bytes.

        Raises:
            OSError: if it can't be read.
            StoreError: of a tar file, the same.
        """
        if mode != "rb":
            raise io.UnsupportedOperation(f"{self} can only be read")
        container, member = self._split()
        if self._is_plain:
            return Path(str(self)).open("rb")
        if not member:
            return io.BytesIO(_reach(str(self), lambda fs, path: fs.cat_file(path)))
        start, size = self.find()
        data = read_range(container, start, size)
        if len(data) < size:
            raise OSError(f"the shard is cut off: {size - len(data):,} bytes of it are missing")
        return io.BytesIO(data)

    def read_bytes(self) -> bytes:
        """Its bytes, as of `open`."""
        data: bytes = self.open().read()
        return data

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """Size and time of change; of a member, the tar file's.

        Raises:
            OSError: if it is not there.
        """
        container, _ = self._split()
        if not URL.match(str(self)):
            return Path(container or str(self)).stat()
        info = _reach(container or str(self), lambda fs, path: fs.info(path))
        changed = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or 0
        seconds = float(changed.timestamp() if hasattr(changed, "timestamp") else changed)
        return SimpleNamespace(st_size=info.get("size") or 0, st_mtime=seconds, st_mtime_ns=int(seconds * 1e9))

    def size(self) -> int:
        """Bytes of a file that is no member.

        Raises:
            OSError: if it is not there.
        """
        return int(self.stat().st_size)

    def exists(self, **options: Any) -> bool:
        """Whether there is such a file or folder."""
        return self.is_file() or self.is_dir()

    def is_file(self, **options: Any) -> bool:
        """Whether there is such a file."""
        if self._is_plain:
            return Path(str(self)).is_file()
        if not self.member:
            return bool(_reach(str(self), lambda fs, path: fs.isfile(path)))
        try:
            self.find()
        except (FileNotFoundError, StoreError):
            return False
        return True

    def is_dir(self, **options: Any) -> bool:
        """Whether there is such a folder."""
        if self._is_plain:
            return Path(str(self)).is_dir()
        return not self.member and bool(_reach(str(self), lambda fs, path: fs.isdir(path)))

    def is_symlink(self) -> bool:
        """Never."""
        return False


def is_remote(path: Path) -> bool:
    """Whether it is, or lies in, what is behind a URL."""
    return isinstance(path, StoredPath) and URL.match(str(path)) is not None


@cache
def _is_folder(path: str) -> bool:
    return Path(path).is_dir()


def resolve_path(path: Path | str) -> Path:
    """A `StoredPath` for a URL or a member of a tar file; any other path as it is."""
    if isinstance(path, StoredPath):
        return path
    stored = StoredPath(path)
    inside = stored.container and Path(stored.container).is_file()
    return stored if URL.match(str(path)) or inside else Path(path)


@dataclass(frozen=True)
class TarIndex:
    """Where the members of a tar file lie; those that are files."""

    path: str
    names: NDArray[np.bytes_]
    """In UTF-8, in their order."""
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    order: NDArray[np.int64]
    """What sorts the names."""
    cut: str = ""
    """After which member the file ends early; empty if it is whole."""
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What is known of each member, in their order, by columns."""

    @classmethod
    def of(
        cls,
        path: str,
        members: Mapping[str, tuple[int, int]],
        cut: str = "",
        facts: Mapping[str, NDArray[Any]] | None = None,
    ) -> Self:
        """Of the places and sizes of all members."""
        names = np.array([name.encode("utf-8", "surrogateescape") for name in members] or [b""][:0], np.bytes_)
        places = np.array(list(members.values()), np.int64).reshape(-1, 2)
        return cls(
            path, names, places[:, 0].copy(), places[:, 1].copy(), np.argsort(names, kind="stable"), cut, facts or {}
        )

    def find(self, name: str) -> tuple[int, int]:
        """Where a member begins, and its bytes.

        Raises:
            FileNotFoundError: if there is none of that name.
        """
        place = self.locate(name)
        return int(self.starts[place]), int(self.sizes[place])

    def locate(self, name: str) -> int:
        """Which member has a name.

        Raises:
            FileNotFoundError: if there is none.
        """
        wanted = name.encode("utf-8", "surrogateescape")
        place = int(np.searchsorted(self.names, wanted, sorter=self.order)) if len(self.names) else 0
        if place == len(self.names) or self.names[self.order[place]] != wanted:
            raise FileNotFoundError(2, "No such member", f"{self.path}/{name}")
        return int(self.order[place])

    def list_names(self) -> list[str]:
        """Of all members, in their order."""
        return [name.decode("utf-8", "surrogateescape") for name in self.names.tolist()]


INDEXES: dict[str, TarIndex] = {}
"""Of the tar files that this process knows."""


def read_tar_index(path: str) -> TarIndex:
    """Where the members of a tar file lie, as `INDEXES` has it, or else its own headers; it must not be compressed.

    Raises:
        StoreError: if it is no tar file, can't be reached, or holds a name twice.
    """
    if path not in INDEXES:
        INDEXES[path] = _read_headers(path)
    return INDEXES[path]


def _read_headers(path: str) -> TarIndex:
    members: dict[str, tuple[int, int]] = {}
    try:
        with _open_container(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            try:
                for entry in archive:
                    if not (entry.isfile() or entry.islnk()):
                        continue
                    name = os.path.normpath(entry.name)
                    if name.startswith(("/", "../")) or name == "..":
                        raise StoreError(f"{path}: the name of its member {entry.name} leads out of it.")
                    if name in members:
                        raise StoreError(f"{path}: {name} is in it twice; make it anew.")
                    if entry.isfile():
                        members[name] = (entry.offset_data, entry.size)
                    elif (first := os.path.normpath(entry.linkname)) in members:  # tar's way to store a file once
                        members[name] = members[first]
                file.seek(archive.offset)
                whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)  # what marks the end
            except tarfile.ReadError:
                whole = False
    except StoreError:
        raise
    except (tarfile.TarError, EOFError):
        raise StoreError(f"{path} is no tar file, or it is compressed, which shards must not be.") from None
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error.strerror or error}.") from None
    return TarIndex.of(path, members, "" if whole else next(reversed(members), "its beginning"))


def _open_container(path: str) -> Any:
    if not URL.match(path):
        return Path(path).open("rb")
    return _reach(path, lambda fs, place: fs.open(place, "rb"))


def read_range(path: str, start: int, size: int) -> bytes:
    """So many bytes of a file of this machine or behind a URL; fewer, if it ends early."""
    if URL.match(path):
        data: bytes = _reach(path, lambda fs, place: fs.cat_file(place, start=start, end=start + size))
        return data
    with Path(path).open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, start)


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the files in a folder behind a URL, and of the folders in it, sorted.

    Raises:
        StoreError: if it can't be listed.
    """
    try:
        entries = _reach(str(folder), lambda fs, path: fs.ls(path, detail=True))
    except OSError as error:
        raise StoreError(f"{folder} can't be listed: {error.strerror or error}.") from None
    names: tuple[list[str], list[str]] = ([], [])
    for entry in entries:
        name = entry["name"].rstrip("/").rpartition("/")[2]
        if name and entry["type"] in ("file", "directory"):
            names[entry["type"] == "directory"].append(name)
    return sorted(names[0]), sorted(set(names[1]))


def walk_folder(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder behind a URL and all below it that isn't hidden, each with the names of its files."""
    names, below = list_folder(folder)
    yield folder, names
    for name in below:
        if not name.startswith("."):
            yield from walk_folder(folder / name)


def write_stored(path: Path, content: Path | bytes) -> None:
    """Puts bytes, or a file of this machine, behind a URL, where they appear whole.

    Raises:
        StoreError: if it can't be written.
    """
    try:
        if isinstance(content, bytes):
            _reach(str(path), lambda fs, place: fs.pipe_file(place, content))
        else:
            _reach(str(path), lambda fs, place: fs.put_file(str(content), place))
    except OSError as error:
        raise StoreError(f"{path} can't be written: {error.strerror or error}.") from None


def _reach(url: str, ask: Callable[[Any, str], T]) -> T:
    """What a file system of `fsspec` answers.

    Raises:
        OSError: whatever it raised.
        StoreError: if it needs a package that isn't there, or there is no such protocol.
    """
    import fsspec

    found = URL.match(url)
    if found is None or "::" in url:  # which would lead to another file system
        raise StoreError(f"{url}: name the folder or file, as in s3://bucket/folder.")
    try:
        system, path = fsspec.core.url_to_fs(url)
        return ask(system, path)
    except OSError:
        raise
    except ImportError:
        driver = DRIVERS.get(found[1], found[1])
        raise StoreError(f"{url} needs the package {driver}: pip install {driver}.") from None
    except ValueError as error:
        if "Protocol" in str(error):
            raise StoreError(
                f"{url}: there is no protocol {found[1]}; there are s3, gs, hf, https and others."
            ) from None
        raise StoreError(f"{url}: {error}") from None
    except Exception as error:  # every driver has its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(f"{url} can't be reached: {reason[:300].rstrip('.')}.") from None
