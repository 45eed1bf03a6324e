"""Translator: a generator and all that is needed to run it. What a user keeps, loads and calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from img2img.errors import Strict, UsageError, UserError, explain, listed
from img2img.files import older, whole_folder, write_tensors
from img2img.images import Array, ImageError, from_pil, split_alpha, to_array, to_pil, to_tensor, with_channels
from img2img.machine import memory_at_hand
from img2img.networks import GeneratorConfig, build_generator
from img2img.strips import Budget, run

Mode = Literal["eval", "paper"]
ImageLike = TypeVar("ImageLike", Image.Image, Array, Tensor)

STRIP = 512  # at most so many pixels squared in a strip
STORED_IN_MEMORY = 10**9  # bytes of an image's intermediate results in RAM; more are in a file
BYTES_PER_PIXEL = 2500  # that a network of 64 channels needs at most, measured

CONFIG_FILE, WEIGHTS_FILE = "config.json", "generator.safetensors"


class Training(Strict):
    """How a translator came to be; for people, nothing depends on it."""

    img2img: str
    """Version of the toolkit."""
    data: str = ""
    """The data set."""
    updates: int = 0
    """Optimizer updates."""
    images: int = 0
    """Training images seen, repetitions counted."""
    ema: float = 0.0
    """Decay of the weights' moving average; 0: the weights as they were."""
    scores: dict[str, float | None] = Field(default_factory=dict)
    """On the validation split, when it was saved."""


class TranslatorConfig(Strict):
    """What a translator is: enough to rebuild and run it."""

    format: Literal[1] = 1
    """Version of this layout."""
    method: str
    """What it was trained with."""
    generator: GeneratorConfig
    """The architecture."""
    mode: Mode = "eval"
    """How it runs at test time. eval: running statistics, no dropout; paper: pix2pix's batch statistics and dropout."""
    value_range: tuple[Literal[-1], Literal[1]] = (-1, 1)
    """What black and white are for the network; there is no other yet."""
    size: int
    """Height and width of its training images in pixels; it translates any size."""
    resize: Literal["short", "stretch", "none"] = "short"
    """How its training images were scaled to that size."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Which side of the data set was the source."""
    derive: Literal["gray", "edges", "lowres"] | None = None
    """How its sources were made, if they were."""
    training: Training
    """How it came to be."""


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
            image: a PIL image; an array (H, W) or (H, W, C), uint8 or uint16; or a float tensor (C, H, W) or
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
        try:
            with _test_time(self.generator, mode or self.config.mode, seed):
                if isinstance(image, Image.Image):
                    return to_pil(self._array(from_pil(image), tile))
                if isinstance(image, np.ndarray):
                    return self._array(image, tile)
                if isinstance(image, Tensor):
                    return self._tensor(image, mode or self.config.mode, tile)
        except (RuntimeError, MemoryError) as error:  # PyTorch has no one type for it
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise ImageError("not enough memory to translate an image of this size.") from None
        raise UsageError(f"a translator takes a PIL image, an array or a tensor, not {type(image).__name__}.")

    def _array(self, image: Array, tile: int | None) -> Array:
        if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or 0 in image.shape:
            raise UsageError(f"an array must be (H, W) or (H, W, C), uint8 or uint16, not {image.shape} {image.dtype}.")
        source, alpha = self.prepare(image if image.ndim == 3 else image[..., None])
        done = self.finish(self._padded(source[None], tile)[0], alpha, image.dtype)
        return done[..., 0] if image.ndim == 2 and done.shape[2] == 1 else done

    def prepare(self, array: Array) -> tuple[Tensor, Array | None]:
        """An array (H, W, C) as what the network sees, (in_channels, H, W) in [-1, 1], and the alpha to be carried, (H, W, 1)."""
        alpha = split_alpha(array)[1] if self.in_channels in (1, 3) and self.out_channels in (1, 3) else None
        return to_tensor(with_channels(array, self.in_channels)), alpha  # what is transparent it sees over white

    def finish(self, done: Tensor, alpha: Array | None, dtype: Any) -> Array:
        """What came out, (out_channels, H, W) in [-1, 1], as an array (H, W, C), uint8 or uint16, with the carried alpha."""
        array = to_array(done, dtype)
        return array if alpha is None else np.concatenate([array, alpha], axis=2)

    def _tensor(self, image: Tensor, mode: Mode, tile: int | None) -> Tensor:
        if not image.is_floating_point() or image.ndim not in (3, 4) or image.shape[-3] != self.in_channels:
            raise UsageError(
                f"a tensor must be float (B, {self.in_channels}, H, W) in [-1, 1], not {tuple(image.shape)} {image.dtype}."
            )
        batch = image if image.ndim == 4 else image[None]
        source = batch.to(torch.float32)
        parts = source.split(1) if mode == "paper" else (source,)
        done = torch.cat([self._padded(part, tile) for part in parts]).to(image.device, image.dtype)
        return done if image.ndim == 4 else done[0]

    def _padded(self, source: Tensor, tile: int | None) -> Tensor:
        """Pads (B, C, H, W) by reflection to a size that the network takes, and crops its output back."""
        height, width = source.shape[-2:]
        multiple: Any = self.generator.size_multiple
        smallest: Any = self.generator.min_size
        wanted = [max(smallest, -(-side // multiple) * multiple) for side in (height, width)]
        padded = pad_to(source, *wanted)
        if self.fits(wanted[0], wanted[1], tile, len(source)):
            weight = next(self.generator.parameters())
            done = self.generator(padded.to(weight.device, weight.dtype, memory_format=self.memory_format))
        else:
            side = min(tile or STRIP, STRIP)
            budget = Budget(side**2 * self.config.generator.channels, STORED_IN_MEMORY)
            done = torch.cat([run(self.generator, image, budget) for image in padded.split(1)])
        return done[..., :height, :width].float()

    def fits(self, height: int, width: int, tile: int | None = None, batch: int = 1) -> bool:
        """Whether images of this size are computed at once, and not in strips; `tile` as of `__call__`."""
        pixels = height * width
        if tile is not None:
            return tile == 0 or pixels <= tile**2
        needed = BYTES_PER_PIXEL * self.config.generator.channels // 64 * pixels * batch
        return pixels <= STRIP**2 or needed < memory_at_hand(self.device) // 2

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
        try:
            config = TranslatorConfig.model_validate_json((folder / CONFIG_FILE).read_bytes())
        except ValidationError as error:
            raise UsageError(f"{folder / CONFIG_FILE}: {explain(error)}.") from None
        except OSError as error:
            raise UsageError(f"{folder / CONFIG_FILE} can't be read: {error.strerror}.") from None
        except UsageError as error:
            raise UsageError(f"{folder / CONFIG_FILE}: {error}") from None
        if direction not in (None, config.direction):
            raise UsageError(f"--direction {direction}: {path} translates {config.direction} only.")
        generator = skeleton(config.generator)
        load_weights(generator, folder / WEIGHTS_FILE)
        return cls(config, generator.eval()).to(device)


def load(
    path: Path | str, device: torch.device | str = "cpu", *, direction: Literal["AtoB", "BtoA"] | None = None
) -> Translator:
    """Loads a translator from its folder or its run's folder.

    Args:
        path: a folder that `Translator.save` or `img2img train` wrote.
        device: where to put the weights.
        direction: which translator of a run that learned both ways, as CycleGAN does; by default AtoB.
    """
    return Translator.load(path, device, direction=direction)


def find_translator(path: Path, direction: Literal["AtoB", "BtoA"] | None = None) -> Path:
    """The translator's folder in `path`: itself, or in a run's folder `best`, else `newest`.

    A run that learned both ways has these in `A2B` and `B2A`; without a direction A2B is taken.

    Raises:
        UsageError: if there is none.
    """
    if direction not in (None, "AtoB", "BtoA"):
        raise UsageError(f"direction {direction!r}: there are AtoB and BtoA.")
    way = path / ("B2A" if direction == "BtoA" else "A2B")
    for folder in (path, path / "best", path / "newest", way / "best", way / "newest"):
        for place in (folder, older(folder)):  # the older one is there only while it is being replaced
            if (place / CONFIG_FILE).is_file():
                return place
    if not path.exists():
        raise UsageError(f"{path}: there is no such folder; a model is the folder of a translator or of a run.")
    raise UsageError(f"{path} is no translator (it has no {CONFIG_FILE}), nor a run that has saved one yet.")


def has_both_directions(path: Path | str) -> bool:
    """Whether `path` is a run that learned both ways."""
    return all((Path(path) / way).is_dir() for way in ("A2B", "B2A"))


def skeleton(config: Any) -> nn.Module:
    """A generator without weights, to be filled by `load_state_dict(assign=True)`; draws no random numbers."""
    with torch.device("meta"):
        return build_generator(config)


def load_weights(module: nn.Module, file: Path) -> None:
    """Fills a module from a safetensors file, whose keys and shapes must be the module's own.

    Raises:
        UsageError: if the file is missing, damaged, or made for another architecture.
    """
    try:
        weights = load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise UsageError(f"{file} can't be read: {error}.") from None
    own = module.state_dict()
    wrong = [name for name in {**own, **weights} if name not in own or name not in weights]
    wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        raise UsageError(f"{file} is of another architecture than its config says: {listed(wrong, 3)} don't fit.")
    module.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in weights.items()}, assign=True)


def pad_to(images: Tensor, height: int, width: int) -> Tensor:
    """Pads (B, C, h, w) at the bottom and right to (B, C, height, width) by reflection, however small the images are."""
    while images.shape[-2] < height or images.shape[-1] < width:
        h, w = images.shape[-2:]
        down, right = min(height - h, max(h - 1, 1)), min(width - w, max(w - 1, 1))  # reflection has one pixel less
        images = F.pad(images, (0, right, 0, 0), "reflect" if w > 1 else "replicate")
        images = F.pad(images, (0, 0, 0, down), "reflect" if h > 1 else "replicate")
    return images


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
