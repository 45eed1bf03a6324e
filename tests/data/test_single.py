"""Data sets of one kind of images, with and without classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data import picture

from img2img.core.errors import UsageError
from img2img.data.base import DataConfig
from img2img.data.class_folders import (
    ClassFolderData,
    ClassImages,
    check_class_folders,
    find_class_folders,
    hold_out_files,
    read_plain_images,
)
from img2img.data.transforms import JointTransform
from img2img.data.unpaired import UnpairedData
from img2img.images import write_image


def fill(folder: Path, count: int, first: int = 0, channels: int = 3) -> Path:
    for number in range(first, first + count):
        write_image(folder / f"{number}.png", picture(16, 16, channels, seed=number))
    return folder


def test_folders_are_classes_if_all_images_lie_in_them(tmp_path: Path) -> None:
    for number, name in enumerate(("2", "10", "cat")):
        fill(tmp_path / "train" / name, 2, 10 * number)
        fill(tmp_path / "val" / name, 1, 10 * number + 5)
    found = find_class_folders(tmp_path)
    assert list(found) == ["train", "val"] and found["train"].classes == ("2", "10", "cat"), "as people count"
    assert [file.parent.name for file in found["train"].files] == [
        found["train"].classes[n] for n in found["train"].labels
    ]
    assert sorted(found["val"].labels) == [0, 1, 2]
    fill(tmp_path / "train", 1, 90)
    with pytest.raises(UsageError, match="holds no images"):
        (tmp_path / "empty").mkdir()
        find_class_folders(tmp_path / "empty")
    assert find_class_folders(tmp_path)["train"].classes == (), "a loose image belongs to no class"


def test_any_folder_is_a_training_set(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "er", 3)
    found = find_class_folders(tmp_path)
    assert list(found) == ["train"] and len(found["train"].files) == 3 and not found["train"].classes


def test_a_class_that_train_does_not_have_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(tmp_path / "train" / name, 1)
    fill(tmp_path / "val" / "c", 1)
    with pytest.raises(UsageError, match=r"val: c is no class of train, which has a, b"):
        find_class_folders(tmp_path)


def test_samples_are_a_function_of_seed_epoch_and_index(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        fill(tmp_path / name, 2, 10 * number)
    folder = find_class_folders(tmp_path)["train"]
    images = ClassImages(folder, JointTransform(8, jitter=1.5, flip=0.5), 1, seed=3)
    one, again, later = images[0, 3], images[0, 3], images[1, 3]
    assert torch.equal(one["target"], again["target"]) and not torch.equal(one["target"], later["target"])
    assert one["target"].shape == (1, 8, 8) and one["label"].item() == 1 and one["label"].dtype == torch.int64


def test_some_can_be_held_out(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        fill(tmp_path / name, 5, 10 * number)
    folder = find_class_folders(tmp_path)["train"]
    rest, held = hold_out_files(folder, 0.4)
    assert len(rest.files) == 6 and len(held.files) == 4 and not set(rest.files) & set(held.files)
    assert sorted(held.labels) == [0, 0, 1, 1], "from every class"
    assert all(file.parent.name == held.classes[n] for file, n in zip(held.files, held.labels, strict=True))
    with pytest.raises(UsageError, match="too few"):
        hold_out_files(folder, 0.99)


@pytest.mark.parametrize("held_out", [False, True])
def test_of_what_is_trained_on_a_sample_is_looked_at(
    held_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("img2img.data.class_folders.SAMPLE", 4)
    monkeypatch.setattr("img2img.data.unpaired.SAMPLE", 3)
    for number, name in enumerate(("a", "b")):
        for split in ("train", "val")[: 1 + held_out]:
            fill(tmp_path / "classes" / split / name, 5, 10 * number)
            fill(tmp_path / "unpaired" / f"{split}{name.upper()}", 5 + number, 10 * number)
    data = ClassFolderData(DataConfig(path=tmp_path / "classes"))
    data.divide(0)
    looked = data.validation_set("")
    assert len(looked.pairs) == len(looked.targets) == len(looked.labels) == (10 if held_out else 4)
    assert [int(file.parent.name == "b") for file in looked.targets] == list(looked.labels)
    assert data.length == 10
    sides = UnpairedData(DataConfig(path=tmp_path / "unpaired"))
    sides.divide(0)
    found = sides.validation_set("AtoB")
    assert (len(found.pairs), len(found.targets)) == ((5, 6) if held_out else (3, 3)) and sides.length == 6


def test_the_check_says_what_may_surprise(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "many", 60)
    fill(tmp_path / "train" / "few", 3, 100)
    fill(tmp_path / "val" / "many", 1, 0)  # the same image
    write_image(tmp_path / "train" / "few" / "copy.png", picture(16, 16, seed=1))
    write_image(tmp_path / "train" / "many" / "wide.png", picture(16, 64, seed=500))
    write_image(tmp_path / "train" / "many" / "gray.png", picture(12, 12, 1, seed=501))
    (tmp_path / "train" / "many" / "broken.png").write_bytes(b"no image")
    report = check_class_folders(find_class_folders(tmp_path))
    text = " ".join(report.warnings)
    for part in (
        "only 67 images",
        "fewer than 20 images: few (4)",
        "unequal: 63 images of many, 4 of few",
        "without an image: few in val",
        "1 images are far from square",
        "1 images are smaller than 16",
        "1 image is in train and in another split",
        "1 image is in several classes",
        "channels are mixed",
    ):
        assert part in text, part
    assert len(report.errors) == 1 and "broken.png" in report.errors[0]
    assert (report.in_channels, report.out_channels, report.names) == (3, 3, ("few", "many"))


def test_a_good_set_has_no_problems(tmp_path: Path) -> None:
    for number in range(100):
        write_image(tmp_path / f"{number}.png", np.full((16, 16, 1), number, np.uint8))
    report = check_class_folders(find_class_folders(tmp_path))
    assert not report.problems and (report.in_channels, report.out_channels, report.sizes) == (1, 1, "16×16 (100)")


def test_real_images_as_they_are_judged(tmp_path: Path) -> None:
    for number in range(9):
        write_image(
            tmp_path / f"{number}.png", np.repeat(np.arange(0, 128, 4, dtype=np.uint8)[None, :, None], 16, 0) + number
        )
    folder = find_class_folders(tmp_path)["train"]
    assert [image.shape for image in read_plain_images(folder.files, 8, "short", 3)] == [(8, 8, 3)] * 9
    few = read_plain_images(folder.files, 8, "stretch", 1, 3)
    first, middle, last = (int(image[0, 0, 0]) for image in few)
    assert (middle - first, last - first) == (4, 8), "at even distances"
    assert np.ptp(few[0].astype(int)) > 1.5 * np.ptp(read_plain_images(folder.files, 8, "short", 1)[0].astype(int)), (
        "all of it, or a crop"
    )
