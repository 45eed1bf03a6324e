"""Downloads of published files: announced, resumed after a broken connection, and checked by size and checksum."""

import errno
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from img2img.core.errors import UsageError, UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """A file of weights on the internet."""

    name: str
    """For people."""
    url: str
    sha256: str
    """Or how it begins."""
    megabytes: int

    @property
    def file(self) -> Path:
        """Where it is kept, whoever downloaded it."""
        import torch

        return Path(torch.hub.get_dir(), "checkpoints", self.url.rpartition("/")[2])

    def fetch(self, say: Callable[[str], None], remedy: str) -> Path:
        """The file; downloads it if it is not there. `remedy` ends the sentence of an error: what a user can do instead.

        Raises:
            UsageError: if it can't be downloaded, or its checksum is wrong.
        """
        if self.file.is_file():
            return self.file
        say(f"Downloading the {self.name} weights ({self.megabytes} MB) from {self.url} to {self.file}.")
        try:
            download(self.url, self.file, checksum=f"sha256:{self.sha256}")
        except UserError as error:
            raise UsageError(f"the {self.name} weights can't be downloaded ({error}): {remedy}") from None
        return self.file


TRIES = 5
CHUNK = 2**18  # bytes


def cache_folder() -> Path:
    """Where what is downloaded is kept: `img2img` in the XDG cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "img2img")


def download(
    url: str,
    file: Path,
    *,
    size: int | None = None,
    checksum: str = "",
    timeout: float = 30.0,
    pause: float = 1.0,
    advance: Callable[[int, int | None], None] = lambda done, total: None,
) -> None:
    """Downloads a file, whole or not at all. A broken download stays in ``FILE.part`` and is resumed, by this call or a later one.

    Args:
        url: http or https.
        file: where to put it.
        size: in bytes, if it is known.
        checksum: ``sha256:…`` or ``md5:…``, or how it begins, if one is known.
        timeout: seconds without a byte after which a connection is given up.
        pause: seconds before the second try, doubled with each.
        advance: is told how many bytes are there, and how many there will be, if that is known.

    Raises:
        UserError: if the server has no such file, or another than is known, or doesn't answer.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f"{file.name}.lock"), timeout=0):
            total = _retry(url, part, timeout, pause, advance)
            _verify(url, part, {"the server announced": total, "are known of it": size}, checksum)
            part.replace(file)
            _version_file(part).unlink(missing_ok=True)
    except Timeout:
        raise UserError(f"{file} is being downloaded by another process; wait for that one.") from None
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror or error}.") from None


def _retry(
    url: str, part: Path, timeout: float, pause: float, advance: Callable[[int, int | None], None]
) -> int | None:
    for attempt in range(TRIES):
        try:
            return _continue_download(url, part, timeout, advance)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise UserError(
                    f"{url}: the server says {error.code} {error.reason}; it may have been moved."
                ) from None
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            if attempt + 1 == TRIES:
                reason = getattr(error, "reason", None) or error or type(error).__name__
                raise UserError(
                    f"{url} can't be downloaded ({reason}); the same command goes on where it stopped."
                ) from None
            time.sleep(min(30.0, pause * 2**attempt))
    raise AssertionError("the last try returns or raises")


def _verify(url: str, part: Path, sizes: Mapping[str, int | None], checksum: str) -> None:
    found = part.stat().st_size
    for whose, expected in sizes.items():
        if expected is not None and found != expected:
            part.unlink()
            raise UserError(
                f"{url} has {found} bytes, but {expected} {whose}; it was not kept. Try again, or ask its project."
            )
    if checksum and not digest_file(part, checksum.partition(":")[0]).startswith(checksum):
        own = digest_file(part, "sha256")
        part.unlink()
        raise UserError(
            f"{url} isn't what it was when its checksum was noted ({checksum}); it was not kept. If its project says that it is right, "
            f"--checksum {own} takes it."
        )


def _version_file(part: Path) -> Path:
    """Where it is noted of which version of a file a part is."""
    return part.with_name(f"{part.name}.of")


def _continue_download(url: str, part: Path, timeout: float, advance: Callable[[int, int | None], None]) -> int | None:
    """Fetches what is missing of a file; gives how many bytes it has, if the server says so."""
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url} is no address of the web.")
    version = _version_file(part).read_text(encoding="utf-8") if _version_file(part).is_file() else ""
    there = part.stat().st_size if part.exists() and version else 0  # of another version nothing is of use
    headers = {"User-Agent": "img2img", "Accept-Encoding": "identity"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": version}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not there:  # there is no more than what is there already
            raise
        announced = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if announced.isdecimal() and int(announced) == there:
            return there
        part.unlink()
        return _continue_download(url, part, timeout, advance)
    with response:
        if "text/html" in (response.headers.get("Content-Type") or ""):
            raise UserError(f"{url}: the server sent a web page, not the file; open it in a browser to see why.")
        there = there if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = there + int(length) if length and length.isdecimal() else None
        etag = response.headers.get("ETag") or ""
        version = (etag if not etag.startswith("W/") else "") or response.headers.get("Last-Modified") or ""
        _version_file(part).write_text(version, encoding="utf-8")
        with part.open("ab" if there else "wb") as target:
            while piece := response.read(CHUNK):
                target.write(piece)
                there += len(piece)
                advance(there, total)
    if total is not None and there < total:
        raise http.client.IncompleteRead(b"", total - there)
    return total


def digest_file(file: Path, kind: str) -> str:
    """``sha256:…`` or ``md5:…`` of a file."""
    with file.open("rb") as opened:
        return f"{kind}:{hashlib.file_digest(opened, kind).hexdigest()}"


def announce(text: str) -> None:
    """Nothing is downloaded without saying so, also where all else is quiet; of several processes the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr)


def read_tensors(file: Path) -> "dict[str, Tensor]":
    """The tensors of a .safetensors or .pth file; runs no pickle.

    Raises:
        Exception: whatever a damaged file makes the libraries say.
    """
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    import torch

    return dict(torch.load(file, map_location="cpu", weights_only=True))
