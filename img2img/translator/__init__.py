"""Translator: a generator and all that is needed to run it. What a user keeps, loads and calls."""

from img2img.translator.adapter import applied, difference
from img2img.translator.anysize import BlendedWarning, pad_to
from img2img.translator.config import Base, Mode, Training, TranslatorConfig
from img2img.translator.sampler import Sampler, SamplerConfig
from img2img.translator.storage import (
    CONFIG_FILE,
    REFERENCE_FILE,
    find_translator,
    has_both_directions,
    is_sampler,
    kind_of,
    load_weights,
    read_tensors_of,
    refuse_other_files,
    skeleton,
)
from img2img.translator.style import Style
from img2img.translator.translator import Translator

__all__ = [
    "CONFIG_FILE",
    "REFERENCE_FILE",
    "Base",
    "BlendedWarning",
    "Mode",
    "Sampler",
    "SamplerConfig",
    "Style",
    "Training",
    "Translator",
    "TranslatorConfig",
    "applied",
    "difference",
    "find_translator",
    "has_both_directions",
    "is_sampler",
    "kind_of",
    "load_weights",
    "pad_to",
    "read_tensors_of",
    "refuse_other_files",
    "skeleton",
]
