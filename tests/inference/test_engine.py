"""The faster copies of a translator compute the same."""

import copy
import re
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from helpers.translators import CONFIGS, make
from torch import nn

from img2img.core.errors import UsageError
from img2img.inference import engine as room
from img2img.inference.engine import Engine, _psnr, optimise
from img2img.inference.openvino import OpenVinoGenerator
from img2img.models import translator as models
from img2img.networks import ResNetConfig


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
    engine = Engine(translator, "eval", samples=[image])
    assert engine.dtype == "bf16" and not engine.notes
    assert next(engine.choose(16, 64, 64).translator.generator.parameters()).dtype == torch.float32, (
        "bf16 would leave bands"
    )
    monkeypatch.setattr(room, "CLOSE_ENOUGH", 200.0)
    engine = Engine(translator, "eval", samples=[image])
    assert (
        engine.dtype == "fp32" and "dB" in engine.notes[0] and engine.choose(16, 64, 64).translator is engine.for_8_bits
    )
    insisted = Engine(translator, "eval", "bf16", samples=[image])
    assert insisted.dtype == "bf16" and insisted.choose(16, 64, 64).translator is insisted.for_8_bits
    assert Engine(translator, "paper", samples=[image]).dtype == "fp32"
    monkeypatch.setattr(room, "choose_precision", lambda *_: "no")
    assert Engine(translator, "eval", samples=[image]).dtype == "fp32"


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


def build_openvino(monkeypatch: pytest.MonkeyPatch, config: Any, dtype: Any = "fp32", **options: Any) -> Engine:
    monkeypatch.setattr(room, "choose_precision", lambda *_: "no")  # of an older processor
    samples = [(torch.randn(1, 3, 40, 48, generator=torch.Generator().manual_seed(k)) * 0.3).tanh() for k in range(4)]
    return Engine(make(config), "eval", dtype, samples=samples, backend="openvino", **options)


@pytest.mark.parametrize("config", [*CONFIGS, ResNetConfig(channels=4, blocks=1, attention=True, separable=True)])
def test_openvino_computes_the_same(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build_openvino(monkeypatch, config)
    assert engine.backend == "openvino" and engine.dtype == "fp32"
    for shape in ((1, 3, 40, 56), (3, 3, 33, 70)):  # of other sizes and batches than it was traced with
        image = torch.randn(shape).tanh()
        fast = engine.choose(8, *shape[2:]).translator
        assert isinstance(fast.generator, OpenVinoGenerator)
        assert torch.allclose(fast(image), engine.translator(image), atol=2e-3)
        assert torch.equal(fast(image), fast(image))


def test_openvino_leaves_large_and_deep_images_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build_openvino(monkeypatch, CONFIGS[0])
    assert not isinstance(engine.choose(8, 64, 64, tile=32).translator.generator, OpenVinoGenerator), (
        "it knows no strips"
    )
    assert isinstance(engine.choose(8, 64, 64, tile=0).translator.generator, OpenVinoGenerator)
    assert engine.choose(8, 64, 64, tile=32)[1:] == ("fp32", "torch"), "and reports say so"
    half = build_openvino(monkeypatch, CONFIGS[0], "auto")
    half.for_16_bits_too = False
    assert not isinstance(half.choose(16, 64, 64).translator.generator, OpenVinoGenerator)


def test_int8_keeps_as_many_layers_as_are_exact_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ResNetConfig(channels=4, blocks=2)
    engine = build_openvino(monkeypatch, config, "int8")
    count, total = map(int, re.findall(r"\d+", engine.notes[-1])[:2])
    assert total == 2 + 2 * 2 + 2 + 2 and 0 < count <= total - 2 and engine.dtype == "int8"
    image = (torch.randn(1, 3, 40, 48, generator=torch.Generator().manual_seed(0)) * 0.3).tanh()
    made, truth = engine.choose(8, 40, 48).translator(image), engine.translator(image)
    assert not torch.allclose(made, truth, atol=1e-4)
    assert room._psnr(made, truth) > 30
    assert not isinstance(engine.choose(16, 40, 48).translator.generator, OpenVinoGenerator)
    monkeypatch.setattr(room, "CLOSE_ENOUGH", 70.0)  # which int8 doesn't reach
    strict = build_openvino(monkeypatch, config, "int8")
    kept = int(re.findall(r"\d+", strict.notes[-1])[0])
    assert kept < count
    assert room._psnr(strict.choose(8, 40, 48).translator(image), truth) > 60


def test_auto_takes_openvino_where_it_is_faster_and_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {True: 1.0, False: 2.0}

    def time_of(translator: Any, batch: Any) -> float:
        return seconds[isinstance(translator.generator, OpenVinoGenerator)]

    monkeypatch.setattr(room, "_time", time_of)
    translator, image = make(CONFIGS[0]), torch.randn(1, 3, 40, 48).tanh()

    def engine(**options: Any) -> Engine:
        return Engine(translator, "eval", **{"samples": [image], "backend": "auto", "work": room.MANY, **options})

    assert engine().backend == "openvino" and "2.0 times as fast" in engine().notes[-1]
    assert engine(work=room.MANY - 1).backend == "torch"
    assert engine(backend="torch").backend == "torch"
    seconds[True] = 1.9  # too little to be sure
    assert engine().backend == "torch" and not engine().notes
    seconds[True] = 1.0
    monkeypatch.setattr(room, "CLOSE_ENOUGH", 500.0)
    assert engine(dtype="fp32").backend == "torch", "not exact enough"
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    assert engine().backend == "torch"


def test_openvino_is_refused_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, options in {
        "mode eval": {"mode": "paper"},
        "--compile": {"compile": True},
        "--dtype int8 .* none of the first": {"dtype": "int8"},
    }.items():
        with pytest.raises(UsageError, match=words):
            Engine(**{"translator": make(CONFIGS[0]), "mode": "eval", "backend": "openvino", **options})  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"pip install 'img2img\[openvino\]'"):
        Engine(make(CONFIGS[0]), "eval", backend="openvino")


def test_openvino_reports_nothing_to_its_makers() -> None:
    code = (
        "from img2img.inference.openvino import import_openvino; import sys\n"
        "import_openvino(); import nncf\n"
        "assert not [name for name, module in sys.modules.items() if name.startswith('openvino_telemetry') and module]\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert telemetry_utils.tm.__name__.endswith('telemetry_stub')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_signal_after_openvino_has_compiled_twice_does_not_end_the_process() -> None:
    code = (
        "import gc, os, signal\n"
        "import numpy as np\n"
        "from img2img.inference.openvino import compile_model, import_openvino\n"
        "openvino, operations = import_openvino(), __import__('openvino').opset13\n"
        "def compile_one():\n"
        "    x = operations.parameter([1, 4], np.float32)\n"
        "    return compile_model(openvino.Model([operations.relu(x)], [x]), 'fp32', 1)\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('heard'))\n"
        "first, second = compile_one(), compile_one()\n"
        "del first; gc.collect()\n"
        "del second; gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "heard"), done.stderr
