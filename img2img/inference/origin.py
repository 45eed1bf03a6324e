"""What tells the outputs of one model and its options from those of others."""

import hashlib
from typing import Any

import torch

from img2img.models import Translator


def digest_origin(translator: Translator, options: tuple[Any, ...]) -> str:
    """A digest of what decides on the values that are made: weights, settings and options."""
    digest = hashlib.blake2b(f"{translator.config.model_dump_json()} {options!r}".encode(), digest_size=16)
    for weights in translator.generator.state_dict().values():
        digest.update(weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
