"""Files are decoded in processes that they can't hang, crash or bloat."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.data import picture

from img2img.images import ImageError, Picture, Rules, write_image, write_picture
from img2img.images.decoder import MEMORY, Decoder
from img2img.images.worker import command


@pytest.fixture
def start() -> Iterator[Callable[..., Decoder]]:
    started: list[Decoder] = []

    def one(memory: int = MEMORY, **rules: Any) -> Decoder:
        started.append(Decoder(Rules(**rules), memory))
        return started[-1]

    yield one
    for decoder in started:
        decoder.close()


@pytest.fixture
def decoder(start: Callable[..., Decoder]) -> Decoder:
    return start()


def test_what_comes_through_is_equal(decoder: Decoder, tmp_path: Path) -> None:
    there = Picture([picture(9, 7, dtype=np.uint16), picture(5, 6, 4)], dpi=(300.0, 200.0), exif=b"", xmp=b"<x/>")
    write_picture(tmp_path / "ü \udcff.tif", there)
    here = decoder.picture(tmp_path / "ü \udcff.tif")
    assert [frame.dtype for frame in here.frames] == [np.uint16, np.uint8] and here.dpi == (300, 200)
    assert all(np.array_equal(a, b) for a, b in zip(here.frames, there.frames, strict=True))
    assert decoder.pixels(tmp_path / "ü \udcff.tif") == 2 * 9 * 7


def test_what_hangs_is_given_up_and_the_next_file_is_read(decoder: Decoder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    write_image(tmp_path / "a.png", picture(8, 8))
    decoder.picture(tmp_path / "a.png")
    decoder.timeout = 0.3
    with pytest.raises(ImageError, match=r"pipe\.png takes longer than 0\.3 s.*--timeout"):
        decoder.picture(tmp_path / "pipe.png")
    decoder.timeout = 60
    assert decoder.picture(tmp_path / "a.png").frames[0].shape == (8, 8, 3)


def test_what_crashes_the_decoder_is_named(decoder: Decoder, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(8, 8))
    decoder.picture(tmp_path / "a.png")
    assert decoder.process
    os.kill(decoder.process.pid, signal.SIGSTOP)  # else it may be dead before it is asked, and another takes its place
    threading.Timer(0.3, os.kill, (decoder.process.pid, signal.SIGKILL)).start()
    with pytest.raises(ImageError, match=r"a\.png can't be decoded: it crashed"):
        decoder.picture(tmp_path / "a.png")
    assert decoder.picture(tmp_path / "a.png").frames[0].shape == (8, 8, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process' memory")
def test_what_takes_too_much_memory_is_named(start: Callable[..., Decoder], tmp_path: Path) -> None:
    write_image(tmp_path / "large.png", np.zeros((8000, 8000, 3), np.uint8))
    write_image(tmp_path / "small.png", picture(8, 8))
    decoder = start(memory=700 * 2**20)
    with pytest.raises(ImageError, match=r"large\.png.*memory"):
        decoder.picture(tmp_path / "large.png")
    assert decoder.picture(tmp_path / "small.png").frames[0].shape == (8, 8, 3)


def test_a_bomb_is_refused_before_it_is_decoded(start: Callable[..., Decoder], tmp_path: Path) -> None:
    write_image(tmp_path / "bomb.png", np.zeros((2000, 3000, 1), np.uint8))
    data = (tmp_path / "bomb.png").read_bytes()
    (tmp_path / "bomb.png").write_bytes(data[:60])  # nothing of it could be decoded
    write_picture(tmp_path / "long.gif", Picture([picture(100, 100, seed=seed) for seed in range(7)], [50] * 7))
    decoder = start(max_pixels=60000)
    with pytest.raises(ImageError, match=r"3000 × 2000 = 6 million pixels.*0\.06 million.*--max-pixels"):
        decoder.picture(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match=r"100 × 100 × 7 frames"):
        decoder.picture(tmp_path / "long.gif")
    above_pillows = start(max_pixels=10**9)
    write_image(tmp_path / "wide.png", np.zeros((20000, 20000, 1), np.uint8))  # Pillow alone refuses it
    assert above_pillows.picture(tmp_path / "wide.png").frames[0].shape == (20000, 20000, 1)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_files_are_read_if_that_is_accepted(
    start: Callable[..., Decoder], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    write_image(path, picture(200, 200))
    whole = start().picture(path).frames[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    found = start(accept_truncated=True).picture(path)
    assert found.truncated and np.array_equal(found.frames[0][:50], whole[:50])
    with pytest.raises(ImageError, match="truncated"):
        start().picture(path)


def test_the_decoder_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(8, 8))
    code = (
        "import os, sys; from pathlib import Path; from img2img.images import Rules;"
        "from img2img.images.decoder import Decoder; d = Decoder(Rules()); d.picture(Path(sys.argv[1]));"
        "print(d.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], stdout=subprocess.PIPE, timeout=60)
    pid = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] == "Z":
            return
        subprocess.run(["sleep", "0.1"])
    raise AssertionError("it is still there")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no such timer on this system")
def test_a_decoder_that_hangs_ends_itself_if_nobody_else_does(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    task = json.dumps(["picture", str(tmp_path / "pipe.png"), None]).encode() + b"\n"
    process = subprocess.Popen(command(2**32, 0.5, Rules()), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    process.stdin.write(task)
    process.stdin.flush()
    assert process.wait(timeout=60) == -signal.SIGALRM
    process.stdin.close()
    process.stdout.close()


def test_the_decoder_needs_no_torch() -> None:
    code = "import sys, img2img.images.worker; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
