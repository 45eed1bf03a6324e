"""Which image files there are: their endings, what each format holds, and the packages that some need."""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from img2img.images.arrays import ImageError

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif", ".jxl", ".ppm", ".pgm", ".tga"
)  # fmt: skip
ARRAY_SUFFIX = ".npy"
ARRAYS = (ARRAY_SUFFIX, ".npz")
DICOM = ".dcm"
VOLUMES = (".nii", ".nii.gz")
READABLE = (*SUFFIXES, *ARRAYS, DICOM, *VOLUMES)
PAGES = (".tif", ".tiff")
STACKS = (*PAGES, DICOM, *VOLUMES)  # formats whose frames are no animation
MOVING = (".png", ".apng", ".webp", ".gif", ".avif", *STACKS)  # formats that hold several frames
DEEP = (".png", *PAGES)  # formats that hold 16 bits a channel
OPAQUE = (".jpg", ".jpeg", ".bmp", ".ppm", ".pgm")  # formats that hold no alpha
GRAY = (".pgm",)  # formats that hold one channel
LOSSY = (".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif", ".jxl")  # formats with a quality
BARE = (".bmp", ".gif", ".ppm", ".pgm", ".tga")  # formats without metadata

FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    "AVIF",
    "PPM",
)  # Pillow's others run programs, or are never meant
BY_SUFFIX = {".tga": ("TGA",), ".heic": ("HEIF",), ".heif": ("HEIF",), ".jxl": ("JXL",)}
"""Formats that only a file's ending tells, or that need a package."""
PACKAGES = {
    ".heic": ("pillow_heif", "pillow-heif"),
    ".heif": ("pillow_heif", "pillow-heif"),
    ".jxl": ("pillow_jxl", "pillow-jxl-plugin"),
    DICOM: ("pydicom", "pydicom"),
    **dict.fromkeys(VOLUMES, ("nibabel", "nibabel")),
}


def split_ending(name: str) -> tuple[str, str]:
    """A file's name without its ending, and the ending in small letters, which may be ``.nii.gz``."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 (Path is slow)
    if suffix.lower() == ".gz" and stem.lower().endswith(".nii") and len(stem) > 4:
        stem, suffix = stem[:-4], ".nii.gz"
    return stem, "" if suffix == "." else suffix.lower()


def find_suffix(path: Path) -> str:
    """The ending of a file's name, in small letters."""
    return split_ending(path.name)[1]


def prepare_format(path: Path) -> tuple[str, ...]:
    """Pillow's formats of which a file may be, by its ending.

    Raises:
        ImageError: if the package that knows them is missing.
    """
    suffix = find_suffix(path)
    if suffix in PACKAGES:
        module, package = PACKAGES[suffix]
        if not find_spec(module):
            raise ImageError(f"{suffix} files need the package {package}: pip install {package}, or 'img2img[formats]'")
        loaded = import_module(module)
        if module == "pillow_heif" and "HEIF" not in Image.OPEN:
            loaded.register_heif_opener()
    return BY_SUFFIX.get(suffix, FORMATS)
