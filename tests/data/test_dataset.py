from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data import picture

from img2img.core.errors import UserError
from img2img.data import paired as room
from img2img.data.base import Pair
from img2img.data.paired import PairedImages, find_pairs, read_pair, read_validation_pair
from img2img.data.transforms import JointTransform, derive_source, scale_size
from img2img.images import resize, write_image


def marked(size: int = 40) -> Any:
    """Each pixel tells its own place, so that geometry can be compared between two images."""
    y, x = np.mgrid[0:size, 0:size]
    return np.stack([x, y, x + y], -1).astype(np.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {"jitter": 1.5},
        {"flip": 1.0},
        {"vertical_flip": 1.0},
        {"rotate": 30.0},
        {"quarter_turns": True},
        {"resize": "none"},
        {"resize": "stretch"},
    ],
    ids=str,
)
def test_source_and_target_get_the_same_geometry(options: dict[str, Any]) -> None:
    transform = JointTransform(24, **options)
    changed = 0
    for seed in range(5):
        source, target = transform(marked(), marked(), seed)
        assert source.shape == (24, 24, 3)
        assert np.array_equal(source, target)
        again, _ = transform(marked(), marked(), seed)
        assert np.array_equal(source, again), "the same seed must give the same image"
        changed += not np.array_equal(source, transform(marked(), marked(), seed + 100)[0])
    assert changed or options in ({"flip": 1.0}, {"vertical_flip": 1.0}) or changed


def test_the_papers_jitter_is_286_for_256() -> None:
    assert JointTransform(256).load_size == 286
    assert JointTransform(128).load_size == 143


def test_flips_happen_as_often_as_asked() -> None:
    image = marked(24)
    plain = {"jitter": 1.0}
    flipped = [
        np.array_equal(JointTransform(24, flip=0.5, **plain)(image, image, s)[0], image[:, ::-1]) for s in range(200)
    ]
    assert 60 < sum(flipped) < 140
    assert np.array_equal(JointTransform(24, flip=0, **plain)(image, image, 1)[0], image)


@pytest.mark.parametrize("options", [{"flip": 0.5, "vertical_flip": 0.5}, {"flip": 0, "quarter_turns": True}], ids=str)
def test_no_random_change_tells_another(options: dict[str, Any]) -> None:
    """Else a network could read from the brightness which part of the image it sees."""
    transform = JointTransform(24, jitter=1.5, colour_jitter=0.5, **options)
    constant, draws = np.full((36, 36, 3), 128, np.uint8), []
    for seed in range(600):
        source, target = transform(constant, marked(36), seed * 7919)
        along, down = (target[0, -1] - target[0, 0]).astype(np.int8), (target[-1, 0] - target[0, 0]).astype(np.int8)
        corner = target.reshape(-1, 3).min(0)
        draws.append([corner[0], corner[1], along[0] + 2 * along[1], down[1] + 2 * down[0], source.mean()])
    correlations = np.corrcoef(np.asarray(draws, float).T) - np.eye(5)
    if "quarter_turns" in options:
        correlations[2:4, 2:4] = 0  # both tell the turn
    assert np.abs(correlations).max() < 0.2
    assert len({draw[0] for draw in draws}) == len({draw[1] for draw in draws}) == 13, "all places of the crop"
    assert len({tuple(draw[2:4]) for draw in draws}) == 4, "all flips, or all turns"


def test_colour_jitter_changes_the_source_alone() -> None:
    image = picture(24, 24)
    source, target = JointTransform(24, jitter=1, flip=0, colour_jitter=0.5)(image, image, 3)
    assert np.array_equal(target, image) and not np.array_equal(source, image)


def test_colour_jitter_changes_hue_and_saturation() -> None:
    image = np.zeros((24, 24, 3), np.uint8)
    image[:] = 200, 90, 90
    jitter = JointTransform(24, jitter=1, flip=0, colour_jitter=0.5)
    done = np.array([jitter(image, image, seed)[0][0, 0].astype(int) for seed in range(30)])
    assert (np.abs(done[:, 1] - done[:, 2]) > 10).mean() > 0.5, "the hue"


def test_colour_jitter_leaves_alpha_alone() -> None:
    image = picture(24, 24, 4)
    source, _ = JointTransform(24, jitter=1, flip=0, colour_jitter=0.5)(image, image, 3)
    assert np.array_equal(source[..., 3], image[..., 3]) and not np.array_equal(source, image)


def test_differing_sizes_within_a_pair_are_brought_together() -> None:
    big, small = marked(80), marked(40)
    source, target = JointTransform(40, jitter=1, flip=0)(big, small, 0)
    assert source.shape == target.shape == (40, 40, 3)


def test_scaling_keeps_the_aspect_and_covers_the_size() -> None:
    assert scale_size((100, 200), 50, "short") == (50, 100)
    assert scale_size((100, 200), 50, "stretch") == (50, 50)
    assert scale_size((100, 200), 50, "none") == (100, 200)
    assert resize(marked(40), 40, 40) is not None


def test_images_smaller_than_the_crop_are_padded_without_resizing() -> None:
    source, _ = JointTransform(32, resize="none")(marked(20), marked(20), 0)
    assert source.shape == (32, 32, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_derived_sources(dtype: Any) -> None:
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    target = np.zeros((32, 32, 3), dtype)
    target[8:24, 8:24] = white
    gray = derive_source(target, "gray")
    assert gray.shape == (32, 32, 1) and gray.dtype == dtype and gray[16, 16] == white and gray[0, 0] == 0
    edges = derive_source(target, "edges")
    assert edges.dtype == dtype and edges[16, 16] == white and edges[16, 6:10].min() == 0
    low = derive_source(target, "lowres")
    assert low.shape == target.shape and low.dtype == dtype
    noise = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
    assert derive_source(noise, "lowres").std() < noise.std() / 2


def test_tensors_are_in_range_and_a_function_of_the_key(pairs: Path) -> None:
    found = find_pairs(pairs)["train"].pairs
    data = PairedImages(found, JointTransform(16), 3, 3, seed=5)
    sample = data[2, 1]
    assert sample["source"].shape == (3, 16, 16) and sample["source"].dtype == torch.float32
    assert torch.equal(sample["source"], data[2, 1]["source"])
    assert not torch.equal(sample["source"], data[3, 1]["source"]), "another epoch is transformed otherwise"
    assert torch.allclose(sample["source"], -sample["target"], atol=0.05), "targets are inverted sources"
    assert -1 <= sample["source"].min() < 0 < sample["source"].max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_and_depths(tmp_path: Path, channels: int, dtype: Any) -> None:
    if channels == 2 and dtype == np.uint16:
        pytest.skip("16-bit gray with alpha is stored as RGBA")
    image = picture(16, 16, channels, dtype=dtype)
    write_image(tmp_path / "a.png", image)
    pair = Pair("a", tmp_path / "a.png", tmp_path / "a.png")
    data = PairedImages([pair], JointTransform(16, jitter=1, flip=0), channels, channels, seed=0)
    expected = image.transpose(2, 0, 1) / np.iinfo(dtype).max * 2 - 1
    assert np.allclose(data[0, 0]["target"].numpy(), expected, atol=1e-5)


def test_a_side_by_side_image_of_odd_width_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "odd.png", picture(8, 15))
    with pytest.raises(UserError, match=r"odd\.png"):
        read_pair(Pair("odd", tmp_path / "odd.png", tmp_path / "odd.png", half="AB"))


def test_validation_pairs_are_whole(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(20, 41))
    pair = Pair("a", tmp_path / "a.png", tmp_path / "a.png")
    source, target = read_validation_pair(pair, None, "short", 3, 1)
    assert source.shape == (20, 41, 3) and target.shape == (20, 41, 1)
    source, target = read_validation_pair(pair, 10, "short", 3, 3)
    assert source.shape == target.shape == (10, 20, 3)
    derived = Pair("a", tmp_path / "a.png", tmp_path / "a.png", derive="gray")
    assert read_validation_pair(derived, None, "short", 1, 3)[0].shape == (20, 41, 1)


def test_images_that_are_wider_than_high() -> None:
    for shape, how in (((100, 200), "short"), ((30, 31), "short"), ((300, 40), "stretch"), ((50, 90), "none")):
        image = picture(*shape)
        source, target = JointTransform(16, width=32, resize=how)(image, image, 5)  # type: ignore[arg-type]
        assert source.shape == target.shape == (16, 32, 3)
        assert JointTransform(16, width=32, resize=how).apply_to_one(image, 5).shape == (16, 32, 3)  # type: ignore[arg-type]
    assert scale_size((100, 200), 50, "short", 100) == (50, 100) == scale_size((100, 200), 50, "stretch", 100)
    assert scale_size((100, 100), 50, "short", 100) == (100, 100), "it covers the crop"
    assert scale_size((100, 400), 50, "short", 100) == (50, 200)


def test_large_jpegs_are_decoded_smaller_and_look_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, side in enumerate("AB"):
        write_image(tmp_path / f"train{side}" / "0.jpg", picture(512, 512, seed=number))
    pairs = find_pairs(tmp_path)["train"].pairs
    transform, key = JointTransform(64), (0, 0)
    seen: list[Any] = []
    real = room.read_image
    monkeypatch.setattr(room, "read_image", lambda *given: (seen.append(real(*given)), seen[-1])[1])
    fast = PairedImages(pairs, transform, 3, 3, 0)[key]
    assert [image.shape[0] for image in seen] == [128, 128]
    monkeypatch.setattr(room, "read_image", lambda file, *others: real(file))
    whole = PairedImages(pairs, transform, 3, 3, 0)[key]
    assert all((fast[side] - whole[side]).abs().mean() < 0.02 for side in fast)
    assert JointTransform(64, resize="none").enough is None
