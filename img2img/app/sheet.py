"""What a sheet of images from noise shows: images of seeds, children of one, or the way between two."""

import base64
import binascii
import zlib
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from img2img.core.errors import UsageError
from img2img.core.settings import Strict, explain
from img2img.images import Array, write_picture
from img2img.inference.sample import build_walk
from img2img.models import Latent, Latents, NoiseGenerator, cross, find_latents, vary
from img2img.models.latents import NARROWEST, SEEDS

MOST = 64  # images
LONGEST = 2**20  # bytes of a link's state, unpacked


class Sheet(Strict):
    """What a sheet shows; a link holds it, and so does the history."""

    kind: Literal["seeds", "children", "way"] = "seeds"
    """Images of seeds, variations of one, or the way between two."""
    count: int = Field(24, ge=2, le=MOST)
    """How many images."""
    seed: int = Field(0, ge=0, le=SEEDS - MOST)
    """The first image's seed; of children, that of the first one's noise."""
    label: str = ""
    """Of seeds: the class of all; by default each in turn."""
    codes: dict[int, float] = Field(default_factory=dict)
    """Of seeds: codes of an InfoGAN that have a value."""
    truncation: float | None = Field(None, ge=NARROWEST)
    """As of `NoiseGenerator.sample`."""
    first: Latent | None = None
    """The image whose children these are, or the first of the way."""
    second: Latent | None = None
    """The last of the way."""
    distance: float = Field(0.3, ge=0, le=1)
    """Of children: how far they are, as of `vary`."""

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if (self.kind != "seeds" and self.first is None) or (self.kind == "way" and self.second is None):
            raise ValueError(f"a sheet of {self.kind} needs the images that it begins with")
        return self

    def list_latents(self, generator: NoiseGenerator) -> list[Latent]:
        """What its images are made of. The first child is the image itself."""
        seeds = range(self.seed, self.seed + self.count)
        if self.kind == "seeds":
            return find_latents(generator, seeds, self.label or None, self.truncation, self.codes or None)
        assert self.first is not None
        if self.kind == "children":
            others = [vary(generator, self.first, seed, self.distance, self.truncation) for seed in seeds[:-1]]
            return [self.first, *others]
        assert self.second is not None
        shares = np.linspace(0, 1, self.count)
        return [cross(generator, self.first, self.second, float(share)) for share in shares]

    def pack(self) -> str:
        """As text for a link."""
        return base64.urlsafe_b64encode(zlib.compress(self.model_dump_json(exclude_defaults=True).encode(), 9)).decode()

    @classmethod
    def unpack(cls, text: str | None) -> Self:
        """What `pack` made.

        Raises:
            UsageError: if it is damaged.
        """
        try:
            unpacking = zlib.decompressobj()
            data = unpacking.decompress(base64.urlsafe_b64decode(text or ""), LONGEST)
            if not unpacking.eof:
                raise ValueError("it ends early")
            return cls.model_validate_json(data)
        except (zlib.error, binascii.Error, ValueError) as error:
            reason = f" ({explain(error)})" if isinstance(error, ValidationError) else ""
            raise UsageError(f"this link is damaged{reason}.") from None


def name_images(sheet: Sheet) -> list[str]:
    """What stands below the images of a sheet."""
    if sheet.kind == "seeds":
        return [f"seed {sheet.seed + place}" for place in range(sheet.count)]
    if sheet.kind == "children":
        return ["the image itself", *(f"child {place}" for place in range(1, sheet.count))]
    return [f"{round(100 * place / (sheet.count - 1))} %" for place in range(sheet.count)]


def save_sheet(folder: Path, sheet: Sheet, latents: list[Latent], images: list[Array]) -> list[str]:
    """Writes what can be downloaded of a sheet: the latents, and of a way the walk there and back."""
    Latents(truncation=sheet.truncation, images=tuple(latents)).save(folder / "latents.json")
    files = [folder / "latents.json"]
    if sheet.kind == "way":
        write_picture(folder / "walk.gif", build_walk(images))
        files.append(folder / "walk.gif")
    return [str(file) for file in files]
