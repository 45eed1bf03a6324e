"""The faster copies of a translator compute the same."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from img2img.errors import UsageError
from img2img.inference import engine as room
from img2img.inference.engine import Engine, faster
from img2img.networks import ResNetConfig, build_generator, initialise
from img2img.networks.unet import UNetConfig
from img2img.translator import Training, Translator, TranslatorConfig

CONFIGS = [
    UNetConfig(channels=4, depth=3),
    UNetConfig(channels=4, depth=2, upsampling="resize"),
    UNetConfig(channels=4, depth=2, upsampling="blur", norm="instance"),
    ResNetConfig(channels=4, blocks=2, norm="batch", dropout=0.5),
    ResNetConfig(channels=4, blocks=2, downsampling="blur", upsampling="blur"),
]


def make(config: Any) -> Translator:
    torch.manual_seed(0)
    resolved = config.resolve(3, 3, 32)
    network = initialise(build_generator(resolved), "xavier", 1.0).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    about = TranslatorConfig(method="test", generator=resolved, size=32, training=Training(img2img="0"))
    return Translator(about, network)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.kind}-{config.upsampling}-{config.norm}")
def test_folding_and_layout_change_nothing_but_rounding(config: Any) -> None:
    translator, images = make(config), torch.randn(2, 3, 24, 40).tanh()
    before = copy.deepcopy(translator.generator.state_dict())
    copied = faster(translator, "eval", "fp32", False)
    assert torch.allclose(copied(images), translator(images), atol=1e-4)
    assert torch.allclose(copied(images, tile=16), translator(images), atol=1e-4), "also in strips"
    norms = [layer for layer in copied.generator.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert not norms, "every batch norm follows a convolution"
    assert all(torch.equal(value, before[name]) for name, value in translator.generator.state_dict().items())
    assert {p.dtype for p in faster(translator, "eval", "bf16", False).generator.parameters()} == {torch.bfloat16}


def test_paper_mode_keeps_its_norms_and_its_drops() -> None:
    translator, image = make(CONFIGS[0]), torch.randn(1, 3, 24, 40).tanh()
    copied = faster(translator, "paper", "fp32", False)
    a, b = (each(image, mode="paper", seed=3) for each in (copied, translator))
    assert torch.allclose(a, b, atol=1e-4) and not torch.allclose(a, translator(image), atol=1e-2)


def test_bf16_is_chosen_where_it_is_exact_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "choose_precision", lambda *_: "bf16")
    translator, image = make(CONFIGS[0]), torch.randn(1, 3, 24, 40).tanh()
    monkeypatch.setattr(room, "CLOSE_ENOUGH", 10.0)
    engine = Engine(translator, "eval", sample=image)
    assert engine.dtype == "bf16" and not engine.note
    assert next(engine.for_16_bits.generator.parameters()).dtype == torch.float32, "bf16 would leave bands"
    monkeypatch.setattr(room, "CLOSE_ENOUGH", 200.0)
    engine = Engine(translator, "eval", sample=image)
    assert engine.dtype == "fp32" and "dB" in engine.note and engine.for_16_bits is engine.for_8_bits
    insisted = Engine(translator, "eval", "bf16", sample=image)
    assert insisted.dtype == "bf16" and insisted.for_16_bits is insisted.for_8_bits
    assert Engine(translator, "paper", sample=image).dtype == "fp32"
    monkeypatch.setattr(room, "choose_precision", lambda *_: "no")
    assert Engine(translator, "eval", sample=image).dtype == "fp32"


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a GPU"):
        Engine(make(CONFIGS[0]), "eval", "fp16")
