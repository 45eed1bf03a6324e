"""A server with tiny models, in a process of its own, as people start it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.configs import tiny_config
from helpers.data import write_labelled
from helpers.translators import sampler

from img2img.networks.generators.base import Codes
from img2img.training.train import train

os.environ["NO_PROXY"] = os.environ["no_proxy"] = "localhost,127.0.0.1"


@dataclass
class Server:
    """A server that runs."""

    address: str
    process: "subprocess.Popen[str]"
    models: Path
    """The folder of models that it serves."""
    log: Path


def write_bomb(height: int, width: int) -> bytes:
    """A small PNG file of many black and white pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

    head = chunk(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + b"\x01\x00\x00\x00\x00")
    rows = zlib.compress(bytes(1 + -(-width // 8)) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def start_server(models: Path, log: Path, *options: str, environment: dict[str, str] | None = None) -> Server:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "img2img", "serve", str(models), "--port", str(port), *options],
            stdout=file, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    for _ in range(600):
        if "(Ctrl-C ends it)" in log.read_text():
            return Server(f"http://127.0.0.1:{port}", process, models, log)
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def models(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind: pairs (a run), labels (a run, with instances and styles), classes and codes; and a run without a model, young."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(trained, folder / "pairs")
    data = tmp_path_factory.mktemp("labelled")
    data = write_labelled(write_labelled(data, 4, 32), 2, 32, split="val", first=6)
    method = {"name": "pix2pixhd", "encoder": True, "coarse_share": 0.0}
    train(tiny_config(data, folder / "labels", method, steps=2), quiet=True)
    (folder / "young").mkdir()  # a run that has saved nothing yet
    shutil.copy(folder / "pairs" / "config.yaml", folder / "young")
    sampler(classes=("cat", "dog")).save(folder / "classes")
    sampler(codes=Codes(categorical=(3,), continuous=1)).save(folder / "codes")
    return folder


@pytest.fixture(scope="session")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "temp").mkdir()
    running = start_server(models, folder / "log", environment={"TMPDIR": str(folder / "temp")})
    try:
        yield running
    finally:
        running.process.terminate()
        assert running.process.wait(90) == 0
        assert not list((folder / "temp").iterdir())  # nothing is left


@pytest.fixture
def private(server: Server) -> Path:
    """The folder of the server's files."""
    (found,) = (server.log.parent / "temp").glob("img2img-serve-*")
    return found
