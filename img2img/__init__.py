"""img2img: image-to-image translation; train on folders, convert folders, fine-tune.

The four functions are those of the command line; they are imported when they are first used, so `import img2img` is fast.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from img2img.inference.convert import convert
    from img2img.inference.evaluate import evaluate
    from img2img.inference.score_samples import evaluate_samples
    from img2img.interop import load
    from img2img.training.run import train
    from img2img.translator import Sampler, Translator

try:
    __version__ = version("img2img")
except PackageNotFoundError:  # used from its source, not installed
    __version__ = "0"

_HOMES = {
    "convert": "img2img.inference.convert",
    "evaluate": "img2img.inference.evaluate",
    "evaluate_samples": "img2img.inference.score_samples",
    "train": "img2img.training.run",
    "load": "img2img.interop",
    "Sampler": "img2img.translator",
    "Translator": "img2img.translator",
}

__all__ = ["Sampler", "Translator", "__version__", "convert", "evaluate", "evaluate_samples", "load", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'img2img' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
