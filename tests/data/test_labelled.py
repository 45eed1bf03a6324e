"""Data sets of label maps: layouts, names, and transforms that mix no labels."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.data import COLOURS, label_map, write_labelled
from PIL import Image

from img2img.core.errors import UsageError
from img2img.data.base import Pair
from img2img.data.label_maps import instance_folder
from img2img.data.labelled import LabelledImages, find_labelled, read_labelled_validation_pair
from img2img.data.transforms import JointTransform
from img2img.images import ImageError, write_image
from img2img.images.labels import join_maps, read_maps, resize_maps


def test_layouts(tmp_path: Path) -> None:
    write_labelled(write_labelled(tmp_path / "a", 3), 1, split="val", first=3)
    for split in ("train", "val"):
        for kind in ("label", "inst", "img"):
            shutil.copytree(tmp_path / "a" / f"{split}_{kind}", tmp_path / "b" / split / kind)
            shutil.copytree(tmp_path / "a" / f"{split}_{kind}", tmp_path / "c" / kind / split)
    for kind in ("label", "inst", "img"):
        shutil.copytree(tmp_path / "a" / f"train_{kind}", tmp_path / "d" / kind)
    for name in "abcd":
        found = find_labelled(tmp_path / name)
        assert list(found) == (["train"] if name == "d" else ["train", "val"])
        assert [pair.name for pair in found["train"].pairs] == ["0", "1", "2"]
        assert all(pair.labels and pair.instances and pair.instances.is_file() for pair in found["train"].pairs)
    assert all(pair.instances is None for pair in find_labelled(tmp_path / "a", with_instances=False)["train"].pairs)
    write_image(tmp_path / "trainA" / "x.png", np.zeros((4, 4, 3), np.uint8))
    assert find_labelled(tmp_path) == {}


def test_explicit_folders(tmp_path: Path) -> None:
    write_labelled(tmp_path, 2)
    label, inst, img = (tmp_path / f"train_{kind}" for kind in ("label", "inst", "img"))
    assert find_labelled(None, labels=label, target=img)["train"].pairs[0].instances is None
    assert find_labelled(None, labels=label, instances=inst, target=img)["train"].pairs[0].instances == inst / "0.png"
    with pytest.raises(UsageError, match=r"--data\.target"):
        find_labelled(None, labels=label)


def test_names_of_cityscapes_and_what_lacks_a_partner(tmp_path: Path) -> None:
    write_labelled(tmp_path, 2)
    for kind, ending in (("label", "gtFine_labelIds"), ("inst", "gtFine_instanceIds"), ("img", "leftImg8bit")):
        folder = tmp_path / f"train_{kind}"
        (folder / "0.png").rename(folder / f"aachen_000_{ending}.png")
    (tmp_path / "train_inst" / "1.png").unlink()
    (found,) = find_labelled(tmp_path).values()
    assert [pair.name for pair in found.pairs] == ["aachen_000"]
    assert {file.name for file in found.unmatched} == {"1.png"} and len(found.unmatched) == 2


def test_a_missing_side_is_named(tmp_path: Path) -> None:
    write_labelled(tmp_path, 1)
    shutil.rmtree(tmp_path / "train_img")
    with pytest.raises(UsageError, match="no folder train_img"):
        find_labelled(tmp_path)


def test_instances_are_identities(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [2, 300]], np.uint16)
    instances = np.array([[70000, 70000], [2**31 - 1, 5]], np.int32)
    Image.fromarray(labels).save(tmp_path / "label.png")
    np.save(tmp_path / "inst.npy", instances)
    maps = read_maps(tmp_path / "label.png", tmp_path / "inst.npy")
    assert maps.dtype == np.int32 and maps[..., 0].tolist() == labels.tolist()
    assert maps[..., 1].tolist() == [[1, 1], [2, 0]], "numbered anew, and all told apart"
    with pytest.raises(ImageError, match=r"inst\.npy is 2×2 pixels, and its label map 3×2"):
        Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "label.png")
        read_maps(tmp_path / "label.png", tmp_path / "inst.npy")
    assert join_maps(labels, None).shape == (2, 2, 1)


def test_nearest_neighbour_invents_no_labels() -> None:
    maps = np.array([[0, 2**24 + 1], [7, 255]], np.int32)[..., None]
    for size in ((5, 3), (1, 1), (100, 77)):
        done = resize_maps(maps, *size)
        assert done.shape == (*size, 1) and set(np.unique(done)) <= {0, 2**24 + 1, 7, 255}
    assert resize_maps(maps, 4, 4)[..., 0].tolist() == np.kron(maps[..., 0], np.ones((2, 2), int)).tolist()


@pytest.mark.parametrize(
    "options", [{}, {"rotate": 30.0, "quarter_turns": True, "vertical_flip": 0.5}, {"resize": "none"}]
)
def test_transforms_move_maps_and_images_alike(tmp_path: Path, options: dict[str, object]) -> None:
    """The image is the label map in its colours, and stays so but at the edges, where the image is interpolated."""
    labels, instances = label_map(64, 3)
    Image.fromarray(labels).save(tmp_path / "l.png")
    Image.fromarray(instances).save(tmp_path / "i.png")
    write_image(tmp_path / "x.png", COLOURS[labels])
    pair = Pair("0", tmp_path / "l.png", tmp_path / "x.png", labels=True, instances=tmp_path / "i.png")
    images = LabelledImages([pair], JointTransform(48, **options), 0, 3, seed=1)  # type: ignore[arg-type]
    seen = set()
    for epoch in range(8):
        sample = images[epoch, 0]
        maps = sample["source"].numpy()
        assert maps.shape == (2, 48, 48) and maps.dtype == np.int32
        assert set(np.unique(maps[0])) <= set(np.unique(labels)) and maps[1].max() <= 4
        shown = (sample["target"].numpy().transpose(1, 2, 0) + 1) * 127.5
        far = np.abs(shown - COLOURS[maps[0]]).max(2) > 3
        assert far.mean() < 0.2, "only at the edges of rectangles"
        seen.add(maps.tobytes())
        assert (images[epoch, 0]["source"].numpy() == maps).all(), "a function of the key"
    assert len(seen) > 1


def test_a_validation_pair_has_the_images_size(tmp_path: Path) -> None:
    write_labelled(tmp_path, 1, 32)
    write_image(tmp_path / "train_img" / "0.png", np.zeros((64, 96, 3), np.uint8))
    pair = find_labelled(tmp_path)["train"].pairs[0]
    maps, image = read_labelled_validation_pair(pair, None, "short", 0, 3)
    assert maps.shape == (64, 96, 2) and image.shape == (64, 96, 3)
    assert read_labelled_validation_pair(pair, 16, "short", 0, 1)[0].shape == (16, 24, 2)


def test_the_folder_of_instance_maps_beside_label_maps(tmp_path: Path) -> None:
    for name in ("val_label", "val_inst", "label/test", "inst/test", "alone_label"):
        (tmp_path / name).mkdir(parents=True)
    assert instance_folder(tmp_path / "val_label") == tmp_path / "val_inst"
    assert instance_folder(tmp_path / "label" / "test") == tmp_path / "inst" / "test"
    assert instance_folder(tmp_path / "alone_label") is None and instance_folder(tmp_path / "val_inst") is None
