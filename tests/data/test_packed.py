"""Paths and pairs in a few arrays are the same as in objects."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.data import write_pairs, write_unpaired

from img2img.core.stored import StoredPath
from img2img.data.base import DataConfig, Pair
from img2img.data.packed import PackedPaths, find_endings, pack_paths, pack_texts, take
from img2img.data.packed_pairs import PackedPairs, change_pairs, count_files, list_targets, pack_pairs, turn_pairs
from img2img.data.paired import PairedData
from img2img.data.unpaired import UnpairedData

NAMES = ["b/1.png", "a/ä.png", "a/undecod\udce9.tif", "c.nii.gz", "a/1.png", "b"]


@pytest.mark.parametrize("root", ["/data/x", "x", "", "/"])
@pytest.mark.parametrize("names", [NAMES, NAMES[:1], ["xy/1.png", "xz/1.png"], ["ab", "abc"], ["a", "a/b"], []])
def test_paths(root: str, names: list[str]) -> None:
    paths = [Path(root, name) for name in names]
    packed = pack_paths(paths)
    assert isinstance(packed, PackedPaths) and list(packed) == paths and len(packed) == len(paths)
    assert packed[1:] == paths[1:] and packed[::-2] == paths[::-2] and bool(packed) == bool(paths)
    if paths:
        assert packed[-1] == paths[-1] and paths[0] in packed
    for beyond in (len(paths), -len(paths) - 1):
        with pytest.raises(IndexError):
            packed[beyond]
    assert list(pickle.loads(pickle.dumps(packed))) == paths, "as a worker may get it"


def test_what_paths_begin_with_is_kept_once() -> None:
    for names in (["1.png"], ["1.png", "2.png"], ["1.png", "1.png.tif"]):
        packed = pack_paths([Path("/data/x", name) for name in names])
        assert isinstance(packed, PackedPaths) and packed.prefix == "/data/x/" and len(packed.stems.data) <= 7
        assert find_endings(pack_paths([Path("a.PNG"), Path("b.png")])) == {".png"}
        assert packed != list(packed)[:-1] and packed != 1
        assert find_endings(packed) == find_endings(list(packed)) == {name[-4:] for name in names}


def test_many_bytes_are_counted_beyond_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("img2img.data.packed.MOST", 4)
    texts = pack_texts(["ab", "cde"])
    assert texts.ends.dtype == np.uint64 and list(texts) == ["ab", "cde"]
    assert pack_texts(["ab"]).ends.dtype == np.uint32


def pairs(count: int = 3, **about: object) -> list[Pair]:
    return [Pair(f"{n}.x", Path(f"/d/trainA/{n}.x.png"), Path(f"/d/trainB/{n}.x.png"), **about) for n in range(count)]  # type: ignore[arg-type]


def test_pairs_differ_in_their_files_and_names() -> None:
    jpegs = [Pair(f"{n}", Path(f"/d/a/{n}.jpg"), Path(f"/d/b/{n}.png"), ranges=((0, 1), None)) for n in range(3)]
    called = [Pair(f"deeper/{n}", Path(f"/d/deeper/{n}.png"), Path(f"/d/deeper/{n}.png"), half="BA") for n in range(3)]
    maps = [
        Pair(f"{n}", Path(f"/l/{n}.png"), Path(f"/i/{n}.jpg"), labels=True, instances=Path(f"/n/{n}.png"))
        for n in range(3)
    ]
    derived = [Pair(f"{n}", Path(f"/l/{n}.png"), Path(f"/l/{n}.png"), derive="gray") for n in range(3)]
    for each in (pairs(), jpegs, called, maps, derived):
        packed = pack_pairs(each)
        assert isinstance(packed, PackedPairs) and list(packed) == each and packed[1:] == each[1:]
        assert list(packed.take(np.array([2, 0]))) == [each[2], each[0]]
    same = pack(pairs())
    assert same.names is same.sources.stems is same.targets.stems, "names that both sides have are kept once"
    assert pack(called).names is not pack(called).targets.stems
    like = [Pair("x", Path("/s/ab.png"), Path("/t/a.png")), Pair("y", Path("/s/c.png"), Path("/t/bc.png"))]
    assert list(pack(like)) == like, "their bytes are alike, and they are not"
    alone = pack(derived)
    assert alone.sources is alone.targets


def pack(found: list[Pair]) -> PackedPairs:
    packed = pack_pairs(found)
    assert isinstance(packed, PackedPairs)
    return packed


def test_pairs_are_changed_and_counted_as_objects_are() -> None:
    whole = pack(pairs(half="AB", instances=Path("/i/1.png")))
    for packed in (whole, pack(pairs(derive="gray"))):
        for each in (packed, list(packed)):
            turned = turn_pairs(each)
            assert [(pair.source, pair.target) for pair in turned] == [(pair.target, pair.source) for pair in packed]
            assert {pair.half for pair in turned} == {"BA" if packed[0].half else ""}
            assert {pair.ranges for pair in change_pairs(each, ranges=((0, 1), None))} == {((0, 1), None)}
            assert list_targets(each) == [pair.target for pair in packed] and count_files(each) == 6
            assert take(each, np.array([2, 0])) == [packed[2], packed[0]]
    alone = [Pair("a", Path("/a.png"), Path("/a.png")), Pair("b", Path("/b.png"), Path("/b.png"))]
    assert count_files(alone) == count_files(pack(alone)) == 2
    some = pack(pairs()).take(np.array([1]))
    assert some.names is some.sources.stems is some.targets.stems, "what was kept once still is"


def test_what_cannot_be_packed_stays() -> None:
    mixed = [*pairs(1), *pairs(1, ranges=((0, 1), (0, 1)))]
    half_stored = [*pairs(1), Pair("a", StoredPath("/x.tar/a.source.png"), StoredPath("/x.tar/a.target.png"))]
    some = [*pairs(1), Pair("x", Path("/a"), Path("/b"), instances=Path("/c"))]
    for each in (mixed, half_stored, some, []):
        assert pack_pairs(each) is each
    files = [Path("/a"), StoredPath("/x.tar/a.png")]
    assert pack_paths(files) is files


def test_samples_in_shards_stay_there() -> None:
    files = [StoredPath(f"s3://bucket/x-{n}.tar/a{n}.{side}.png") for n in range(3) for side in ("source", "target")]
    packed = pack_paths(files)
    assert isinstance(packed, PackedPaths) and list(packed) == files
    assert {type(path) for path in packed} == {StoredPath} and str(packed[1]) == "s3://bucket/x-0.tar/a0.target.png"
    found = [Pair(f"a{n}", files[2 * n], files[2 * n + 1]) for n in range(3)]
    together = pack_pairs(found)
    assert isinstance(together, PackedPairs) and list(together) == found
    assert type(together[2].source) is StoredPath


def test_data_sets_are_packed_and_forget_what_they_found(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", 7)
    paired = PairedData(DataConfig(path=tmp_path / "pairs", size=16))
    found = list(paired.splits["train"].pairs)
    paired.divide(0)
    assert isinstance(paired.train, PackedPairs) and list(paired.train) == found and not paired.splits
    assert list(paired.validation.pairs) == found, "there are no others to look at"
    write_unpaired(tmp_path / "unpaired", 5, 4)
    unpaired = UnpairedData(DataConfig(path=tmp_path / "unpaired", size=16))
    sides = unpaired.splits["train"].sources, unpaired.splits["train"].targets
    unpaired.divide(0)
    assert isinstance(unpaired.train.sources, PackedPaths) and not unpaired.splits
    assert (list(unpaired.train.sources), list(unpaired.train.targets)) == sides


def test_a_pair_takes_less_than_thirty_bytes() -> None:
    packed = pack([Pair(f"{n:08}", Path(f"/d/A/{n:08}.png"), Path(f"/d/B/{n:08}.png")) for n in range(5000)])
    assert len(pickle.dumps(packed)) < 20 * len(packed)
