"""Where translators lie, and how their weights are read."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from img2img.core.errors import UsageError, UserError, list_some
from img2img.core.files import backup_path, digest_tensors
from img2img.core.settings import Strict, explain
from img2img.models.adapter import ADAPTER_FILE, apply_adapter
from img2img.models.config import TranslatorConfig
from img2img.networks import build_encoder
from img2img.networks.layers import ImageNetwork

S = TypeVar("S", bound=Strict)
C = TypeVar("C", bound=Strict)
M = TypeVar("M", bound=nn.Module)

CONFIG_FILE, WEIGHTS_FILE = "config.json", "generator.safetensors"
ENCODER_FILE, STYLES_FILE = "encoder.safetensors", "styles.safetensors"
REFERENCE_FILE = "reference.safetensors"
"""What another project's file held beside what the network computes with, for writing it back."""
FILES = {CONFIG_FILE, WEIGHTS_FILE, ADAPTER_FILE, ENCODER_FILE, STYLES_FILE, REFERENCE_FILE}


def read_config(folder: Path) -> TranslatorConfig:
    """What the translator in a folder is.

    Raises:
        UsageError: if its config can't be read.
    """
    kind = read_kind(folder)
    if kind == "sampler":
        raise UsageError(f"{folder} makes images from noise, not from images: use img2img sample --model {folder}.")
    if kind == "discriminator":
        raise UsageError(
            f"{folder} is a discriminator, which translates nothing: img2img train takes it by --init-discriminator."
        )
    return read_settings(folder, TranslatorConfig)


def read_settings(folder: Path, kind: type[S]) -> S:
    """The config of a model's folder.

    Raises:
        UsageError: if it can't be read.
    """
    try:
        return kind.model_validate_json((folder / CONFIG_FILE).read_bytes())
    except ValidationError as error:
        raise UsageError(f"{folder / CONFIG_FILE}: {explain(error)}.") from None
    except OSError as error:
        raise UsageError(f"{folder / CONFIG_FILE} can't be read: {error.strerror}.") from None
    except UsageError as error:
        raise UsageError(f"{folder / CONFIG_FILE}: {error}") from None


def is_noise_generator(folder: Path) -> bool:
    """Whether what lies in a folder makes images from noise.

    Raises:
        UsageError: if its config can't be read.
    """
    return read_kind(folder) == "sampler"


def read_kind(folder: Path) -> str:
    """What lies in a folder: "" for a translator.

    Raises:
        UsageError: if its config can't be read.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_bytes())
    except OSError as error:
        raise UsageError(f"{folder / CONFIG_FILE} can't be read: {error.strerror}.") from None
    except ValueError as error:
        raise UsageError(f"{folder / CONFIG_FILE} is damaged: {error}.") from None
    return str(values.get("kind", "")) if isinstance(values, dict) else ""


def refuse_other_files(folder: Path, known: Collection[str] = FILES) -> None:
    """A model may take the place of another, whose files are `known`, and of nothing else.

    Raises:
        UserError: if the folder is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give a folder.")
    if folder.exists() and not {file.name for file in folder.iterdir()} <= set(known):
        raise UserError(f"{folder} holds other files; give an empty folder, or one that holds only a translator.")


def find_translator(path: Path, direction: Literal["AtoB", "BtoA"] | None = None) -> Path:
    """The translator's folder in `path`: itself, or in a run's folder `best`, else `latest`.

    A run that learned both ways has these in `AtoB` and `BtoA`; without a direction AtoB is taken.

    Raises:
        UsageError: if there is none.
    """
    if direction not in (None, "AtoB", "BtoA"):
        raise UsageError(f"direction {direction!r}: there are AtoB and BtoA.")
    way = path / (direction or "AtoB")
    for folder in (path, path / "best", path / "latest", way / "best", way / "latest"):
        for place in (folder, backup_path(folder)):  # the older one is there only while it is being replaced
            if (place / CONFIG_FILE).is_file():
                return place
    if not path.exists():
        raise UsageError(f"{path}: there is no such folder; a model is the folder of a translator or of a run.")
    if (path / "coarse" / "latest").is_dir():
        raise UsageError(f"{path} has only trained its coarse stage so far, whose translator is {path / 'coarse'}.")
    raise UsageError(f"{path} is no translator (it has no {CONFIG_FILE}), nor a run that has saved one yet.")


def has_both_directions(path: Path | str) -> bool:
    """Whether `path` is a run that learned both ways."""
    return all((Path(path) / way).is_dir() for way in ("AtoB", "BtoA"))


def build_empty(build: Callable[[C], M], config: C) -> M:
    """A network without weights, to be filled by `load_state_dict(assign=True)`; draws no random numbers.

    Raises:
        UsageError: if there is no such network: its channels are missing, or more than a computer can count.
    """
    try:
        with torch.device("meta"):
            return build(config)
    except UserError:
        raise
    except Exception as error:  # whatever a config that nobody wrote on purpose makes PyTorch say
        reason = " ".join(str(error).split())[:150]
        raise UsageError(
            f"{CONFIG_FILE} describes no network that can be built ({type(error).__name__} {reason})."
        ) from None


def load_styles(config: TranslatorConfig, folder: Path) -> tuple[ImageNetwork | None, Tensor | None]:
    """The encoder of a translator that has one, and of an encoder of instances the styles (classes, styles, channels).

    Raises:
        UsageError: if a file is missing or damaged.
    """
    if config.encoder is None:
        return None, None
    encoder = build_empty(build_encoder, config.encoder)
    load_weights(encoder, folder / ENCODER_FILE)
    if config.encoder.kind != "instances":
        return encoder.eval(), None
    assert config.classes is not None
    styles = read_tensors_of(folder / STYLES_FILE).get("styles", torch.empty(0))
    wanted = (config.classes.count, config.encoder.features)
    if styles.ndim != 3 or (styles.shape[0], styles.shape[2]) != wanted or not styles.shape[1]:
        raise UsageError(f"{folder / STYLES_FILE} holds no styles of {wanted[0]} classes in {wanted[1]} channels.")
    return encoder.eval(), styles


def read_tensors_of(file: Path) -> dict[str, Tensor]:
    """What a safetensors file holds.

    Raises:
        UsageError: if it can't be read.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise UsageError(f"{file} can't be read: {error}.") from None


def generator_state(config: TranslatorConfig, folder: Path) -> dict[str, Tensor]:
    """The weights of the generator in a folder, also if they are only the difference from another's.

    Raises:
        UsageError: if a file is missing or damaged, or the other has changed.
    """
    if config.base is None:
        return read_tensors_of(folder / WEIGHTS_FILE)
    try:
        place = find_translator(Path(config.base.model))
        base = generator_state(read_config(place), place)
    except (UsageError, RecursionError) as error:
        raise UsageError(f"{folder} is a change of {config.base.model}, which can't be read: {error}") from None
    if digest_tensors(base) != config.base.digest:
        raise UsageError(f"{folder} is a change of {config.base.model}, whose weights are others by now.")
    return apply_adapter(base, read_tensors_of(folder / ADAPTER_FILE))


def load_weights(module: nn.Module, file: Path) -> None:
    """Fills a module from a safetensors file, whose keys and shapes must be the module's own.

    Raises:
        UsageError: if the file is missing, damaged, or made for another architecture.
    """
    put_weights(module, read_tensors_of(file), file)


def put_weights(module: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Fills a module with tensors that were read from a file, whose keys and shapes must be the module's own.

    Raises:
        UsageError: if they were made for another architecture.
    """
    own = module.state_dict()
    wrong = [name for name in {**own, **weights} if name not in own or name not in weights]
    wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        raise UsageError(f"{file} is of another architecture than its config says: {list_some(wrong, 3)} don't fit.")
    module.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in weights.items()}, assign=True)
