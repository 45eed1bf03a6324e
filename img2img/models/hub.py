"""Sharing: what is saved goes to the Hugging Face Hub, with a card that says what it is, and comes back by its name."""

import json
import re
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import huggingface_hub
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from img2img.core.errors import UsageError
from img2img.images import ImageError, read_image, write_image
from img2img.methods import METHODS, load_method

NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
FILES = ["config.json", "*.safetensors"]
GRID = "samples.png"
UNITS = {"l1": "L1 of values in [0, 1]", "psnr": "PSNR in dB", "ssim": "SSIM", "kid": "KID", "fid": "FID"}


def is_hub_name(path: Path | str) -> bool:
    """Whether something can only be meant as the name of a model on the Hub: ``user/name``, or ``user/name@revision``."""
    return NAME.fullmatch(str(path)) is not None and not Path(path).exists() and not Path(path).parent.is_dir()


def hub_folder(name: str, token: str | bool | None = None, **options: Any) -> Path:
    """The folder of a model of the Hub, downloaded if it isn't in the Hub's own cache; only its config and safetensors.

    Raises:
        UsageError: if there is none, or the Hub can't be reached.
    """
    repo, _, revision = name.partition("@")
    asked = {"revision": revision or None, "token": token, "allow_patterns": FILES, **options}
    try:
        folder = Path(huggingface_hub.snapshot_download(repo, **asked))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise UsageError(
            f"{name} is neither a folder nor in the Hub's cache, and huggingface.co can't be reached."
        ) from None
    except Exception as error:  # the Hub's own, and those of whatever it speaks HTTP with
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UsageError(f"{name} is no folder, and the Hub doesn't give it: {reason}") from None
    try:
        base = json.loads((folder / FILES[0]).read_bytes()).get("base")
    except (OSError, ValueError, AttributeError):
        return folder  # whoever loads it says what is wrong
    if base is not None:
        raise UsageError(
            f"{name} is a change of a model on somebody's disk, and can't be used here; what is pushed is whole."
        )
    return folder


class Shareable(ModelHubMixin, library_name="img2img"):
    """What can be pushed to the Hub: ``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` are huggingface_hub's."""

    config: Any
    home: Path | None = None
    """The folder that it was loaded from."""

    @abstractmethod
    def save(self, folder: Path | str) -> None:
        """Writes the folder."""

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

    def generate_model_card(self, *args: Any, licence: str | None = None, **kwargs: Any) -> ModelCard:
        """What a person should know of it.

        Args:
            licence: of the weights, as the Hub names licences, such as ``mit``; by default the card says that it is not stated.
        """
        shared = self._to_share().config
        from_noise = getattr(shared, "kind", "") == "sampler"
        task = "unconditional-image-generation" if from_noise else "image-to-image"
        data = ModelCardData(
            license=licence, library_name="img2img", pipeline_tag=task, tags=["img2img", shared.method]
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{describe_model(shared, licence, self._grid() is not None)}")


def describe_model(config: Any, licence: str | None, has_grid: bool) -> str:
    """The text of a model card."""
    training, architecture = config.training, config.generator
    from_noise = getattr(config, "kind", "") == "sampler"
    classes = getattr(config, "classes", None)
    domains = f" of {', '.join(map(str, named))}" if (named := getattr(config, "domains", ())) else ""
    source = "noise" if from_noise else f"label maps of {classes.count} classes" if classes else f"images of {architecture.in_channels // (1 + len(named))} channels"  # fmt: skip
    chosen = f', style="{named[0]}"' if named else ""
    size = (
        architecture.size
        if from_noise
        else f"{config.size if config.width is None else f'{config.width}×{config.size}'}"
    )
    scores = {UNITS.get(name, name): value for name, value in training.scores.items() if value is not None}
    use = (
        "samples = model.sample(8)"
        if from_noise
        else f"translation = model(image{chosen})  # a PIL image, an array or a tensor"
    )
    command = (
        "sample --model MODEL --output FOLDER"
        if from_noise
        else f"convert SOURCE TARGET --model MODEL{f' --style {named[0]}' if named else ''}"
    )
    number = load_method(config.method).paper if config.method in METHODS else ""
    paper = f" ([paper](https://arxiv.org/abs/{number}))" if number else ""
    rows = [
        ("Task", f"{source} → images of {architecture.out_channels} channels{domains}"),
        ("Method", f"{config.method}{paper}"),
        ("Network", f"{architecture.kind}, {architecture.channels} channels, norm {architecture.norm}") if hasattr(architecture, "norm") else ("Network", architecture.kind),
        ("Trained at", f"{size} pixels" + ("" if from_noise else "; it takes any size")),
        ("Data", training.data or "not stated"),
        ("Training", f"{training.updates} updates, {training.images} images" + (f", weights averaged with decay {training.ema}" if training.ema else "")),
        *([("Began with", training.init)] if training.init else []),
        *([] if from_noise else [("At test time", "running statistics, no dropout" if config.mode == "eval" else "batch statistics and dropout, seeded")]),
        ("Licence", licence or "not stated; ask its author"),
    ]  # fmt: skip
    parts = [
        "# " + f"{config.method}: {source} to images",
        "| | |\n|---|---|\n" + "\n".join(f"| {a} | {b} |" for a, b in rows),
    ]
    if scores:
        table = "\n".join(f"| {name} | {value:.4g} |" for name, value in scores.items())
        parts.append(f"## Scores on the validation split\n\n| | |\n|---|---|\n{table}")
    if has_grid:
        parts.append(
            f"## Samples\n\n![Validation images as they are, translated, and, if it is known, the truth]({GRID})"
        )
    parts.append(
        f'## Use\n\n```python\nimport img2img\n\nmodel = img2img.load("USER/NAME")\n{use}\n```\n\nor `img2img {command}`. It holds safetensors only; nothing in it is run.'
    )
    return "\n\n".join(parts) + "\n"
