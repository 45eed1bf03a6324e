"""Scores see what people see: what a person hardly notices scores better than what spoils a picture."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from helpers.data import picture
from scipy.ndimage import gaussian_filter

from img2img.data.synthetic import draw_data_set
from img2img.images import Array, read_image
from img2img.metrics.distribution import distances, features
from img2img.metrics.paired import score
from img2img.metrics.perceptual import LONGEST, LiteFeatures, PerceptualDistance, prepare_image, scale_down

CPU, SIZE = torch.device("cpu"), 64


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Array], list[Array]]:
    """Two sets of pictures of one kind."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_data_set(folder, 96, 96, SIZE, 0)
    return tuple([read_image(file) for file in sorted((folder / side).iterdir())] for side in ("trainB", "testB"))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def extractor() -> LiteFeatures:
    return LiteFeatures()


def shift(image: Array, pixels: int = 2) -> Array:
    """What comes in continues the edge."""
    return np.pad(image, ((pixels, 0), (pixels, 0), (0, 0)), "edge")[:SIZE, :SIZE]


def draw_dots(image: Array) -> Array:
    random, spoilt = np.random.default_rng(int(image.sum())), image.copy()
    for row, column in random.integers(0, SIZE - 3, (4, 2)):
        spoilt[row : row + 3, column : column + 3] = random.integers(0, 255, 3)
    return spoilt


def draw_checkerboard(image: Array) -> Array:
    rows, columns = np.indices(image.shape[:2])
    return np.clip(image + np.where((rows + columns) % 2, 6.0, -6.0)[..., None], 0, 255).astype(np.uint8)


def blur(image: Array) -> Array:
    return gaussian_filter(image, (2, 2, 0))


def draw_cloud(image: Array) -> Array:
    rows, columns = np.indices(image.shape[:2])
    row, column = np.random.default_rng(int(image.sum())).integers(0, SIZE, 2)
    cloud = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 10**2))
    return (image * (1 - 0.35 * cloud)[..., None]).astype(np.uint8)


SPOILT: list[Callable[[Array], Array]] = [draw_dots, draw_checkerboard, blur, draw_cloud]


def test_sets_are_ordered_as_people_would(pictures: tuple[list[Array], list[Array]], extractor: LiteFeatures) -> None:
    truth, images = pictures
    real = features(extractor, truth, CPU)
    scores = {
        each.__name__: distances(features(extractor, [each(image) for image in images], CPU), real)
        for each in (np.asarray, shift, *SPOILT)
    }
    for measure in ("kid", "fid"):
        unspoilt = max(scores[name][measure] for name in ("asarray", "shift"))
        assert all(scores[each.__name__][measure] > unspoilt for each in SPOILT), scores


def test_pairs_are_ordered_as_people_would(pictures: tuple[list[Array], list[Array]]) -> None:
    """A blur looks worse than the picture itself moved by a pixel."""
    truth, distance = pictures[0][:12], PerceptualDistance()
    ways = partial(shift, pixels=1), blur
    shifted, blurred = ([score(each(image), image, distance) for image in truth] for each in ways)
    mean = {
        name: [np.mean([each[name] for each in scores]) for scores in (shifted, blurred)]  # type: ignore[literal-required]
        for name in ("l1", "perceptual")
    }
    assert mean["perceptual"][0] < mean["perceptual"][1]
    assert score(truth[0], truth[0], distance)["perceptual"] == 0
    assert all(distance(each(truth[0]), truth[0]) > 0.001 for each in SPOILT)


def test_any_kind_and_size_of_image_has_a_distance_and_features(extractor: LiteFeatures) -> None:
    distance = PerceptualDistance()
    for channels in (1, 2, 3, 4, 5, 7):
        for dtype in (np.uint8, np.uint16):
            image, other = (picture(9, 12, channels, dtype=dtype, seed=seed) for seed in (0, 1))
            assert 0 < distance(image, other) < 4
    for height, width in ((1, 1), (3, 40), (1, LONGEST + 200)):
        found = features(extractor, [picture(height, width)], CPU)
        assert found.shape == (1, 1088) and found.isfinite().all()


def test_large_images_are_shrunk_without_aliases_and_alpha_goes_over_white() -> None:
    _, columns = np.indices((4, 3 * LONGEST))
    stripes = torch.from_numpy(np.where(columns % 2, 1.0, -1.0)).float().expand(1, 3, -1, -1)
    assert scale_down(stripes).abs().mean() < 0.2, "stripes of a pixel become gray"
    clear = np.dstack([picture(8, 8), np.zeros((8, 8), np.uint8)])
    assert (prepare_image(clear) == 255).all()


def test_eight_and_sixteen_bits_look_alike(extractor: LiteFeatures) -> None:
    image = picture(20, 30)
    assert PerceptualDistance()(image, image.astype(np.uint16) * 257) < 1e-6


def test_features_are_the_mean_and_the_deviation_of_each_stage_at_two_sizes(extractor: LiteFeatures) -> None:
    images = torch.from_numpy(np.stack([picture(40, 30, seed=seed) for seed in range(2)])).permute(0, 3, 1, 2)
    found, x = extractor(images), images.float() / 127.5 - 1
    half = torch.nn.functional.interpolate(x, (20, 15), mode="bilinear", antialias=True, align_corners=False)
    wanted = []
    for each in (x, half):
        for stage in extractor.network(each):
            centred = stage - stage.mean((2, 3), keepdim=True)
            wanted += [stage.mean((2, 3)), centred.square().mean((2, 3)).sqrt()]
    assert torch.allclose(found, torch.cat(wanted, 1), atol=1e-4)
