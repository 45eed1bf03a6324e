from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data import picture, write_pairs, write_unpaired

from img2img.core.errors import UsageError, UserError
from img2img.data.base import DataConfig
from img2img.data.sampler import BatchOrder, permutation
from img2img.data.transforms import JointTransform
from img2img.data.unpaired import UnpairedData, UnpairedImages, check_unpaired, find_unpaired, hold_out_images
from img2img.images import write_image

PLAIN = JointTransform(16, jitter=1, flip=0)


def side(folder: Path, count: int, first: int = 0, size: int = 16) -> Path:
    for number in range(first, first + count):
        write_image(folder / f"{number}.png", picture(size, size, seed=number))
    return folder


def data_set(folder: Path, sources: int, targets: int, seed: int = 0) -> UnpairedImages:
    found = find_unpaired(write_unpaired(folder, sources, targets))["train"]
    return UnpairedImages(found.sources, found.targets, PLAIN, 3, 3, seed)


@pytest.mark.parametrize(
    "names", [("trainA", "trainB"), ("train/A", "train/B"), ("train_A", "train_B"), ("A", "B"), ("A/train", "B/train")]
)
def test_layouts(tmp_path: Path, names: tuple[str, str]) -> None:
    side(tmp_path / names[0], 3)
    side(tmp_path / names[1], 2, first=10)
    found = find_unpaired(tmp_path)
    assert list(found) == ["train"]
    assert (len(found["train"].sources), len(found["train"].targets)) == (3, 2)
    turned = find_unpaired(tmp_path, direction="BtoA")["train"]
    assert (turned.sources, turned.targets) == (found["train"].targets, found["train"].sources)


def test_two_explicit_folders_with_splits(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        side(tmp_path / "horses" / split, count)
        side(tmp_path / "zebras" / split, count + 1, first=50)
    found = find_unpaired(None, source=tmp_path / "horses", target=tmp_path / "zebras")
    assert {name: (len(f.sources), len(f.targets)) for name, f in found.items()} == {"train": (4, 5), "test": (2, 3)}


def test_test_images_do_not_slip_into_training(tmp_path: Path) -> None:
    side(tmp_path / "s" / "train", 2)
    side(tmp_path / "s" / "test", 2, first=5)
    side(tmp_path / "t", 2, first=9)
    for source, target in (("s", "t"), ("t", "s")):
        with pytest.raises(UsageError, match="has a sub-folder train"):
            find_unpaired(None, source=tmp_path / source, target=tmp_path / target)


def test_what_is_no_unpaired_set_is_said(tmp_path: Path) -> None:
    side(tmp_path / "some" / "photos", 2)
    with pytest.raises(UsageError, match="no two folders of images"):
        find_unpaired(tmp_path / "some")
    with pytest.raises(UsageError, match="no such folder"):
        find_unpaired(tmp_path / "nothing")
    side(tmp_path / "half" / "trainA", 2)
    with pytest.raises(UsageError, match="no folder trainB"):
        find_unpaired(tmp_path / "half")
    with pytest.raises(UsageError, match="is one side"):
        find_unpaired(tmp_path / "half" / "trainA")
    with pytest.raises(UsageError, match="either --data"):
        find_unpaired(None, source=tmp_path)


def test_sides_that_happen_to_be_pairs_are_noticed(tmp_path: Path) -> None:
    write_pairs(write_unpaired(tmp_path), 3, split="test", first=30)
    found = find_unpaired(tmp_path)
    assert found["train"].pairs == ()
    assert [pair.name for pair in found["test"].pairs] == ["30", "31", "32"]


def test_an_epoch_is_as_long_as_the_larger_side_and_sees_all_of_both(tmp_path: Path) -> None:
    images = data_set(tmp_path, 3, 8)
    assert len(images) == 8
    for epoch in range(3):
        seen = [images.partners((epoch, index)) for index in range(8)]
        assert sorted(target for _, target in seen) == list(range(8))
        counts = np.bincount([source for source, _ in seen], minlength=3)
        assert sorted(counts) == [2, 3, 3], "partners are used about equally often"
    orders = [[images.partners((epoch, index))[0] for index in range(6)] for epoch in range(20)]
    assert any(order[:3] != order[3:] for order in orders), "each time in another order"
    assert images.partners((1, 5)) == data_set(tmp_path, 3, 8).partners((1, 5)), "a function of (seed, epoch, index)"


def test_nothing_is_paired_by_accident(tmp_path: Path) -> None:
    """Equally many images on both sides, in the same order of names: partners are as random as chance."""
    images = data_set(tmp_path, 20, 20)
    same = [a == b for epoch in range(30) for a, b in (images.partners((epoch, index)) for index in range(20))]
    assert 0.02 < np.mean(same) < 0.09
    partners = [images.partners((epoch, 7))[1] for epoch in range(60)]
    assert len(set(partners)) > 15
    other = data_set(tmp_path, 20, 20, seed=1)
    assert partners != [other.partners((epoch, 7))[1] for epoch in range(60)]


def test_partners_have_nothing_to_do_with_the_order_of_samples(tmp_path: Path) -> None:
    images = data_set(tmp_path, 40, 40)
    order = [key for batch in BatchOrder(40, 1, 0, 400, 0) for key in batch]
    places = [(number % 40, images.partners(key)[1]) for number, key in enumerate(order)]
    assert abs(np.corrcoef(np.array(places).T)[0, 1]) < 0.2
    for epoch in range(3):
        assert [images.partners((epoch, index))[1] for index in range(40)] != permutation(40, 0, epoch).tolist()


def test_each_side_is_transformed_on_its_own(tmp_path: Path) -> None:
    found = find_unpaired(write_unpaired(tmp_path, 2, 2, size=24))["train"]
    images = UnpairedImages(found.sources, found.sources, JointTransform(16, jitter=1.5, flip=0.5), 3, 1, seed=0)
    sample = images[0, 0]
    assert sample["source"].shape == (3, 16, 16) and sample["target"].shape == (1, 16, 16)
    again = images[0, 0]
    assert all(torch.equal(sample[name], again[name]) for name in ("source", "target"))  # type: ignore[literal-required]
    crops = {images[epoch, 0]["source"].numpy().tobytes() for epoch in range(10)}
    assert len(crops) > 5
    alone = UnpairedImages(found.sources[:1], found.sources[:1], JointTransform(16, jitter=1.5, flip=0.5), 3, 3, seed=0)
    pairs = [alone[epoch, 0] for epoch in range(10)]
    alike = [torch.equal(pair["source"], pair["target"]) for pair in pairs]
    assert sum(alike) < 3, "the same image on both sides is cropped in two ways"


@pytest.mark.parametrize("direction", ["", "AtoB", "BtoA"])
def test_a_direction_is_validated_on_the_images_that_it_translates(tmp_path: Path, direction: str) -> None:
    write_unpaired(tmp_path, 3, 2)
    side(tmp_path / "valA", 2)
    side(tmp_path / "valB", 3, 10)
    data = UnpairedData(DataConfig(path=tmp_path))
    data.divide(0)
    held = data.validation_set(direction)
    back = direction == "BtoA"
    assert {pair.source.parent.name for pair in held.pairs} == {"valB" if back else "valA"}
    assert {file.parent.name for file in held.targets} == {"valA" if back else "valB"}
    assert (len(held.pairs), len(held.targets)) == ((3, 2) if back else (2, 3))


def test_an_image_that_went_bad_is_given_as_an_error(tmp_path: Path) -> None:
    images = data_set(tmp_path, 2, 2)
    images.sides[0][0].write_bytes(b"gone")
    outcome = images.__getitems__([(0, 0), (0, 1)])
    assert isinstance(outcome, UserError) and images.sides[0][0].name in str(outcome)


def test_some_of_both_sides_can_be_kept_aside(tmp_path: Path) -> None:
    whole = find_unpaired(write_unpaired(tmp_path, 10, 6))["train"]
    rest, held = hold_out_images(whole, 0.2)
    assert (len(rest.sources), len(rest.targets), len(held.sources), len(held.targets)) == (8, 5, 2, 1)
    assert sorted([*rest.sources, *held.sources]) == whole.sources
    with pytest.raises(UsageError, match="too few"):
        hold_out_images(find_unpaired(write_unpaired(tmp_path / "few", 1, 6))["train"], 0.5)


class TestCheck:
    def test_nothing_is_wrong_with_a_good_set(self, tmp_path: Path) -> None:
        report = check_unpaired(find_unpaired(write_unpaired(tmp_path, 24, 21)))
        assert not report.problems and (report.in_channels, report.out_channels) == (3, 3)

    def test_an_empty_side_is_an_error_and_a_near_empty_one_a_warning(self, tmp_path: Path) -> None:
        (tmp_path / "trainB").mkdir()
        side(tmp_path / "trainA", 30)
        report = check_unpaired(find_unpaired(tmp_path))
        assert len(report.errors) == 1 and "no target images" in report.errors[0]
        side(tmp_path / "trainB", 2, first=90)
        report = check_unpaired(find_unpaired(tmp_path))
        assert not report.errors
        assert "only 2 target images" in report.warnings[0] and "seen 15 times" in report.warnings[1]

    def test_images_of_both_domains(self, tmp_path: Path) -> None:
        write_unpaired(tmp_path, 25, 25)
        write_image(tmp_path / "trainB" / "copy.png", picture(16, 16, seed=3))
        (warning,) = check_unpaired(find_unpaired(tmp_path)).warnings
        assert "1 image is on both sides" in warning and "A3.png" in warning and "copy.png" in warning

    def test_leaks_into_the_test_split(self, tmp_path: Path) -> None:
        write_unpaired(tmp_path, 25, 25)
        side(tmp_path / "testA", 1, first=4)
        side(tmp_path / "testB", 1, first=77)
        (warning,) = check_unpaired(find_unpaired(tmp_path)).warnings
        assert "1 image is in train and in another split" in warning

    def test_wildly_different_sizes(self, tmp_path: Path) -> None:
        side(tmp_path / "trainA", 25, size=16)
        side(tmp_path / "trainB", 24, first=50, size=40)
        write_image(tmp_path / "trainB" / "small.png", picture(9, 9, seed=1))
        warnings = check_unpaired(find_unpaired(tmp_path)).warnings
        assert "differ in sharpness" in warnings[0] and "16" in warnings[0] and "40" in warnings[0]
        assert any("from 9 to 40 pixels" in text for text in warnings)
        assert any("smaller than 16 pixels" in text for text in warnings)

    def test_files_that_cannot_be_read_and_mixed_channels(self, tmp_path: Path) -> None:
        write_unpaired(tmp_path, 25, 25)
        (tmp_path / "trainA" / "bad.png").write_bytes(b"bad")
        write_image(tmp_path / "trainB" / "gray.png", picture(16, 16, 1, seed=400))
        report = check_unpaired(find_unpaired(tmp_path))
        assert len(report.errors) == 1 and "bad.png" in report.errors[0]
        assert any("channels are mixed" in text for text in report.warnings)

    def test_sides_of_different_channels_are_said_with_what_they_need(self, tmp_path: Path) -> None:
        write_unpaired(tmp_path, 25, 25)
        for file in (tmp_path / "trainA").iterdir():
            write_image(file, picture(16, 16, 1, seed=hash(file.name) % 1000))
        warnings = check_unpaired(find_unpaired(tmp_path)).warnings
        assert any(
            "sources are gray and the targets RGB" in text and "--identity-weight 0" in text for text in warnings
        )
