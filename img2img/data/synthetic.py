"""A small paired data set drawn by code: outlines of shapes and letters → filled, shaded, coloured, on a dusky sky."""

import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from img2img.images import Array, write_image

OVERSAMPLING = 4  # drawn so much larger, then averaged
STROKE = 0.03  # width of an outline, as a share of the image
LETTERS = "ABCDEFGHJKLMNPRSTUVXYZ2345789"
COLOURS = {
    "disc": (226, 62, 58),
    "square": (44, 128, 232),
    "triangle": (250, 160, 36),
    "star": (255, 214, 46),
    "hexagon": (72, 178, 84),
    "heart": (240, 96, 160),
    "ring": (250, 118, 66),
    "moon": (214, 220, 236),
    "cross": (36, 190, 186),
    "letter": (186, 130, 246),
}
LIGHT = np.array([-0.5, -0.6, 0.62])  # towards the light: left, up, out of the picture
SKY = np.array([[24, 34, 72], [112, 78, 128]])  # top and bottom


def draw_data_set(folder: Path, train: int, held_out: int, size: int = 64, seed: int = 0) -> None:
    """Writes trainA trainB testA testB: pairs of one name, A the outline, B the picture.

    Args:
        folder: where to; made if need be.
        train: pairs in the train split.
        held_out: pairs in the test split, drawn from other random numbers.
        seed: equal seeds draw equal pictures.
    """
    for split, count in (("train", train), ("test", held_out)):
        for number in range(count):
            random = np.random.default_rng([seed, split == "test", number])
            outline, picture = draw_pair(size, random)
            write_image(folder / f"{split}A" / f"{number:04d}.png", outline)
            write_image(folder / f"{split}B" / f"{number:04d}.png", picture)


def draw_pair(size: int, random: np.random.Generator) -> tuple[Array, Array]:
    """One pair: outline and picture, (size, size, 3) uint8. What a thing is decides its colour; light comes from the upper left."""
    side = size * OVERSAMPLING
    outline = np.full((side, side, 3), 255.0)
    picture = np.repeat(np.linspace(SKY[0], SKY[1], side)[:, None], side, axis=1)
    for x, y, radius in _places(random):
        kind = str(random.choice(list(COLOURS)))
        mask = _mask(kind, side, x, y, radius, random)
        outline = _draw_outline(outline, mask, side)
        picture = _shade(picture, mask, np.array(COLOURS[kind], float), radius * side)
    return _reduce(outline, size), _reduce(picture, size)


def _places(random: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centres and radii, as shares of the image, of things that don't touch: one, two, three or four."""
    count = int(random.choice([1, 1, 2, 2, 3, 4]))
    if count == 1:
        return [(0.5 + random.uniform(-0.08, 0.08), 0.5 + random.uniform(-0.08, 0.08), random.uniform(0.24, 0.34))]
    if count == 2:
        return [(x, 0.5 + random.uniform(-0.2, 0.2), random.uniform(0.17, 0.22)) for x in (0.26, 0.74)]
    cells = random.permutation([(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)])[:count]
    return [
        (x + random.uniform(-0.03, 0.03), y + random.uniform(-0.03, 0.03), random.uniform(0.15, 0.2)) for x, y in cells
    ]


def _mask(kind: str, side: int, x: float, y: float, radius: float, random: np.random.Generator) -> Array:
    """Where a thing is: (side, side) in [0, 1]."""
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    cx, cy, r = x * side, y * side, radius * side
    turn = random.uniform(-0.35, 0.35)
    if kind == "letter":
        font = ImageFont.load_default(1.9 * r)
        letter = LETTERS[random.integers(len(LETTERS))]
        draw.text((cx, cy), letter, fill=255, font=font, anchor="mm", stroke_width=r * 0.06)
    elif kind in ("disc", "ring", "moon"):
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=255)
        if kind == "ring":
            draw.ellipse((cx - r / 2, cy - r / 2, cx + r / 2, cy + r / 2), fill=0)
        if kind == "moon":
            dx, dy = 0.5 * r * math.cos(turn), 0.5 * r * math.sin(turn)
            draw.ellipse((cx + dx - 0.8 * r, cy + dy - 0.8 * r, cx + dx + 0.8 * r, cy + dy + 0.8 * r), fill=0)
    else:
        points = _outline_of(kind)
        c, s = math.cos(turn), math.sin(turn)
        draw.polygon([(cx + r * (c * px - s * py), cy + r * (s * px + c * py)) for px, py in points], fill=255)
    return np.asarray(image) / 255.0


def _outline_of(kind: str) -> list[tuple[float, float]]:
    """Corners of a shape within the unit circle, y downwards."""
    if kind == "star":
        return [_on_circle(k / 10, 1 if k % 2 == 0 else 0.45) for k in range(10)]
    if kind == "cross":
        a, b = 0.3, 0.92
        return [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
    if kind == "heart":
        angles = np.linspace(0, 2 * math.pi, 60)
        x = 16 * np.sin(angles) ** 3
        y = -(13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles))
        return [(float(px), float(py)) for px, py in zip(x / 17, y / 17, strict=True)]
    corners = {"triangle": 3, "square": 4, "hexagon": 6}[kind]
    return [_on_circle((k + (0.5 if kind == "square" else 0)) / corners, 1) for k in range(corners)]


def _on_circle(share: float, radius: float) -> tuple[float, float]:
    """A point at a share of the way round, clockwise from the top."""
    return radius * math.sin(2 * math.pi * share), -radius * math.cos(2 * math.pi * share)


def _draw_outline(outline: Array, mask: Array, side: int) -> Array:
    width = max(3, round(STROKE * side))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    edge = cv2.dilate(mask, kernel) - cv2.erode(mask, kernel)
    return outline * (1 - edge[..., None]) + 20.0 * edge[..., None]


def _shade(picture: Array, mask: Array, colour: Array, radius: float) -> Array:
    """Puffs the thing up, lights it, and lays a soft shadow beneath it."""
    offset = round(0.12 * radius)
    shadow = np.roll(cv2.GaussianBlur(mask, (0, 0), 0.1 * radius), (offset, offset), (0, 1))[..., None]
    picture = picture * (1 - 0.55 * shadow)
    height = cv2.GaussianBlur(mask, (0, 0), 0.22 * radius) * 0.9 * radius
    dy, dx = np.gradient(height)
    normal = np.stack([-dx, -dy, np.ones_like(height)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    lambert = np.clip(normal @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)[..., None]
    lit = colour * (0.35 + 0.85 * lambert) + 190 * np.clip(lambert - 0.86, 0, 1) * 2
    return picture * (1 - mask[..., None]) + np.clip(lit, 0, 255) * mask[..., None]


def _reduce(image: Array, size: int) -> Array:
    return np.rint(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)).clip(0, 255).astype(np.uint8)
