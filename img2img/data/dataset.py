"""A paired data set for PyTorch: decodes, derives, transforms, and gives tensors."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from img2img.data.folders import Pair
from img2img.data.labelled import read_maps
from img2img.data.sampler import Key
from img2img.data.transforms import JointTransform, Resize, derive_source, scaled
from img2img.errors import UserError
from img2img.images import Array, ImageError, peak, read_image, resized, with_channels
from img2img.images.labels import resized_maps
from img2img.images.tensors import to_tensor


class Sample(TypedDict):
    """A pair as tensors (C, H, W) in [-1, 1]; in a batch (B, C, H, W). Label maps are int32 (1 or 2, H, W)."""

    source: Tensor
    target: Tensor


class PairedImages(Dataset[Sample]):
    """Pairs, transformed as a function of (seed, epoch, index): whichever worker or process loads them.

    Args:
        pairs: what `find_pairs` found.
        transform: the augmentation.
        in_channels: channels of every source.
        out_channels: channels of every target.
        seed: of the run.
    """

    def __init__(
        self, pairs: list[Pair], transform: JointTransform, in_channels: int, out_channels: int, seed: int
    ) -> None:
        self.pairs, self.transform, self.seed = pairs, transform, seed
        self.in_channels, self.out_channels = in_channels, out_channels

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, keys: list[Key]) -> list[Sample] | UserError:
        """A batch for the loader; an error is given and not raised, for a worker would wrap it in its traceback."""
        try:
            return [self[key] for key in keys]
        except UserError as error:
            return error

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        pair, seed = self.pairs[index], zlib.crc32(f"{self.seed}/{epoch}/{index}".encode())
        if pair.labels:
            maps, target = self.transform.labelled(*read_labelled(pair, self.out_channels), seed)
            return {"source": torch.from_numpy(maps.transpose(2, 0, 1).copy()), "target": to_tensor(target)}
        source, target = (unit(image) for image in read_pair(pair))
        source, target = self.transform(source, target, seed)
        if pair.derive:
            source = derive_source(target, pair.derive)
        return {
            "source": to_tensor(fit_channels(source, self.in_channels, pair.source)),
            "target": to_tensor(fit_channels(target, self.out_channels, pair.target)),
        }


def collate(samples: Sequence[Mapping[str, Any]] | UserError) -> dict[str, Tensor] | UserError:
    """Stacks samples, name by name: (B, C, H, W), or (B,) of numbers; passes an error on."""
    if isinstance(samples, UserError):
        return samples
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def read_pair(pair: Pair) -> tuple[Array, Array]:
    """Decodes a pair: two arrays (H, W, C), uint8 or uint16. For a derived pair both are the target.

    Raises:
        ImageError: naming the file that can't be read or split.
    """
    source = read_image(pair.source)
    if pair.half:
        if source.shape[1] % 2:
            raise ImageError(f"{pair.source}: {source.shape[1]} pixels wide, so it can't be two images side by side.")
        left, right = np.split(source, 2, axis=1)
        return (left, right) if pair.half == "AB" else (right, left)
    return source, source if pair.target == pair.source else read_image(pair.target)


def read_labelled(pair: Pair, out_channels: int) -> tuple[Array, Array]:
    """The maps (H, W, 1 or 2), int32, of labels and instances, and the image (H, W, C), uint8 or float32, perhaps of another size.

    Raises:
        ImageError: naming the file that can't be read.
    """
    target = unit(fit_channels(read_image(pair.target), out_channels, pair.target))
    return read_maps(pair.source, pair.instances), target


def validation_pair(
    pair: Pair,
    size: int | None,
    resize: Resize,
    in_channels: int,
    out_channels: int,
    width: int | None = None,
) -> tuple[Array, Array]:
    """A pair without augmentation, source and target of one size and with the channels that the network wants.

    Args:
        pair: what to read.
        size: the training size, to which the pair is scaled as in training but not cropped; None: the target's own.
        resize: as in `JointTransform`.
        in_channels: channels of the source.
        out_channels: channels of the target.
        width: the training width, if it is not `size`.

    Returns:
        Two arrays (H, W, C), uint8 or uint16; label and instance maps are int32 (H, W, 1 or 2).
    """
    if pair.labels:
        maps, target = read_maps(pair.source, pair.instances), read_image(pair.target)
        tall, wide = target.shape[:2] if size is None else scaled(target.shape, size, resize, width)
        target = fit_channels(resized(target, tall, wide), out_channels, pair.target)
        return resized_maps(maps, tall, wide), target
    source, target = read_pair(pair)
    tall, wide = target.shape[:2] if size is None else scaled(target.shape, size, resize, width)
    target = resized(target, tall, wide)
    source = derive_source(target, pair.derive) if pair.derive else resized(source, tall, wide)
    return fit_channels(source, in_channels, pair.source), fit_channels(target, out_channels, pair.target)


def unit(image: Array) -> Array:
    """uint16 → float32 in [0, 1], which albumentations takes; uint8 stays."""
    return image if image.dtype == np.uint8 else (image / np.float32(peak(image.dtype))).astype(np.float32)


def fit_channels(image: Array, channels: int, path: Path) -> Array:
    """The image with so many channels, by the rules of `with_channels`.

    Raises:
        ImageError: naming the file.
    """
    try:
        return with_channels(image, channels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
