"""The faster copies of a translator compute the same."""

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from helpers.translators import CONFIGS, make
from torch import nn

from img2img.core.errors import UsageError
from img2img.inference import engine as room
from img2img.inference.engine import Engine, _psnr, optimise
from img2img.models import translator as models


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.kind}-{config.upsampling}-{config.norm}")
def test_folding_and_layout_change_nothing_but_rounding(config: Any) -> None:
    translator, images = make(config), torch.randn(2, 3, 24, 40).tanh()
    before = copy.deepcopy(translator.generator.state_dict())
    copied = optimise(translator, "eval", "fp32", False)
    assert torch.allclose(copied(images), translator(images), atol=1e-4)
    assert torch.allclose(copied(images, tile=16), translator(images), atol=1e-4), "also in strips"
    norms = [layer for layer in copied.generator.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert not norms, "every batch norm follows a convolution"
    assert all(torch.equal(value, before[name]) for name, value in translator.generator.state_dict().items())
    assert {p.dtype for p in optimise(translator, "eval", "bf16", False).generator.parameters()} == {torch.bfloat16}


def test_paper_mode_keeps_its_norms_and_its_drops() -> None:
    translator, image = make(CONFIGS[0]), torch.randn(1, 3, 24, 40).tanh()
    copied = optimise(translator, "paper", "fp32", False)
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
    with pytest.raises(UsageError, match="--dtype tf32 needs a GPU"):
        Engine(make(CONFIGS[0]), "eval", "tf32")


def test_fp32_on_a_gpu_is_exact_unless_tf32_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    translator, image, seen = make(CONFIGS[0]), torch.randn(1, 3, 24, 40).tanh(), []
    monkeypatch.setattr(models, "convolve_exactly", lambda device, exactly: (seen.append(exactly), nullcontext())[1])
    translator(image)
    for dtype in ("fp32", "tf32"):
        copied = optimise(translator, "eval", dtype, False)  # type: ignore[arg-type]
        copied(image)
        assert next(copied.generator.parameters()).dtype == torch.float32
    assert seen == [True, True, False]


def test_the_distance_of_half_precision_is_torchmetrics_s() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    torch.manual_seed(0)
    truth = torch.randn(2, 3, 8, 8)
    image = truth + 0.1 * torch.randn_like(truth)
    expected = peak_signal_noise_ratio(image, truth.clamp(-1, 1), (-1.0, 1.0))
    assert _psnr(image, truth) == pytest.approx(float(expected), rel=1e-5)
    assert _psnr(truth, truth) == float("inf")
