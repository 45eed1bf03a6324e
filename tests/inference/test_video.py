"""Films are translated frame by frame, with their timing and their sound."""

import itertools
import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.data import picture
from helpers.identity import identity
from helpers.translators import CONFIGS, make

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.data.base import DataConfig
from img2img.data.class_folders import ClassFolderData
from img2img.data.unpaired import UnpairedData
from img2img.data.video import extract_frames
from img2img.images import Array, read_image
from img2img.images.video import read_look
from img2img.inference import video
from img2img.inference.report import Stopped
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import build_generator, initialise
from img2img.networks.generators.resnet import ResNetConfig


def write_film(
    path: Path, count: int = 30, size: tuple[int, int] = (48, 64), sound: bool = True, still: bool = False
) -> Path:
    """Waves that move, whose frames last 1, 2, 1, 2 … twenty-fourths of a second."""
    with av.open(str(path), "w") as film:
        stream: Any = film.add_stream(
            "libx264" if path.suffix != ".webm" else "libvpx-vp9", rate=24, options={"crf": "1"}
        )
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p" if size[0] % 2 == 0 else "yuv444p"
        audio: Any = film.add_stream("aac" if path.suffix != ".webm" else "libopus", rate=48000) if sound else None
        for number in range(count):
            image = picture(*size, seed=7)
            array = image if still else np.roll(image, 2 * number, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            if size[0] >= 720:  # as cameras do it
                frame, stream.codec_context.colorspace = frame.reformat(format="yuv420p", dst_colorspace=1), 1
            frame.pts, frame.time_base = number // 2 * 3 + number % 2, Fraction(1, 24)
            film.mux(stream.encode(frame))
        for place in range(10 if sound else 0):
            tone = np.sin(np.arange(4800) / 20)[None].astype(np.float32)
            samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 48000, 4800 * place
            film.mux(audio.encode(samples))
        for each in (stream, audio):
            film.mux(each.encode(None) if each else [])
    return path


def read(path: Path) -> tuple[list[float], list[Array], list[bytes]]:
    """The frames' times, the frames, and the packets of sound."""
    with av.open(str(path)) as film:
        frames = list(film.decode(video=0))
    with av.open(str(path)) as film:
        sound = [bytes(packet) for packet in film.demux(audio=0) if packet.size] if film.streams.audio else []
    return [frame.time for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames], sound


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SEGMENT", 8)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
def test_frames_timing_and_sound_are_kept(suffix: str, tmp_path: Path) -> None:
    film = write_film(tmp_path / f"in{suffix}")
    report = img2img.convert(identity(), film, tmp_path / f"out{suffix}", device="cpu")
    assert report.summary() == "1 converted, 0 skipped, 0 failed" and report.outcomes[0].frames == 30
    (times, frames, sound), (again, made, kept) = read(film), read(tmp_path / f"out{suffix}")
    assert len(made) == 30 and np.allclose(times, again, atol=0.0006 if suffix in (".mkv", ".webm") else 1e-9)
    assert kept == sound and len(sound) > 3
    differences = [abs(a.astype(int) - b).mean() for a, b in zip(frames, made, strict=True)]
    assert max(differences) < 4, "also the colours, at every segment's border"
    assert [path.name for path in tmp_path.iterdir() if "segments" in path.name or "partial" in path.name] == []


@pytest.mark.parametrize("size", [(720, 32), (33, 47)])
def test_sizes_and_colours_of_every_kind(size: tuple[int, int], tmp_path: Path) -> None:
    film = write_film(tmp_path / "in.mp4", 3, size, sound=False)
    img2img.convert(identity(), film, tmp_path / "out.mp4", device="cpu")
    for before, after in zip(read(film)[1], read(tmp_path / "out.mp4")[1], strict=True):
        assert after.shape == (*size, 3) and abs(before.astype(int) - after).mean() < 4
    img2img.convert(identity(), film, tmp_path / "small.mkv", size=16, device="cpu", quality=50)
    assert read(tmp_path / "small.mkv")[1][0].shape[:2] == ((360, 16) if size[0] == 720 else (16, 23))


def test_what_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film, model = write_film(tmp_path / "in.mp4"), make(CONFIGS[1])

    def stop(done: float, total: int) -> None:
        assert total == 30
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(Stopped):
        img2img.convert(model, film, tmp_path / "out.mp4", device="cpu", progress=stop)
    there = sorted(path.name for path in (tmp_path / ".out.mp4.segments").glob("*.nut"))
    assert there == ["000000.nut", "000001.nut"] and not (tmp_path / "out.mp4").exists()
    write, written = video._write_segment, []
    monkeypatch.setattr(video, "_write_segment", lambda *args: (written.append(args[2].name), write(*args))[1])
    report = img2img.convert(model, film, tmp_path / "out.mp4", device="cpu", existing="skip")
    assert written == ["000002.nut", "000003.nut"] and report.outcomes[0].frames == 30
    img2img.convert(model, film, tmp_path / "whole.mp4", device="cpu")
    (times, frames, sound), (again, made, kept) = read(tmp_path / "whole.mp4"), read(tmp_path / "out.mp4")
    assert times == again and sound == kept
    assert all(abs(a.astype(int) - b).mean() < 1 for a, b in zip(frames, made, strict=True))
    with pytest.raises(Stopped):
        img2img.convert(model, film, tmp_path / "out.mp4", device="cpu", progress=stop, existing="overwrite")
    written.clear()
    img2img.convert(model, film, tmp_path / "out.mp4", device="cpu", quality=50, existing="overwrite")
    assert len(written) == 4, "segments of another quality are made anew"


def test_segments_of_another_style_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = write_film(tmp_path / "in.mp4")
    config = ResNetConfig(channels=4, blocks=1).resolve(3 * (1 + 2), 3, 32)
    training = Training(img2img="0")
    about = TranslatorConfig(method="stargan", generator=config, size=32, training=training, domains=("a", "b"))
    model = Translator(about, initialise(build_generator(config)).eval())

    def stop(done: float, total: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(Stopped):
        img2img.convert(model, film, tmp_path / "out.mp4", style="a", device="cpu", progress=stop)
    write, written = video._write_segment, []
    monkeypatch.setattr(video, "_write_segment", lambda *args: (written.append(args[2].name), write(*args))[1])
    img2img.convert(model, film, tmp_path / "out.mp4", style="b", device="cpu")
    assert len(written) == 4


def test_metadata_can_be_dropped(tmp_path: Path) -> None:
    film = write_film(tmp_path / "in.mp4", 2)
    with av.open(str(film)) as container, av.open(str(tmp_path / "titled.mp4"), "w") as titled:
        titled.metadata["title"] = "secret"
        stream = titled.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                titled.mux(packet)
    for metadata in (True, False):
        img2img.convert(
            identity(), tmp_path / "titled.mp4", tmp_path / f"{metadata}.mp4", metadata=metadata, device="cpu"
        )
        with av.open(str(tmp_path / f"{metadata}.mp4")) as made:
            assert made.metadata.get("title") == ("secret" if metadata else None)


def test_frames_of_a_video_are_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    films = [write_film(tmp_path / name, 64, sound=False) for name in ("a.mp4", "b.mkv")]
    config = DataConfig(source=films[0], target=films[1], size=32)
    data = UnpairedData(config)
    train = data.splits["train"]
    numbers = [int(file.stem) for file in train.sources]
    assert len(numbers) > 5 and len({b - a for a, b in itertools.pairwise(numbers)}) == 1 and numbers[0] == 0
    frames = read(films[0])[1]
    for number, file in zip(numbers, train.sources, strict=True):
        assert abs(read_image(file).astype(int) - frames[number]).mean() < 2
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    assert UnpairedData(config).splits["train"].sources == train.sources
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")} == made
    assert not data.check().errors and ClassFolderData(DataConfig(path=films[1])).splits["train"].files == train.targets
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"bad\.mp4"):
        ClassFolderData(DataConfig(path=tmp_path / "bad.mp4"))


def test_flicker_is_measured_where_the_film_stands_still(tmp_path: Path) -> None:
    film = write_film(tmp_path / "in.mp4", 12, still=True)
    calm = img2img.convert(identity(), film, tmp_path / "calm.mp4", device="cpu").outcomes[0].note
    assert calm.startswith("flicker where the video stands still: 0.")
    first, second = picture(8, 8), picture(8, 8, seed=3)
    measured = video._measure_flicker((first, first), (first, second))
    assert measured.video == 0 and measured.pixels == 64
    assert measured.translation == pytest.approx(np.abs(first.astype(int) - second).mean(2).sum())
    moved = first.copy()
    moved[0] ^= 255
    assert video._measure_flicker((first, first), (moved, second)).pixels == 56


@pytest.mark.parametrize(("height", "colours"), [(720, 1), (480, 5)])
def test_colours_go_by_the_height_if_a_film_does_not_say(height: int, colours: int, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mp4"), "w") as film:
        stream: Any = film.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = height, 32, "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture(height, 32), format="rgb24")
        film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    with av.open(str(tmp_path / "in.mp4")) as film:
        assert read_look(film.streams.video[0]).colours == colours


def test_a_film_that_was_turned_is_upright(tmp_path: Path) -> None:
    film = write_film(tmp_path / "in.mp4", 2, (32, 64), sound=False)
    data = bytearray(film.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[matrix : matrix + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)  # a quarter clockwise
    (tmp_path / "turned.mp4").write_bytes(data)
    img2img.convert(identity(), tmp_path / "turned.mp4", tmp_path / "out.mp4", device="cpu")
    before, after = read(film)[1][0], read(tmp_path / "out.mp4")[1][0]
    assert after.shape == (64, 32, 3) and abs(np.rot90(before, -1).astype(int) - after).mean() < 4


def test_what_cannot_be_done_is_said(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = write_film(tmp_path / "in.mp4", 2)
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:600])

    def run(source: str, target: str, *options: str) -> tuple[int, str]:
        code = main(
            [
                "convert",
                str(tmp_path / source),
                target if "://" in target else str(tmp_path / target),
                "--model",
                str(trained),
                "--device",
                "cpu",
                *options,
            ]
        )
        return code, capsys.readouterr().err

    for arguments, words in {
        ("in.mp4", "out.png"): "ends with .mp4", ("in.mp4", "in.mp4"): "source itself",
        ("in.mp4", "o.mp4", "--format", "png"): "is a video; there are mp4", ("in.mp4", "o.mp4", "--list", __file__): "--list",
        ("in.mp4", "o.mp4", "--frames", "first"): "--frames", ("in.mp4", "s3://bucket/o.mp4"): "files of this machine",
    }.items():  # fmt: skip
        code, said = run(*arguments)
        assert code == 2 and words in said, arguments
    code, said = run("in.mp4", "o.webm")
    assert code == 1 and "can't hold the video's audio (aac)" in said and not list(tmp_path.glob(".o.webm*"))
    long = write_film(tmp_path / "long.mkv", 60, sound=False)
    (tmp_path / "half.mkv").write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    code, said = run("half.mkv", "half-out.mkv")
    assert code == 0 and "seconds: it may be damaged" in said
    plain = write_film(tmp_path / "a.webm", 2, sound=False).read_bytes()
    (tmp_path / "ends.webm").write_bytes(plain[:40])
    (tmp_path / "odd.webm").write_bytes(plain.replace(b"V_VP9", b"V_ABC"))
    for name, reason in (("ends.webm", "End of file"), ("odd.webm", "doesn't know how its video is encoded")):
        with pytest.raises(UsageError, match=rf"{name}: .*{reason}"):
            extract_frames(tmp_path / name)
    for name in ("bad.mp4", "cut.mp4", "odd.webm"):
        code, said = run(name, "out.mp4")
        assert code == 1 and name in said and "Traceback" not in said and not (tmp_path / "out.mp4").exists()
    assert run("in.mp4", "out.mp4", "--report", str(tmp_path / "r.jsonl"))[0] == 0
    assert json.loads((tmp_path / "r.jsonl").read_text())["frames"] == 2
    assert run("in.mp4", "out.mp4")[0] == 1 and run("in.mp4", "out.mp4", "--skip-existing")[0] == 0
