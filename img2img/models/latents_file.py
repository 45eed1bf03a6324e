"""Latents: what a noise generator makes images of, kept in a small JSON file; variations of them, and what lies between two."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from img2img.core.errors import UsageError
from img2img.core.files import write_whole
from img2img.core.settings import Strict, explain
from img2img.images import Array
from img2img.models.latents import draw_noise, mix_noise, slerp
from img2img.models.noise_generator import Labels, NoiseGenerator
from img2img.networks.labels import class_shares

LARGEST = 2**25  # bytes of a file


class Latent(Strict):
    """What one image is made of."""

    noise: tuple[float, ...] = ()
    """The noise, and behind it the codes of an InfoGAN; none where there are styles."""
    styles: tuple[tuple[float, ...], ...] = ()
    """Of a photo that `img2img invert` found: the style of each layer, or one for all."""
    classes: tuple[float, ...] = ()
    """The share of each class; none where the generator knows no classes."""

    @model_validator(mode="after")
    def _be_something(self) -> Self:
        if bool(self.noise) == bool(self.styles):
            raise ValueError("an image is made of noise, or of styles")
        return self

    @classmethod
    def of(cls, noise: Tensor, classes: Tensor | None) -> Self:
        """Of float32 (latent,) and (classes,), in so many digits that nothing is lost."""
        return cls(noise=_shorten(noise), classes=() if classes is None else _shorten(classes))

    def tensors(self) -> tuple[Tensor, Tensor | None]:
        """The noise (latent,) and the shares of the classes (classes,), float32."""
        return torch.tensor(self.noise), torch.tensor(self.classes) if self.classes else None


class Latents(Strict):
    """What several images are made of."""

    format: Literal[1] = 1
    """Version of this layout."""
    kind: Literal["latents"] = "latents"
    """What this file holds."""
    truncation: float | None = Field(None, ge=0)
    """The noise's, as of `NoiseGenerator.sample`."""
    images: tuple[Latent, ...] = Field(min_length=1)
    """One for each image."""

    def save(self, file: Path) -> None:
        """Writes them as JSON.

        Raises:
            UserError: if the file can't be written.
        """
        write_whole(file, self.model_dump_json().encode() + b"\n")


def read_latents(file: Path) -> Latents:
    """What `Latents.save` wrote.

    Raises:
        UsageError: if the file can't be read, or holds something else.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise UsageError(f"{file} is too large for a file of latents.")
        return Latents.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}.") from None
    except ValidationError as error:
        if any(problem["type"] == "json_invalid" for problem in error.errors()):
            raise UsageError(
                f"{file} is no file of latents, such as the .json that img2img invert writes or img2img serve saves."
            ) from None
        raise UsageError(f"{file} is no file of latents: {explain(error)}.") from None


def find_latents(
    generator: NoiseGenerator,
    seeds: Sequence[int],
    labels: Labels = None,
    truncation: float | None = None,
    codes: dict[int, float] | None = None,
) -> list[Latent]:
    """What the images of some seeds are made of; the arguments are those of `NoiseGenerator.sample`."""
    noise, numbers = generator.noise(seeds, truncation, codes), generator.numbers(labels, seeds)
    shares = [None] * len(noise) if numbers is None else class_shares(numbers, len(generator.config.classes))
    return [Latent.of(each, share) for each, share in zip(noise, shares, strict=True)]


def draw_latents(generator: NoiseGenerator, latents: Sequence[Latent], truncation: float | None = None) -> Array:
    """Their images: (B, size, size, channels), uint8.

    Raises:
        UsageError: if they are those of another generator.
    """
    if all(latent.styles for latent in latents):
        return generator.paint(collect_styles(generator, latents, truncation))
    classes, width = len(generator.config.classes), generator.config.generator.latent
    for latent in latents:
        if latent.styles:
            raise UsageError("some of these latents are noise, and some styles; draw them apart.")
        if len(latent.noise) != width or len(latent.classes) != classes:
            raise UsageError(
                f"latents of {len(latent.noise)} numbers and {len(latent.classes)} classes are those of another model; this one's have {width} and {classes}."
            )
    pairs = [latent.tensors() for latent in latents]
    noise, shares = torch.stack([noise for noise, _ in pairs]), [share for _, share in pairs if share is not None]
    return generator.images(noise, torch.stack(shares) if shares else None, truncation)


def collect_styles(generator: NoiseGenerator, latents: Sequence[Latent], truncation: float | None = None) -> Tensor:
    """What they are for each layer of a generator with styles: (B, layers, latent).

    Raises:
        UsageError: if they are those of another generator, or it has none.
    """
    found = []
    for latent in latents:
        if latent.styles:
            network = generator.config.generator
            layers = getattr(network, "layers", 0)
            if len(latent.styles) not in (1, layers) or {len(each) for each in latent.styles} != {network.latent}:
                raise UsageError("these styles are those of another model.")
            found.append(torch.tensor(latent.styles).expand(layers, -1))
        else:
            noise, shares = latent.tensors()
            found.append(generator.styles(noise[None], None if shares is None else shares[None], truncation)[0])
    return torch.stack(found)


def vary(generator: NoiseGenerator, latent: Latent, seed: int, distance: float, truncation: float | None) -> Latent:
    """A variation of an image: part of the way to other noise, on the great circle. Codes and classes stay.

    Args:
        seed: of that noise, which is no noise of `NoiseGenerator.noise`: the image may be that seed's.
        distance: from 0, the image itself, to 1, the other noise.
        truncation: of that noise.
    """
    _refuse_styles(latent)
    noise, classes = latent.tensors()
    count = generator.latent
    narrowed = None if generator.has_styles else truncation  # it is styles that are truncated there
    other = draw_noise(count, zlib.crc32(f"variation/{seed}".encode()), narrowed)
    near = slerp(noise[:count], other, distance)
    return Latent.of(torch.cat([near, noise[count:]]), classes)


def cross(generator: NoiseGenerator, first: Latent, second: Latent, share: float) -> Latent:
    """What lies between two images, at `share` of the way: noise on the great circle, codes and classes straight."""
    _refuse_styles(first, second)
    (a, classes), (b, others) = first.tensors(), second.tensors()
    mixed = None if classes is None or others is None else torch.lerp(classes, others, share)
    return Latent.of(mix_noise(a, b, share, generator.latent), mixed)


def _refuse_styles(*latents: Latent) -> None:
    if any(latent.styles for latent in latents):
        raise UsageError(
            "these latents are styles of photos, which img2img sample --interpolate and --style-mix change."
        )


def _shorten(values: Tensor) -> tuple[float, ...]:
    """Numbers of few digits that are the same in float32."""
    return tuple(float(str(value)) for value in values.numpy().astype(np.float32))
