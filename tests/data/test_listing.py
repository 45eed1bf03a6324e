"""The image files of a folder, in the order of their names, as a dictionary would have them."""

import os
import random
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers.data import picture, write_pairs

from img2img.core.errors import UsageError
from img2img.data.base import DataConfig
from img2img.data.listing import ImageFiles, align, list_images
from img2img.data.packed import pack_paths, pack_texts
from img2img.data.packed_pairs import PackedPairs
from img2img.data.paired import PairedData, find_pairs
from img2img.data.shards import read_shards
from img2img.data.unpaired import UnpairedData, find_unpaired
from img2img.images import write_image

FILES = ["b.png", "a/2.JPG", "a/1.jpg", "a-b/x.png", "a/ä.png", "a/deep/er.tif", "c.nii.gz", "b.jpg", "z.", "x/y.npy"]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def show(found: ImageFiles) -> list[tuple[str, list[Path]]]:
    return [(os.fsdecode(name), found.files[first:end]) for name, first, end in found.group()]


def test_files_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    touch(tmp_path, *FILES, ".hidden.png", ".cache/x.png", "notes.txt")
    os.symlink(tmp_path / "a", tmp_path / "linked")  # noqa: PTH211
    os.symlink(tmp_path / "round", tmp_path / "round")  # noqa: PTH211
    found = list_images(tmp_path)
    stems = {name: name.split(".")[0] for name in FILES if name != "z."}
    wanted = sorted(stems, key=lambda name: (stems[name].encode(), name))
    assert [str(file.relative_to(tmp_path)) for file in found.files] == wanted
    assert list(found.names) == [stems[name] for name in wanted]
    assert dict(show(found))["b"] == [tmp_path / "b.jpg", tmp_path / "b.png"]
    assert list(list_images(tmp_path, recursive=False).names) == ["b", "b", "c"]


def test_several_of_one_name_are_in_one_order(tmp_path: Path) -> None:
    """Whatever order a folder is listed in."""
    touch(tmp_path, "a.png", "a.jpg", "a.tif", "b.jpg", "a.bmp")
    assert [file.name for file in list_images(tmp_path).files] == ["a.bmp", "a.jpg", "a.png", "a.tif", "b.jpg"]


def test_names_are_found(tmp_path: Path) -> None:
    found = list_images(touch(tmp_path, *FILES))
    for name, files in show(found):
        assert found.find(name) == files
    assert found.find("a") == found.find("zz") == found.find("") == []
    single, several = found.take_single()
    assert several == ["b"] and "b" not in list(single.names) and len(single.names) == len(found.names) - 2
    renamed = found.rename(lambda name: name.rpartition("/")[2])
    assert list(renamed.names) == sorted(renamed.names, key=str.encode) and renamed.find("er") == [
        tmp_path / "a/deep/er.tif"
    ]


def test_an_array_is_something_about_the_image_of_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.npy", "b.npy", "b.npz", "c.npy", "d.png")
    assert [file.name for file in list_images(tmp_path).files] == ["a.png", "b.npy", "b.npz", "c.npy", "d.png"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/x.png", "b/x.png")

    def refuse(path: Path) -> object:
        if Path(path).name in ("b", "lost+found"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"b can't be listed: Permission denied\. Make it readable"):
        list_images(tmp_path)
    (tmp_path / "b").rename(tmp_path / "lost+found")
    assert [file.name for file in list_images(tmp_path).files] == ["x.png"], "which every disk has"
    assert not len(list_images(tmp_path / "nowhere").files), "as distilled data sets need it"


def make(names: list[str]) -> ImageFiles:
    files = pack_paths([Path("/x", f"{name}.png") for name in sorted(names, key=str.encode)])
    return ImageFiles(pack_texts(sorted(names, key=str.encode)), files)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_what_belongs_together_is_found_as_sets_would(seed: int) -> None:
    draw = random.Random(seed)
    names = [f"{draw.choice(['a', 'b/', 'ä', ''])}{number}" for number in range(12)]
    folders = [draw.choices(names, k=draw.randint(0, 12)) for _ in range(draw.randint(1, 3))]
    several = {name for each in folders for name in each if each.count(name) > 1}
    complete = set.intersection(*map(set, folders)) - several
    sides = [make(each) for each in folders]
    places, alone, doubled = align(sides)
    assert sorted(doubled) == sorted(several)
    for side, each, rest, folder in zip(sides, places, alone, folders, strict=True):
        assert [side.names[place] for place in each] == sorted(complete, key=str.encode)
        assert {side.names[place] for place in rest} == set(folder) - complete - several


def test_many_names_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("img2img.data.packed.CHUNK", 3)
    names = [f"{number * 7919 % 100:0{number % 5 + 1}}" for number in range(50)] + ["", "ä"]
    packed = pack_texts(names)
    order = packed.find_order(np.arange(len(names)))
    assert [names[place] for place in order] == sorted(names, key=str.encode)
    assert (
        packed.take(order) == sorted(names, key=str.encode)
        and packed.take(order[::-2]) == sorted(names, key=str.encode)[::-2]
    )
    assert [name.decode() for name in packed.encode()] == names
    assert not len(packed.take(np.array([], np.int64)))


def test_long_names_are_in_order_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what is sorted at once; such names may be few among many short ones."""
    monkeypatch.setattr("img2img.data.packed.WIDTH", 3)
    draw = random.Random(0)
    names = ["".join(draw.choices("ab", k=draw.randint(0, 6))) for _ in range(200)]
    then = np.arange(len(names))[::-1].copy()
    order = pack_texts(names).find_order(then)
    assert order.tolist() == sorted(range(len(names)), key=lambda place: (names[place].encode(), then[place]))


def test_known_pairs_stay_where_the_larger_side_has_a_name_twice(tmp_path: Path) -> None:
    for name in ("trainA/a.png", "trainA/b.png", "trainB/a.png", "trainB/b.png", "trainB/c.png", "trainB/c.jpg"):
        write_image(tmp_path / name, picture(16, 16))
    assert [pair.name for pair in find_unpaired(tmp_path)["train"].pairs] == ["a", "b"]
    write_image(tmp_path / "trainA" / "other.png", picture(16, 16))
    assert not find_unpaired(tmp_path)["train"].pairs


def test_one_folder_on_both_sides_is_read_whole(tmp_path: Path) -> None:
    for number in range(6):
        write_image(tmp_path / f"{number}.png", picture(16, 16, seed=number))
    both = DataConfig(source=tmp_path, target=tmp_path)
    for report, words in (
        (PairedData(both).check(), "source and target of 6 pairs are the same image"),
        (UnpairedData(both).check(), "6 images are on both sides"),
    ):
        assert any(words in warning for warning in report.warnings)
        assert not any("were read" in warning for warning in report.warnings)


def test_of_shards_only_images_are_kept(tmp_path: Path) -> None:
    """Else each ending that is in them would be."""
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for name in ("a.source.png", "a.target.png", "a.json", "a.txt", *(f"log.{number}" for number in range(20))):
            archive.addfile(tarfile.TarInfo(name))
    (pair,) = find_pairs(tmp_path)["train"].pairs
    assert pair.name == "a" and pair.source.name == "a.source.png"
    assert {ending for _, files in read_shards(str(tmp_path)).values() for ending in files.endings} == {".png"}


def test_finding_many_files_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each file 1.2 kB once, as there were objects of it."""
    monkeypatch.setattr("img2img.data.packed.CHUNK", 256)  # which is little of many files
    count = 4000
    for side in ("trainA", "trainB"):
        touch(tmp_path / side, *(f"{number:07}.png" for number in range(count)))
    find_pairs(tmp_path)
    tracemalloc.start()
    data = PairedData(DataConfig(path=tmp_path, size=16, check="sample"))
    data.divide(0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(data.train, PackedPairs) and len(data.train) == 0.9 * count
    assert peak < 100 * 2 * count


def test_pairs_stay_packed_all_along(tmp_path: Path) -> None:
    write_pairs(tmp_path, 9)
    for direction in ("AtoB", "BtoA"):
        found = find_pairs(tmp_path, direction=direction)["train"].pairs
        assert isinstance(found, PackedPairs) and found.names is found.sources.stems is found.targets.stems
        assert {pair.source.parent.name for pair in found} == {"trainA" if direction == "AtoB" else "trainB"}
        data = PairedData(DataConfig(path=tmp_path, size=16, direction=direction))
        data.divide(0.3)
        assert isinstance(data.train, PackedPairs) and data.train.names is data.train.sources.stems
        assert sorted([*data.train, *data.validation.pairs], key=lambda pair: pair.name) == list(found)
