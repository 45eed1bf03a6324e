"""Our networks in the layouts of other projects."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from img2img.core.errors import UsageError
from img2img.core.files import write_whole
from img2img.interop.family import Family, Guess
from img2img.interop.importing import load_discriminator
from img2img.interop.loading import Direction, load_translator
from img2img.interop.onnx import needs_weights
from img2img.interop.reading import divide_spectral_norm
from img2img.interop.recognise import FAMILIES, to_layout
from img2img.models import Translator, read_kind
from img2img.networks import Pix2PixHDConfig, ResNetConfig, SPADEConfig, UNetConfig

ITERATIONS = 50  # of the search for the largest singular value
AS_IT_WAS = 1e-5  # relative difference up to which weights count as unchanged


def export_reference(model: Path, file: Path, direction: Direction | None = None, overwrite: bool = False) -> list[str]:
    """Writes a generator's weights, or an imported discriminator's, as the project with such a network names them.

    Returns what should be known of it, in sentences.

    Raises:
        UserError: if no project has such a network, or the file can't be written.
    """
    if model.is_dir() and (model / "config.json").is_file() and read_kind(model) == "discriminator":
        found = load_discriminator(model)
        state, notes = to_layout(found.family, found.guess, found.network.state_dict()), [f"layout: {found.family.described}"]  # fmt: skip
    else:
        translator = load_translator(model, direction=direction)
        needs_weights(translator)
        state, notes = _export_translator(translator, translator.kept())
    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in state.items()}, buffer)
    write_whole(file, buffer.getvalue(), replace=overwrite)
    return notes


def _export_translator(translator: Translator, kept: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    config: Any = translator.config.generator
    if translator.config.domains:
        raise UsageError("no other project tells its networks a domain as this one is told; export it as ONNX.")
    if translator.nfe is not None:
        raise UsageError("no other project's networks translate in steps as this one does.")
    family = _family(config, translator.config.imported)
    guess = Guess(config.model_copy(update={"bias": _has_bias(family, config)}), config.in_channels)
    if config.norm == "none" and (guess.config.bias or family.name.startswith("pix2pixhd")):
        raise UsageError(
            f"{family.described} has no networks without norms but with biases, so it can't be written in that layout."
        )
    notes = [f"layout: {family.described}"]
    state = to_layout(family, guess, translator.generator.state_dict())
    if isinstance(config, SPADEConfig) and config.has_spectral_norm:
        state = _restore_spectral_norm(state, kept)
    if isinstance(config, UNetConfig) and config.dropout and config.depth:
        own = config.dropout_levels or tuple(range(max(1, config.depth - 3), config.depth))
        if set(own) != set(range(4, config.depth - 1)):
            notes.append("dropout: that project has it at other levels; without it (--eval there) results are the same")
    if translator.config.mode == "eval" and (config.norm == "batch" or getattr(config, "dropout", 0)):
        notes.append(
            "test-time mode: eval; that project tests such networks in training mode, and so does img2img with this file, unless it is "
            "told otherwise (--eval there, --mode eval here)"
        )
    if isinstance(config, ResNetConfig) and config.padding == "replicate":
        notes.append("padding: build the network there with padding_type='replicate'")
    return state, notes


def _family(config: Any, imported: str | None) -> Family:
    if imported in FAMILIES:
        return FAMILIES[imported]
    if config.norm == "group" or getattr(config, "attention", None) or config.upsampling == "resize":
        raise UsageError(
            "no known project has a generator with group norm, self-attention or resize-convolutions; it can't be written in such a layout."
        )
    if getattr(config, "residual", False):
        raise UsageError("no known project has a generator that adds to its source; export it as ONNX.")
    if config.keeps_luminance:
        raise UsageError("no known project has a generator that keeps its source's luminance; export it as ONNX.")
    if isinstance(config, UNetConfig | Pix2PixHDConfig) and config.upsampling == "blur":
        raise UsageError(
            "no known project has a U-Net or a pix2pixHD generator that upsamples by blurring; it can't be written in such a layout."
        )
    if isinstance(config, UNetConfig) and config.latent:
        raise UsageError("no known project gives a U-Net its style as this one is given it; export it as ONNX.")
    if isinstance(config, UNetConfig):
        return FAMILIES["cyclegan-unet"]
    if isinstance(config, ResNetConfig):
        return FAMILIES["cut-resnet" if "blur" in (config.downsampling, config.upsampling) else "cyclegan-resnet"]
    if isinstance(config, Pix2PixHDConfig):
        return FAMILIES["pix2pixhd-enhancer" if config.enhancers else "pix2pixhd-global"]
    return FAMILIES["spade"]


def _has_bias(family: Family, config: Any) -> bool:
    """Whether that project's convolutions before norms have biases."""
    if config.bias is not None and family.name != "spade":
        return bool(config.bias)
    if family.name.startswith(("pix2pixhd", "spade")):
        return True
    return bool(config.norm in ("instance", "none"))


def _restore_spectral_norm(state: dict[str, Tensor], kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Spectral norm's weights and vectors: those that the file had, else such that the weights come out as they are.

    A layer is "as it was" if its weights, which are divided by σ, equal the file's to a relative 1e-5: σ is computed again here, and its
    last bits differ between processors.
    """
    found, before = {}, divide_spectral_norm(kept)[0]
    for name, tensor in state.items():
        parts = name.split(".")
        if len(parts) != 3 or parts[2] != "weight" or not parts[1].startswith("conv_"):
            found[name] = tensor
            continue
        layer = name.removesuffix("weight")
        if name in before and torch.allclose(before[name], tensor, rtol=AS_IT_WAS, atol=1e-12):
            found |= {each: value for each, value in kept.items() if each.startswith(layer)}
            continue
        u, v = _find_singular_vectors(tensor.flatten(1))
        found |= {f"{layer}weight_orig": tensor, f"{layer}weight_u": u, f"{layer}weight_v": v}
    return found


def _find_singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors of the largest singular value, the right one scaled so that the value comes out as 1."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(len(matrix), generator=generator)
    for _ in range(ITERATIONS):
        v = torch.nn.functional.normalize(torch.mv(matrix.t(), u), dim=0)
        u = torch.nn.functional.normalize(torch.mv(matrix, v), dim=0)
    return u, v / torch.dot(u, torch.mv(matrix, v))
