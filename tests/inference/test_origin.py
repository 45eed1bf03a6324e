"""Digests of what outputs come from."""

from pathlib import Path

import torch

from img2img.inference.origin import digest_origin
from img2img.models import Translator


def test_weights_and_options_count(trained: Path) -> None:
    translator, again = Translator.load(trained), Translator.load(trained)
    assert digest_origin(translator, (1, "eval")) == digest_origin(again, (1, "eval"))
    assert digest_origin(translator, (1, "eval")) != digest_origin(again, (2, "eval"))
    with torch.no_grad():
        next(again.generator.parameters()).view(-1)[0] += 1e-3
    assert digest_origin(translator, (1, "eval")) != digest_origin(again, (1, "eval"))
