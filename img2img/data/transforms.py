"""Joint transforms through albumentations: the same geometry for source and target, colour for the source alone."""

import random
import zlib
from typing import Any, Literal

import cv2
import numpy as np

from img2img.images import Array, convert_channels, peak, resize, split_alpha
from img2img.images.labels import resize_maps

cv2.setNumThreads(0)  # the loader's workers are the parallelism

Resize = Literal["short", "stretch", "none"]
Derivation = Literal["gray", "edges", "lowres"]
JITTER = 286 / 256  # Isola et al. 2017, §6.2: 256 is cropped at random from 286
LOWRES_FACTOR = 4
CANNY = (60, 140)  # thresholds of the gradient in 8-bit steps


class JointTransform:
    """Resize, crop, flip and rotate a pair alike; jitter the source's colours.

    Args:
        size: height and width of what comes out, in pixels.
        width: the width, if it is another.
        resize: ``short`` scales the shorter side and keeps the aspect, ``stretch`` both sides, ``none`` crops only.
        jitter: how much larger than `size` the image is made before a random crop; 1 for none.
        flip: probability of a horizontal flip.
        vertical_flip: probability of a vertical flip.
        rotate: largest angle of a random rotation, in degrees.
        quarter_turns: random rotation by 0, 90, 180 or 270 degrees.
        colour_jitter: strength of brightness, contrast, saturation and hue changes of the source, in [0, 1].
    """

    def __init__(
        self,
        size: int,
        *,
        width: int | None = None,
        resize: Resize = "short",
        jitter: float = JITTER,
        flip: float = 0.5,
        vertical_flip: float = 0.0,
        rotate: float = 0.0,
        quarter_turns: bool = False,
        colour_jitter: float = 0.0,
    ) -> None:
        import albumentations as A  # slow, and only training transforms images

        self.resize, self.height, self.width = resize, size, width or size
        self.load_size = max(size, round(size * jitter))
        self.load_width = max(self.width, round(self.width * jitter))
        steps: list[Any] = []
        if rotate:
            steps.append(A.Rotate(limit=(-rotate, rotate), border_mode=cv2.BORDER_REFLECT_101, p=1.0))
        steps.append(A.RandomCrop(size, self.width, pad_if_needed=True, border_mode=cv2.BORDER_REFLECT_101))
        if quarter_turns:
            steps.append(A.RandomRotate90(p=1.0))
        steps += [A.HorizontalFlip(p=flip), A.VerticalFlip(p=vertical_flip)]
        self.geometry = A.Compose(steps, additional_targets={"target": "image"})
        strength = colour_jitter
        self.colour = (
            A.Compose([A.ColorJitter((1 - strength, 1 + strength), (1 - strength, 1 + strength),
                                     (1 - strength, 1 + strength), (-strength / 2, strength / 2), p=1.0)])
            if strength
            else None
        )  # fmt: skip

    @property
    def enough(self) -> int | None:
        """Pixels that both sides of an image need at least, so that scaling only makes them smaller; None: it is not scaled."""
        return None if self.resize == "none" else max(self.load_size, self.load_width)

    def _scale_size(self, image: Array) -> tuple[int, int]:
        return scale_size(image.shape, self.load_size, self.resize, self.load_width)

    def apply_to_one(self, image: Array, seed: int) -> Array:
        """One image (H, W, C), uint8 or float32 → (height, width, C), its geometry changed as a function of `seed`."""
        image = resize(image, *self._scale_size(image))
        _seed(self.geometry, seed)
        return self.geometry(image=image)["image"]

    def apply_to_labels(self, maps: Array, target: Array, seed: int) -> tuple[Array, Array]:
        """Maps (H, W, C) of integers, by nearest neighbour, and their image → both (height, width, C); a function of `seed`."""
        height, width = self._scale_size(target)
        maps, target = resize_maps(maps, height, width), resize(target, height, width)
        _seed(self.geometry, seed)
        done = self.geometry(image=target, mask=maps.astype(np.float32))  # exact up to 2**24; OpenCV rotates no int32
        return done["mask"].reshape(self.height, self.width, -1).astype(maps.dtype), done["image"]

    def __call__(self, source: Array, target: Array, seed: int) -> tuple[Array, Array]:
        """Two images (H, W, C), uint8 or float32, of sizes that may differ → both (height, width, C); a function of `seed`."""
        height, width = self._scale_size(target)
        source, target = resize(source, height, width), resize(target, height, width)
        _seed(self.geometry, seed)
        done = self.geometry(image=source, target=target)
        source, target = done["image"], done["target"]
        if self.colour is not None:
            _seed(self.colour, zlib.crc32(b"colour", seed % 2**32))
            colour, alpha = split_alpha(source)
            source = self.colour(image=np.ascontiguousarray(colour))["image"]
            source = source if alpha is None else np.concatenate([source, alpha], axis=2)
        return source, target


def _seed(transforms: Any, seed: int) -> None:
    """Lets all transforms draw from one stream of numbers; `set_random_seed` gives each the same stream, so that a crop would decide a flip."""
    transforms.set_random_state(np.random.default_rng(seed), random.Random(seed))


def scale_size(shape: tuple[int, ...], size: int, resize: Resize, width: int | None = None) -> tuple[int, int]:
    """The height and width that an image of `shape` gets before it is cropped to `size`, or to a height of `size` and this `width`."""
    tall, wide = shape[:2]
    width = width or size
    if resize == "none":
        return tall, wide
    if resize == "stretch":
        return size, width
    scale = max(size / tall, width / wide)
    return max(size, round(tall * scale)), max(width, round(wide * scale))


def derive_source(target: Array, derive: Derivation) -> Array:
    """Makes a source from a target of the same size: (H, W, C) uint8, uint16 or float32 in [0, 1] → (H, W, 1 or C).

    ``gray``: the luma, for colourisation. ``edges``: Canny (1986) edges, black on white. ``lowres``: a quarter of the resolution, enlarged again, for super-resolution.
    """
    if derive == "lowres":
        height, width = target.shape[:2]
        small = resize(target, max(1, height // LOWRES_FACTOR), max(1, width // LOWRES_FACTOR))
        return resize(small, height, width)
    gray = convert_channels(target, 1)
    if derive == "gray":
        return gray
    white = peak(gray.dtype)
    eight = np.rint(gray * (255 / white)).astype(np.uint8)
    edges = cv2.Canny(cv2.GaussianBlur(eight, (3, 3), 0), *CANNY)[..., None]
    return np.where(edges, 0, white).astype(gray.dtype)
