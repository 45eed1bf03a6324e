"""The index of a folder of images."""

import os
from pathlib import Path
from typing import Any

import pytest
from helpers.data import picture, write_pairs

from img2img.cli import main
from img2img.data import facts, folder_index
from img2img.data.paired import check_pairs, find_pairs
from img2img.images import write_image


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pairs with an index, whose images nobody has read on this machine."""
    data = write_pairs(write_pairs(tmp_path / "data", 3), 2, split="val", first=3)
    assert main(["index", str(data)]) == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    folder_index.FOLDERS.clear()
    return data


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of images that are read to learn about them."""
    names: list[str] = []
    read = facts.read_picture

    def note(file: Path, *arguments: Any) -> Any:
        names.append(file.name)
        return read(file, *arguments)

    monkeypatch.setattr(facts, "read_picture", note)
    return names


def test_nothing_is_read_again(data: Path, reads: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(data)]) == 0
    assert reads == [] and "3 pairs" in capsys.readouterr().out
    report = check_pairs(find_pairs(None, source=data / "trainA", target=data / "trainB"))
    assert reads == [] and (report.in_channels, report.out_channels) == (3, 3)
    (data / "index.parquet").unlink()
    folder_index.FOLDERS.clear()
    assert check_pairs(find_pairs(data)).splits == {"train": 3, "val": 2} and len(reads) == 10, "without it all are"


def test_what_has_changed_is_read(data: Path, reads: list[str]) -> None:
    write_image(data / "trainA" / "0.png", picture(16, 16, seed=99))
    os.utime(data / "trainB" / "1.png", (1, 1))
    check_pairs(find_pairs(data))
    assert sorted(reads) == ["0.png", "1.png"]


def test_an_index_is_brought_up_to_date(data: Path, reads: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    write_image(data / "trainA" / "new.png", picture(16, 16))
    (data / "trainB" / "new.png").write_bytes(b"no image")
    (data / "valA" / "3.png").unlink()
    assert main(["index", str(data)]) == 1
    said = capsys.readouterr().out
    assert sorted(reads) == ["new.png", "new.png"]
    assert "left out: " in said and "trainB/new.png" in said and "index.parquet: 10 images." in said
    reads.clear()
    folder_index.FOLDERS.clear()
    check_pairs(find_pairs(data))
    assert reads == ["new.png"], "what can't be read is said each time"


def test_mistakes_are_sentences(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "index.parquet").write_bytes(b"PAR1 but nothing else PAR1")
    for command in (["check", str(data)], ["index", str(data)]):
        assert main(command) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "index.parquet can't be read" in said and "make it anew with img2img index" in said
    (tmp_path / "empty").mkdir()
    assert main(["index", str(tmp_path / "empty")]) == 2
    assert "empty holds no images" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    (data / "index.parquet").unlink()
    assert main(["shard", str(data), str(tmp_path / "shards")]) == 0
    before = (tmp_path / "shards" / "index.parquet").read_bytes()
    assert main(["index", str(tmp_path / "shards")]) == 2
    assert "holds shards, to which img2img shard gives an index" in capsys.readouterr().err
    assert (tmp_path / "shards" / "index.parquet").read_bytes() == before
    monkeypatch.setattr("img2img.data.index.find_spec", lambda name: None)
    assert main(["index", str(data)]) == 2
    assert "needs the package pyarrow" in capsys.readouterr().err
