"""Colours for a gray image whose luminance stays exactly as it is."""

import cv2
import numpy as np

from img2img.images.arrays import LUMA, Array, apply_by_rows, peak


def add_colours(gray: Array, colours: Array) -> Array:
    """Adds colours, perhaps of a lower resolution, to a gray image.

    Where RGB can't show a colour at this luminance, its saturation is reduced until it can. Of integers, the luminance of what
    comes out, rounded, is that of the gray image: green makes up for the rounding of red and blue.

    Args:
        gray: (H, W, 1), uint8, uint16, or float in [0, 1].
        colours: (h, w, 3), float32: by how much red, green and blue differ from their luminance, of values in [0, 1].

    Returns:
        RGB, (H, W, 3), of the gray image's type.
    """
    height, width = gray.shape[:2]
    if colours.shape[:2] != (height, width):
        shrinks = height * width < colours.shape[0] * colours.shape[1]
        colours = cv2.resize(colours, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    white, whole = peak(gray.dtype), np.issubdtype(gray.dtype, np.integer)

    def compose(band: slice) -> Array:
        luminance = gray[band].astype(np.float64)
        change = colours[band].astype(np.float64) * white
        change -= (change @ np.array(LUMA))[..., None]  # what rounding added to the luminance
        room = np.where(change > 0, white - luminance, luminance)
        change *= (room / np.maximum(np.abs(change), 1e-9)).min(axis=2, keepdims=True).clip(0, 1)
        found = luminance + change
        if whole:
            found = np.rint(found)
            found[..., 1] = np.rint((luminance[..., 0] - found[..., 0] * LUMA[0] - found[..., 2] * LUMA[2]) / LUMA[1])
        return found.clip(0, white).astype(gray.dtype)

    return apply_by_rows(compose, height, width)
