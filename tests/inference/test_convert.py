import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data import picture
from helpers.translators import CONFIGS, make

import img2img
from img2img.cli import main
from img2img.cli.convert import command, parse_shard
from img2img.core.errors import UsageError
from img2img.core.files import HOST
from img2img.images import Array, read_image, write_image
from img2img.inference import convert as room
from img2img.inference.convert import convert
from img2img.inference.report import Report, Stopped
from img2img.models import Translator


@pytest.fixture(scope="module")
def translator(trained: Path) -> Translator:
    return img2img.load(trained)


def names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def assert_near(image: Array, truth: Array) -> None:
    """Equal up to rounding: convert's network is folded, and laid out for speed."""
    assert image.shape == truth.shape and image.dtype == truth.dtype
    assert abs(image.astype(int) - truth.astype(int)).max() <= (1 if image.dtype == np.uint8 else 8)


def statuses(report: Report) -> dict[str, str]:
    return {Path(outcome.source).name: outcome.status for outcome in report.outcomes}


@pytest.mark.parametrize("option", [(), ("--no-durable",)])
def test_the_disk_has_each_file_unless_nobody_waits(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...]
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for number in range(2):
        write_image(tmp_path / "in" / f"{number}.png", picture(9, 8))
    synced.clear()
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(trained), *option]) == 0
    assert names(tmp_path / "out") == ["0.png", "1.png"]
    assert len(synced) == (0 if option else 2)


def test_a_folder_keeps_its_structure_names_and_sizes(translator: Translator, tmp_path: Path) -> None:
    inputs = {
        "a.png": picture(17, 31),
        "sub/b c.jpg": picture(20, 20),
        "sub/deep/ü.tif": picture(9, 30, 1, dtype=np.uint16),
        "-rgba.PNG": picture(16, 16, 4),
        "one.bmp": picture(1, 1),
    }
    for name, image in inputs.items():
        write_image(tmp_path / "in" / name, image)
    (tmp_path / "in" / "notes.txt").write_text("")
    report = img2img.convert(translator, tmp_path / "in", tmp_path / "out", dtype="fp32")
    assert names(tmp_path / "out") == sorted(inputs)
    assert report.count("done") == 5 and report.ignored == {".txt": 1}
    for name, image in inputs.items():
        done = read_image(tmp_path / "out" / name)
        assert done.shape[:2] == image.shape[:2] and done.dtype == image.dtype
        if not name.endswith("jpg"):
            assert_near(done, translator(image))


def test_one_file(translator: Translator, tmp_path: Path) -> None:
    image = picture(10, 12)
    write_image(tmp_path / "a.png", image)
    img2img.convert(translator, tmp_path / "a.png", tmp_path / "new" / "b.bmp", dtype="fp32")
    assert_near(read_image(tmp_path / "new" / "b.bmp"), translator(image))
    img2img.convert(translator, tmp_path / "a.png", tmp_path / "new")
    assert names(tmp_path / "new") == ["a.png", "b.bmp"]


def test_one_bad_file_is_reported_and_the_others_are_converted(translator: Translator, tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / "in" / f"{number}.png", picture(8, 8))
    (tmp_path / "in" / "1.png").write_bytes(b"nonsense")
    report = img2img.convert(translator, tmp_path / "in", tmp_path / "out")
    assert statuses(report) == {"0.png": "done", "1.png": "failed", "2.png": "done"}
    assert names(tmp_path / "out") == ["0.png", "2.png"]
    report.write(tmp_path / "report.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert "reason" not in lines[0] and lines[0]["width"] == 8
    assert lines[1]["status"] == "failed" and "1.png" in lines[1]["reason"]
    assert all(Path(line["source"]).exists() for line in lines)


def test_what_exists_is_never_overwritten_unless_asked(translator: Translator, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    write_image(tmp_path / "out" / "a.png", picture(3, 3))
    before = (tmp_path / "out" / "a.png").read_bytes()
    for existing, status in (("fail", "failed"), ("skip", "skipped")):
        report = img2img.convert(translator, tmp_path / "in", tmp_path / "out", existing=existing)  # type: ignore[arg-type]
        assert statuses(report) == {"a.png": status} and report.outcomes[0].reason
        assert (tmp_path / "out" / "a.png").read_bytes() == before
    img2img.convert(translator, tmp_path / "in", tmp_path / "out", existing="overwrite")
    assert read_image(tmp_path / "out" / "a.png").shape == (8, 8, 3)


def test_another_format_keeps_both_of_two_inputs_with_one_name(translator: Translator, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.bmp", picture(8, 8, seed=1))
    write_image(tmp_path / "in" / "a.tif", picture(8, 8, seed=2))
    report = img2img.convert(translator, tmp_path / "in", tmp_path / "out", format="png")
    assert names(tmp_path / "out") == ["a.bmp.png", "a.tif.png"]
    assert np.array_equal(read_image(tmp_path / "out" / "a.tif.png"), translator(picture(8, 8, seed=2)))
    assert [Path(o.target).name for o in report.outcomes] == ["a.bmp.png", "a.tif.png"]


def test_a_target_inside_the_source_is_not_converted_again(translator: Translator, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(8, 8))
    for _ in range(2):
        report = img2img.convert(translator, tmp_path, tmp_path / "out", existing="overwrite")
        assert len(report.outcomes) == 1
    assert names(tmp_path) == ["a.png", "out/a.png"]


def test_links_that_lead_out_are_not_followed(translator: Translator, tmp_path: Path) -> None:
    write_image(tmp_path / "secret.png", picture(8, 8))
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    report = img2img.convert(translator, tmp_path / "in", tmp_path / "out")
    assert statuses(report) == {"link.png": "skipped", "loop": "skipped", "a.png": "done"}
    assert names(tmp_path / "out") == ["a.png"]


def test_leftovers_of_a_killed_process_are_removed(translator: Translator, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    (tmp_path / "out").mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / "out" / f".partial-{HOST}-{dead.pid}-x").write_text("half")
    (tmp_path / "out" / f".partial-{HOST}-{os.getpid()}-x").write_text("somebody is writing this")
    img2img.convert(translator, tmp_path / "in", tmp_path / "out")
    assert names(tmp_path / "out") == [f".partial-{HOST}-{os.getpid()}-x", "a.png"]


def test_what_cannot_be_converted_at_all_is_said(translator: Translator, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for source, target, words in [
        ("none", "out", "does not exist"),
        ("empty", "out", "holds no images"),
        ("in", "file", "is a file"),
        ("in", "in", "source folder itself"),
        ("in/a.png", "out.xyz", "ends with one of"),
        ("in/a.png", "in/a.png", "the source itself"),
    ]:
        with pytest.raises(UsageError, match=words):
            img2img.convert(translator, tmp_path / source, tmp_path / target)
    with pytest.raises(UsageError, match="--format"):
        img2img.convert(translator, tmp_path / "in", tmp_path / "out", format="psd")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "--batch-size 0: give at least 1"),
        ({"batch_size": 65}, "--batch-size 65: give at most 64"),
        ({"size": 0}, "--size 0: give at least 1"),
        ({"timeout": float("nan")}, "--timeout takes"),
        ({"quality": 101}, "--quality 101"),
        ({"tile": -1}, "--tile -1"),
        ({"dtype": "fp16"}, "--dtype fp16 needs a GPU"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_made(
    translator: Translator, tmp_path: Path, options: Any, words: str
) -> None:
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    with pytest.raises(UsageError, match=words):
        img2img.convert(translator, tmp_path / "in", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_strips_batches_and_bf16_from_the_command_line(trained: Path, tmp_path: Path) -> None:
    for number in range(5):
        write_image(tmp_path / "in" / f"{number}.png", picture(40, 24, seed=number))
    command = ["convert", str(tmp_path / "in"), "--model", str(trained)]
    for name, options in {
        "plain": ["--batch-size", "1", "--dtype", "fp32", "--tile", "0"],
        "strips": ["--tile", "16", "--dtype", "fp32"],
        "half": ["--dtype", "bf16", "--batch-size", "2"],
    }.items():
        assert main([*command[:2], str(tmp_path / name), *command[2:], *options]) == 0
    for number in range(5):
        plain, strips, half = (read_image(tmp_path / name / f"{number}.png") for name in ("plain", "strips", "half"))
        assert_near(strips, plain)
        assert abs(half.astype(int) - plain.astype(int)).mean() < 2


def test_an_image_that_is_made_again_has_the_same_bytes(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    call = Translator.__call__

    def watching(self: Translator, image: Any, **options: Any) -> Any:
        shapes.append(tuple(image.shape))
        return call(self, image, **options)

    monkeypatch.setattr(Translator, "__call__", watching)
    torch.set_num_threads(2)
    try:
        for number in range(11):
            write_image(tmp_path / "in" / f"{number:02}.png", picture(64, 64 + 8 * (number % 2), seed=number))
        img2img.convert(translator, tmp_path / "in", tmp_path / "out")
        whole = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
        batches = set(shapes)
        assert {shape[0] for shape in batches if shape[2] == 64} > {5}
        for missing in (["03.png"], ["00.png", "10.png"]):
            shapes.clear()
            for name in missing:
                (tmp_path / "out" / name).unlink()
            report = img2img.convert(translator, tmp_path / "in", tmp_path / "out", existing="skip")
            assert report.count("done") == len(missing)
            assert set(shapes) <= batches, "in batches of another size a processor may round differently"
            assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == whole
    finally:
        torch.set_num_threads(1)


def test_what_appears_during_the_run_is_not_overwritten(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    write = room.write_picture

    def late(path: Path, *rest: Any) -> None:
        path.write_bytes(b"somebody was faster")
        write(path, *rest)

    monkeypatch.setattr(room, "write_picture", late)
    for existing, status in (("fail", "failed"), ("skip", "skipped")):
        report = img2img.convert(translator, tmp_path / "in", tmp_path / "out", existing=existing)  # type: ignore[arg-type]
        assert statuses(report) == {"a.png": status} and "exists" in report.outcomes[0].reason
        (tmp_path / "out" / "a.png").rename(tmp_path / "theirs")
    (tmp_path / "theirs").rename(tmp_path / "out" / "a.png")
    assert (tmp_path / "out" / "a.png").read_bytes() == b"somebody was faster"
    assert names(tmp_path / "out") == ["a.png"]


def test_an_error_of_the_network_is_one_files_failure(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, width in enumerate((8, 12, 8)):
        write_image(tmp_path / "in" / f"{number}.png", picture(8, width))
    call = Translator.__call__

    def failing(self: Translator, image: Any, **options: Any) -> Any:
        if image.shape[-1] == 12:
            raise errors[-1]
        return call(self, image, **options)

    monkeypatch.setattr(Translator, "__call__", failing)
    errors: list[BaseException] = []
    for error, reason in (
        (RuntimeError("the device is gone"), "the device is gone"),
        (MemoryError(), "not enough memory for this image"),
    ):
        errors.append(error)
        report = img2img.convert(translator, tmp_path / "in", tmp_path / "out", dtype="fp32", existing="overwrite")
        assert statuses(report) == {"0.png": "done", "1.png": "failed", "2.png": "done"}
        assert reason in report.failures[0].reason


def test_modules_beside_the_images_are_not_run(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    for name in ("cv2", "json", "queue", "numpy"):
        (tmp_path / "in" / f"{name}.py").write_text("open('was_run', 'w')")
    monkeypatch.chdir(tmp_path / "in")
    assert img2img.convert(translator, ".", tmp_path / "out").count("done") == 1
    assert not (tmp_path / "in" / "was_run").exists()


@pytest.mark.parametrize("name", ["existing", "frames", "mode", "dtype"])
def test_choices_that_are_none_are_refused(translator: Translator, tmp_path: Path, name: str) -> None:
    options: Any = {name: "some"}
    with pytest.raises(UsageError, match=f"{name} 'some'"):
        img2img.convert(translator, tmp_path, tmp_path / "out", **options)


def test_a_report_that_cannot_be_written_is_said_before_the_work(trained: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    command = ["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(trained), "--report"]
    assert main([*command, str(tmp_path)]) == 2 and main([*command, "/proc/nowhere/report.jsonl"]) == 2
    assert not (tmp_path / "out").exists()


def test_a_report_takes_no_other_files_place(trained: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    command = ["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(trained), "--report"]
    before = (tmp_path / "in" / "a.png").read_bytes()
    assert main([*command, str(tmp_path / "in" / "a.png")]) == 2
    assert (tmp_path / "in" / "a.png").read_bytes() == before
    for options in ([], ["--skip-existing"]):
        assert main([*command, str(tmp_path / "report.jsonl"), *options]) == 0
    assert "skipped" in (tmp_path / "report.jsonl").read_text(), "an older report is replaced"


def test_what_was_done_until_ctrl_c_is_reported(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        write_image(tmp_path / "in" / f"{number:02}.png", picture(8, 8))
    outcome = room._outcome

    def interrupted(item: Any, *rest: Any) -> Any:
        if item.key.source.name == "05.png":
            raise KeyboardInterrupt
        return outcome(item, *rest)

    monkeypatch.setattr(room, "_outcome", interrupted)
    command = ["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(trained), "--batch-size", "1"]
    assert main([*command, "--report", str(tmp_path / "report.jsonl")]) == 130
    shown = capsys.readouterr()
    reported = [json.loads(line)["source"] for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    made = {file.name for file in (tmp_path / "out").iterdir()}
    assert {Path(source).name for source in reported} == made - {"05.png"} and 5 <= len(made) < 20
    assert f"{len(made) - 1} converted" in shown.out and "--skip-existing goes on" in shown.err


def test_one_odd_image_does_not_decide_on_bf16(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("img2img.inference.engine.choose_precision", lambda *_: "bf16")
    monkeypatch.setattr("img2img.inference.engine.CLOSE_ENOUGH", 0.0)
    samples: list[tuple[int, ...]] = []
    engine = room.Engine
    monkeypatch.setattr(room, "Engine", lambda *each: (samples.append(tuple(each[4][0].shape)), engine(*each))[1])
    write_image(tmp_path / "in" / "a.png", picture(1, 1))
    write_image(tmp_path / "in" / "b.png", np.zeros((40, 40, 3), np.uint8))
    write_image(tmp_path / "in" / "c.png", picture(48, 40))
    report = img2img.convert(translator, tmp_path / "in", tmp_path / "out")
    assert samples == [(1, 3, 48, 40)]
    assert [each.dtype for each in report.outcomes] == ["fp32", "bf16", "bf16"], "tiny images are computed in fp32"


def test_a_watcher_sees_strips_and_can_stop(tmp_path: Path) -> None:
    translator = make(CONFIGS[1])
    for number, size in enumerate((32, 96)):
        write_image(tmp_path / "in" / f"{number}.png", picture(size, size, 3))
    seen: list[tuple[float, int]] = []
    options: Any = {"tile": 64, "dtype": "fp32"}
    convert(
        translator,
        tmp_path / "in",
        tmp_path / "out",
        progress=lambda done, total: seen.append((done, total)),
        **options,
    )
    assert seen[0] == (0, 2) and seen[-1] == (2, 2) and {total for _, total in seen} == {2}
    assert any(0 < done % 1 < 1 for done, _ in seen)

    def stop(done: float, total: int) -> None:
        if done % 1:
            raise KeyboardInterrupt

    with pytest.raises(Stopped) as caught:
        convert(translator, tmp_path / "in", tmp_path / "stopped", progress=stop, **options)
    made = {file.name for file in (tmp_path / "stopped").glob("*.png")}
    assert made == {Path(each.target).name for each in caught.value.report.outcomes} and "1.png" not in made


def test_what_was_written_before_a_stop_is_in_the_report(tmp_path: Path) -> None:
    for number in range(12):
        write_image(tmp_path / "in" / f"{number:02d}.png", picture(16, 16, 3, seed=number))

    def stop(done: float, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(Stopped) as caught:
        convert(make(CONFIGS[1]), tmp_path / "in", tmp_path / "out", batch_size=4, dtype="fp32", progress=stop)
    made = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert len(made) == 8 == caught.value.report.count("done")
    assert made == [Path(outcome.target).name for outcome in caught.value.report.outcomes]


def test_shards_together_are_the_whole(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(7):
        write_image(tmp_path / "in" / f"{number}.png", picture(16, 16, 3, seed=number))
    (tmp_path / "in" / "5.png").write_bytes(b"nothing")
    report = ["--report", str(tmp_path / "report.jsonl"), "--page", str(tmp_path / "page.html")]
    common = ["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(trained), "--device", "cpu"]
    codes = [main([*common, *report, "--shard", f"{number}/3"]) for number in (1, 2, 3)]
    assert sorted(codes) == [0, 0, 1]
    names = {path.name for path in tmp_path.glob("report-*")}
    assert names == {f"report-0000{number}-of-00003.jsonl" for number in (1, 2, 3)}
    assert len(list(tmp_path.glob("page-0000?-of-00003.html"))) == 3
    lines = [json.loads(line) for name in sorted(names) for line in (tmp_path / name).read_text().splitlines()]
    statuses = {Path(line["source"]).name: line["status"] for line in lines}
    assert len(lines) == 7 and statuses == {f"{n}.png": "failed" if n == 5 else "done" for n in range(7)}
    for wrong in ("0/3", "4/3", "3", "a/b", "/3"):
        assert main([*common, "--shard", wrong]) == 2
    assert "from 1/N to N/N" in capsys.readouterr().err
    assert parse_shard("2/4") == (2, 4) and parse_shard(None) == (1, 1)


def test_several_processes_share_no_standard_input(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="give a file"):
        command(tmp_path, tmp_path / "out", trained, list="-")


def test_a_list_from_the_standard_input(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_image(tmp_path / "in" / f"{number}.png", picture(16, 16, 3, seed=number))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"2.png\n0.png\n")))
    common = ["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(trained), "--device", "cpu"]
    assert main([*common, "--list", "-"]) == 0
    assert names(tmp_path / "out") == ["0.png", "2.png"]


def test_the_report_is_written_as_it_goes(translator: Translator, tmp_path: Path) -> None:
    for number in range(6):
        write_image(tmp_path / "in" / f"{number}.png", picture(16, 16, 3, seed=number))
    (tmp_path / "in" / "0.png").write_bytes(b"nothing")
    record, seen = tmp_path / "report.jsonl", []

    def watch(done: float, total: int) -> None:
        seen.append((tmp_path / "report.jsonl.0").read_bytes().count(b"\n"))

    convert(translator, tmp_path / "in", tmp_path / "out", record=record, batch_size=1, progress=watch)
    assert seen[0] == 0 and any(0 < lines < 6 for lines in seen)
    statuses = [json.loads(line)["status"] for line in record.read_text().splitlines()]
    assert statuses == ["failed", *["done"] * 5] and not (tmp_path / "report.jsonl.0").exists()

    def stop(done: float, total: int) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    before = record.read_bytes()
    with pytest.raises(UsageError):
        convert(translator, tmp_path / "in", tmp_path / "c", record=record, style=("a",))
    assert record.read_bytes() == before and not (tmp_path / "report.jsonl.0").exists()
    with pytest.raises(Stopped) as caught:
        convert(translator, tmp_path / "in", tmp_path / "b", record=record, batch_size=1, progress=stop)
    lines = record.read_text().splitlines()
    assert len(lines) == len(caught.value.report.outcomes) < 6 and not (tmp_path / "report.jsonl.0").exists()


def test_openvino_converts_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(CONFIGS[0]).save(tmp_path / "model")
    for number in range(3):
        write_image(tmp_path / "in" / f"{number}.png", picture(48, 40, seed=number))
    write_image(tmp_path / "in" / "deep.png", picture(48, 40, seed=3, dtype=np.uint16))
    plain = ["convert", str(tmp_path / "in"), "--model", str(tmp_path / "model"), "--device", "cpu", "--dtype", "fp32"]
    assert main([*plain[:2], str(tmp_path / "torch"), *plain[2:], "--engine", "torch"]) == 0
    report = tmp_path / "report.jsonl"
    for name in ("fast", "again"):
        assert (
            main([*plain[:2], str(tmp_path / name), *plain[2:], "--engine", "openvino", "--report", str(report)]) == 0
        )
    assert {json.loads(line)["engine"] for line in report.read_text().splitlines()} == {"openvino"}
    for file in sorted((tmp_path / "torch").iterdir()):
        fast, slow = read_image(tmp_path / "fast" / file.name), read_image(file)
        assert fast.dtype == slow.dtype
        assert np.abs(fast.astype(int) - slow).max() <= (1 if fast.dtype == np.uint8 else 200), file.name
        assert (tmp_path / "fast" / file.name).read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    assert main([*plain[:2], str(tmp_path / "small"), *plain[2:-1], "int8", "--report", str(report)]) == 0
    kinds = {
        Path(line["source"]).name: (line["dtype"], line["engine"])
        for line in map(json.loads, report.read_text().splitlines())
    }
    assert kinds["0.png"] == ("int8", "openvino") and kinds["deep.png"] == ("fp32", "torch")
    said = capsys.readouterr()
    assert "convolutions compute in int8" in said.err and "Statistics" not in said.out
    error = np.mean([
        np.square(read_image(tmp_path / "small" / f"{k}.png") / 255 - read_image(tmp_path / "torch" / f"{k}.png") / 255).mean()
        for k in range(3)
    ])  # fmt: skip
    assert 0 < error < 1e-3
    assert main([*plain[:2], str(tmp_path / "paper"), *plain[2:], "--engine", "openvino", "--mode", "paper"]) == 2
    assert "add --mode eval" in capsys.readouterr().err
