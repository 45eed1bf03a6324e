"""A file of another project's weights as a translator, with what the file can't tell said."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import img2img
from img2img.core.errors import UsageError
from img2img.core.files import whole_folder, write_tensors
from img2img.core.settings import Strict
from img2img.data.classes import Classes
from img2img.interop.family import Guess
from img2img.interop.recognise import FAMILIES, Found, read_network
from img2img.models import CONFIG_FILE, Mode, Training, Translator, TranslatorConfig, load_weights, refuse_other_files
from img2img.networks import DiscriminatorConfig, ImageEncoderConfig, InstanceEncoderConfig, SPADEConfig
from img2img.networks.layers import ImageNetwork

MOST_IMAGE_CHANNELS = 4
LABELS = {  # published label maps by the channels that their generator sees: labels, the edges of instances
    151: (151, False, "ADE20K's 150 labels and one for unknown"),
    184: (183, True, "COCO-Stuff's 182 labels and one for unknown"),
}
DISCRIMINATOR_FILE = "discriminator.safetensors"
SPECTRAL_NOTE = "spectral norm: divided out of the weights, as it is when a network is used"


class DiscriminatorFile(Strict):
    """What an imported discriminator is: its config.json."""

    format: Literal[1] = 1
    kind: Literal["discriminator"] = "discriminator"
    """That it is no translator."""
    imported: str
    """Which network of another project it is."""
    in_channels: int
    """Of what it sees: of a conditional one those of source and target together."""
    discriminator: DiscriminatorConfig
    """The architecture."""


@dataclass(frozen=True)
class Imported:
    """A translator that another project trained."""

    translator: Translator
    described: str
    """Which network of which project, for a person."""
    assumed: tuple[str, ...]
    """What the file can't tell, and how it was settled."""


@dataclass(frozen=True)
class ImportOptions:
    """What somebody knows of a file that its keys can't tell; None takes what was published."""

    norm: str | None = None
    dropout: float | None = None
    padding: str | None = None
    upsampling: str | None = None
    mode: Mode | None = None
    value_range: tuple[int, int] | None = None
    classes: int | None = None
    """0 if the generator takes images."""
    edges: bool | None = None
    size: int | None = None
    direction: Literal["AtoB", "BtoA"] | None = None

    @property
    def of_network(self) -> dict[str, Any]:
        """What is about the architecture."""
        given = {name: getattr(self, name) for name in ("norm", "dropout", "padding", "upsampling")}
        return {name: value for name, value in given.items() if value is not None}


def import_file(file: Path, known: ImportOptions = ImportOptions(), encoder: Path | None = None) -> Imported:
    """Makes a translator of a generator's weights.

    Args:
        file: a state dict, .pth or .safetensors.
        known: what keys and shapes can't tell.
        encoder: the file of its encoder, if it was trained with one.

    Raises:
        UsageError: if a file can't be read, or is no generator (or encoder) of a known project.
    """
    return build_translator(read_network(file, changes=known.of_network), known, encoder)


def build_translator(found: Found, known: ImportOptions, encoder: Path | None = None) -> Imported:
    """As `import_file`, of a file that is read already."""
    file = found.file
    if found.family.part != "generator":
        use = "--init-discriminator" if found.family.part == "discriminator" else "--encoder, beside its generator"
        raise UsageError(f"{file} is {found.family.described}, which translates nothing alone; give it by {use}.")
    reader = read_network(encoder, ("encoder",)) if encoder else None
    config, assumed = _config(found, reader, known)
    styles = None
    if config.encoder is not None and config.encoder.kind == "instances":
        assert config.classes is not None
        styles = torch.zeros(config.classes.count, 1, config.encoder.features)
        assumed += ["styles: one for each class, all zeros; --style-image and --style-labels take them from a picture",]  # fmt: skip
    if found.triples:
        assumed.append(SPECTRAL_NOTE)
    encoding = reader.network if reader else None
    assert isinstance(found.network, ImageNetwork) and isinstance(encoding, ImageNetwork | None)
    translator = Translator(config, found.network, encoding, styles)
    translator.reference = found.triples
    return Imported(translator, found.described, (*found.guess.assumed, *assumed))


def _config(found: Found, reader: Found | None, known: ImportOptions) -> tuple[TranslatorConfig, list[str]]:
    generator, family = found.guess.config, found.family.name
    method, size = _guess_published(family, generator)
    random = generator.norm in ("batch", "sync-batch") or getattr(generator, "dropout", 0) > 0
    mode: Mode = known.mode or ("paper" if random and family != "spade" else "eval")
    assumed = []
    if known.mode is None and random:
        why = "batch statistics and dropout, as the project runs its tests" if mode == "paper" else "running statistics"
        assumed.append(f"test-time mode: {mode}, {why} (--mode {'eval' if mode == 'paper' else 'paper'})")
    if known.value_range is None:
        assumed.append("value range: -1 to 1 (--value-range 0 1)")
    if known.size is None:
        assumed.append(f"size of its training images: {size} pixels; it takes any (--size)")
    if known.direction is None:
        assumed.append("direction: AtoB (--direction)")
    encoder = reader.guess.config if reader else None
    classes, edges, about_labels = _labels(found, encoder, known)
    try:
        config = TranslatorConfig(
            method=method,
            generator=generator,
            mode=mode,
            value_range=known.value_range or (-1, 1),  # type: ignore[arg-type]
            size=known.size or size,
            direction=known.direction or "AtoB",
            classes=classes,
            edges=edges,
            encoder=encoder,
            imported=family,
            training=Training(img2img=img2img.__version__, data=f"unknown; imported from {found.file.name}"),
        )
    except UsageError as error:
        raise UsageError(f"the encoder doesn't fit {found.file}: {error}.") from None
    return config, assumed + about_labels


def _guess_published(family: str, generator: Any) -> tuple[str, int]:
    """The method that trained such a generator, and the size of its images, as published."""
    if family == "cyclegan-unet":
        return "pix2pix", 2 ** min(generator.depth, 8)
    if family == "cyclegan-resnet":
        return ("cyclegan" if generator.norm == "instance" and not generator.dropout else "pix2pix"), 256
    if family == "cut-resnet":
        return "cut", 256
    return ("spade", 256) if family == "spade" else ("pix2pixhd", 1024 if generator.enhancers else 512)


def _labels(found: Found, encoder: Any, known: ImportOptions) -> tuple[Classes | None, bool, list[str]]:
    """Whether it takes label maps, of how many classes, and whether it sees the edges of instances."""
    channels, labelled = found.guess.in_channels, found.family.name.startswith(("pix2pixhd", "spade"))
    if isinstance(encoder, InstanceEncoderConfig):
        channels -= encoder.features
    elif encoder is not None and not (
        isinstance(encoder, ImageEncoderConfig) and isinstance(found.guess.config, SPADEConfig)
    ):
        raise UsageError(f"{found.family.described} takes no such encoder.")
    if known.classes == 0 or (known.classes is None and (channels <= MOST_IMAGE_CHANNELS or not labelled)):
        if encoder is not None and encoder.kind == "instances":
            raise UsageError("an encoder of instances belongs to a generator of label maps; give --classes.")
        if known.edges:
            raise UsageError("--edges are those of instances, which images don't have; give --classes, too.")
        asked = known.classes is None and labelled
        return (
            None,
            False,
            [f"input: images of {channels} channels (--classes says that it takes label maps)"] if asked else [],
        )
    if known.classes is None and known.edges is None and channels in LABELS:
        count, edges, name = LABELS[channels]
        return Classes(count=count), edges, [f"labels: {name}: 0–{count - 1} (--classes, --edges)"]
    edges = channels == known.classes + 1 if known.classes and known.edges is None else known.edges is not False
    count = known.classes or channels - edges
    if count < 1 or count + edges != channels:
        raise UsageError(
            f"--classes {count}: {found.file} sees {channels} channels, which are the classes{' and the edges of instances' if edges else ''}."
        )
    said = (
        []
        if known.classes
        else [f"labels: 0–{count - 1}{', and the edges of instances' if edges else ''} (--classes, --edges)"]
    )
    return Classes(count=count), edges, said


def save_discriminator(found: Found, folder: Path) -> None:
    """Writes a discriminator's folder, whole or not at all.

    Raises:
        UserError: if it can't be written, or the folder holds something else.
    """
    refuse_other_files(folder, {CONFIG_FILE, DISCRIMINATOR_FILE})
    config = DiscriminatorFile(
        imported=found.family.name, in_channels=found.guess.in_channels, discriminator=found.guess.config
    )
    with whole_folder(folder) as new:
        write_tensors(new / DISCRIMINATOR_FILE, found.network.state_dict())
        (new / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_discriminator(folder: Path) -> Found:
    """Reads what `save_discriminator` wrote.

    Raises:
        UsageError: if it is damaged.
    """
    try:
        config = DiscriminatorFile.model_validate_json((folder / CONFIG_FILE).read_bytes())
        family = FAMILIES[config.imported]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder / CONFIG_FILE} can't be read: {error}.") from None
    guess = Guess(config.discriminator, config.in_channels)
    with torch.device("meta"):
        network = family.build(guess)
    load_weights(network, folder / DISCRIMINATOR_FILE)
    return Found(folder, family, guess, network.eval(), {})
