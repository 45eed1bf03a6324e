"""Reading files of weights that others wrote: tensors only, whatever the file would like to do."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from img2img.core.errors import UsageError

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel, and of torch.compile
SPECTRAL = {  # what spectral norm calls its weight, and the singular vectors, before and since PyTorch 1.12
    "weight_orig": ("weight_u", "weight_v"),
    "parametrizations.weight.original": ("parametrizations.weight.0._u", "parametrizations.weight.0._v"),
}
MOST_WRAPPINGS = 3  # of a state dict in dicts
Triples = dict[str, Tensor]


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file by name, in fp32, without the prefixes of wrappers. Runs no pickle.

    Raises:
        UsageError: if it can't be read, holds anything but tensors, or numbers that are none.
    """
    if file.is_dir():
        raise UsageError(f"{file} is a folder; give a file of weights ({', '.join(SUFFIXES)}).")
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file.")
    if not file.stat().st_size:
        raise UsageError(f"{file} is empty; copy or download it again.")
    try:
        found = load_file(file) if file.suffix == ".safetensors" else _load_tensors(file)
    except pickle.UnpicklingError as error:
        if _is_pickle(file) and "nsupported" in str(error):
            raise UsageError(
                f"{file} holds more than tensors, which could run code when it is opened, or has another pickle protocol than PyTorch's "
                "own, so it is not opened; save its state dict alone: torch.save(network.state_dict(), file)."
            ) from None
        raise UsageError(f"{file} is damaged, or no file of weights; copy or download it again.") from None
    except Exception:  # whatever a damaged file makes the libraries say
        raise UsageError(f"{file} is damaged, or no file of weights; copy or download it again.") from None
    return _clean(file, found)


def _is_pickle(file: Path) -> bool:
    """Whether a file begins as pickles do, if it isn't an archive with one in it."""
    with file.open("rb") as opened:
        first = opened.read(2)
    return first == b"PK" or (first[:1] == pickle.PROTO and first[1:] <= bytes([pickle.HIGHEST_PROTOCOL]))


def _load_tensors(file: Path) -> Any:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(record.file_size for record in archive.infolist())
        if unpacked > 2 * file.stat().st_size:  # PyTorch doesn't compress
            raise ValueError("it would unpack to more than it should")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        return torch.load(file, map_location="cpu", weights_only=True)


def _clean(file: Path, found: Any) -> dict[str, Tensor]:
    for _ in range(MOST_WRAPPINGS):
        if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
            found = found["state_dict"]
    if not isinstance(found, Mapping) or not found:
        raise UsageError(f"{file} holds no weights by name; save a state dict: torch.save(network.state_dict(), file).")
    for name, value in found.items():
        if not (isinstance(name, str) and name.isprintable() and isinstance(value, Tensor) and _is_plain(value)):
            raise UsageError(f"{file}: {str(name)[:80]!r} is no tensor of its own; save a network's state dict alone.")
    names = list(found)
    for prefix in (*PREFIXES, *PREFIXES):  # they may be nested either way
        if all(name.startswith(prefix) for name in names):
            names = [name.removeprefix(prefix) for name in names]
    weights = {
        name: value.detach().float() if value.is_floating_point() else value.detach()
        for name, value in zip(names, found.values(), strict=True)
    }
    refuse_non_finite(file, weights)
    return weights


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is real numbers in memory, as many as it says."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def refuse_non_finite(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Raises:
    UsageError: if a tensor holds an infinity or a NaN.
    """
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UsageError(
                f"{file}: {name} holds an infinity or a NaN; the file is damaged, or training had diverged."
            )


def divide_spectral_norm(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Triples]:
    """Divides weights by their largest singular values, as the vectors that are saved beside them say.

    Returns:
        The weights under their plain names; and what was taken away: weights as they were, with their vectors.
    """
    plain = dict(weights)
    triples: Triples = {}
    for name, original in weights.items():
        end = next((end for end in SPECTRAL if name.endswith(f".{end}")), None)
        if end is None:
            continue
        layer = name.removesuffix(end)
        left, right = (f"{layer}{each}" for each in SPECTRAL[end])
        u, v = weights.get(left), weights.get(right)
        if original.ndim < 2 or not all(each is None or each.is_floating_point() for each in (original, u, v)):
            continue  # it will be said to have no place
        matrix = original.flatten(1)
        if u is None or u.shape != matrix.shape[:1]:
            continue
        if v is None:  # files of PyTorch before 1.0
            v = torch.nn.functional.normalize(torch.mv(matrix.t(), u), dim=0)
        if v.shape != matrix.shape[1:]:
            continue
        plain[f"{layer}weight"] = original / torch.dot(u, torch.mv(matrix, v))
        triples |= {each: plain.pop(each) for each in (name, left, right) if each in plain}
    return plain, triples
