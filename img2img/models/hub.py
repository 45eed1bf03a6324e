"""Sharing: what is saved goes to the Hugging Face Hub, with a card that says what it is, and comes back by its name."""

import json
import re
import tempfile
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import huggingface_hub
import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, constants
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from img2img.core.errors import UsageError, UserError
from img2img.data.channels import CHANNEL_NAMES
from img2img.images import ImageError, read_image, write_image
from img2img.images.bands import Range
from img2img.methods import METHODS, load_method
from img2img.metrics.paired import OF

NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
FILES = ["config.json", "*.safetensors"]
GRID = "samples.png"
UNITS = {
    "l1": "L1 of values in [0, 1]",
    "psnr": "PSNR in dB",
    "ssim": "SSIM",
    "perceptual": "perceptual distance (LPIPS by features of EfficientNet-Lite0)",
    "kid": "KID",
    "fid": "FID",
}


def is_hub_name(path: Path | str) -> bool:
    """Whether something can only be meant as the name of a model on the Hub: ``user/name``, or ``user/name@revision``."""
    return NAME.fullmatch(str(path)) is not None and not Path(path).exists() and not Path(path).parent.is_dir()


def hub_folder(name: str, token: str | bool | None = None, **options: Any) -> Path:
    """The folder of a model of the Hub, downloaded if it isn't in the Hub's own cache; only its config and safetensors.

    Raises:
        UserError: if there is none, the Hub can't be reached, or its cache can't be written.
    """
    repo, _, revision = name.partition("@")
    asked = {"revision": revision or None, "token": token, "allow_patterns": FILES, **options}
    try:
        folder = Path(huggingface_hub.snapshot_download(repo, **asked))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise UsageError(
            f"{name} is neither a folder nor in the Hub's cache, and huggingface.co can't be reached."
        ) from None
    except OSError as error:
        if error.errno is None:  # of the connection
            raise UsageError(_not_given(name, error)) from None
        raise UserError(
            f"the Hub's cache {constants.HF_HUB_CACHE} can't be used ({error.strerror}): make room, or set HF_HOME to another folder."
        ) from None
    except Exception as error:  # the Hub's own, and those of whatever it speaks HTTP with
        raise UsageError(_not_given(name, error)) from None
    try:
        base = json.loads((folder / FILES[0]).read_bytes()).get("base")
    except (OSError, ValueError, AttributeError):
        return folder  # whoever loads it says what is wrong
    if base is not None:
        raise UsageError(
            f"{name} is a change of a model on somebody's disk, and can't be used here; what is pushed is whole."
        )
    return folder


def _not_given(name: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return f"{name} is no folder, and the Hub doesn't give it: {reason}"


def name_images(channels: int) -> str:
    """Images of so many channels, for a person."""
    if channels not in CHANNEL_NAMES:
        return f"images of {channels} channels"
    colours, _, alpha = CHANNEL_NAMES[channels].partition(" ")
    return f"{colours} images {alpha}".rstrip()


def describe_images(channels: int, limits: Range | None) -> str:
    """What goes into a model, or comes out, for a person."""
    if limits is None:
        return name_images(channels)
    return f"measurements of {channels} band{'s' if channels > 1 else ''}, from {limits[0]:g} to {limits[1]:g}"


class Shareable(ModelHubMixin, library_name="img2img"):
    """What can be pushed to the Hub: ``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` are huggingface_hub's."""

    config: Any
    home: Path | None = None
    """The folder that it was loaded from."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the weights are."""

    @abstractmethod
    def save(self, folder: Path | str) -> None:
        """Writes the folder."""

    def __repr__(self) -> str:
        about = self.describe()
        return f"<{type(self).__name__} of {self.config.method}: {about.source} → {about.made}; {about.size}; on {self.device}>"

    def _to_share(self) -> Self:
        """As it goes out into the world."""
        return self

    def _save_pretrained(self, save_directory: Path) -> None:
        shared = self._to_share()
        with tempfile.TemporaryDirectory(dir=save_directory.parent) as folder:
            made = Path(folder, "made")
            shared.save(made)
            for file in made.iterdir():
                file.replace(save_directory / file.name)
        grid = self._grid()
        if grid is not None:
            try:
                write_image(save_directory / GRID, read_image(grid))  # without what else may be in the file
            except ImageError:
                return

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None = None, cache_dir: str | Path | None = None, force_download: bool = False,
        local_files_only: bool = False, token: str | bool | None = None, device: str = "cpu", **unused: Any,
    ) -> Self:  # fmt: skip
        if Path(model_id).is_dir():
            return cls.load(Path(model_id), device)  # type: ignore[attr-defined, no-any-return]
        how = {"cache_dir": cache_dir, "force_download": force_download, "local_files_only": local_files_only}
        name = f"{model_id}@{revision}" if revision else model_id
        return cls.load(hub_folder(name, token, **how), device)  # type: ignore[attr-defined, no-any-return]

    def _grid(self) -> Path | None:
        """The latest sample picture of the run that this was loaded from."""
        if self.home is None:
            return None
        direction = self.home.parent.name if self.home.parent.name in ("AtoB", "BtoA") else ""
        run = self.home.parent.parent if direction else self.home.parent
        found = sorted((run / "samples").glob(f"*{direction}.png"))
        return found[-1] if found else None

    @abstractmethod
    def describe(self) -> "Card":
        """What its card says that cards of other kinds of models don't."""

    def generate_model_card(self, *args: object, licence: str | None = None, **kwargs: object) -> ModelCard:
        """What a person should know of it.

        Args:
            args: none.
            licence: of the weights, as the Hub names licences, such as ``mit``; by default the card says that it is not stated.
            kwargs: none.
        """
        shared = self._to_share()
        tags, task = ["img2img", shared.config.method], shared.describe().task
        data = ModelCardData(license=licence, library_name="img2img", pipeline_tag=task, tags=tags)
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{write_card(shared, licence, self._grid() is not None)}")


@dataclass(frozen=True)
class Card:
    """What a card says of one kind of models."""

    task: str
    """As the Hub names it."""
    source: str
    """What images are made of."""
    made: str
    """What is made."""
    size: str
    """At which it was trained, and which it takes."""
    use: str
    """A line of Python that calls ``model``."""
    command: str
    """The rest of a command line."""
    mode: str = ""
    """How it runs at test time."""


def write_card(model: Shareable, licence: str | None, has_grid: bool) -> str:
    """The text of a model card."""
    config, about = model.config, model.describe()
    training, architecture = config.training, config.generator
    scores = {
        UNITS.get(name, name): value for name, value in training.scores.items() if value is not None and OF not in name
    }
    number = load_method(config.method).paper if config.method in METHODS else ""
    norm = getattr(architecture, "norm", None)
    averaged = f", weights averaged with decay {training.ema}" if training.ema else ""
    rows = {
        "Task": f"{about.source} → {about.made}",
        "Method": config.method + (f" ([paper](https://arxiv.org/abs/{number}))" if number else ""),
        "Network": architecture.kind + (f", {architecture.channels} channels, norm {norm}" if norm else ""),
        "Trained at": about.size,
        "Data": training.data or "not stated",
        "Training": f"{training.updates} updates, {training.images} images{averaged}",
        "Began with": training.init,
        "Imitates": training.teacher,
        "At test time": about.mode,
        "Licence": licence or "not stated; ask its author",
    }
    parts = [
        f"# {config.method}: {about.source} to images",
        "| | |\n|---|---|\n" + "\n".join(f"| {name} | {text} |" for name, text in rows.items() if text),
    ]
    if scores:
        table = "\n".join(f"| {name} | {value:.4g} |" for name, value in scores.items())
        parts.append(f"## Scores on the validation split\n\n| | |\n|---|---|\n{table}")
    if has_grid:
        parts.append(
            f"## Samples\n\n![Validation images as they are, translated, and, if it is known, the truth]({GRID})"
        )
    parts.append(
        f'## Use\n\n```python\nimport img2img\n\nmodel = img2img.load("USER/NAME")\n{about.use}\n```\n\n'
        f"or `img2img {about.command}`. It holds safetensors only; nothing in it is run."
    )
    return "\n\n".join(parts) + "\n"
