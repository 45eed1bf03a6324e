"""Translator: a generator and all that is needed to run it. What a user keeps, loads and calls."""

from img2img.models.adapter import apply_adapter, factor_difference
from img2img.models.config import Base, Mode, Training, TranslatorConfig
from img2img.models.latents import Walk
from img2img.models.latents_file import (
    Latent,
    Latents,
    collect_styles,
    cross,
    draw_latents,
    find_latents,
    read_latents,
    vary,
)
from img2img.models.noise_generator import NoiseGenerator, NoiseGeneratorModelConfig
from img2img.models.storage import (
    CONFIG_FILE,
    REFERENCE_FILE,
    build_empty,
    find_translator,
    has_both_directions,
    is_noise_generator,
    load_weights,
    read_config,
    read_kind,
    read_tensors_of,
    refuse_other_files,
)
from img2img.models.styles import Style
from img2img.models.translator import Translator
from img2img.tiling.translate import BlendedWarning, pad_to

__all__ = [
    "CONFIG_FILE",
    "REFERENCE_FILE",
    "Base",
    "BlendedWarning",
    "Latent",
    "Latents",
    "Mode",
    "NoiseGenerator",
    "NoiseGeneratorModelConfig",
    "Style",
    "Training",
    "Translator",
    "TranslatorConfig",
    "Walk",
    "apply_adapter",
    "build_empty",
    "collect_styles",
    "cross",
    "draw_latents",
    "factor_difference",
    "find_latents",
    "find_translator",
    "has_both_directions",
    "is_noise_generator",
    "load_weights",
    "pad_to",
    "read_config",
    "read_kind",
    "read_latents",
    "read_tensors_of",
    "refuse_other_files",
    "vary",
]  # fmt: skip
