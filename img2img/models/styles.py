"""Styles: what a generator is told beside the source: a domain by name, or features, picked by number or taken from an image."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import Tensor

from img2img.core.errors import UsageError, list_some
from img2img.data.classes import Classes
from img2img.images import convert_channels
from img2img.images.tensors import to_tensor
from img2img.models.config import TranslatorConfig
from img2img.models.inputs import as_array, as_maps
from img2img.networks.labels import mask_ignored, one_hot
from img2img.networks.layers import ImageNetwork
from img2img.tiling.translate import pad_to, round_up_size

Style = Any
"""A number; the name of a domain; numbers by class; an image, or (image, labels) or (image, labels, instances); or the features themselves, a tensor."""


class StyledModel(Protocol):
    """What is needed of a translator to find a style for it."""

    config: TranslatorConfig
    encoder: ImageNetwork | None
    style: Tensor | None
    """The one that it uses."""
    styles: Tensor | None
    """Those of each class, (classes, styles, channels), if styles are of instances."""

    @property
    def device(self) -> torch.device:
        """Where images are taken to."""
        ...


def default_style(config: TranslatorConfig, styles: Tensor | None) -> Tensor | None:
    """What is used when nobody asks: of instances, each class' most frequent features (classes, channels); else the mean, (latent,)."""
    if styles is not None:
        return styles[:, 0]
    latent = getattr(config.generator, "latent", None)
    return torch.zeros(latent) if latent else None


def spread_features(labels: Tensor, style: Tensor) -> Tensor:
    """Each pixel's features by its label: (B, H, W) of integers and (classes, channels) → (B, channels, H, W), 0 where there is no class."""
    table = torch.cat([style, style.new_zeros(1, style.shape[1])]).to(labels.device)
    known = (labels >= 0) & (labels < len(style))
    return table[torch.where(known, labels, len(style)).long()].permute(0, 3, 1, 2)


def resolve_style(translator: StyledModel, style: Style) -> Tensor:
    """What `Translator.with_style` is asked for, as features.

    Raises:
        UsageError: if there is no such style.
    """
    config = translator.config
    if config.domains:
        return _choose_domain(config.domains, style)
    if translator.style is None:
        raise UsageError(
            "this translator has no styles to choose from: bicyclegan trains such, and so does --encoder; an ONNX file has them if it was exported with --raw."
        )
    if isinstance(style, str):
        classes = "" if translator.styles is None else ", or CLASS=NUMBER for some classes"
        raise UsageError(
            f"style {style}: the styles of this translator have numbers, not names: give one from 0{classes}. img2img convert also takes a range, such as 0..5."
        )
    if isinstance(style, Tensor) and style.ndim < 3:
        if style.shape != translator.style.shape:
            raise UsageError(f"a style of {tuple(translator.style.shape)} is expected, not of {tuple(style.shape)}.")
        return style.detach().float().cpu()
    if isinstance(style, Integral):
        style = int(style)
        if not 0 <= style < 2**63:
            raise UsageError(f"style {style}: give a number from 0.")
    if translator.styles is None:  # they are of the whole image
        if isinstance(style, int):
            return torch.randn(len(translator.style), generator=torch.Generator().manual_seed(style))
        if isinstance(style, Mapping | tuple):
            raise UsageError(
                "a style of this translator is of the whole image: give a number, or an image alone, without a label map."
            )
        if translator.encoder is None:
            raise UsageError("this translator came without an encoder that reads images' styles: give a number.")
        with torch.no_grad():
            return translator.encoder(_image(style, translator))[0][0].cpu()
    assert config.classes is not None
    if isinstance(style, int):
        return translator.styles[:, _number(style, translator.styles)]
    if isinstance(style, Mapping):
        return _by_class(translator.style, translator.styles, config.classes, style)
    if not isinstance(style, tuple) or len(style) not in (2, 3):
        raise UsageError(
            "a style of this translator is a number, numbers by class, or an image with its label map: (image, labels) or (image, "
            "labels, instances), or --style-image and --style-labels."
        )
    return _read_style(translator, *style)


def parse_style(words: tuple[str, ...]) -> int | str | dict[str, int] | None:
    """What `--style` asks for: the style of a number, a name, or numbers by class.

    Raises:
        UsageError: for anything else.
    """
    pairs = [word.rpartition("=") for word in words]
    if len(words) == 1 and not pairs[0][0]:
        return int(words[0]) if words[0].isdecimal() else words[0]
    if not all(name and number.isdecimal() for name, _, number in pairs):
        raise UsageError(f"--style {' '.join(words)}: give a number from 0, a name, or CLASS=NUMBER for some classes.")
    return {name: int(number) for name, _, number in pairs} or None


def _choose_domain(domains: tuple[str, ...], style: Style) -> Tensor:
    """A one-hot vector (domains,); a vector is taken as it is, so that domains can be mixed."""
    if isinstance(style, Tensor) and style.shape == (len(domains),):
        return style.detach().float().cpu()
    name = str(style) if isinstance(style, str | Integral) else ""
    number = domains.index(name) if name in domains else style  # a class may be called 3, and be the second
    if not isinstance(number, Integral) or not 0 <= int(number) < len(domains):
        raise UsageError(f"style {style}: this translator makes {list_some(domains, 20)}; give one of these names.")
    return torch.eye(len(domains))[int(number)]


def _number(style: int, styles: Tensor) -> int:
    if not 0 <= style < styles.shape[1]:
        raise UsageError(f"style {style}: there are 0–{styles.shape[1] - 1}.")
    return style


def _by_class(before: Tensor, styles: Tensor, classes: Classes, wanted: Mapping[Any, int]) -> Tensor:
    chosen = before.clone()
    for name, number in wanted.items():
        label = classes.number(str(name))
        chosen[label] = styles[label, _number(number, styles)]
    return chosen


def _image(image: Any, translator: StyledModel) -> Tensor:
    """A picture as the encoder takes it: (1, C, H, W) in [-1, 1]."""
    encoder = translator.config.encoder
    assert encoder is not None and encoder.in_channels
    if isinstance(image, Tensor):
        batch = image if image.ndim == 4 else image[None]
        if not batch.is_floating_point() or batch.shape[:2] != (1, encoder.in_channels):
            raise UsageError(
                f"a style's image is (1, {encoder.in_channels}, H, W) in [-1, 1], not {tuple(image.shape)}."
            )
        return batch.float().to(translator.device)
    return to_tensor(convert_channels(as_array(image), encoder.in_channels))[None].to(translator.device)


@torch.no_grad()
def encode_instances(encoder: ImageNetwork, images: Tensor, instances: Tensor) -> Tensor:
    """What an encoder of instances finds in images of any size: (B, C, H, W) and identities (B, H, W) → (B, F, H, W), float32."""
    height, width = images.shape[2:]
    padded = pad_to(images, round_up_size(encoder, height), round_up_size(encoder, width))
    rows = pad_to(torch.arange(float(height)).view(1, 1, -1, 1), padded.shape[2], 1).flatten().long()
    columns = pad_to(torch.arange(float(width)).view(1, 1, 1, -1), 1, padded.shape[3]).flatten().long()
    identities = instances[:, rows.to(instances.device)][:, :, columns.to(instances.device)]
    return encoder(padded, identities)[..., :height, :width].float()


@torch.no_grad()
def _read_style(translator: StyledModel, image: Any, labels: Any, instances: Any = None) -> Tensor:
    """Each class' mean features in an image; what it doesn't show keeps its style."""
    config, encoder = translator.config, translator.encoder
    assert config.classes is not None and encoder is not None and translator.style is not None
    shown = _image(image, translator)
    try:
        maps = as_maps(labels, instances, config.classes, instances is not None)
    except UsageError as error:
        raise UsageError(f"the label map of the style's image: {error}") from None
    if maps.shape[2:] != shown.shape[2:]:
        sizes = [f"{each.shape[3]}×{each.shape[2]}" for each in (shown, maps)]
        raise UsageError(f"the style's image is {sizes[0]} pixels, and its label map {sizes[1]}.")
    maps = mask_ignored(maps.to(translator.device), config.classes.ignore)
    features = encode_instances(encoder, shown, maps[:, -1])[0]
    where = one_hot(maps[:, 0], config.classes.count)[0]  # (classes, H, W)
    pixels = where.sum((1, 2))
    means = torch.einsum("khw,fhw->kf", where, features) / pixels.clamp(min=1)[:, None]
    return torch.where(pixels[:, None] > 0, means, translator.style.to(means)).cpu()
