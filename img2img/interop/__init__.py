"""Checkpoints of other projects, in and out, one file a project."""

from img2img.interop.exporting import export_reference
from img2img.interop.importing import (
    Imported,
    ImportOptions,
    build_translator,
    import_file,
    load_discriminator,
    save_discriminator,
)
from img2img.interop.loading import (
    is_onnx,
    is_weights,
    load,
    load_translator,
    makes_images_from_noise,
    print_assumptions,
    resolve_model,
)
from img2img.interop.recognise import FAMILIES, Found, read_network

__all__ = [
    "FAMILIES", "Found", "ImportOptions", "Imported", "build_translator", "export_reference", "import_file",
    "is_onnx", "is_weights", "load", "load_discriminator", "load_translator", "makes_images_from_noise",
    "print_assumptions", "read_network", "resolve_model", "save_discriminator",
]  # fmt: skip
