"""img2img: image-to-image translation; train on folders, convert folders, fine-tune.

The functions are those of the command line; they are imported when they are first used, so `import img2img` is fast.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from img2img.compression.compress import compress
    from img2img.inference.convert import convert
    from img2img.inference.evaluate import evaluate
    from img2img.inference.evaluate_samples import evaluate_samples
    from img2img.interop import load
    from img2img.models import NoiseGenerator, Translator
    from img2img.training.train import train

    __version__: str

# Some libraries tell their makers that they run, and ask for news. Nothing is sent unless the environment says so.
for _name, _value in {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _value)

_HOMES = {
    "compress": "img2img.compression.compress",
    "convert": "img2img.inference.convert",
    "evaluate": "img2img.inference.evaluate",
    "evaluate_samples": "img2img.inference.evaluate_samples",
    "train": "img2img.training.train",
    "load": "img2img.interop",
    "NoiseGenerator": "img2img.models",
    "Translator": "img2img.models",
}

__all__ = [
    "NoiseGenerator",
    "Translator",
    "__version__",
    "compress",
    "convert",
    "evaluate",
    "evaluate_samples",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _read_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'img2img' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def _read_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("img2img")
    except PackageNotFoundError:  # used from its source, not installed
        return "0"
