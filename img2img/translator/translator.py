"""Translator: a generator and all that is needed to run it. What a user keeps, loads and calls."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from img2img.errors import UsageError, UserError
from img2img.files import whole_folder, write_tensors
from img2img.images import Array, ImageError, from_pil, split_alpha, to_pil, with_channels
from img2img.images.arrays import within_unit
from img2img.images.tensors import to_array, to_tensor
from img2img.machine import choose_device
from img2img.translator.anysize import fits, joined, translate
from img2img.translator.config import Mode, TranslatorConfig
from img2img.translator.storage import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    find_translator,
    load_weights,
    read_config,
    skeleton,
)

ImageLike = TypeVar("ImageLike", Image.Image, Array, Tensor)


class Translator:
    """Translates images of any size; the output has the input's size and kind.

    Args:
        config: what it is.
        generator: the network, as `config.generator` describes it.
    """

    def __init__(self, config: TranslatorConfig, generator: nn.Module) -> None:
        assert config.generator.in_channels and config.generator.out_channels
        self.config = config
        self.generator = generator
        self.memory_format = torch.contiguous_format
        self.in_channels: int = config.generator.in_channels
        self.out_channels: int = config.generator.out_channels

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where images are taken to."""
        return next(self.generator.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Moves the weights."""
        self.generator.to(device)
        return self

    def __call__(
        self, image: ImageLike, *, mode: Mode | None = None, seed: int = 0, tile: int | None = None
    ) -> ImageLike:
        """Translates an image, or a batch of tensors.

        Args:
            image: a PIL image, taken as it lies (`ImageOps.exif_transpose` turns it); an array (H, W) or (H, W, C), uint8,
                uint16, or float in [0, 1]; or a float tensor (C, H, W) or
                (B, C, H, W) in [-1, 1]. Of images and arrays, gray and colour are converted to what the network
                wants; alpha that it doesn't want is carried to the output, and the network sees the image over white.
                A tensor must have the network's channels.
            mode: overrides the config's; ``paper`` translates one image at a time, as its statistics are the image's own.
            seed: of the dropout in mode ``paper``.
            tile: images of more than so many pixels squared are computed in strips, with the whole image's result (see
                `img2img.strips`); 0 for never. By default such as don't fit into the memory at hand.

        Returns:
            The same kind, height and width, with the network's `out_channels` (and the carried alpha). 16-bit stays 16-bit.

        Raises:
            UsageError: for another kind, or channels that don't fit.
            ImageError: if memory or disk are too small for it.
        """
        if mode not in (None, *get_args(Mode)):
            raise UsageError(f"mode {mode!r}: there are {' and '.join(get_args(Mode))}.")
        if tile is not None and tile < 0:
            raise UsageError(f"tile {tile}: give the side of a square in pixels, or 0 for never.")
        chosen = mode or self.config.mode
        try:
            with _test_time(self.generator, chosen, seed):
                if isinstance(image, Tensor):
                    return self._tensor(image, chosen, tile)
                source, finish = self._prepared(image)
                return finish(self._translated(source[None], tile)[0])
        except (RuntimeError, MemoryError) as error:  # PyTorch has no one type for it
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise ImageError("not enough memory to translate an image of this size.") from None

    def map(
        self,
        images: Iterable[ImageLike],
        *,
        batch_size: int = 8,
        mode: Mode | None = None,
        seed: int = 0,
        tile: int | None = None,
    ) -> Iterator[ImageLike]:
        """Translates images that are in memory, in their order, those of equal size together.

        Args:
            images: each as of `__call__`, tensors (C, H, W); kinds and sizes may differ.
            batch_size: images that are taken at once; the results depend on it by rounding only.
            mode: as of `__call__`.
            seed: as of `__call__`; each image is translated as if it were alone.
            tile: as of `__call__`.

        Raises:
            UsageError: as `__call__`.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size}: give at least 1.")
        alone = (mode or self.config.mode) == "paper"
        coming = iter(images)
        while window := list(itertools.islice(coming, batch_size)):
            prepared = [self._prepared(image) for image in window]
            alike: dict[Any, list[int]] = {}
            for place, (source, _) in enumerate(prepared):
                alike.setdefault(place if alone else source.shape, []).append(place)
            done: dict[int, Tensor] = {}
            for places in alike.values():
                batch = torch.stack([prepared[place][0] for place in places])
                done |= dict(zip(places, self(batch, mode=mode, seed=seed, tile=tile), strict=True))
            yield from (finish(done[place]) for place, (_, finish) in enumerate(prepared))

    def _prepared(self, image: ImageLike) -> tuple[Tensor, Callable[[Tensor], Any]]:
        """What the network sees of an image, (in_channels, H, W), and what makes its own kind of what comes out."""
        if isinstance(image, Image.Image):
            array = from_pil(image)
            source, alpha = self.prepare(array)
            return source, lambda done: to_pil(self.finish(done, alpha, array.dtype))
        if isinstance(image, np.ndarray):
            if image.dtype.kind not in "uf" or image.dtype.itemsize > 8 or image.dtype.name in ("uint32", "uint64"):
                raise UsageError(f"an array must be uint8, uint16, or float in [0, 1], not {image.dtype}.")
            if image.ndim not in (2, 3) or 0 in image.shape:
                raise UsageError(f"an array must be (H, W) or (H, W, C), not {image.shape}.")
            source, alpha = self.prepare(np.atleast_3d(within_unit(image) if image.dtype.kind == "f" else image))

            def finish(done: Tensor) -> Array:
                array = self.finish(done, alpha, image.dtype)
                return array[..., 0] if image.ndim == 2 and array.shape[2] == 1 else array

            return source, finish
        if isinstance(image, Tensor):
            self._check(image, (3,))
            return image.to(torch.float32), lambda done: done.to(image.device, image.dtype)
        raise UsageError(f"a translator takes a PIL image, an array or a tensor, not {type(image).__name__}.")

    def prepare(self, array: Array) -> tuple[Tensor, Array | None]:
        """An array (H, W, C) as what the network sees, (in_channels, H, W) in [-1, 1], and the alpha to be carried, (H, W, 1)."""
        alpha = split_alpha(array)[1] if self.in_channels in (1, 3) and self.out_channels in (1, 3) else None
        return to_tensor(with_channels(array, self.in_channels)), alpha  # what is transparent it sees over white

    def finish(self, done: Tensor, alpha: Array | None, dtype: Any) -> Array:
        """What came out, (out_channels, H, W) in [-1, 1], as an array (H, W, C) of uint8, uint16, or float in [0, 1], with the carried alpha."""
        array = to_array(done, dtype)
        return array if alpha is None else np.concatenate([array, alpha], axis=2)

    def _check(self, image: Tensor, dimensions: tuple[int, ...]) -> None:
        if not image.is_floating_point() or image.ndim not in dimensions or image.shape[-3] != self.in_channels:
            shape = f"({'B, ' if 4 in dimensions else ''}{self.in_channels}, H, W)"
            raise UsageError(f"a tensor must be float {shape} in [-1, 1], not {tuple(image.shape)} {image.dtype}.")

    def _tensor(self, image: Tensor, mode: Mode, tile: int | None) -> Tensor:
        self._check(image, (3, 4))
        batch = image if image.ndim == 4 else image[None]
        source = batch.to(torch.float32)
        parts = source.split(1) if mode == "paper" else (source,)
        done = joined([self._translated(part, tile) for part in parts]).to(image.device, image.dtype)
        return done if image.ndim == 4 else done[0]

    def _translated(self, source: Tensor, tile: int | None) -> Tensor:
        return translate(self.generator, source, tile, self.memory_format, self.config.generator.channels)

    def fits(self, height: int, width: int, tile: int | None = None) -> bool:
        """Whether an image of this size is computed at once, and not in strips; `tile` as of `__call__`."""
        return fits(self.generator, self.config.generator.channels, height, width, tile)

    def save(self, folder: Path | str) -> None:
        """Writes the translator's folder, whole or not at all; it takes the place of an older one.

        Raises:
            UserError: if it can't be written, or the folder holds something else.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; give a folder.")
        if folder.exists() and not {file.name for file in folder.iterdir()} <= {CONFIG_FILE, WEIGHTS_FILE}:
            raise UserError(f"{folder} holds other files; give an empty folder, or one that holds only a translator.")
        with whole_folder(folder) as new:
            write_tensors(new / WEIGHTS_FILE, self.generator.state_dict())
            (new / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls, path: Path | str, device: torch.device | str = "cpu", *, direction: Literal["AtoB", "BtoA"] | None = None
    ) -> Self:
        """Reads a translator's folder, or a run's folder (its best translator, else its newest). Runs no pickle.

        Raises:
            UsageError: if there is none, or it is damaged, or none of that direction.
        """
        folder = find_translator(Path(path), direction)
        config = read_config(folder)
        if direction not in (None, config.direction):
            raise UsageError(f"--direction {direction}: {path} translates {config.direction} only.")
        generator = skeleton(config.generator)
        load_weights(generator, folder / WEIGHTS_FILE)
        return cls(config, generator.eval()).to(choose_device(str(device)))


def load(
    path: Path | str, device: torch.device | str = "cpu", *, direction: Literal["AtoB", "BtoA"] | None = None
) -> Translator:
    """Loads a translator from its folder or its run's folder.

    Args:
        path: a folder that `Translator.save` or `img2img train` wrote.
        device: where to put the weights: ``cpu``, ``cuda`` …, or ``auto``, the fastest there is.
        direction: which translator of a run that learned both ways, as CycleGAN does; by default AtoB.
    """
    return Translator.load(path, device, direction=direction)


@contextmanager
def _test_time(generator: nn.Module, mode: Mode, seed: int) -> Iterator[None]:
    """Puts a network into a test-time mode and back; running statistics and the global random state stay as they were."""
    modules = list(generator.modules())
    before = [module.training for module in modules]
    tracked = [m for m in modules if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    device = next(generator.parameters()).device
    try:
        generator.eval()
        if mode == "eval":
            with torch.no_grad():
                yield
            return
        for module in modules:
            if isinstance(module, nn.BatchNorm2d | nn.Dropout):
                module.training = True
        for norm in tracked:
            norm.track_running_stats = False
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        for norm in tracked:
            norm.track_running_stats = True
        for module, training in zip(modules, before, strict=True):
            module.training = training
