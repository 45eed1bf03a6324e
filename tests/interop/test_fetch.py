"""Downloads from a local server: slow, broken, truncated, wrong; each a sentence, and nothing half-written stays."""

import functools
import hashlib
import http.server
import io
import itertools
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from helpers import plain_networks as plain
from helpers.data import picture
from helpers.families import image, made

import img2img
from img2img.cli import main
from img2img.core import downloads
from img2img.core.downloads import Weights, download
from img2img.core.errors import UsageError, UserError
from img2img.images import write_image
from img2img.interop import fetch as room
from img2img.interop.published import DATASETS, MODELS, Published


class Server(http.server.ThreadingHTTPServer):
    """Serves `body` in the way of `how`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.how = bytes(range(256)) * 4000, "well"
        self.ranges: list[str | None] = []
        self.version = '"1"'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.ranges.append(wanted)
        same = self.headers.get("If-Range") == server.version
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and same and server.how != "no ranges" else 0
        if server.how == "gone":
            return self.send_error(404)
        if server.how == "ill" or (server.how == "ill once" and len(server.ranges) == 1):
            return self.send_error(503)
        if first >= len(server.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if first else 200)
        self.send_header("Content-Type", "text/html" if server.how == "page" else "application/octet-stream")
        if server.version:
            self.send_header("ETag", server.version)
        if server.how != "no length":
            self.send_header("Content-Length", str(len(server.body) - first))
        self.end_headers()
        body = server.body[first:]
        if server.how == "breaks" or (server.how == "no ranges" and len(server.ranges) < 3):
            self.wfile.write(body[: max(1, len(body) // 3)])
            self.wfile.flush()
            self.connection.close()
        elif server.how == "stalls":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            threading.Event().wait(1.5)
        else:
            self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for one in (downloads, room):
        monkeypatch.setattr(one, "download", functools.partial(download, timeout=0.4, pause=0.001), raising=False)
    return tmp_path / "cache"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def fetched(server: Server, file: Path, **options: Any) -> bytes:
    download(server.url, file, **{"timeout": 0.4, "pause": 0.001, **options})
    return file.read_bytes()


def test_a_download(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    options = {"size": len(server.body), "checksum": sha256(server.body)}
    assert fetched(server, tmp_path / "a" / "f", advance=lambda *each: seen.append(each), **options) == server.body
    assert seen[-1] == (len(server.body), len(server.body)) and not list((tmp_path / "a").glob("*.part"))


def test_weights_that_judge_are_downloaded_alike(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    good = Weights("VGG", server.url, sha256(server.body).removeprefix("sha256:")[:8], 1)
    assert good.fetch(lambda text: None, "remedy").read_bytes() == server.body
    good.file.unlink()
    with pytest.raises(UsageError, match=r"isn't what it was.*remedy"):
        Weights("VGG", server.url, "00000000", 1).fetch(lambda text: None, "remedy")
    assert not good.file.exists()


def test_breaks_are_gone_on_with(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "TRIES", 200)
    server.how = "breaks"  # each time after a third of what is missing
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    assert fetched(server, tmp_path / "f", checksum=sha256(server.body)) == server.body
    assert len(server.ranges) > 5 and server.ranges[1] == f"bytes={len(server.body) // 3}-"


def test_a_later_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.how = "breaks"
    with pytest.raises(UserError, match="goes on where it stopped"):
        fetched(server, tmp_path / "f")
    assert len(server.ranges) == downloads.TRIES and not (tmp_path / "f").exists()
    there = (tmp_path / "f.part").stat().st_size
    server.how = "well"
    assert fetched(server, tmp_path / "f") == server.body and server.ranges[-1] == f"bytes={there}-"


def test_what_is_there_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(server.body)
    (tmp_path / "f.part.of").write_text(server.version)
    assert fetched(server, tmp_path / "f") == server.body


def test_what_is_there_of_a_longer_file_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(server.body + b"more")
    (tmp_path / "f.part.of").write_text(server.version)
    assert fetched(server, tmp_path / "f") == server.body


@pytest.mark.parametrize("version", ['"2"', ""])
def test_what_is_there_of_another_version_is_dropped(version: str, server: Server, tmp_path: Path) -> None:
    server.how = "breaks"
    with pytest.raises(UserError):
        fetched(server, tmp_path / "f")
    server.how, server.version, server.body = "well", version, server.body[::-1]
    (tmp_path / "f.part.of").write_text('"1"' if version else "")
    assert fetched(server, tmp_path / "f") == server.body


def test_two_do_not_download_one_file(server: Server, tmp_path: Path) -> None:
    with FileLock(tmp_path / "f.lock"), pytest.raises(UserError, match="another process"):
        fetched(server, tmp_path / "f")


@pytest.mark.parametrize("how", ["no ranges", "no length", "ill once"])
def test_servers_that_do_less(how: str, server: Server, tmp_path: Path) -> None:
    server.how = how
    assert fetched(server, tmp_path / "f") == server.body


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("gone", {}, "404"),
    ("ill", {}, "Service Unavailable"),
    ("page", {}, "web page"),
    ("stalls", {}, "goes on where it stopped"),
    ("well", {"size": 10}, "1024000 bytes, but 10"),
    ("well", {"checksum": sha256(b"other")}, "isn't what it was"),
    ("well", {"checksum": "md5:" + "0" * 32}, "isn't what it was"),
]


@pytest.mark.parametrize(("how", "options", "words"), BAD, ids=[f"{how}-{words}" for how, _, words in BAD])
def test_what_goes_wrong_is_a_sentence(
    how: str, options: dict[str, Any], words: str, server: Server, tmp_path: Path
) -> None:
    server.how = how
    with pytest.raises(UserError, match=words):
        fetched(server, tmp_path / "f", **options)
    assert not (tmp_path / "f").exists()
    assert how == "stalls" or not list(tmp_path.glob("*.part"))


def test_no_server_and_no_address(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be downloaded"):
        download("http://127.0.0.1:9/x", tmp_path / "x", pause=0.001)
    with pytest.raises(UsageError, match="no address"):
        download("file:///etc/passwd", tmp_path / "x")


def weights() -> bytes:
    network, _ = made(plain.resnet, image(), "instance")
    buffer = io.BytesIO()
    torch.save(network.state, buffer)
    return buffer.getvalue()


def offered(server: Server, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Published:
    """horse2zebra, by our server."""
    kind = changes.get("kind", "model")
    values = {
        "name": "horse2zebra",
        "kind": kind,
        "project": "cyclegan",
        "url": server.url,
        "licence": "terms",
        **changes,
    }
    published = Published(**values)
    monkeypatch.setattr(room, "MODELS" if kind == "model" else "DATASETS", (published,))
    return published


def test_a_model_is_fetched_once_and_imported(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.body = weights()
    offered(server, monkeypatch)
    assert main(["fetch", "horse2zebra", "--output", str(tmp_path / "h2z")]) == 0
    said = capsys.readouterr()
    assert server.url in said.err and sha256(server.body) in said.err and "terms" in said.out
    assert isinstance(img2img.load(tmp_path / "h2z"), img2img.Translator)
    assert main(["fetch", "cyclegan/horse2zebra"]) == 0
    assert len(server.ranges) == 1, "from the cache"
    place = capsys.readouterr().out.split()[4].rstrip(".")
    assert Path(place).is_relative_to(tmp_path / "cache" / "img2img")


def test_a_file_that_changed_in_the_cache_is_fetched_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    server.body = weights()
    offered(server, monkeypatch)
    assert main(["fetch", "horse2zebra"]) == 0
    (file,) = cache.rglob("file.pth")
    file.write_bytes(b"something else")
    assert main(["fetch", "horse2zebra"]) == 0
    assert len(server.ranges) == 2 and file.read_bytes() == server.body


@pytest.mark.parametrize("body", [b"no weights at all", b"<html>moved</html>", b""])
def test_a_model_that_is_none_is_not_kept(
    body: bytes, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:  # fmt: skip
    server.body = body
    offered(server, monkeypatch)
    assert main(["fetch", "horse2zebra", "--output", str(tmp_path / "h2z")]) == (2 if body else 1)
    assert server.url in capsys.readouterr().err
    assert not (tmp_path / "h2z").exists() and not list(cache.rglob("file.pth"))


def test_a_checksum_of_ones_own(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.body = weights()
    offered(server, monkeypatch, checksum=sha256(b"as it was"), size=9)
    assert main(["fetch", "horse2zebra"]) == 1
    assert main(["fetch", "horse2zebra", "--checksum", sha256(server.body)]) == 0
    assert main(["fetch", "horse2zebra", "--checksum", "abc"]) == 2
    assert main(["fetch", "nothing"]) == 2
    assert "there are" in capsys.readouterr().err.lower()


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_a_model_of_an_archive(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.body = tarred({"./checkpoints/a_pretrained/latest_net_G.pth": weights(), "../../evil.txt": b"no"})
    offered(server, monkeypatch, member="a_pretrained/latest_net_G.pth")
    assert main(["fetch", "horse2zebra", "--output", str(tmp_path / "out")]) == 0
    assert not list(tmp_path.rglob("evil.txt"))
    offered(server, monkeypatch, name="b", member="b_pretrained/latest_net_G.pth")
    assert main(["fetch", "b", "--output", str(tmp_path / "b")]) == 1


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def pictures(tmp_path: Path) -> dict[str, bytes]:
    write_image(tmp_path / "p.png", picture(16, 16))
    return {
        f"facades/train{side}/{n}.png": (tmp_path / "p.png").read_bytes() for side, n in itertools.product("AB", (1, 2))
    }


@pytest.mark.parametrize(("pack", "suffix"), [(zipped, "zip"), (lambda each: tarred(each, "w:gz"), "tar.gz")])
def test_a_data_set(
    pack: Callable[[dict[str, bytes]], bytes], suffix: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    server.body = pack(pictures(tmp_path))
    offered(
        server, monkeypatch, name="facades", kind="dataset", url=server.url.replace("file.pth", f"facades.{suffix}")
    )
    target = tmp_path / "sets" / "facades"
    assert main(["fetch", "facades", "--dataset", "--output", str(target)]) == 0
    assert sorted(str(file.relative_to(target)) for file in target.rglob("*.png")) == [
        f"train{side}/{n}.png" for side in "AB" for n in (1, 2)
    ]
    assert main(["check", str(target)]) == 0
    assert main(["fetch", "facades", "--dataset", "--output", str(target)]) == 2, "it is there"


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil-img2img.txt", "a/../../evil.txt"])
@pytest.mark.parametrize(("pack", "suffix"), [(zipped, "zip"), (lambda each: tarred(each, "w:gz"), "tar.gz")])
def test_no_archive_leaves_its_folder(
    pack: Callable[[dict[str, bytes]], bytes], suffix: str, name: str, server: Server, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server.body = pack({**pictures(tmp_path), name: b"no"})
    offered(server, monkeypatch, name="facades", kind="dataset", url=server.url.replace("file.pth", f"f.{suffix}"))
    assert main(["fetch", "facades", "--dataset", "--output", str(tmp_path / "out")]) == 1
    assert "outside" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("evil*")) and not Path(name).exists()


def test_no_link_leads_out_of_its_folder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside").mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("facades/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        archive.addfile(link)
        info = tarfile.TarInfo("facades/link/evil.txt")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"no"))
    server.body = buffer.getvalue()
    offered(server, monkeypatch, name="facades", kind="dataset", url=server.url.replace("file.pth", "f.tar.gz"))
    assert main(["fetch", "facades", "--dataset", "--output", str(tmp_path / "out")]) == 1
    assert not list(tmp_path.rglob("evil*")) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_damaged_archive(suffix: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(server, monkeypatch, name="facades", kind="dataset", url=server.url.replace("file.pth", f"f.{suffix}"))
    assert main(["fetch", "facades", "--dataset", "--output", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists() and not list((tmp_path / "cache").rglob(f"f.{suffix}"))


def test_what_is_published() -> None:
    assert room.find_published("horse2zebra", "model").url.endswith("cyclegan/pretrained_models/horse2zebra.pth")
    assert room.find_published("facades", "dataset").project == "pix2pix", "the one with pairs"
    assert room.find_published("cyclegan/facades", "dataset").project == "cyclegan"
    with pytest.raises(UsageError, match=r"cyclegan/sat2map and pix2pix/sat2map"):
        room.find_published("sat2map", "model")
    with pytest.raises(UsageError, match="--dataset"):
        room.find_published("vangogh2photo", "model")
    names = [each.whole_name for shelf in (MODELS, DATASETS) for each in shelf if shelf is MODELS]
    assert len(names) == len(set(names)) == 29
    for each in (*MODELS, *DATASETS):
        assert each.url.startswith(("http://", "https://")) and each.licence
        kind, _, digits = each.checksum.partition(":")
        assert not each.checksum or len(digits) == {"sha256": 64, "md5": 32}[kind]
