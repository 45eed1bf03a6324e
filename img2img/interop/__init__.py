"""Checkpoints of other projects, in and out, one file a project."""

from img2img.interop.exporting import export_reference
from img2img.interop.importing import (
    Imported,
    Known,
    as_translator,
    import_file,
    load_discriminator,
    save_discriminator,
)
from img2img.interop.loading import is_onnx, is_weights, load, load_translator, local, makes_noise_into_images, tell
from img2img.interop.recognise import FAMILIES, Found, read_network

__all__ = [
    "FAMILIES",
    "Found",
    "Imported",
    "Known",
    "as_translator",
    "export_reference",
    "import_file",
    "is_onnx",
    "is_weights",
    "load",
    "load_discriminator",
    "load_translator",
    "local",
    "makes_noise_into_images",
    "read_network",
    "save_discriminator",
    "tell",
]
