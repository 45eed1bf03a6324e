"""Translator: a generator and all that is needed to run it. What a user keeps, loads and calls."""

from img2img.translator.anysize import BlendedWarning, pad_to
from img2img.translator.config import Mode, Training, TranslatorConfig
from img2img.translator.storage import find_translator, has_both_directions, load_weights, skeleton
from img2img.translator.style import Style
from img2img.translator.translator import Translator, load

__all__ = [
    "BlendedWarning",
    "Mode",
    "Style",
    "Training",
    "Translator",
    "TranslatorConfig",
    "find_translator",
    "has_both_directions",
    "load",
    "load_weights",
    "pad_to",
    "skeleton",
]
