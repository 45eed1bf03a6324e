from pathlib import Path

import numpy as np

from img2img.data.paired import check_pairs, find_pairs
from img2img.data.synthetic import COLOURS, _mask, draw_data_set, draw_pair
from img2img.images import read_image
from img2img.metrics.paired import score


def test_drawings_are_a_data_set_without_problems(tmp_path: Path) -> None:
    draw_data_set(tmp_path, 4, 3, size=32)
    report = check_pairs(find_pairs(tmp_path))
    assert report.problems == [] and report.splits == {"train": 4, "test": 3}


def test_equal_seeds_draw_equal_pictures(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        draw_data_set(tmp_path / folder, 2, 1, size=32, seed=7)
    for name in ("trainA/0001.png", "trainB/0000.png", "testB/0000.png"):
        assert np.array_equal(read_image(tmp_path / "a" / name), read_image(tmp_path / "b" / name))
    assert not np.array_equal(read_image(tmp_path / "a/trainB/0000.png"), read_image(tmp_path / "a/testB/0000.png"))


def test_a_copy_of_the_input_scores_badly() -> None:
    scores = [score(*draw_pair(64, np.random.default_rng(seed))) for seed in range(8)]
    assert max(each["psnr"] for each in scores) < 6


def test_every_kind_is_drawn_inside_the_picture() -> None:
    for kind in COLOURS:
        mask = _mask(kind, 128, 0.5, 0.5, 0.38, np.random.default_rng(0))
        assert 0.02 < mask.mean() < 0.6, kind
        assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == 0, kind
