"""DiffAugment: what the discriminator sees is changed at random, real and generated alike, and differentiably."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Augmentation = Literal["colour", "translation", "cutout"]
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
BENDS = 5  # points a side at which the field that bends images is drawn
BENDING = 0.08  # its standard deviation there, of half a side


def augment(
    images: Tensor, kinds: Sequence[Augmentation], given: Tensor | None = None, probability: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Changes each image of a batch at random (Zhao et al. 2020, §3.2).

    ``colour``: brightness ±0.5 (of values in [-1, 1]), saturation × 0–2, contrast × 0.5–1.5. ``translation``: by up to ⅛
    of each side, gray (0) comes in. ``cutout``: a square of half the sides becomes gray.

    Args:
        images: (B, C, H, W) in [-1, 1].
        kinds: which changes, made in the order colour, translation, cutout.
        given: (B, C', H, W), what the images are conditioned on: gets the same translation and cutout, and keeps its colours.
        probability: (), of each change of each image; by default all are made.

    Returns:
        The changed images and the changed `given`; both as they were without `kinds`.
    """
    if "colour" in kinds:
        images = _sometimes(images, _colour(images), probability)
    if "translation" in kinds or "cutout" in kinds:
        channels = images.shape[1]
        both = images if given is None else torch.cat([images, given.to(images.dtype)], dim=1)
        if "translation" in kinds:
            both = _sometimes(both, _translate(both), probability)
        if "cutout" in kinds:
            both = _sometimes(both, _cutout(both), probability)
        images, given = both[:, :channels], None if given is None else both[:, channels:]
    return images, given


def warp(images: Tensor) -> Tensor:
    """Turns each image of a batch by up to 15°, scales it by 0.87 to 1.18, shears it by up to 0.3, moves it by up to a tenth, and bends it.

    Bent is it by a smooth random field (Simard et al. 2003), which moves pixels by some 4 % of a side.

    Args:
        images: (B, C, H, W) in [-1, 1]; what comes in at the border is the border's colour.
    """

    def uniform(most: float) -> Tensor:
        return (2 * torch.rand(len(images), device=images.device) - 1) * most

    angle, shear, scale = uniform(math.radians(15)), uniform(0.3), 1 + uniform(0.15)
    row, column = torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)
    turned = torch.stack([row, column], 1) * scale[:, None, None]
    turned = torch.stack([turned[..., 0], turned[..., 1] + shear[:, None] * turned[..., 0]], 2)
    moved = torch.stack([uniform(0.2), uniform(0.2)], 1)[..., None]  # of half a side
    grid = F.affine_grid(torch.cat([turned, moved], 2), list(images.shape), align_corners=False)
    bent = BENDING * torch.randn(len(images), 2, BENDS, BENDS, device=images.device)
    bent = F.interpolate(bent, size=images.shape[2:], mode="bicubic", align_corners=True)
    grid = grid + bent.permute(0, 2, 3, 1)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False).to(images.dtype)


def _sometimes(images: Tensor, changed: Tensor, probability: Tensor | None) -> Tensor:
    if probability is None:
        return changed
    return torch.where(torch.rand(len(images), 1, 1, 1, device=images.device) < probability, changed, images)


def _colour(images: Tensor) -> Tensor:
    def uniform() -> Tensor:
        return torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)

    images = images + (uniform() - 0.5)
    gray = images.mean(dim=1, keepdim=True)
    images = gray + (images - gray) * (2 * uniform())
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (0.5 + uniform())


def _translate(images: Tensor) -> Tensor:
    count, _, height, width = images.shape
    rows = torch.arange(height, device=images.device) - _shift(count, height, images)  # (B, height)
    columns = torch.arange(width, device=images.device) - _shift(count, width, images)  # (B, width)
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None, None, :]
    image = torch.arange(count, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[
        image, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    ]
    return moved.permute(0, 3, 1, 2) * inside


def _shift(count: int, side: int, images: Tensor) -> Tensor:
    most = int(side / 8 + 0.5)
    return torch.randint(-most, most + 1, (count, 1), device=images.device)


def _cutout(images: Tensor) -> Tensor:
    count, _, height, width = images.shape

    def hidden(side: int) -> Tensor:
        length = int(side / 2 + 0.5)
        first = torch.randint(0, side + (1 - length % 2), (count, 1), device=images.device) - length // 2
        places = torch.arange(side, device=images.device)
        return (places >= first) & (places < first + length)  # (B, side)

    return images * ~(hidden(height)[:, None, :, None] & hidden(width)[:, None, None, :])
