"""Data sets and conversions behind URLs: a web server, and S3, as moto imitates it on this machine."""

import io
import json
import re
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from helpers.data import picture, write_pairs, write_tar
from PIL import Image

from img2img.cli import main
from img2img.core.stored import INDEXES, StoredPath, list_folder
from img2img.data.index import INDEX
from img2img.data.shards import read_shards
from img2img.images import read_image


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Where the packages are (pip install s3fs 'moto[s3,server]'): pip needs minutes to find versions that fit all others."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket; commands and the processes that they start find the server by the environment."""
    variables = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST"))
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    fsspec.filesystem("s3").clear_instance_cache()
    system.mkdir("bucket")
    INDEXES.clear(), read_shards.cache_clear()
    return "s3://bucket"


def upload(folder: Path, url: str) -> None:
    system = fsspec.filesystem("s3")
    system.put(str(folder), url, recursive=True)
    system.invalidate_cache()


def names(url: str) -> list[str]:
    fsspec.filesystem("s3").invalidate_cache()
    return [name.partition("bucket/")[2] for name in fsspec.filesystem("s3").find(url)]


class Ranges(SimpleHTTPRequestHandler):
    """Serves a folder, parts of files, too."""

    def do_GET(self) -> None:
        wanted, file = (
            re.match(r"bytes=(\d+)-(\d+)$", self.headers.get("Range", "")),
            Path(self.translate_path(self.path)),
        )
        if not wanted or not file.is_file():
            return super().do_GET()
        first, last = int(wanted[1]), min(int(wanted[2]), file.stat().st_size - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{file.stat().st_size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(file.read_bytes()[first : last + 1])

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The URL of the folder ``web``."""
    (tmp_path / "web").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path / "web"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        INDEXES.clear(), read_shards.cache_clear()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_web_server_has_folders_and_shards(web: str, trained: Path, tmp_path: Path, capsys: Any) -> None:
    pairs = write_pairs(tmp_path / "pairs", 4)
    shutil.copytree(pairs, tmp_path / "web" / "pairs")
    assert main(["shard", str(pairs), str(tmp_path / "web" / "shards"), "--kind", "paired", "--size-mb", "0.002"]) == 0
    INDEXES.clear()
    common = ["--model", str(trained), "--device", "cpu"]
    for kind in ("pairs", "shards"):
        assert main(["check", f"{web}/{kind}", "--kind", "paired"]) == 0
        assert "train: 4 pairs" in capsys.readouterr().out
    assert main(["convert", f"{web}/shards", str(tmp_path / "out"), *common]) == 0
    assert main(["convert", str(tmp_path / "web" / "shards"), str(tmp_path / "plain"), *common]) == 0
    for file in (tmp_path / "plain").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    assert main(["convert", f"{web}/pairs/trainA", str(tmp_path / "files"), *common]) == 0
    assert len(list((tmp_path / "files").glob("*.png"))) == 4
    capsys.readouterr()
    assert main(["convert", f"{web}/gone.tar", str(tmp_path / "no"), *common]) == 1
    assert "gone.tar" in capsys.readouterr().err
    assert main(["check", "http://127.0.0.1:1/photos"]) == 2
    assert "127.0.0.1:1/photos" in capsys.readouterr().err


def test_a_folder_is_checked_and_converted(bucket: str, trained: Path, tmp_path: Path, capsys: Any) -> None:
    pairs = write_pairs(tmp_path / "pairs", 3)
    (pairs / "trainA" / "sub").mkdir()
    Image.fromarray(picture(16, 16)).save(pairs / "trainA" / "sub" / "x.png")
    (pairs / "trainA" / "2.png").write_bytes(b"nothing")
    (pairs / "trainA" / "x.txt").write_bytes(b"")
    upload(pairs, f"{bucket}/pairs")
    assert main(["check", f"{bucket}/pairs", "--kind", "paired"]) == 1
    said = capsys.readouterr().out
    assert f"{bucket}/pairs/trainA/2.png" in said and "3 pairs" in said
    common = ["--model", str(trained), "--device", "cpu", "--report", str(tmp_path / "r.jsonl")]
    source, target = f"{bucket}/pairs/trainA", f"{bucket}/out"
    assert main(["convert", source, target, *common]) == 1
    said = capsys.readouterr()
    assert (
        "3 converted, 0 skipped, 1 failed; of other files left alone: 1 .txt" in said.out and "trainA/2.png" in said.err
    )
    assert names(target) == ["out/0.png", "out/1.png", "out/sub/x.png"]
    assert main(["convert", source, target, *common, "--skip-existing"]) == 1
    assert "0 converted, 3 skipped, 1 failed" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])["target"] == f"{target}/0.png"
    assert main(["convert", str(pairs / "trainA"), str(tmp_path / "plain"), *common]) == 1
    for name in ("0.png", "sub/x.png"):
        assert StoredPath(f"{target}/{name}").read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert main(["convert", f"{source}/0.png", str(tmp_path / "one.png"), *common]) == 0
    assert read_image(tmp_path / "one.png").shape == (16, 16, 3)


def test_shards_are_read_where_they_lie_and_converted(bucket: str, trained: Path, tmp_path: Path, capsys: Any) -> None:
    shards = tmp_path / "shards"
    assert (
        main(["shard", str(write_pairs(tmp_path / "pairs", 4)), str(shards), "--kind", "paired", "--size-mb", "0.002"])
        == 0
    )
    upload(shards, f"{bucket}/shards")
    INDEXES.clear()
    assert INDEX in list_folder(StoredPath(f"{bucket}/shards"))[0]
    assert main(["check", f"{bucket}/shards", "--kind", "paired"]) == 0
    assert "train: 4 pairs" in capsys.readouterr().out and len(
        [index for index in INDEXES.values() if index.facts]
    ) == len(list(shards.glob("*.tar")))
    common = ["--model", str(trained), "--device", "cpu"]
    assert main(["convert", f"{bucket}/shards", f"{bucket}/out", *common]) == 0
    assert main(["convert", str(shards), str(tmp_path / "out"), *common]) == 0
    for file in (tmp_path / "out").iterdir():
        assert StoredPath(f"{bucket}/out/{file.name}").read_bytes() == file.read_bytes()
    run = [
        "--size",
        "32",
        "--steps",
        "2",
        "--generator.channels",
        "2",
        "--discriminator.channels",
        "2",
        "--device",
        "cpu",
    ]
    trained_on = ["--data", f"{bucket}/shards", "--output", str(tmp_path / "run"), "--workers", "1"]
    assert main(["train", "pix2pix", *trained_on, *run, "--generator.kind", "unet", "--generator.depth", "3"]) == 0
    assert f"path: {bucket}/shards" in (tmp_path / "run" / "config.yaml").read_text()


def test_what_is_wrong_with_a_store_is_said(
    bucket: str, trained: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = io.BytesIO()
    Image.fromarray(picture(16, 16)).save(image, "PNG")
    shard = write_tar(tmp_path / "a.tar", {f"{n}.png": image.getvalue() for n in range(3)}).read_bytes()
    (tmp_path / "a.tar").write_bytes(shard[:1800])
    upload(tmp_path / "a.tar", f"{bucket}/a.tar")
    common = ["--model", str(trained), "--device", "cpu"]
    for source, words in {
        "s3://no-such-bucket/photos": "no-such-bucket", f"{bucket}/gone": "does not exist", f"{bucket}/x-{{0..1}}.tar": "x-0.tar",
    }.items():  # fmt: skip
        assert main(["convert", source, str(tmp_path / "out"), *common]) in (1, 2)
        assert words in capsys.readouterr().err
    assert main(["convert", f"{bucket}/a.tar", str(tmp_path / "out"), *common]) == 1
    assert "a.tar: the shard is cut off after" in capsys.readouterr().err and not list((tmp_path / "out").glob("*"))
    assert main(["check", f"{bucket}/a.tar", "--kind", "images"]) == 2
    assert main(["check", "s3://no-such-bucket/photos"]) == 2
    said = capsys.readouterr().err
    assert "cut off" in said and "no-such-bucket" in said and "Traceback" not in said
