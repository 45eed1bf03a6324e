"""Facts about files are read once, and again as soon as a file may have changed."""

import os
import time
from pathlib import Path

import pytest
import torch
from helpers.data import picture, write_labelled, write_pairs
from helpers.forked import call

from img2img.core.processes import exit_process
from img2img.data import base
from img2img.data import facts as room
from img2img.data.base import DataConfig
from img2img.data.class_folders import ClassFolderData
from img2img.data.facts import read_image_facts
from img2img.data.labelled import LabelledData
from img2img.data.paired import PairedData, check_pairs, find_pairs
from img2img.data.unpaired import UnpairedData
from img2img.images import write_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files were decoded."""
    decoded: list[Path] = []
    real = room.read_picture
    monkeypatch.setattr(room, "read_picture", lambda file, rules: (decoded.append(file), real(file, rules))[1])
    return decoded


def age(folder: Path, seconds: float = 60.0) -> None:
    """Makes files look as if they had been there for a while."""
    for file in folder.rglob("*.png"):
        os.utime(file, (time.time() - seconds, time.time() - seconds))


def test_a_second_check_decodes_nothing(tmp_path: Path, reads: list[Path]) -> None:
    data = write_pairs(tmp_path / "pairs", 3)
    age(data)
    first = check_pairs(find_pairs(data))
    assert len(reads) == 6
    assert check_pairs(find_pairs(data)) == first and len(reads) == 6


def test_a_changed_file_is_read_again(tmp_path: Path, reads: list[Path]) -> None:
    data = write_pairs(tmp_path / "pairs", 2)
    age(data)
    check_pairs(find_pairs(data))
    changed = data / "trainA" / "0.png"
    write_image(changed, picture(20, 20))
    os.utime(changed, (time.time() - 30, time.time() - 30))
    report = check_pairs(find_pairs(data))
    assert reads[4:] == [changed] and "differ in size" in " ".join(report.warnings)


def test_what_has_just_been_written_is_not_trusted(tmp_path: Path, reads: list[Path]) -> None:
    data = write_pairs(tmp_path / "pairs", 1)
    check_pairs(find_pairs(data))
    check_pairs(find_pairs(data))
    assert len(reads) == 4


def test_bad_files_are_read_again_and_named_again(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs", 2)
    bad = data / "trainA" / "1.png"
    bad.write_bytes(b"no image")
    age(data)
    assert all(str(bad) in read_image_facts([bad])[1][bad] for _ in range(2))


def test_label_maps_are_known_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from img2img.data import labelled

    data = write_labelled(tmp_path / "labels", 3)
    age(data)
    first = LabelledData(DataConfig(path=data)).check()
    monkeypatch.setattr(labelled, "read_maps", lambda *_: pytest.fail("it is known"))
    assert LabelledData(DataConfig(path=data)).check() == first


@pytest.mark.parametrize("damage", ["garbage", "a folder"])
def test_a_damaged_cache_is_none(tmp_path: Path, cache: Path, damage: str) -> None:
    data = write_pairs(tmp_path / "pairs", 2)
    age(data)
    file = cache / "img2img" / room.CACHE_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"garbage" * 1000) if damage == "garbage" else file.mkdir()
    assert not check_pairs(find_pairs(data)).errors


def test_a_sample_has_both_partners_and_says_so(tmp_path: Path, reads: list[Path]) -> None:
    data = write_pairs(tmp_path / "pairs", 12)
    report = check_pairs(find_pairs(data), most=4)
    assert len(reads) == 8
    assert {file.name for file in reads if "trainA" in file.parts} == {
        file.name for file in reads if "trainB" in file.parts
    }
    assert "only 8 of 24 files were read" in " ".join(report.warnings) and report.splits["train"] == 12
    assert not any("were read" in text for text in check_pairs(find_pairs(data), most=12).warnings)


def test_every_kind_of_data_takes_a_sample(
    pairs: Path, unpaired: Path, labelled: Path, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "SAMPLE", 2)
    for kind, path in (
        (PairedData, pairs),
        (UnpairedData, unpaired),
        (LabelledData, labelled),
        (ClassFolderData, classes),
    ):
        many = 4 if kind is LabelledData else None
        whole, sampled = (kind(DataConfig(path=path, check=check, classes=many)).check() for check in ("all", "sample"))
        assert not whole.errors and not sampled.errors
        assert any("files were read" in text for text in sampled.warnings) and sampled.splits == whole.splits


def test_several_processes_read_a_part_each_and_know_all(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", 3)
    (tmp_path / "pairs" / "trainA" / "1.png").write_bytes(b"damaged")
    call(_check_in_a_process, (tmp_path,), 2)


def _check_in_a_process(rank: int, folder: Path) -> None:
    os.environ["XDG_CACHE_HOME"] = str(folder / f"cache-{rank}")
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    files, decoded, real = sorted((folder / "pairs").rglob("*.png")), [], room.read_picture
    for file in files:
        os.utime(file, (1e9, 1e9))
    torch.distributed.barrier()
    room.read_picture = lambda file, rules: (decoded.append(file), real(file, rules))[1]
    facts, unreadable = read_image_facts(files)
    assert len(facts) == 5, unreadable
    assert list(unreadable) == [folder / "pairs" / "trainA" / "1.png"]
    assert decoded == files[rank::2]
    again, _ = read_image_facts(files)
    assert again == facts and decoded[3:] == (list(unreadable) if rank == 0 else []), (
        "the first process' cache serves all"
    )
    exit_process(0)
