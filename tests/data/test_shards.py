"""Data sets in tar files are those of their folders."""

import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from helpers.configs import tiny_config
from helpers.data import picture, write_labelled, write_pairs, write_tar
from helpers.runs import assert_equal

from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.core.stored import INDEXES
from img2img.data import facts
from img2img.data.base import DataConfig
from img2img.data.class_folders import ClassFolderData
from img2img.data.index import INDEX
from img2img.data.labelled import LabelledData, read_map_facts
from img2img.data.paired import PairedData
from img2img.data.shards import find_shards, read_shards
from img2img.data.unpaired import UnpairedData
from img2img.images import write_image
from img2img.training.train import train

KINDS = {"paired": PairedData, "unpaired": UnpairedData, "labels": LabelledData, "images": ClassFolderData}


@pytest.fixture(autouse=True)
def forget() -> None:
    """As a new process does."""
    INDEXES.clear(), read_shards.cache_clear()


def pack(folder: Path, output: Path, kind: str, size_mb: float = 0.002) -> Path:
    assert main(["shard", str(folder), str(output), "--kind", kind, "--size-mb", str(size_mb)]) == 0
    INDEXES.clear()
    return output


def samples(data: Any) -> list[Any]:
    data.learn(data.check())
    data.divide(0)
    made = data.build_training_set(data.config.build_transform(), 3, 3, 0)
    return [made[(epoch, place)] for epoch in range(2) for place in range(len(made))]


@pytest.mark.parametrize(
    ("fixture", "kind"), [("pairs", "paired"), ("unpaired", "unpaired"), ("labelled", "labels"), ("classes", "images")]
)
def test_shards_hold_what_the_folder_holds(
    fixture: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue(fixture)
    shards = pack(folder, tmp_path / "shards", kind)
    assert len(list(shards.glob("train*.tar"))) > 1 and (shards / INDEX).is_file()
    one, other = (KINDS[kind](DataConfig(path=path, size=16)) for path in (folder, shards))
    report = one.check()
    monkeypatch.setattr(facts, "CACHE_FILE", "empty.sqlite")
    with monkeypatch.context() as patch:
        patch.setattr(
            facts, "read_picture", lambda file, rules: pytest.fail(f"{file} is read, though the index knows it")
        )
        again = other.check()
    assert (again.splits, again.sizes, again.summary) == (report.splits, report.sizes, report.summary)
    texts = [re.sub(r"-\d+\.tar", "", problem.text).replace(str(shards), str(folder)) for problem in again.problems]
    assert texts == [problem.text for problem in report.problems]
    for mine, theirs in zip(samples(one), samples(other), strict=True):
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_training_on_shards_gives_the_same_weights(pairs: Path, tmp_path: Path) -> None:
    shards = pack(pairs, tmp_path / "shards", "paired")
    runs = [
        train(tiny_config(data, tmp_path / name, workers=1), quiet=True) for data, name in ((pairs, "a"), (shards, "b"))
    ]
    assert_equal(*runs)


def test_pairs_in_one_file_stay_pairs(tmp_path: Path) -> None:
    for number in range(3):
        write_image(
            tmp_path / "ab" / "train" / f"{number}.v1.png", np.hstack([picture(16, 16, seed=n) for n in (number, 9)])
        )
    shards = pack(tmp_path / "ab", tmp_path / "shards", "paired")
    data = PairedData(DataConfig(path=shards))
    assert [(pair.name, pair.half) for pair in data.splits["train"].pairs] == [(f"{n}_v1", "AB") for n in range(3)]
    assert not data.check().errors


def test_packing_goes_on_and_never_replaces(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = pack(pairs, tmp_path / "shards", "paired")
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    (shards / "train-000001.tar").unlink(), (shards / INDEX).unlink()
    (shards / f".partial-{'x'}").write_bytes(b"")
    pack(pairs, shards, "paired")
    after = {path.name: path.read_bytes() for path in shards.iterdir() if not path.name.startswith(".")}
    assert after == before and "were there already" in capsys.readouterr().out
    with tarfile.open(shards / "train-000000.tar") as archive:
        renamed = {f"x{entry.name}": archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    write_tar(shards / "train-000000.tar", renamed)
    INDEXES.clear()
    assert main(["shard", str(pairs), str(shards), "--kind", "paired", "--size-mb", "0.002"]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert main(["shard", str(pairs), str(shards), "--size-mb", "0"]) == 2
    assert main(["shard", str(tmp_path / "gone"), str(shards)]) == 2


def test_a_damaged_image_stops_packing_with_its_name(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pairs / "trainA" / "2.png").write_bytes(b"nothing")
    assert main(["shard", str(pairs), str(tmp_path / "shards"), "--kind", "paired"]) == 1
    assert "trainA/2.png" in capsys.readouterr().err and not (tmp_path / "shards").exists()


def test_other_shards_and_the_data_set_itself_are_refused(
    pairs: Path, unpaired: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = pack(pairs, tmp_path / "shards", "paired")
    before = {path: path.read_bytes() for path in shards.iterdir()}
    for source, target, words in (
        (unpaired, shards, "holds other shards"), (pairs, pairs, "lies in the data set"), (pairs, pairs / "x", "lies in"),
        (pairs, Path("/proc/no"), "can't be made"),
    ):  # fmt: skip
        assert main(["shard", str(source), str(target), "--kind", "auto"]) == 2
        assert words in capsys.readouterr().err
    assert {path: path.read_bytes() for path in shards.iterdir()} == before
    (tmp_path / "x.tar.gz").write_bytes(b"")
    assert main(["check", str(tmp_path / "x.tar.gz")]) == 2 and "compressed" in capsys.readouterr().err


def test_keys_never_collide(tmp_path: Path) -> None:
    for name in ("a.b", "a_b", "a_b_2", "s/a.b"):
        write_image(tmp_path / "in" / f"{name}.png", picture(16, 16, seed=len(name)))
    shards = pack(tmp_path / "in", tmp_path / "shards", "images", size_mb=1)
    with tarfile.open(shards / "train-000000.tar") as archive:
        assert sorted(archive.getnames()) == ["a_b.png", "a_b_2.png", "a_b_2_2.png", "s/a_b.png"]


def png(tmp_path: Path, seed: int = 0) -> bytes:
    write_image(tmp_path / "x.png", picture(16, 16, seed=seed))
    return (tmp_path / "x.png").read_bytes()


def test_shards_of_others_need_no_index(tmp_path: Path) -> None:
    image = png(tmp_path)
    (tmp_path / "s").mkdir()
    for number in range(3):
        members = {f"sub/{number}.source.png": image, f"sub/{number}.target.PNG": image, f"sub/{number}.json": b"{}"}
        write_tar(tmp_path / "s" / f"photos-{number:04}.tar", members)
    for path, count in (("s", 3), ("s/photos-{0001..0002}.tar", 2), ("s/photos-0000.tar", 1)):
        (split,) = PairedData(DataConfig(path=tmp_path / path)).splits.values()
        assert len(split.pairs) == count and not split.unmatched
    assert split.pairs[0].name == "sub/0" and str(split.pairs[0].source).endswith("photos-0000.tar/sub/0.source.png")
    (tmp_path / "s" / "trainA").mkdir()
    assert find_shards(tmp_path / "s") is None, "an archive beside the folders that were in it"
    (tmp_path / "s" / "trainA").rmdir()
    write_image(tmp_path / "s" / "beside.png", picture(16, 16))
    assert find_shards(tmp_path / "s") is None, "a folder of images is one, whatever else is in it"


def test_classes_are_named_beside_the_images(tmp_path: Path) -> None:
    image = png(tmp_path)
    members = {
        f"{n}.{kind}": image if kind == "png" else name
        for n, name in enumerate((b"cat", b"dog\n", b"cat"))
        for kind in ("png", "cls")
    }
    write_tar(tmp_path / "a.tar", members)
    folder = ClassFolderData(DataConfig(path=tmp_path / "a.tar")).splits["train"]
    assert folder.classes == ("cat", "dog") and sorted(folder.labels) == [0, 0, 1]


def test_what_is_missing_or_twice_is_named_with_its_shard(tmp_path: Path) -> None:
    image = png(tmp_path)
    write_tar(tmp_path / "train-0.tar", {"a.source.png": image, "a.target.png": image, "b.source.png": image})
    write_tar(tmp_path / "train-1.tar", {"c.source.png": image, "c.target.png": image, "a.source.png": image})
    report = PairedData(DataConfig(path=tmp_path / "train-{0..1}.tar")).check()
    assert any("train-0.tar/b.source.png" in text for text in report.warnings)
    assert any("same name" in text and "a" in text for text in report.warnings) and report.splits == {"train": 1}


def test_splits_with_equal_keys_keep_their_own_facts(tmp_path: Path) -> None:
    data = write_labelled(write_labelled(tmp_path / "data", 2, 16), 2, 32, split="val")
    shards = pack(data, tmp_path / "shards", "labels")
    facts = read_map_facts(
        [pair for folder in LabelledData(DataConfig(path=shards)).splits.values() for pair in folder.pairs],
        lambda: None,
    )[0]
    heights = {(Path(pair.source.container).name[:3], found.height) for pair, found in facts.items()}  # type: ignore[attr-defined]
    assert heights == {("tra", 16), ("val", 32)}


def test_wrong_shards_are_sentences(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", {f"{n}.png": bytes(900) for n in range(3)}).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:3000])
    for path, words in {
        "b.tar": "b.tar is cut off after 1.png", "gone.tar": "gone.tar can't be read", "x-{3..1}.tar": "one range of numbers",
        "x-{0..2}.tar": "x-0.tar can't be read", "x-{0..1}-{0..1}.tar": "one range",
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=words):
            ClassFolderData(DataConfig(path=tmp_path / path))


def test_an_index_of_other_shards_is_not_believed(tmp_path: Path) -> None:
    shards = pack(write_pairs(tmp_path / "pairs", 4), tmp_path / "shards", "paired", size_mb=1)
    write_tar(shards / "train-000000.tar", {"a.source.png": png(tmp_path), "a.target.png": png(tmp_path, 1)})
    with pytest.raises(UsageError, match=r"train-000000\.tar is missing, or not the one"):
        PairedData(DataConfig(path=shards))
    shards_alone = shards / "train-{000000..000000}.tar"
    assert [pair.name for pair in PairedData(DataConfig(path=shards_alone)).splits["train"].pairs] == ["a"]
    table = parquet.read_table(shards / INDEX).to_pylist()
    for column, value, words in (
        ("member", "../a.png", "leads out of its folder, or out of a shard"),
        ("shard", "../other.tar", "leads out of its folder, or out of a shard"),
        ("member", None, "make it anew"),
        ("shard", ".", "leads out of its folder, or out of a shard"),
        ("start", -512, "outside its shard"),
        ("size", 10**9, "outside its shard"),
        ("start", None, "column start is incomplete"),
        ("height", None, "column height is incomplete"),
        ("digest", None, "column digest is incomplete"),
        ("width", 0.5, "column width is incomplete, or of another kind.*make it anew with img2img shard"),
    ):
        parquet.write_table(pyarrow.Table.from_pylist([table[0] | {column: value}, *table[1:]]), shards / INDEX)
        read_shards.cache_clear()
        with pytest.raises(UsageError, match=words):
            PairedData(DataConfig(path=shards))
    (shards / INDEX).write_bytes(b"nothing")
    read_shards.cache_clear()
    with pytest.raises(UsageError, match="make it anew"):
        PairedData(DataConfig(path=shards))
