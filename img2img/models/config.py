"""What a translator is and how it came to be: its config.json."""

from pathlib import PurePath
from typing import Literal, Self

from pydantic import Field, model_validator

from img2img.core.settings import Strict
from img2img.data.classes import Classes
from img2img.images.bands import Range
from img2img.images.nifti import Axis
from img2img.networks import EncoderConfig, GeneratorConfig

Mode = Literal["eval", "paper"]


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
    init: str = ""
    """The model that its training began with."""
    teacher: str = ""
    """The translator that it learned to imitate, if it was compressed."""
    scores: dict[str, float | None] = Field(default_factory=dict)
    """On the validation split, when it was saved."""

    def without_paths(self) -> Self:
        """The same, with the names of folders only: where they lie is nobody's business."""
        names = {
            field: " + ".join(
                PurePath(part).name if PurePath(part).is_absolute() else part
                for part in getattr(self, field).split(" + ")
            )
            for field in ("data", "init", "teacher")
        }
        return self.model_copy(update=names)


class Base(Strict):
    """The model of which a translator is a small change."""

    model: str
    """Its folder."""
    digest: str
    """Of its weights."""
    rank: int = Field(ge=1)
    """Of the change."""


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
    value_range: tuple[Literal[-1, 0], Literal[1]] = (-1, 1)
    """What black and white are for the network, in images that it takes and makes; those that were trained here have -1 and 1."""
    size: int
    """Height and width of its training images in pixels; it translates any size."""
    width: int | None = None
    """The width of its training images, if it is not `size`."""
    resize: Literal["short", "stretch", "none"] = "short"
    """How its training images were scaled to that size."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Which side of the data set was the source."""
    in_range: Range | None = None
    """Of measurements, the values in files that are -1 and 1 for the network; then every channel is a band."""
    out_range: Range | None = None
    """The same of what it makes."""
    axis: Axis = "axial"
    """How volumes are cut into the slices that it translates."""
    derive: Literal["gray", "edges", "lowres"] | None = None
    """How its sources were made, if they were."""
    classes: Classes | None = None
    """Of a translator of label maps: what labels there are."""
    domains: tuple[str, ...] = ()
    """Of a translator that is told what to make: the domains, by name; see `networks.labels.append_domain`."""
    edges: bool = False
    """Whether the edges of instances are shown to it, so that it needs instance maps, too."""
    encoder: EncoderConfig | None = None
    """The network that reads styles from images, if it was trained with one."""
    base: Base | None = None
    """Of a translator that is saved as the difference from another."""
    imported: str | None = None
    """Of a translator that another project trained: which of its networks this is."""
    training: Training
    """How it came to be."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        kind, latent = self.encoder.kind if self.encoder else "", getattr(self.generator, "latent", None)
        if kind == "instances" and self.classes is None:
            raise ValueError("an encoder of instances needs classes")
        if self.encoder is not None and self.encoder.kind == "image" and latent != self.encoder.latent:
            raise ValueError("an encoder of images belongs to a generator with as many latent numbers")
        return self
