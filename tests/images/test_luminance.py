from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2img.images import convert_channels
from img2img.images.arrays import LUMA
from img2img.images.luminance import add_colours


def draw_colours(seed: int, shape: tuple[int, int], strength: float) -> Any:
    """Differences of random colours from their luminance, (H, W, 3)."""
    change = np.random.default_rng(seed).normal(size=(*shape, 3)) * strength
    return (change - (change @ np.array(LUMA))[..., None]).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    strength=st.sampled_from([0.0, 0.01, 0.3, 5.0]),
    scale=st.sampled_from([(1, 1), (2, 3), (40, 40)]),
)
def test_the_luminance_stays_bit_for_bit(seed: int, dtype: Any, strength: float, scale: tuple[int, int]) -> None:
    height, width = 12 * scale[0], 10 * scale[1]
    gray = np.random.default_rng(seed + 1).integers(0, np.iinfo(dtype).max + 1, (height, width, 1)).astype(dtype)
    gray[:2, :, 0] = [[0], [np.iinfo(dtype).max]]
    coloured = add_colours(gray, draw_colours(seed, (12, 10), strength))
    assert coloured.shape == (height, width, 3) and coloured.dtype == dtype
    assert np.array_equal(convert_channels(coloured, 1), gray)


def test_a_colour_that_rgb_can_show_is_made() -> None:
    wanted = np.array([200.0, 60.0, 90.0])
    luminance = float(wanted @ np.array(LUMA))
    gray = np.full((3, 4, 1), round(luminance), np.uint8)
    colours = np.tile(((wanted - luminance) / 255).astype(np.float32), (3, 4, 1))
    assert np.abs(add_colours(gray, colours).astype(int) - wanted).max() <= 2


def test_a_colour_that_it_cant_show_keeps_its_hue() -> None:
    """Of a light gray, a strong red becomes pink: green and blue stay equal."""
    gray = np.full((2, 2, 1), 200, np.uint8)
    strong = np.tile(np.array([2 * 0.701, -2 * 0.299, -2 * 0.299], np.float32), (2, 2, 1))
    made = add_colours(gray, strong).astype(int)
    assert made[0, 0, 0] == 255 and abs(made[0, 0, 1] - made[0, 0, 2]) <= 1 and made[0, 0, 1] < 200


def test_white_and_black_have_no_colour() -> None:
    gray = np.array([[[0], [65535]]], np.uint16)
    assert np.array_equal(add_colours(gray, draw_colours(0, (1, 2), 1.0)), np.repeat(gray, 3, axis=2))


def test_without_colours_it_stays_gray() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert np.array_equal(add_colours(gray, np.zeros((4, 4, 3), np.float32)), np.repeat(gray, 3, axis=2))


def test_floats_keep_it_as_exactly_as_they_can() -> None:
    gray = np.random.default_rng(0).random((9, 7, 1)).astype(np.float32)
    rounded = draw_colours(1, (9, 7), 0.5) + np.float32(0.004)  # as half precision leaves them
    coloured = add_colours(gray, rounded)
    assert coloured.dtype == np.float32 and coloured.min() >= 0 and coloured.max() <= 1
    assert np.abs(convert_channels(coloured, 1) - gray).max() < 1e-6
    assert np.ptp(coloured, axis=2).max() > 0.1


@pytest.mark.parametrize("size", [(64, 64), (4, 4)])
def test_colours_of_another_resolution_lie_where_they_belong(size: tuple[int, int]) -> None:
    """Red on the left and blue on the right, whichever is larger."""
    colours = np.zeros((16, 16, 3), np.float32)
    colours[:, :8], colours[:, 8:] = (
        (0.3, -0.3 * 0.299 / 0.701, -0.3 * 0.299 / 0.701),
        (-0.1, -0.1, 0.413 / 0.114 * 0.1),
    )
    made = add_colours(np.full((*size, 1), 128, np.uint8), colours).astype(int)
    left, right = made[:, 0], made[:, -1]
    assert (left[:, 0] > left[:, 2] + 40).all() and (right[:, 2] > right[:, 0] + 40).all()
