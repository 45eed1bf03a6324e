import math
from typing import Any

import numpy as np
import pytest
from helpers.data import picture
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from img2img.core.errors import UserError
from img2img.metrics.paired import finite, mean, score
from img2img.metrics.perceptual import PerceptualDistance


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_scores_are_scikit_images(channels: int, dtype: Any) -> None:
    a, b = picture(20, 30, channels, 1, dtype), picture(20, 30, channels, 2, dtype)
    white = np.iinfo(dtype).max
    scores = score(a, b)
    assert scores["psnr"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=white), rel=1e-9)
    assert scores["ssim"] == pytest.approx(structural_similarity(b, a, channel_axis=2, data_range=white), rel=1e-6)
    assert scores["l1"] == pytest.approx(np.abs(a.astype(float) - b).mean() / white)


def test_equal_and_tiny_images() -> None:
    image = picture(5, 5)
    assert score(image, image, PerceptualDistance()) == {"l1": 0, "psnr": math.inf, "ssim": 1, "perceptual": 0}
    assert finite(score(image, image)) == {"l1": 0, "psnr": None, "ssim": 1, "perceptual": None}
    assert math.isnan(score(image[:1, :1], image[:1, :1])["ssim"])
    assert score(image[:3, :4], image[:3, :4])["ssim"] == 1


def test_kinds_are_brought_together_and_sizes_are_not() -> None:
    rgb, gray = picture(9, 9, 3), picture(9, 9, 1)
    assert score(gray, np.repeat(gray, 3, 2))["l1"] == 0
    assert score(np.repeat(gray, 3, 2), gray)["l1"] < 1e-9
    assert score(gray.astype(np.uint16) * 257, gray)["l1"] == pytest.approx(0)
    clear = np.dstack([rgb, np.zeros((9, 9), np.uint8)])
    assert score(np.full((9, 9, 3), 255, np.uint8), clear)["l1"] == 0, "alpha goes over white"
    with pytest.raises(UserError, match="9×9 and 8×9"):
        score(rgb, rgb[:, :8])


def test_the_mean_is_over_what_is_defined() -> None:
    a: Any = {"l1": 0.2, "psnr": 10.0, "ssim": math.nan, "perceptual": 0.5}
    b: Any = {"l1": 0.4, "psnr": 20.0, "ssim": 0.5, "perceptual": 0.1}
    assert mean([a, b]) == pytest.approx({"l1": 0.3, "psnr": 15.0, "ssim": 0.5, "perceptual": 0.3})
