"""Translator: a generator and all that is needed to run it. What a user keeps, loads and calls."""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from img2img.core.device import choose_device, convolve_exactly
from img2img.core.errors import UsageError, list_some
from img2img.core.files import whole_folder, write_tensors
from img2img.images import Array, ImageError, convert_channels, resize, to_pil
from img2img.images.arrays import split_alpha
from img2img.images.bands import ANY, Bands, restore_frames, scale_values
from img2img.images.luminance import add_colours
from img2img.images.tensors import round_to_bytes, scale_bytes, to_array, to_byte_tensor, to_tensor
from img2img.models.adapter import ADAPTER_FILE
from img2img.models.config import Mode, TranslatorConfig
from img2img.models.hub import Card, Shareable, describe_images
from img2img.models.inputs import as_array, as_maps, check_tensor
from img2img.models.steps import count_steps, refuse_nfe, translate_in_steps
from img2img.models.storage import (
    CONFIG_FILE,
    ENCODER_FILE,
    REFERENCE_FILE,
    STYLES_FILE,
    WEIGHTS_FILE,
    build_empty,
    find_translator,
    generator_state,
    load_styles,
    put_weights,
    read_config,
    read_tensors_of,
    refuse_other_files,
)
from img2img.models.styles import Style, default_style, resolve_style, spread_features
from img2img.models.test_time import test_time
from img2img.networks import build_generator
from img2img.networks.labels import append_domain, encode_label_maps, mask_ignored, paint_labels
from img2img.networks.layers import ImageNetwork
from img2img.tiling.translate import concatenate, fits, translate

ImageLike = TypeVar("ImageLike", Image.Image, Array, Tensor)
NO_INSTANCES = "this translator takes images, which have no instance maps; give the image alone."
Given = Any  # an ImageLike, or a label map with its instance map


@dataclass(frozen=True)
class Carried:
    """What of an image goes past the network, to the output."""

    alpha: Array | None = None
    """(H, W, 1)."""
    gray: Array | None = None
    """(H, W, 1): the luminance, where the network computes colours only."""
    seen: Tensor | None = None
    """(1, h, w): what it saw then, perhaps at a lower resolution."""


class Translator(Shareable):
    """Translates images, or label maps, of any size; the output has the input's size and kind.

    Args:
        config: what it is.
        generator: the network, as `config.generator` describes it.
        encoder: the network that reads styles, as `config.encoder` describes it, if there is one.
        styles: of the encoder of instances: each class' most frequent features, (classes, styles, channels).
        adapter: of a translator that is a change of `config.base`: the change, which is what is saved.
    """

    def __init__(
        self,
        config: TranslatorConfig,
        generator: ImageNetwork,
        encoder: ImageNetwork | None = None,
        styles: Tensor | None = None,
        adapter: Mapping[str, Tensor] | None = None,
    ) -> None:
        assert config.generator.in_channels and config.generator.out_channels
        self.config = config
        self.generator, self.encoder, self.styles = generator, encoder, styles
        self.style = default_style(config, styles)
        self.adapter = adapter
        self.reference: Mapping[str, Tensor] = {}
        self.render_factor: int | None = None
        self.nfe = count_steps(config.generator)
        """In how many steps it translates, of a translator that takes several."""
        self.memory_format = torch.contiguous_format
        self.tf32 = False
        """Whether convolutions in fp32 may be computed in TF32, which CUDA has: faster, and too coarse for 16-bit images."""
        self.in_channels: int = config.generator.in_channels // (1 + len(config.domains))
        self.out_channels: int = config.generator.out_channels

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where images are taken to."""
        return next(self.generator.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Moves the weights."""
        self.generator.to(device)
        if self.encoder is not None:
            self.encoder.to(device)
        return self

    def with_style(self, style: Style) -> Self:
        """The same translator, with this style unless another is asked for.

        Args:
            style: of a translator between domains: the name of one, its number, or how much of each, a tensor (domains,). Of a
                translator with an encoder: a number picks one: of instances, each class' style of that number, 0 the most
                frequent; else the seed of a random one. ``{"car": 3, 7: 0}`` picks by class, for instances. A reference
                takes it from an image: the image alone, or, for instances, ``(image, labels)`` or ``(image, labels,
                instances)``; classes that it doesn't show keep their style.

        Raises:
            UsageError: if this translator has no such style.
        """
        other = copy.copy(self)
        other.style = resolve_style(self, style)
        return other

    def with_render_factor(self, factor: int) -> Self:
        """The same translator, which computes the colours of gray images at this resolution, and adds them to the images as they are.

        Args:
            factor: the shorter side is scaled down to 16 times so many pixels, if it has more. By default it is scaled down to that of
                the training images, unless they were not scaled.

        Raises:
            UsageError: if it doesn't keep the luminance of its images.
        """
        if not self.config.generator.keeps_luminance:
            raise UsageError(
                "--render-factor is for translators that keep the luminance of gray images (--generator.keep-luminance); "
                "--size and --max-side scale images."
            )
        if factor < 1:
            raise UsageError(f"--render-factor {factor}: give at least 1, for a shorter side of 16 pixels.")
        other = copy.copy(self)
        other.render_factor = factor
        return other

    def with_nfe(self, nfe: int) -> Self:
        """The same translator, which takes so many steps: as many calls of its network. More change the image more.

        Args:
            nfe: at most as many as it was trained for, which is the default.

        Raises:
            UsageError: if it doesn't translate in steps, or not in so many.
        """
        refuse_nfe(self.config.generator, nfe)
        other = copy.copy(self)
        other.nfe = nfe
        return other

    @property
    def draws_styles(self) -> bool:
        """Whether styles are of the whole image, and can be drawn at random."""
        return self.style is not None and self.styles is None and not self.config.domains

    def chosen_domain(self) -> Tensor | None:
        """What is made, (domains,), of a translator between domains; None of others.

        Raises:
            UsageError: if none was chosen.
        """
        if self.config.domains and self.style is None:
            names = list_some(self.config.domains, 20)
            raise UsageError(f"which domain? This translator makes {names}: choose one with --style NAME.")
        return self.style if self.config.domains else None

    def __call__(
        self,
        image: ImageLike,
        instances: ImageLike | None = None,
        *,
        style: Style | None = None,
        mode: Mode | None = None,
        seed: int = 0,
        tile: int | None = None,
    ) -> ImageLike:
        """Translates an image or a label map, or a batch of tensors.

        Args:
            image: a PIL image, taken as it lies (`ImageOps.exif_transpose` turns it); an array (H, W) or (H, W, C), uint8,
                uint16, or float in [0, 1]; or a tensor (C, H, W) or
                (B, C, H, W), float in [-1, 1] or uint8. Of images and arrays, gray and colour are converted to what the network
                wants (of a translator of measurements, an array holds their values, and so does what it makes); alpha that it doesn't want is carried to the output, and the network sees the image over white.
                A tensor must have the network's channels, and is computed as it is. A translator of label maps takes a PIL image, an array (H, W) or a
                tensor (H, W) or (B, H, W) of indices instead.
            instances: the instance map of a label map, if the translator was trained with such; of the same kind and size.
            style: as of `with_style`.
            mode: overrides the config's; ``paper`` translates one image at a time, as its statistics are the image's own.
            seed: of the dropout in mode ``paper``, and of the noise of a translator that takes several steps.
            tile: images of more than so many pixels squared are computed in strips, with the whole image's result (see
                `img2img.tiling.strips`); 0 for never. By default such as don't fit into the memory at hand.

        Returns:
            The same kind, height and width, with the network's `out_channels` (and the carried alpha). 16-bit stays 16-bit. Label
            maps become 8-bit images, or float tensors.

        Raises:
            UsageError: for another kind, or channels that don't fit; for labels out of range.
            ImageError: if memory or disk are too small for it.
        """
        if mode not in (None, *get_args(Mode)):
            raise UsageError(f"mode {mode!r}: there are {' and '.join(get_args(Mode))}.")
        if tile is not None and tile < 0:
            raise UsageError(f"tile {tile}: give the side of a square in pixels, or 0 for never.")
        if style is not None:
            return self.with_style(style)(image, instances, mode=mode, seed=seed, tile=tile)
        chosen = mode or self.config.mode
        given: Given = image if instances is None else (image, instances)
        try:
            with test_time(self.generator, chosen, seed):
                if isinstance(image, Tensor):
                    return self._tensor(given, chosen, tile, seed)
                source, finish = self._prepare_input(given)
                return finish(self._translate_tensor(source[None], tile, seed)[0])
        except (RuntimeError, MemoryError) as error:  # PyTorch has no one type for it
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise ImageError("not enough memory to translate an image of this size.") from None

    def map(
        self,
        images: Iterable[Any],
        *,
        batch_size: int = 8,
        mode: Mode | None = None,
        seed: int = 0,
        tile: int | None = None,
    ) -> Iterator[Any]:
        """Translates images that are in memory, in their order, those of equal size together.

        Args:
            images: each as of `__call__`, tensors (C, H, W); kinds and sizes may differ. Label maps, tensors (H, W), or pairs
                ``(labels, instances)``.
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
            prepared = [self._prepare_input(image) for image in window]
            alike: dict[Any, list[int]] = {}
            for place, (source, _) in enumerate(prepared):
                alike.setdefault(place if alone else source.shape, []).append(place)
            done: dict[int, Tensor] = {}
            for places in alike.values():
                batch = torch.stack([prepared[place][0] for place in places])
                done |= dict(zip(places, self(batch, mode=mode, seed=seed, tile=tile), strict=True))
            yield from (finish(done[place]) for place, (_, finish) in enumerate(prepared))

    def _prepare_input(self, image: Given) -> tuple[Tensor, Callable[[Tensor], Any]]:
        """What the network sees of an image, (in_channels, H, W), and what makes its own kind of what comes out."""
        classes = self.config.classes
        if classes is not None:
            labels, instances = image if isinstance(image, tuple) else (image, None)
            maps = as_maps(labels, instances, classes, self.config.edges)
            if isinstance(labels, Tensor):
                return maps[0], lambda done: done.to(labels.device)
            if self.config.out_range is not None:
                bands = Bands(self.config.out_range, "float32")
                return maps[0], lambda done: restore_frames([self.finish(done, Carried(), np.float32)], bands, ANY)[0][
                    0
                ]
            finished = partial(self.finish, carried=Carried(), dtype=np.uint8)
            return maps[0], (lambda done: to_pil(finished(done))) if isinstance(labels, Image.Image) else finished
        if isinstance(image, tuple):
            raise UsageError(NO_INSTANCES)
        if isinstance(image, Tensor):
            check_tensor(image, self.in_channels, (3,), self._measures)
            return _to_float(image), lambda done: _to_kind(done, image)
        if self._measures:
            return self._prepare_bands(image)
        array = as_array(image)
        source, carried, dtype = self.prepare(array)
        if isinstance(image, Image.Image):
            return source, lambda done: to_pil(self.finish(done, carried, dtype))

        def finish(done: Tensor) -> Array:
            made = self.finish(done, carried, image.dtype)
            return made[..., 0] if image.ndim == 2 and made.shape[2] == 1 else made

        return source, finish

    @property
    def _measures(self) -> bool:
        """Whether it takes or makes measurements."""
        return self.config.in_range is not None or self.config.out_range is not None

    def _prepare_bands(self, image: Any) -> tuple[Tensor, Callable[[Tensor], Array]]:
        """The same of measurements, or of an image of which measurements are made; those are arrays of values."""
        bands = Bands(self.config.out_range or (0, 1), "float32")
        if self.config.in_range is None:
            unit = as_array(image)
        elif not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or 0 in image.shape:
            raise UsageError(
                "this translator takes measurements: an array of values, (H, W) or (H, W, C), or a tensor of values scaled to [-1, 1]."
            )
        else:
            unit, missing, _ = scale_values(np.atleast_3d(image), self.config.in_range)
            bands = replace(bands, dtype=image.dtype.name, missing=[missing])
        source, carried, dtype = self.prepare(unit)

        def finish(done: Tensor) -> Array:
            made = self.finish(done, carried, dtype)
            if self.config.out_range is not None:
                made = restore_frames([made], bands, ANY)[0][0]
            return made[..., 0] if getattr(image, "ndim", 3) == 2 and made.shape[2] == 1 else made

        return source, finish

    def translate_scaled(self, array: Array, *, mode: Mode | None = None, seed: int = 0) -> Array:
        """As `__call__`, of an array as a data set gives it: measurements are float32 in [0, 1] already, and so is what is made of them."""
        if not self._measures:
            return self(array, mode=mode, seed=seed)
        source, carried, dtype = self.prepare(array)
        labels = tuple(source) if self.config.edges else source[0]
        given: Any = source if self.config.classes is None else labels
        return self.finish(self(given, mode=mode, seed=seed), carried, dtype)

    def prepare(self, array: Array, as_bytes: bool = False) -> tuple[Tensor, Carried, np.dtype[Any]]:
        """An array (H, W, C) as what the network sees, (in_channels, H, W) in [-1, 1]; what goes past it to the output; the output's type.

        What computes colours sees the image at the resolution of `with_render_factor`. Measurements are float32 in [0, 1], as `img2img.images.bands.scale_values` gives them.
        Of label maps, an array (H, W, 1 or 2) of labels and instances, it sees them as a tensor (1 or 2, H, W) of integers.

        With `as_bytes`, an 8-bit image stays uint8, (in_channels, H, W): to a GPU, a quarter of the bytes. What comes out is uint8 then, too.
        """
        if self.config.classes is not None:
            made = np.dtype(np.uint8 if self.config.out_range is None else np.float32)
            return as_maps(array, None, self.config.classes, self.config.edges)[0], Carried(), made
        if self.config.in_range is not None:
            if array.shape[2] != self.in_channels:
                raise ImageError(f"it has {array.shape[2]} bands, and this translator takes {self.in_channels}")
            return to_tensor(array), Carried(), np.dtype(np.float32 if self.config.out_range else np.uint8)
        if self.config.out_range is not None:
            return to_tensor(convert_channels(array, self.in_channels)), Carried(), np.dtype(np.float32)
        carries = array.shape[2] in (2, 4) and {self.in_channels, self.out_channels} <= {1, 3}
        alpha = array[..., -1:] if carries else None
        over_white = convert_channels(array, self.in_channels)
        if not self.config.generator.keeps_luminance:
            whole = as_bytes and over_white.dtype == np.uint8
            return (to_byte_tensor if whole else to_tensor)(over_white), Carried(alpha), array.dtype
        source = to_tensor(resize(over_white, *self._render_size(*array.shape[:2])))
        gray = over_white if alpha is None else convert_channels(split_alpha(array)[0], 1)
        return source, Carried(alpha, gray, source), array.dtype

    def _render_size(self, height: int, width: int) -> tuple[int, int]:
        """At which colours are computed."""
        config = self.config
        trained = None if config.resize == "none" else min(config.size, config.width or config.size)
        side = 16 * self.render_factor if self.render_factor else trained
        share = min(1.0, side / min(height, width)) if side else 1.0
        return max(1, round(height * share)), max(1, round(width * share))

    def shown(self, source: Tensor) -> Tensor:
        """What the network gets, (B, C, H, W), for the eye: label maps in their colours, (B, 3, H, W) in [-1, 1]."""
        classes = self.config.classes
        return (
            source
            if classes is None
            else paint_labels(mask_ignored(source, classes.ignore)[:, 0], torch.from_numpy(classes.colours()))
        )

    def finish(self, done: Tensor, carried: Carried, dtype: Any) -> Array:
        """What came out, (out_channels, H, W) in [-1, 1] or uint8, as an array (H, W, C) of uint8, uint16, or float in [0, 1], with what was carried."""
        if carried.gray is None or carried.seen is None:
            array = to_array(done, dtype)
        else:
            change = (done.detach().cpu().float() - carried.seen.cpu()) / 2
            array = add_colours(carried.gray, change.permute(1, 2, 0).contiguous().numpy()).astype(dtype, copy=False)
        return array if carried.alpha is None else np.concatenate([array, carried.alpha], axis=2)

    def _tensor(self, image: Given, mode: Mode, tile: int | None, seed: int) -> Tensor:
        classes = self.config.classes
        if classes is not None:
            labels, instances = image if isinstance(image, tuple) else (image, None)
            maps = as_maps(labels, instances, classes, self.config.edges)
            pieces = maps.split(1) if mode == "paper" else (maps,)
            made = concatenate([self._translate_tensor(piece, tile, seed) for piece in pieces]).to(labels.device)
            return made[0] if labels.ndim == 2 else made
        if isinstance(image, tuple):
            raise UsageError(NO_INSTANCES)
        check_tensor(image, self.in_channels, (3, 4), self._measures)
        batch = image if image.ndim == 4 else image[None]
        parts = batch.split(1) if mode == "paper" else (batch,)
        made = concatenate([self._translate_tensor(self._move_bytes(part, tile), tile, seed) for part in parts])
        done = _to_kind(made, image)
        return done if image.ndim == 4 else done[0]

    def _move_bytes(self, image: Tensor, tile: int | None) -> Tensor:
        """(B, C, H, W) in [-1, 1], float32; bytes on the network's device, if all of them fit there."""
        count, _, height, width = image.shape
        if image.dtype == torch.uint8 and fits(self.generator, self.config.generator, height, width, tile, count):
            with suppress(torch.OutOfMemoryError):
                return scale_bytes(image.to(self.device, non_blocking=self.device.type == "cuda"))
        return _to_float(image)

    def _translate_tensor(self, source: Tensor, tile: int | None, seed: int) -> Tensor:
        config, network = self.config, self.generator
        if self.style is not None and self.draws_styles:
            network = self.generator.with_style(self.style)
        if config.classes is not None:
            fits_there = self.fits(source.shape[2], source.shape[3], tile)
            maps = mask_ignored(source.to(self.device) if fits_there else source, config.classes.ignore)
            source = encode_label_maps(maps, config.classes.count, config.edges)
            if self.style is not None and self.styles is not None:
                source = torch.cat([source, spread_features(maps[:, 0], self.style)], dim=1)
        if config.classes is None and config.value_range[0] == 0:
            source = (source + 1) / 2
        if (domain := self.chosen_domain()) is not None:
            source = append_domain(source, domain.expand(source.shape[0], -1))
        with convolve_exactly(self.device, not self.tf32):
            if self.nfe is None:
                done = translate(network, source, tile, self.memory_format, config.generator)
            else:
                done = translate_in_steps(network, config.generator, source, self.nfe, seed, tile, self.memory_format)
        return done * 2 - 1 if config.value_range[0] == 0 else done

    def fits(self, height: int, width: int, tile: int | None = None) -> bool:
        """Whether an image of this size is computed at once, and not in strips; `tile` as of `__call__`."""
        return fits(self.generator, self.config.generator, height, width, tile)

    def kept(self) -> Mapping[str, Tensor]:
        """What another project's file held beside what the network computes with; it goes along for writing it back."""
        file = self.home / REFERENCE_FILE if self.home else None
        return self.reference or (read_tensors_of(file) if file and file.is_file() else {})

    def save(self, folder: Path | str) -> None:
        """Writes the translator's folder, whole or not at all; it takes the place of an older one.

        Raises:
            UserError: if it can't be written, or the folder holds something else.
        """
        folder = Path(folder)
        refuse_other_files(folder)
        if self.generator.not_saved:
            raise UsageError(self.generator.not_saved)
        reference = self.kept()
        with whole_folder(folder) as new:
            if self.adapter is not None:
                write_tensors(new / ADAPTER_FILE, self.adapter)
            else:
                write_tensors(new / WEIGHTS_FILE, self.generator.state_dict())
            if self.encoder is not None:
                write_tensors(new / ENCODER_FILE, self.encoder.state_dict())
            if self.styles is not None:
                write_tensors(new / STYLES_FILE, {"styles": self.styles})
            if reference:
                write_tensors(new / REFERENCE_FILE, reference)
            (new / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def describe(self) -> Card:
        """What its card says."""
        config, domains = self.config, self.config.domains
        size = f"{config.width}×{config.size}" if config.width else str(config.size)
        paper = "batch statistics and dropout, seeded"
        return Card(
            task="image-to-image",
            source=f"label maps of {config.classes.count} classes"
            if config.classes
            else describe_images(self.in_channels, config.in_range),
            made=f"{describe_images(self.out_channels, config.out_range)}{' of ' if domains else ''}{', '.join(domains)}",
            size=f"{size} pixels; it takes any size",
            use=f"translation = model(image{f', style={domains[0]!r}' if domains else ''})  # a PIL image, an array or a tensor",
            command=f"convert SOURCE TARGET --model MODEL{f' --style {domains[0]}' if domains else ''}",
            mode="running statistics, no dropout" if config.mode == "eval" else paper,
        )

    def _to_share(self) -> Self:
        shared = copy.copy(self)
        shared.config, shared.adapter = (
            self.config.model_copy(update={"base": None, "training": self.config.training.without_paths()}),
            None,
        )
        return shared

    @classmethod
    def load(
        cls, path: Path | str, device: torch.device | str = "cpu", *, direction: Literal["AtoB", "BtoA"] | None = None
    ) -> Self:
        """Reads a translator's folder, or a run's folder (its best translator, else its latest). Runs no pickle.

        Raises:
            UsageError: if there is none, or it is damaged, or none of that direction.
        """
        folder = find_translator(Path(path), direction)
        config = read_config(folder)
        if direction not in (None, config.direction):
            raise UsageError(f"--direction {direction}: {path} translates {config.direction} only.")
        generator = build_empty(build_generator, config.generator)
        put_weights(
            generator, generator_state(config, folder), folder / (ADAPTER_FILE if config.base else WEIGHTS_FILE)
        )
        encoder, styles = load_styles(config, folder)
        adapter = read_tensors_of(folder / ADAPTER_FILE) if config.base else None
        loaded = cls(config, generator.eval(), encoder, styles, adapter)
        loaded.home = folder.absolute()
        return loaded.to(choose_device(str(device)))


def _to_float(image: Tensor) -> Tensor:
    """float32 in [-1, 1]."""
    return scale_bytes(image) if image.dtype == torch.uint8 else image.to(torch.float32)


def _to_kind(done: Tensor, image: Tensor) -> Tensor:
    """What came out, in the type and on the device of what went in."""
    return (round_to_bytes(done) if image.dtype == torch.uint8 else done).to(image.device, image.dtype)
