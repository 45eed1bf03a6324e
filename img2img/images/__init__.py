"""Files ↔ arrays ↔ tensors: decoding, encoding, orientation, alpha, bit depth, value range, metadata, grids.

An image array is (H, W, C), uint8, uint16 or float in [0, 1], with C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; or
float in [0, 1] with any number of bands (see `bands`), of which none is alpha.
An image tensor is (C, H, W), or (B, C, H, W), float32 in [-1, 1]. Only `tensors` imports torch, so that processes which
decode start fast.
"""

from img2img.images.arrays import (
    Array,
    ImageError,
    composite_over_white,
    convert_channels,
    from_pil,
    peak,
    resize,
    split_alpha,
    to_8_bit,
    to_pil,
)
from img2img.images.formats import ARRAY_SUFFIX, READABLE
from img2img.images.reading import Picture, Rules, count_pixels, read_image, read_picture
from img2img.images.writing import encode_picture, refuse_frames, write_image, write_picture

__all__ = [
    "ARRAY_SUFFIX", "READABLE", "Array", "ImageError", "Picture", "Rules", "composite_over_white", "convert_channels",
    "count_pixels", "encode_picture", "from_pil", "peak", "read_image", "read_picture", "refuse_frames", "resize", "split_alpha",
    "to_8_bit", "to_pil", "write_image", "write_picture",
]  # fmt: skip
