"""A network on images of any size: padded to what it takes, at once if they fit, else in strips, else in tiles."""

import itertools
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from img2img.core.device import free_memory, release_memory
from img2img.networks import GeneratorConfig
from img2img.networks.layers import ImageNetwork
from img2img.tiling.progress import report_share
from img2img.tiling.rows import NotInStripsError
from img2img.tiling.strips import Budget, run_in_strips

STRIP = 512  # at most so many pixels squared in a strip
SHARE_OF_GPU = 0.8  # of its free memory, for activations; the rest is for what convolutions need beside
STORED_IN_MEMORY = 5 * 10**8  # bytes of an image's intermediate results in RAM; more are in a file


class BlendedWarning(UserWarning):
    """An image was computed in tiles that don't know each other."""


@torch.no_grad()
def translate(
    generator: ImageNetwork,
    source: Tensor,
    tile: int | None,
    memory_format: torch.memory_format,
    config: GeneratorConfig,
) -> Tensor:
    """(B, C, H, W) → (B, C', H, W), float32: pads by reflection to a size that the network takes, and crops its output back.

    If a GPU's memory proves too small for a batch, its images are computed one by one; if it is for one, in strips.

    Args:
        source: in [-1, 1], on any device.
        memory_format: of the network's input.
        config: of the generator, by which the memory that it needs is guessed.
    """
    height, width = source.shape[-2:]
    wanted = [round_up_size(generator, side) for side in (height, width)]
    padded = pad_to(source, *wanted)
    weight, done = next(generator.parameters()), None
    if fits(generator, config, wanted[0], wanted[1], tile, len(source)):
        try:
            done = generator(padded.to(weight.device, weight.dtype, memory_format=memory_format))
        except torch.OutOfMemoryError:
            if tile == 0 or generator.only_whole:
                raise
    if done is None and len(source) > 1 and tile is None:
        parts = [translate(generator, image, tile, memory_format, config).cpu() for image in source.split(1)]
        return concatenate(parts)
    if done is None:
        if weight.device.type == "cuda":
            torch.cuda.empty_cache()
        done = concatenate(
            [
                _translate_large(generator, image, min(tile or STRIP, STRIP), config.channels)
                for image in padded.split(1)
            ]
        )
        release_memory()
    return done[..., :height, :width].float()


def concatenate(parts: Sequence[Tensor]) -> Tensor:
    """A batch of batches, without a copy if there is one: it may be large."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def fits(
    generator: ImageNetwork, config: GeneratorConfig, height: int, width: int, tile: int | None = None, batch: int = 1
) -> bool:
    """Whether images of this size are computed at once; `tile` as of `Translator.__call__`."""
    if generator.only_whole:
        return True
    pixels = height * width
    if tile is not None:
        return tile == 0 or pixels <= tile**2
    weight = next(generator.parameters())
    if pixels <= STRIP**2:
        return True
    if weight.device.type == "cuda":
        needed = config.activations_per_pixel * pixels * batch * weight.element_size() / 4
        return needed < SHARE_OF_GPU * free_memory(weight.device)
    return config.bytes_per_pixel * pixels * batch < free_memory(weight.device) // 2


def round_up_size(generator: ImageNetwork, side: int) -> int:
    """The next height or width that a network takes."""
    return max(generator.min_size, -(-side // generator.size_multiple) * generator.size_multiple)


def _translate_large(generator: ImageNetwork, image: Tensor, side: int, channels: int) -> Tensor:
    try:
        return run_in_strips(generator, image, Budget(side**2 * channels, STORED_IN_MEMORY))
    except NotInStripsError as error:
        warnings.warn(
            f"Large images are computed in overlapping tiles of {side} pixels, which are blended into each other: {error}",
            BlendedWarning,
            stacklevel=4,
        )
        return blend_tiles(generator, image, round_up_size(generator, side))


def blend_tiles(generator: ImageNetwork, image: Tensor, side: int) -> Tensor:
    """Overlapping tiles, each computed alone, averaged by weights that fall towards their edges.

    Args:
        generator: gives as many pixels as it gets.
        image: (1, C, H, W), of a size that the network takes.
        side: of a tile, of a size that the network takes; a quarter of it overlaps.
    """
    weight = next(generator.parameters())
    tall, wide = (min(side, length) for length in image.shape[-2:])
    total: Tensor | None = None
    places = list(itertools.product(_starts(image.shape[-2], tall), _starts(image.shape[-1], wide)))
    for number, (top, left) in enumerate(places, 1):
        part = image[..., top : top + tall, left : left + wide].to(weight.device, weight.dtype)
        done = generator(part).float().cpu()
        if total is None:
            total = torch.zeros(1, done.shape[1] + 1, *image.shape[-2:])
        window = _window(tall)[:, None] * _window(wide)
        total[:, :-1, top : top + tall, left : left + wide] += done * window
        total[:, -1:, top : top + tall, left : left + wide] += window
        report_share(number / len(places))
    assert total is not None
    return total[:, :-1] / total[:, -1:]


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin: the last ends with the image, and each overlaps the one before by a quarter or more."""
    steps = -(-(length - side) // max(1, side * 3 // 4))
    return [round(step * (length - side) / steps) for step in range(steps + 1)] if steps else [0]


def _window(side: int) -> Tensor:
    """Weights in (0, 1]: 1 in the middle, falling over a quarter of the tile at both ends."""
    place = torch.arange(side) + 0.5
    return (torch.minimum(place, side - place) / max(1, side // 4)).clamp(max=1)


def pad_to(images: Tensor, height: int, width: int) -> Tensor:
    """Pads (B, C, h, w) at the bottom and right to (B, C, height, width) by reflection, however small the images are."""
    while images.shape[-2] < height or images.shape[-1] < width:
        h, w = images.shape[-2:]
        down, right = min(height - h, max(h - 1, 1)), min(width - w, max(w - 1, 1))  # reflection has one pixel less
        images = F.pad(images, (0, right, 0, 0), "reflect" if w > 1 else "replicate")
        images = F.pad(images, (0, 0, 0, down), "reflect" if h > 1 else "replicate")
    return images
