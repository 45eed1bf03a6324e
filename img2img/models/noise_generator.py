"""NoiseGenerator: makes images from noise, with all that is needed to run it."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from img2img.core.device import choose_device
from img2img.core.errors import UsageError, list_some
from img2img.core.files import whole_folder, write_tensors
from img2img.core.settings import Strict
from img2img.images import Array
from img2img.images.bands import Range, restore_values
from img2img.images.nifti import Axis
from img2img.images.tensors import to_array
from img2img.models.config import Training
from img2img.models.hub import Card, Shareable, describe_images
from img2img.models.latents import (
    SEEDS,
    Walk,
    draw_codes,
    draw_noise,
    find_mean_style,
    mix_noise,
    recalibrate_batch_norm,
)
from img2img.models.storage import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    build_empty,
    find_translator,
    is_noise_generator,
    load_weights,
    read_settings,
    refuse_other_files,
)
from img2img.networks import AnyNoiseGeneratorConfig, build_noise_generator
from img2img.networks.generators.base import Codes
from img2img.networks.generators.style import StyleGenerator

BATCH = 8  # images in every call of the network: in batches of other sizes they are rounded differently

Labels = int | str | Sequence[int | str] | None


class NoiseGeneratorModelConfig(Strict):
    """What a noise generator is: enough to rebuild and run it."""

    format: Literal[1] = 1
    """Version of this layout."""
    kind: Literal["sampler"] = "sampler"
    """What tells it from a translator."""
    method: str
    """What it was trained with."""
    generator: AnyNoiseGeneratorConfig
    """The architecture."""
    classes: tuple[str, ...] = ()
    """The classes that can be asked for, by name."""
    codes: Codes | None = None
    """Of an InfoGAN: the codes, which come after the noise."""
    value_range: tuple[Literal[-1], Literal[1]] = (-1, 1)
    """What black and white are for the network."""
    resize: Literal["short", "stretch", "none"] = "short"
    """How its training images were scaled."""
    range: Range | None = None
    """Of measurements, the values that are -1 and 1 for the network; then every channel is a band."""
    axis: Axis = "axial"
    """How the volumes that it was trained on were cut."""
    training: Training = Field(default_factory=lambda: Training(img2img="0"))
    """How it came to be."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if not (self.generator.size and self.generator.out_channels):
            raise ValueError("the generator's size and channels are missing")
        if len(self.classes) != self.generator.classes:
            raise ValueError(f"there are {len(self.classes)} names for {self.generator.classes} classes")
        if self.codes is not None and self.codes.width >= self.generator.latent:
            raise ValueError(f"{self.codes.width} codes leave no noise of {self.generator.latent} numbers")
        return self


class NoiseGenerator(Shareable):
    """Makes images from noise. Each image has a seed, which determines it: alone, among others, and in every run.

    Args:
        config: what it is.
        generator: the network, as `config.generator` describes it.
    """

    def __init__(self, config: NoiseGeneratorModelConfig, generator: nn.Module) -> None:
        self.config, self.generator = config, generator.eval()
        self._narrow: tuple[float | None, nn.Module] = None, self.generator
        self.truncated_layers: range | None = None
        """Of a generator with styles: where they are truncated; by default everywhere."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.generator.parameters()).device

    @property
    def latent(self) -> int:
        """Numbers of the noise, without codes."""
        return self.config.generator.latent - (self.config.codes.width if self.config.codes else 0)

    def to(self, device: torch.device | str) -> Self:
        """Moves the weights."""
        self.generator.to(device)
        self._narrow = None, self.generator
        return self

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        labels: Labels = None,
        truncation: float | None = None,
        codes: dict[int, float] | None = None,
    ) -> Array:
        """Makes images.

        Args:
            count: how many; image k has the seed `seed` + k.
            seed: of the first.
            labels: the classes asked for, by number or name: one for all, or one an image; by default each in turn, by the
                image's seed.
            truncation: noise beyond it is drawn again (Brock et al. 2019, §3.1): smaller values give more typical and less
                varied images, where noise reaches more than the first layer (biggan), and hardly any difference where a
                norm scales it up again at once (dcgan); by default none. Of a generator with styles (style), how far they are from their
                mean, as a share (Karras et al. 2019, §B): 0 gives the mean image, 1 changes nothing.
            codes: of an InfoGAN, the codes that shall have a value: of a categorical one, numbered from 0, which value, of a
                continuous one, numbered after those, from -1 to 1. The others are drawn.

        Returns:
            (count, size, size, channels), uint8; of measurements, float32 in their range. So do all that make images.

        Raises:
            UsageError: for values that can't be.
        """
        if count < 1:
            raise UsageError(f"{count} images can't be made; ask for at least 1.")
        seeds = range(seed, seed + count)
        return self.images(self.noise(seeds, truncation, codes), self.numbers(labels, seeds), truncation)

    def noise(
        self, seeds: Sequence[int], truncation: float | None = None, codes: dict[int, float] | None = None
    ) -> Tensor:
        """What images of these seeds are made from: (B, latent), and codes beside it; float32 on the CPU."""
        if min(seeds) < 0 or max(seeds) >= SEEDS:
            raise UsageError(f"seed {min(seeds) if min(seeds) < 0 else max(seeds)}: give 0 to {SEEDS - 1}.")
        if self.has_styles:
            _refuse_share(truncation)
            truncation = None  # it is their styles that are truncated
        drawn = [draw_noise(self.latent, seed, truncation) for seed in seeds]
        if self.config.codes is not None:
            drawn = [
                torch.cat([z, draw_codes(self.config.codes, seed, codes or {})])
                for z, seed in zip(drawn, seeds, strict=True)
            ]
        elif codes:
            raise UsageError(f"this {self.config.method} has no codes; infogan learns them.")
        return torch.stack(drawn)

    def numbers(self, labels: Labels, seeds: Sequence[int]) -> Tensor | None:
        """The classes of images by number: (B,); None if there are no classes.

        Raises:
            UsageError: for a class that there isn't.
        """
        classes = self.config.classes
        if not classes:
            if labels is not None:
                raise UsageError("this generator knows no classes; it was trained without them.")
            return None
        if labels is None:
            return torch.tensor([seed % len(classes) for seed in seeds])
        asked = [labels] * len(seeds) if isinstance(labels, int | str) else list(labels)
        if len(asked) != len(seeds):
            raise UsageError(f"{len(asked)} labels for {len(seeds)} images; give one for all, or one an image.")
        return torch.tensor([self._number(label) for label in asked])

    def _number(self, label: int | str) -> int:
        classes, name = self.config.classes, str(label)
        if name in classes:
            return classes.index(name)
        if name.isdecimal() and int(name) < len(classes):
            return int(name)
        raise UsageError(f"there is no class {label!r}; there are {list_some(classes, 20)}.")

    @torch.no_grad()
    def images(self, noise: Tensor, labels: Tensor | None = None, truncation: float | None = None) -> Array:
        """Images from noise (B, latent [+ codes]) and classes: (B, size, size, channels), uint8.

        Args:
            noise: as `noise` draws it.
            labels: numbers of classes, (B,), or shares of each, (B, classes), which mix them.
            truncation: the one that the noise was drawn with.
        """
        return self._to_images(self._compute(self._network(truncation), noise, labels))

    def _to_images(self, made: Sequence[Tensor]) -> Array:
        limits = self.config.range
        if limits is None:
            return np.stack([to_array(image) for image in made])
        return np.stack([restore_values(to_array(image, np.float32), limits, np.dtype(np.float32)) for image in made])

    def scale(self, images: Array) -> Array:
        """What this generator has made, with the ends of its range as 0 and 1; images of colours as they are."""
        if self.config.range is None:
            return images
        low, high = self.config.range
        return ((images - low) / (high - low)).clip(0, 1).astype(np.float32)  # type: ignore[no-any-return]

    def show(self, images: Array) -> Array:
        """The same for the eye: uint8, and of measurements the first three bands, or the first."""
        if self.config.range is None:
            return images
        bands = 3 if images.shape[-1] >= 3 else 1
        return np.rint(self.scale(images[..., :bands]) * 255).astype(np.uint8)

    @property
    def has_styles(self) -> bool:
        """Whether noise is mapped to styles, one for each layer, of which images are made."""
        return isinstance(self.generator, StyleGenerator)

    @torch.no_grad()
    def styles(self, noise: Tensor, labels: Tensor | None = None, truncation: float | None = None) -> Tensor:
        """The styles of which images are made, for each layer from coarse to fine: (B, layers, latent), float32 on the CPU.

        Args:
            noise: as `noise` draws it.
            labels: as of `images`.
            truncation: as of `sample`.

        Raises:
            UsageError: if this generator has none.
        """
        network = self.styled_network(truncation)

        def spread(*given: Tensor) -> Tensor:
            return network.spread(network.mapping(*given))

        return torch.stack([style.cpu() for style in self._compute(spread, noise, labels)])

    @torch.no_grad()
    def paint(self, styles: Tensor) -> Array:
        """Images from styles (B, layers, latent), as `styles` gives them: (B, size, size, channels), uint8.

        Raises:
            UsageError: if this generator has none, or others.
        """
        network = self.styled_network()
        shape = network.layers, self.config.generator.latent
        if styles.shape[1:] != shape:
            raise UsageError(
                f"styles of {tuple(styles.shape[1:])} numbers are those of another model; this one's have {shape}."
            )
        return self._to_images(self._compute(network.synthesise, styles, None))

    def with_truncated_layers(self, layers: range) -> Self:
        """The same generator, which truncates the styles of some layers only, from 0, the coarsest.

        Raises:
            UsageError: if it has no such layers.
        """
        self._refuse_layers(layers)
        other = copy.copy(self)
        other.truncated_layers = layers
        return other

    def truncate(self, styles: Tensor, share: float) -> Tensor:
        """Styles (B, layers, latent), moved towards the mean style as `sample` does it."""
        network = self.styled_network(_refuse_share(share))
        return torch.lerp(network.mean_style.cpu(), styles, cast(Tensor, network.truncation).cpu())

    def _refuse_layers(self, layers: range) -> None:
        count = self.styled_network().layers
        if not layers or layers.start < 0 or layers.stop > count:
            raise UsageError(f"layers {layers.start} to {layers.stop - 1}: this generator has 0 to {count - 1}.")

    def mix(self, coarse: Tensor, fine: Tensor, layers: range) -> Array:
        """Images whose styles in some layers are another's (Karras et al. 2019, §3.1, figure 3): (A, B, size, size, channels), uint8.

        Args:
            coarse: styles (A, layers, latent).
            fine: styles (B, layers, latent), of which those of `layers` are taken.
            layers: from 0, the coarsest.
        """
        self._refuse_layers(layers)
        grid = coarse[:, None].expand(-1, len(fine), -1, -1).clone()
        grid[:, :, layers.start : layers.stop] = fine[None, :, layers.start : layers.stop]
        return self.paint(grid.flatten(0, 1)).reshape(len(coarse), len(fine), *self._shape)

    @property
    def _shape(self) -> tuple[int, int, int]:
        network = self.config.generator
        assert network.size and network.out_channels
        return network.size, network.size, network.out_channels

    def styled_network(self, truncation: float | None = None) -> StyleGenerator:
        """The network, of a generator with styles, which truncates them like this.

        Raises:
            UsageError: if this generator has none.
        """
        network = self._network(truncation)
        if not isinstance(network, StyleGenerator):
            raise UsageError(f"this {self.config.method} has no styles; img2img train stylegan2 trains such as have.")
        return network

    def _compute(self, network: Callable[..., Tensor], given: Tensor, labels: Tensor | None) -> list[Tensor]:
        """What a network makes of each of these, always so many at a time."""
        found: list[Tensor] = []
        for start in range(0, len(given), BATCH):
            part = given[start : start + BATCH]
            wanted = None if labels is None else labels[start : start + BATCH]
            empty = BATCH - len(part)
            part = torch.cat([part, part[:1].expand(empty, *part.shape[1:])]).to(self.device)
            if wanted is not None:
                wanted = torch.cat([wanted, wanted[:1].expand(empty, *wanted.shape[1:])]).to(self.device)
            found += network(part, wanted)[: BATCH - empty] if wanted is not None else network(part)[: BATCH - empty]
        return found

    def _network(self, truncation: float | None) -> nn.Module:
        """The generator, whose styles are truncated, or with statistics in its batch norms of noise that is truncated like this: with others, images fade."""
        if isinstance(self.generator, StyleGenerator) and truncation is not None:
            return self.generator.truncated(_refuse_share(truncation), self.truncated_layers)
        if self._narrow[0] != truncation:
            self._narrow = truncation, self.generator if truncation is None else self._recalibrate_copy(truncation)
        return self._narrow[1]

    def _recalibrate_copy(self, truncation: float | None) -> nn.Module:
        return recalibrate_batch_norm(
            self.generator, lambda seeds: (self.noise(seeds, truncation), self.numbers(None, seeds))
        )

    def recalibrate(self) -> Self:
        """Gives the batch norms the statistics of many images instead of those of training's last batches (Brock et al. 2019, appendix D), and a generator with styles their mean."""
        self.generator = self._recalibrate_copy(None)
        if isinstance(self.generator, StyleGenerator):
            self.generator = find_mean_style(
                self.generator, lambda seeds: (self.noise(seeds), self.numbers(None, seeds))
            )
        self._narrow = None, self.generator
        return self

    def interpolate(
        self,
        first: int,
        last: int,
        steps: int,
        *,
        how: Walk | None = None,
        labels: Labels = None,
        truncation: float | None = None,
    ) -> Array:
        """Images on the way between those of two seeds, both included: (steps, size, size, channels), uint8.

        Args:
            first: a seed.
            last: another.
            steps: how many images.
            how: ``spherical`` (White 2016), which keeps the length that noise has; ``linear``; or ``style``, straight from one's styles to the
                other's, which is the default where there are styles.
            labels: one class for all; by default that of the first seed.
            truncation: as of `sample`.
        """
        if steps < 2:
            raise UsageError(f"{steps} steps lead nowhere; take at least 2.")
        a, b = self.noise([first, last], truncation)
        shares = torch.linspace(0, 1, steps)
        how = how or ("style" if self.has_styles else "spherical")
        if how == "style":
            ends = self.styles(torch.stack([a, b]), self.numbers(labels, [first] * 2), truncation)
            return self.paint(torch.stack([torch.lerp(ends[0], ends[1], share) for share in shares]))
        way = torch.stack([mix_noise(a, b, share, self.latent, how) for share in shares])
        return self.images(way, self.numbers(labels, [first] * steps), truncation)

    def sweep(self, code: int, rows: int, *, steps: int = 10, seed: int = 0, truncation: float | None = None) -> Array:
        """Images that differ in one code only, row by row: (rows, steps, size, size, channels), uint8.

        Args:
            code: its number; categorical ones come first.
            rows: how many seeds.
            steps: how many values of a continuous code, from -1 to 1; of a categorical one there are as many as it has.
            seed: of the first row.
            truncation: as of `sample`.
        """
        codes = self.config.codes
        count = len(codes.categorical) + codes.continuous if codes else 0
        if codes is None or not 0 <= code < count:
            raise UsageError(f"there is no code {code}: this {self.config.method} has {count or 'none'}.")
        if steps < 1:
            raise UsageError(f"{steps} steps can't be shown; take at least 1.")
        categorical = code < len(codes.categorical)
        values = range(codes.categorical[code]) if categorical else np.linspace(-1, 1, steps).tolist()
        seeds = range(seed, seed + rows)
        columns = [self.images(self.noise(seeds, truncation, {code: value}), None, truncation) for value in values]
        return np.stack(columns, axis=1)

    def save(self, folder: Path | str) -> None:
        """Writes the model's folder, whole or not at all; it takes the place of an older one.

        Raises:
            UserError: if it can't be written, or the folder holds something else.
        """
        folder = Path(folder)
        refuse_other_files(folder)
        with whole_folder(folder) as new:
            write_tensors(new / WEIGHTS_FILE, self.generator.state_dict())
            (new / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def describe(self) -> Card:
        """What its card says."""
        network = self.config.generator
        return Card(
            task="unconditional-image-generation",
            source="noise",
            made=describe_images(network.out_channels or 0, self.config.range),
            size=f"{network.size} pixels",
            use="samples = model.sample(8)",
            command="sample --model MODEL --output FOLDER",
        )

    def _to_share(self) -> Self:
        shared = copy.copy(self)
        shared.config = self.config.model_copy(update={"training": self.config.training.without_paths()})
        return shared

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> Self:
        """Reads a folder of this kind, or a run's folder (its best model, else its latest). Runs no pickle.

        Raises:
            UsageError: if there is none, or it is damaged.
        """
        folder = find_translator(Path(path))
        if not is_noise_generator(folder):
            raise UsageError(f"{path} is a translator, which makes images from images; use img2img convert.")
        config = read_settings(folder, NoiseGeneratorModelConfig)
        generator = build_empty(build_noise_generator, config.generator)
        load_weights(generator, folder / WEIGHTS_FILE)
        loaded = cls(config, generator)
        loaded.home = folder.absolute()
        return loaded.to(choose_device(str(device)))


def _refuse_share(truncation: float | None) -> float:
    if truncation is None:
        return 1.0
    if not 0 <= truncation <= 2:
        raise UsageError(
            f"truncation {truncation}: give 0 to 2, the share of the way from the mean style, such as 0.7."
        )
    return truncation
