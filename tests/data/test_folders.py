from pathlib import Path

import numpy as np
import pytest
from helpers.data import picture, write_pairs

from img2img.core.errors import UsageError
from img2img.data.paired import find_pairs, hold_out, read_pair
from img2img.images import write_image

A, B = picture(8, 8, seed=1), picture(8, 8, seed=2)


def put(root: Path, *folders: str, name: str = "x.png") -> None:
    for folder, image in zip(folders, (A, B), strict=True):
        write_image(root / folder / name, image)


@pytest.mark.parametrize(
    "folders",
    [("{}A", "{}B"), ("{}/A", "{}/B"), ("{}_A", "{}_B"), ("A/{}", "B/{}")],
    ids=["trainA", "train/A", "train_A", "A/train"],
)
def test_every_layout_of_two_folders_is_recognised(tmp_path: Path, folders: tuple[str, str]) -> None:
    for split in ("train", "val", "test"):
        put(tmp_path, *(folder.format(split) for folder in folders))
    splits = find_pairs(tmp_path)
    assert list(splits) == ["train", "val", "test"]
    for folder in splits.values():
        source, target = read_pair(folder.pairs[0])
        assert np.array_equal(source, A) and np.array_equal(target, B)


def test_two_folders_without_splits(tmp_path: Path) -> None:
    put(tmp_path, "A", "B")
    assert len(find_pairs(tmp_path)["train"].pairs) == 1


@pytest.mark.parametrize("where", ["train", "."])
def test_side_by_side_images(tmp_path: Path, where: str) -> None:
    write_image(tmp_path / where / "x.png", np.concatenate([A, B], axis=1))
    for direction, (first, second) in {"AtoB": (A, B), "BtoA": (B, A)}.items():
        source, target = read_pair(find_pairs(tmp_path, direction=direction)["train"].pairs[0])  # type: ignore[arg-type]
        assert np.array_equal(source, first) and np.array_equal(target, second)


def test_explicit_folders(tmp_path: Path) -> None:
    put(tmp_path, "in", "out")
    assert len(find_pairs(None, source=tmp_path / "in", target=tmp_path / "out")["train"].pairs) == 1
    put(tmp_path, "in/train", "out/train")
    put(tmp_path, "in/val", "out/val")
    assert list(find_pairs(None, source=tmp_path / "in", target=tmp_path / "out")) == ["train", "val"]


def test_the_direction_is_turned(tmp_path: Path) -> None:
    put(tmp_path, "trainA", "trainB")
    source, target = read_pair(find_pairs(tmp_path, direction="BtoA")["train"].pairs[0])
    assert np.array_equal(source, B) and np.array_equal(target, A)


def test_pairs_are_matched_by_stem_whatever_the_suffix_and_never_by_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "sub/c.PNG", "only_a.png"):
        write_image(tmp_path / "trainA" / name, A)
    for name in ("a.webp", "b.tif", "sub/c.png", "zz.png"):
        write_image(tmp_path / "trainB" / name, B)
    folder = find_pairs(tmp_path)["train"]
    assert [pair.name for pair in folder.pairs] == ["a", "b", "sub/c"]
    assert all(pair.source.stem == pair.target.stem for pair in folder.pairs)
    assert sorted(file.name for file in folder.unmatched) == ["only_a.png", "zz.png"]


def test_a_name_that_stands_twice_is_left_out_and_named(tmp_path: Path) -> None:
    put(tmp_path, "trainA", "trainB")
    write_image(tmp_path / "trainA" / "x.jpg", A)
    folder = find_pairs(tmp_path)["train"]
    assert folder.pairs == [] and folder.ambiguous == ["x"]


def test_names_with_dots_are_matched_whole(tmp_path: Path) -> None:
    for name in ("x.1.png", "x.2.png"):
        put(tmp_path, "trainA", "trainB", name=name)
    assert [pair.name for pair in find_pairs(tmp_path)["train"].pairs] == ["x.1", "x.2"]


@pytest.mark.parametrize("split_folder", [True, False])
def test_any_folder_is_a_data_set_when_sources_are_derived(tmp_path: Path, split_folder: bool) -> None:
    write_image(tmp_path / ("train" if split_folder else "deep/er") / "x.png", A)
    pair = find_pairs(tmp_path, derive="gray")["train"].pairs[0]
    assert pair.derive == "gray" and pair.source == pair.target


def test_what_is_no_data_set_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "half" / "trainA").mkdir(parents=True)
    for arguments, words in [
        ((tmp_path / "none",), "no such folder"),
        ((tmp_path / "file",), "is a file"),
        ((tmp_path / "empty",), "no pairs in a layout"),
        ((tmp_path / "half",), "no folder trainB"),
        ((None,), "Give --data"),
    ]:
        with pytest.raises(UsageError, match=words):
            find_pairs(*arguments)
    with pytest.raises(UsageError, match=r"--data\.target"):
        find_pairs(None, source=tmp_path / "empty")
    with pytest.raises(UsageError, match="no images"):
        find_pairs(tmp_path / "empty", derive="gray")


def test_test_images_without_truth_do_not_block_training(tmp_path: Path) -> None:
    put(tmp_path, "trainA", "trainB")
    write_image(tmp_path / "testA" / "x.png", A)
    assert list(find_pairs(tmp_path)) == ["train"]


def test_holding_out_takes_a_share_evenly_and_shares_nothing(tmp_path: Path) -> None:
    train = find_pairs(write_pairs(tmp_path, 20))["train"]
    rest, held = hold_out(train, 0.2)
    assert len(held.pairs) == 4 and len(rest.pairs) == 16
    assert not set(rest.pairs) & set(held.pairs)
    with pytest.raises(UsageError, match="too few"):
        hold_out(find_pairs(write_pairs(tmp_path / "one", 1))["train"], 0.5)


def test_one_side_of_a_data_set_is_not_taken_for_side_by_side_images(tmp_path: Path) -> None:
    put(tmp_path, "trainA", "trainB")
    with pytest.raises(UsageError, match="folder above it"):
        find_pairs(tmp_path / "trainA")
