from pathlib import Path

import numpy as np
from helpers.data import picture, write_pairs

from img2img.data.base import DataReport
from img2img.data.paired import check_pairs, find_pairs
from img2img.images import write_image


def check(folder: Path) -> DataReport:
    return check_pairs(find_pairs(folder))


def test_a_clean_data_set_has_no_problems(pairs: Path) -> None:
    report = check(pairs)
    assert report.problems == []
    assert report.splits == {"train": 6, "val": 2}
    assert (report.in_channels, report.out_channels) == (3, 3)
    assert report.sizes == "16×16 (8)"


def test_unmatched_stems_are_named(pairs: Path) -> None:
    write_image(pairs / "trainA" / "lonely.png", picture(16, 16))
    report = check(pairs)
    assert report.errors == [] and "lonely.png" in report.warnings[0]


def test_names_that_stand_twice_are_left_out(pairs: Path) -> None:
    write_image(pairs / "trainA" / "3.bmp", picture(16, 16))
    report = check(pairs)
    assert report.splits["train"] == 5
    assert [text for text in report.warnings if "several files have the same name" in text and ": 3." in text]


def test_unreadable_files_are_errors(pairs: Path) -> None:
    (pairs / "trainB" / "3.png").write_bytes(b"\x89PNG broken")
    report = check(pairs)
    assert len(report.errors) == 1 and "3.png" in report.errors[0]


def test_no_pairs_at_all_is_an_error(tmp_path: Path) -> None:
    write_image(tmp_path / "trainA" / "a.png", picture(16, 16))
    write_image(tmp_path / "trainB" / "b.png", picture(16, 16))
    assert "no file has a partner" in check(tmp_path).errors[0]
    (tmp_path / "trainA" / "a.png").unlink()
    (tmp_path / "trainB" / "b.png").unlink()
    assert "there are no images" in check(tmp_path).errors[0]


def test_differing_sizes_within_a_pair(pairs: Path) -> None:
    write_image(pairs / "trainB" / "0.png", picture(32, 32, seed=77))
    write_image(pairs / "trainB" / "1.png", picture(16, 40, seed=78))
    report = check(pairs)
    assert report.errors == []
    assert any("differ in size" in text and "2 pairs" in text for text in report.warnings)
    assert any("differ in shape" in text and "1: 16×16 and 40×16" in text for text in report.warnings)


def test_mixed_channels_and_depths(pairs: Path) -> None:
    write_image(pairs / "trainA" / "0.png", picture(16, 16, 1))
    write_image(pairs / "trainA" / "1.png", picture(16, 16, 3, dtype=np.uint16))
    report = check(pairs)
    assert any("7 of RGB, 1 of gray" in text for text in report.warnings)
    assert any("16 bits" in text for text in report.warnings)
    assert report.in_channels == 3


def test_channels_are_those_of_the_data(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / "trainA" / f"{number}.png", picture(16, 16, 1, number))
        write_image(tmp_path / "trainB" / f"{number}.png", picture(16, 16, 4, number))
    report = check(tmp_path)
    assert (report.in_channels, report.out_channels) == (1, 4)


def test_duplicates_across_splits_are_named(pairs: Path) -> None:
    write_image(pairs / "valB" / "6.bmp", picture(16, 16, seed=0))
    (pairs / "valB" / "6.png").unlink()
    write_image(pairs / "trainB" / "0.png", picture(16, 16, seed=0))
    report = check(pairs)
    assert any("target: 1 image is in train and in another split" in text for text in report.warnings)
    assert report.errors == []


def test_side_by_side_images_of_odd_width_and_of_square_shape(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "a.png", picture(16, 17))
    report = check(tmp_path)
    assert any("odd width" in text and "a.png" in text for text in report.errors)
    assert any("hardly wider than high" in text for text in report.warnings)


def test_derived_sources_have_one_channel(tmp_path: Path) -> None:
    data = write_pairs(tmp_path, 2)
    for derive, channels in (("gray", 1), ("edges", 1), ("lowres", 3)):
        report = check_pairs(find_pairs(data / "trainB", derive=derive))  # type: ignore[arg-type]
        assert (report.in_channels, report.out_channels) == (channels, 3)


def test_pairs_of_one_image_are_noticed(pairs: Path) -> None:
    (pairs / "trainB" / "1.png").write_bytes((pairs / "trainA" / "1.png").read_bytes())
    assert any("of 1 pairs are the same image: 1." in text for text in check_pairs(find_pairs(pairs)).warnings)
