"""Shards become shards, whole or not at all."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from helpers.configs import tiny_config
from helpers.data import picture, write_labelled, write_tar

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.core.stored import INDEXES
from img2img.data.shards import read_shards
from img2img.images import write_image
from img2img.inference.report import Report, Stopped
from img2img.inference.shards import ShardWriter
from img2img.training.train import train


@pytest.fixture(autouse=True)
def forget() -> None:
    """As a new process does."""
    INDEXES.clear(), read_shards.cache_clear()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of four images with a class and a text each; the images are in a folder, too."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        members: dict[str, bytes] = {}
        for place in range(4):
            key = f"{number}/{place}"
            write_image(tmp_path / "files" / f"{key}.png", picture(16, 16 + 8 * (place % 2), seed=10 * number + place))
            members[f"{key}.cls"] = str(place).encode()
            members[f"{key}.png"] = (tmp_path / "files" / f"{key}.png").read_bytes()
        write_tar(tmp_path / "in" / f"p-{number}.tar", {"read.me": b"!", **members, "z.json": b"{}"})
    return tmp_path / "in"


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def convert(model: Path, source: Path, target: Path, **options: Any) -> Report:
    INDEXES.clear()
    return img2img.convert(model, source, target, device="cpu", **options)


def outcomes(report: Report) -> dict[str, str]:
    return {Path(each.source).name: each.status for each in report.outcomes}


def test_shards_become_what_their_files_become(trained: Path, shards: Path, tmp_path: Path) -> None:
    report = convert(trained, shards, tmp_path / "out", batch_size=1)
    assert report.summary() == "12 converted, 0 skipped, 0 failed" and len(report.outcomes) == 12
    assert [each.target for each in report.outcomes][:2] == [f"{tmp_path}/out/p-0.tar/0/{n}.png" for n in range(2)]
    convert(trained, tmp_path / "files", tmp_path / "plain", batch_size=1)
    for number in range(3):
        before, after = members(shards / f"p-{number}.tar"), members(tmp_path / "out" / f"p-{number}.tar")
        assert list(after) == list(before), "what is no image stays, and the order, too"
        for name, data in after.items():
            assert data == ((tmp_path / "plain" / name).read_bytes() if name.endswith("png") else before[name])
    convert(trained, shards, tmp_path / "again", batch_size=1)
    for file in (tmp_path / "out").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_another_format_and_one_shard(trained: Path, shards: Path, tmp_path: Path) -> None:
    convert(trained, shards / "p-1.tar", tmp_path / "x" / "one.tar", format="jpg")
    assert [n for n in members(tmp_path / "x" / "one.tar") if n.startswith("1/0")] == ["1/0.cls", "1/0.jpg"]
    with pytest.raises(UsageError, match="give a folder"):
        convert(trained, shards, tmp_path / "two.tar")
    with pytest.raises(UsageError, match="is the source and the target"):
        convert(trained, shards, shards, existing="overwrite")
    with pytest.raises(UsageError, match="--list"):
        convert(trained, shards, tmp_path / "y", listed=["a.png"])


def test_existing_shards(trained: Path, shards: Path, tmp_path: Path) -> None:
    convert(trained, shards / "p-1.tar", tmp_path / "out")
    before = (tmp_path / "out" / "p-1.tar").read_bytes()
    report = convert(trained, shards, tmp_path / "out", existing="skip")
    assert report.summary() == "8 converted, 1 skipped, 0 failed" and outcomes(report)["p-1.tar"] == "skipped"
    report = convert(trained, shards, tmp_path / "out")
    assert set(outcomes(report).values()) == {"failed"} and "--overwrite" in report.failures[0].reason
    assert (tmp_path / "out" / "p-1.tar").read_bytes() == before
    assert convert(trained, shards, tmp_path / "out", existing="overwrite").count("done") == 12
    write_tar(tmp_path / "out" / "p-1.tar", {"1/0.png": b""})
    report = convert(trained, shards, tmp_path / "out", existing="skip")
    assert (
        report.count("skipped") == 2
        and "3 translations are missing in it, such as that of 1/1.png" in report.failures[0].reason
    )


def test_bad_members_and_bad_shards_are_named_and_the_rest_converted(
    trained: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = members(shards / "p-0.tar")
    write_tar(shards / "p-0.tar", {**good, "0/2.png": b"nothing"})
    (shards / "p-1.tar").write_bytes((shards / "p-1.tar").read_bytes()[:2500])
    write_tar(shards / "p-3.tar", {"a.txt": b""})
    options = ["--model", str(trained), "--device", "cpu", "--report", str(tmp_path / "r.jsonl")]
    assert main(["convert", str(shards), str(tmp_path / "out"), *options, "--page", str(tmp_path / "p.html")]) == 1
    said = capsys.readouterr()
    assert "p-0.tar/0/2.png" in said.err and "p-1.tar: the shard is cut off after" in said.err
    assert "7 converted, 1 skipped, 2 failed" in said.out
    assert list(members(tmp_path / "out" / "p-0.tar")) == [name for name in good if name != "0/2.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p-0.tar", "p-2.tar"]
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["done"] * 2 + ["failed"] + ["done"] + ["failed"] + ["done"] * 4 + [
        "skipped"
    ]
    assert (tmp_path / "p.html").read_text().count("data:image") >= 14


def test_a_stop_leaves_whole_shards_only(trained: Path, shards: Path, tmp_path: Path) -> None:
    def stop(done: float, total: int) -> None:
        assert total == 12
        if done >= 7:
            raise KeyboardInterrupt

    with pytest.raises(Stopped) as caught:
        convert(trained, shards, tmp_path / "out", batch_size=1, progress=stop)
    there = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert there == ["p-0.tar"] and caught.value.report.count("done") == 4
    convert(trained, shards, tmp_path / "out", batch_size=1, existing="skip")
    convert(trained, shards, tmp_path / "whole", batch_size=1)
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes()


def test_a_shard_that_cannot_be_written_fails_as_a_whole(
    trained: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, count = ShardWriter._append, 0

    def fail(self: ShardWriter, data: bytes) -> None:
        nonlocal count
        count += self.path.name == "p-1.tar"
        if count == 4 and self.path.name == "p-1.tar":
            raise OSError(28, "No space left on device")
        append(self, data)

    monkeypatch.setattr(ShardWriter, "_append", fail)
    report = convert(trained, shards, tmp_path / "out")
    assert report.count("done") == 8 and {each.reason for each in report.failures} == {
        f"{tmp_path}/out/p-1.tar can't be written: No space left on device"
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p-0.tar", "p-2.tar"]


def test_a_shard_that_breaks_in_between_is_never_published(
    trained: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = ShardWriter._append

    def fail(self: ShardWriter, data: bytes) -> None:
        if self.path.name == "p-1.tar" and b"1/2.png" in data[:512]:
            raise MemoryError
        append(self, data)

    monkeypatch.setattr(ShardWriter, "_append", fail)
    report = convert(trained, shards, tmp_path / "out")
    assert report.count("done") == 8 and report.count("failed") == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p-0.tar", "p-2.tar"]


def test_shards_of_one_name_are_refused(trained: Path, shards: Path, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"s-{number}").mkdir()
        (tmp_path / f"s-{number}" / "data.tar").write_bytes((shards / f"p-{number}.tar").read_bytes())
    with pytest.raises(UsageError, match="several shards of that name"):
        convert(trained, tmp_path / "s-{0..1}" / "data.tar", tmp_path / "out")


def test_hidden_members_are_left_alone(trained: Path, shards: Path, tmp_path: Path) -> None:
    write_tar(shards / "p-0.tar", {**members(shards / "p-0.tar"), "0/._0.png": b"a Mac's"})
    assert convert(trained, shards / "p-0.tar", tmp_path / "out.tar").summary() == "4 converted, 0 skipped, 0 failed"


def test_parts_have_whole_shards(trained: Path, shards: Path, tmp_path: Path) -> None:
    counts = [convert(trained, shards, tmp_path / "out", shard=(number, 2)).count("done") for number in (1, 2)]
    assert counts == [8, 4] and len(list((tmp_path / "out").glob("*.tar"))) == 3


def test_the_side_that_is_translated_is_converted(trained: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", picture(16, 16))
    image = (tmp_path / "x.png").read_bytes()
    write_tar(tmp_path / "in.tar", {"a.source.png": image, "a.target.png": b"never read", "a.cls": b"1"})
    assert convert(trained, tmp_path / "in.tar", tmp_path / "out.tar").count("done") == 1
    assert list(members(tmp_path / "out.tar")) == ["a.png", "a.cls"]


def test_label_maps_are_left_out_where_images_are_wanted(trained: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", picture(16, 16))
    image = (tmp_path / "x.png").read_bytes()
    write_tar(tmp_path / "in.tar", {"a.label.png": b"never read", "a.inst.png": b"never read", "a.png": image})
    assert convert(trained, tmp_path / "in.tar", tmp_path / "out.tar").summary() == "1 converted, 0 skipped, 0 failed"
    assert list(members(tmp_path / "out.tar")) == ["a.png"]


def test_shards_without_an_input_say_so(trained: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", {"a.label.png": b"", "a.inst.png": b""})
    report = convert(trained, tmp_path / "in.tar", tmp_path / "out.tar")
    assert "none that this translator takes" in report.failures[0].reason and not (tmp_path / "out.tar").exists()


def test_label_maps_find_their_instance_maps_in_the_shard(tmp_path: Path) -> None:
    data = write_labelled(write_labelled(tmp_path / "data", 4, 32), 3, 32, split="val", first=6)
    run = train(tiny_config(data, tmp_path / "run", {"name": "pix2pixhd", "coarse_share": 0.0}, steps=2), quiet=True)
    packed: dict[str, bytes] = {}
    for number in range(6, 9):
        for kind, part in (("label", "label"), ("inst", "inst"), ("img", "target")):
            packed[f"{number}.{part}.png"] = (data / f"val_{kind}" / f"{number}.png").read_bytes()
    del packed["7.inst.png"]
    write_tar(tmp_path / "in.tar", packed)
    report = convert(run, tmp_path / "in.tar", tmp_path / "out.tar", dtype="fp32")
    assert outcomes(report) == {"6.label.png": "done", "7.label.png": "failed", "8.label.png": "done"}
    assert "no instance map" in report.failures[0].reason
    convert(run, data / "val_label", tmp_path / "plain", dtype="fp32")
    assert members(tmp_path / "out.tar") == {f"{n}.png": (tmp_path / "plain" / f"{n}.png").read_bytes() for n in (6, 8)}
