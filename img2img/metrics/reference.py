"""Features of real images, found once: kept in the user's cache under a name made of the images' content and the network's weights."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from img2img.core import downloads
from img2img.core.errors import UserError
from img2img.core.files import digest_tensors, write_tensors


def cache_folder() -> Path:
    """Where it is: `img2img/features` in the XDG cache folder."""
    return downloads.cache_folder() / "features"


def digest_files(files: Sequence[Path]) -> str:
    """A digest of what is in files, in whatever order they stand and whatever they are called."""
    each = sorted(hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest() for file in files)
    return hashlib.blake2b("".join(each).encode(), digest_size=16).hexdigest()


def digest_weights(extractor: nn.Module) -> str:
    """A digest of a network's class and weights."""
    return f"{type(extractor).__qualname__}-{digest_tensors({**dict(extractor.named_parameters()), **dict(extractor.named_buffers())})}"


def cache_features(files: Sequence[Path], extractor: nn.Module, prepared: str, compute: Callable[[], Tensor]) -> Tensor:
    """The features (N, D) of images, from the cache if they are there; `prepared` says how images were prepared, in so many words."""
    key = "-".join((digest_files(files), digest_weights(extractor), prepared))
    place = cache_folder() / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.safetensors"
    try:
        return load_file(place)["features"]
    except (OSError, SafetensorError, KeyError):
        pass
    found = compute()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(place, {"features": found})
    except (OSError, UserError):  # a cache that can't be written is none
        pass
    return found
