from typing import Any

import pytest
import torch

from img2img.losses.augment import augment, warp


def test_nothing_is_changed_without_kinds() -> None:
    images = torch.randn(2, 3, 16, 16)
    same, given = augment(images, (), images)
    assert same is images and given is images


@pytest.mark.parametrize("kind", ["colour", "translation", "cutout"])
def test_each_image_is_changed_on_its_own_and_differentiably(kind: Any) -> None:
    torch.manual_seed(0)
    one = (torch.rand(1, 3, 16, 16) * 2 - 1).expand(8, -1, -1, -1).clone().requires_grad_(True)
    done, _ = augment(one, [kind])
    assert done.shape == one.shape
    assert len({each.detach().numpy().tobytes() for each in done}) > 4
    done.sum().backward()
    assert one.grad is not None and one.grad.abs().sum() > 0


@pytest.mark.parametrize("kinds", [("translation",), ("cutout",), ("colour", "translation", "cutout")])
def test_what_is_given_gets_the_same_geometry_and_keeps_its_colours(kinds: Any) -> None:
    torch.manual_seed(1)
    places = torch.arange(1.0, 257).view(1, 1, 16, 16).expand(6, 1, -1, -1)
    geometry = tuple(kind for kind in kinds if kind != "colour")
    torch.manual_seed(2)
    images, given = augment(places.clone(), geometry, places.clone())
    assert given is not None and torch.equal(images, given) and not torch.equal(images, places)
    _, given = augment(torch.rand(6, 3, 16, 16), kinds, places.clone())
    assert given is not None
    values = set(given.unique().tolist())
    assert values <= set(range(257)) and 0 in values


def test_colours_change_as_much_as_published_and_no_more() -> None:
    torch.manual_seed(0)
    gray = torch.full((4000, 3, 4, 4), 0.2)
    brightness = augment(gray, ("colour",))[0].mean((1, 2, 3)) - 0.2
    assert brightness.min() == pytest.approx(-0.5, abs=0.01) and brightness.max() == pytest.approx(0.5, abs=0.01)
    flat = torch.tensor([0.3, 0.0, -0.3]).view(1, 3, 1, 1).expand(4000, 3, 4, 4)
    done = augment(flat, ("colour",))[0][:, :, 0, 0]  # of a flat image, saturation times contrast
    strength = (done[:, 0] - done[:, 2]) / 0.6
    assert strength.min() < 0.05 and 2.7 < strength.max() < 3.0 and strength.mean() == pytest.approx(1, abs=0.05)
    waves = torch.tensor([-0.2, 0.2]).repeat(8).view(1, 1, 4, 4).expand(4000, 3, 4, 4)
    done = augment(waves, ("colour",))[0]  # of a gray image, contrast alone
    contrast = (done[:, 0].amax((1, 2)) - done[:, 0].amin((1, 2))) / 0.4
    assert contrast.min() == pytest.approx(0.5, abs=0.01) and contrast.max() == pytest.approx(1.5, abs=0.01)
    alone = torch.stack([torch.full((3, 4, 4), -0.9), torch.full((3, 4, 4), 0.9)]).repeat(50, 1, 1, 1)
    means = augment(alone, ("colour",))[0].mean((1, 2, 3))
    assert means[::2].max() < -0.3 and means[1::2].min() > 0.3, "contrast is about each image's own mean"


def test_a_change_is_made_with_its_probability() -> None:
    torch.manual_seed(0)
    images = torch.rand(2000, 3, 8, 8)
    for kind in ("colour", "translation", "cutout"):
        done, _ = augment(images, (kind,), None, torch.tensor(0.2))  # type: ignore[arg-type]
        changed = (done != images).flatten(1).any(1).float().mean().item()
        assert 0.12 < changed < 0.24, "some translations are by 0 pixels"


def test_translations_reach_an_eighth_and_no_farther() -> None:
    torch.manual_seed(0)
    spot = torch.zeros(2000, 1, 16, 32)
    spot[:, :, 8, 16] = 1
    done, _ = augment(spot, ("translation",))
    _, _, rows, columns = done.nonzero(as_tuple=True)
    assert len(rows) == 2000
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 10, 12, 20)


def test_the_cutout_is_at_most_half_of_each_side() -> None:
    torch.manual_seed(0)
    done, _ = augment(torch.ones(500, 1, 16, 16), ("cutout",))
    hidden = (done == 0).sum((1, 2, 3))
    assert hidden.max() == 64 and hidden.min() >= 16


def test_warping_turns_scales_and_moves_a_little_and_keeps_the_border() -> None:
    torch.manual_seed(0)
    constant = torch.full((20, 3, 16, 16), -0.7)
    assert torch.allclose(warp(constant), constant), "the border's colour comes in"
    spot = torch.full((500, 1, 64, 64), -1.0)
    spot[:, :, 31:33, 31:33] = 1
    done = warp(spot) + 1
    places, mass = torch.arange(64.0) - 31.5, done.sum((1, 2, 3))
    for axis in ((1, 2), (1, 3)):  # rows are left
        moved = (done.sum(axis) * places).sum(1) / mass
        assert 4 < moved.abs().max() < 20 and moved.mean().abs() < 0.5 and moved.std() > 3.5
    line = torch.full((500, 1, 64, 64), -1.0)
    line[:, :, 31:33] = 1
    done = warp(line) + 1
    heights = (done * torch.arange(64.0)[:, None]).sum(2) / done.sum(2)  # of the line in each column
    within = heights[:, 0, 16:48] - heights[:, 0, 16:48].mean(1, keepdim=True)
    slope = (within * (torch.arange(32.0) - 15.5)).sum(1, keepdim=True) / ((torch.arange(32.0) - 15.5) ** 2).sum()
    bent = (within - slope * (torch.arange(32.0) - 15.5)).abs().amax(1)
    assert 0.5 < bent.median() < 2.5, "straight lines bend by a few pixels"
    bar = torch.full((500, 1, 64, 64), -1.0)
    bar[:, :, 24:40, 24:40] = 1
    area = (warp(bar) + 1).sum((1, 2, 3)) / 512
    assert 0.3 < area.min() < 0.75 and 1.3 < area.max() < 2.6 and 0.9 < area.median() < 1.1, "scaled, and bent"
