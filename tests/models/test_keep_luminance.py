"""Translators that compute colours only: the luminance of what they make is that of the gray image, bit for bit."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.configs import tiny_config
from helpers.translators import draw_weights
from PIL import Image

import img2img
from img2img.config import resolve_config
from img2img.core.errors import UsageError
from img2img.images import Array, convert_channels, read_image, write_image
from img2img.inference import batching
from img2img.inference.convert import convert
from img2img.interop.exporting import export_reference
from img2img.interop.loading import load_translator
from img2img.interop.onnx import export_onnx
from img2img.models import Translator
from img2img.networks import ResNetConfig, UNetConfig, build_generator
from img2img.networks.layers import AddColours
from img2img.tiling.strips import Budget, run_in_strips

CONFIGS = [
    UNetConfig(channels=4, depth=3, norm="instance", keep_luminance=True),
    ResNetConfig(channels=4, blocks=1, keep_luminance=True),
]
KINDS = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)


def make_colouriser(config: Any = CONFIGS[0], **values: Any) -> Translator:
    return draw_weights(config.resolve(1, 3, 32), **values)


def draw(shape: tuple[int, ...], dtype: Any = np.uint8) -> Array:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def list_luma(image: torch.Tensor) -> torch.Tensor:
    return (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(-3, keepdim=True)


def test_colours_are_added_to_the_luminance() -> None:
    layer, gray = AddColours(), torch.rand(2, 1, 8, 8) * 2 - 1
    made = layer(gray, torch.rand(2, 2, 8, 8) * 2 - 1)
    assert torch.allclose(list_luma(made), gray, atol=1e-6) and made.min() >= -1 and made.max() <= 1
    red = layer(torch.zeros(1, 1, 1, 1), torch.tensor([0.0, 0.3])[None, :, None, None]).flatten()
    assert red[0] == pytest.approx(0.3 * 1.402) and red[1] == pytest.approx(-0.3 * 0.714136, rel=1e-4) and red[2] == 0
    blue = layer(torch.zeros(1, 1, 1, 1), torch.tensor([0.3, 0.0])[None, :, None, None]).flatten()
    assert blue[2] == pytest.approx(0.3 * 1.772) and blue[1] == pytest.approx(-0.3 * 0.344136, rel=1e-4)
    assert torch.equal(layer(gray, torch.zeros(2, 2, 8, 8)), gray.expand(-1, 3, -1, -1))
    chroma = torch.full((1, 2, 1, 1), 0.2, requires_grad=True)
    layer(torch.zeros(1, 1, 1, 1), chroma)[:, 2].sum().backward()
    assert chroma.grad is not None and chroma.grad[0, 0].item() == pytest.approx(1.772)


@KINDS
def test_the_network_keeps_the_luminance_and_is_the_same_in_strips(config: Any) -> None:
    translator, gray = make_colouriser(config), torch.rand(1, 1, 40, 24) * 2 - 1
    with torch.no_grad():
        made = translator.generator(gray)
        assert torch.allclose(list_luma(made), gray, atol=1e-6) and made.std(1).mean() > 0.02
        assert torch.allclose(run_in_strips(translator.generator, gray, Budget(300, 10**8)), made, atol=1e-4)


@KINDS
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((70, 45, 1), np.uint16), ((20, 31, 1), np.uint8), ((45, 70, 3), np.uint16), ((33, 40, 2), np.uint16)],
)
def test_arrays(config: Any, shape: tuple[int, ...], dtype: Any) -> None:
    translator, image = make_colouriser(config), draw(shape, dtype)
    made = translator(image)
    alpha = shape[2] == 2
    gray = image[..., :1] if alpha else convert_channels(image, 1)
    assert made.shape == (*shape[:2], 4 if alpha else 3) and made.dtype == dtype
    assert np.array_equal(convert_channels(made[..., :3], 1), gray)
    assert np.ptp(made[..., :3].astype(int), axis=2).mean() > np.iinfo(dtype).max / 50, "it has colours"
    if alpha:
        assert np.array_equal(made[..., 3:], image[..., 1:])


def test_pil_images_and_tensors() -> None:
    translator, image = make_colouriser(), draw((32, 48, 1))
    made = translator(Image.fromarray(image[..., 0]))
    assert made.mode == "RGB" and np.array_equal(np.asarray(made), translator(image))
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1
    assert np.abs((translator(tensor).permute(1, 2, 0).numpy() + 1) * 127.5 - translator(image)).max() < 2


def test_the_network_sees_the_size_of_its_training_images_or_what_is_asked_for() -> None:
    translator, image = make_colouriser(), draw((96, 160, 1))
    seen: list[torch.Size] = []
    translator.generator.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2:]))
    native = make_colouriser(resize="none")
    native.generator.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2:]))
    for each in (translator, translator.with_render_factor(3), translator.with_render_factor(50), native):
        made = each(image)
        assert made.shape == (96, 160, 3) and np.array_equal(convert_channels(made, 1), image)
    assert seen == [(32, 56), (48, 80), (96, 160), (96, 160)], "padded to multiples of 8"
    assert translator.render_factor is None, "the other one is a copy"
    (small,) = translator.map([draw((16, 16, 1))])
    assert small.shape == (16, 16, 3)
    with pytest.raises(UsageError, match="at least 1"):
        translator.with_render_factor(0)
    with pytest.raises(UsageError, match="keep the luminance"):
        draw_weights(UNetConfig(channels=4, depth=2).resolve(3, 3, 32)).with_render_factor(2)


def test_a_saved_one_is_the_same(tmp_path: Path) -> None:
    translator, image = make_colouriser(), draw((40, 40, 1))
    translator.save(tmp_path / "model")
    assert np.array_equal(img2img.load(tmp_path / "model")(image), translator(image))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_folder_of_16_bit_scans(tmp_path: Path, dtype: Any) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name, shape, kind in (("a.png", (90, 70, 1), np.uint16), ("b.tif", (50, 80, 1), np.uint16), ("c.png", (64, 64, 1), np.uint8)):  # fmt: skip
        write_image(scans / name, draw(shape, kind))
    for factor in (None, 3):
        done = tmp_path / f"done{factor}"
        report = convert(make_colouriser(), scans, done, dtype=dtype, device="cpu", render_factor=factor)
        assert report.count("failed") == 0, report.remarks()
        for file in scans.iterdir():
            gray, made = read_image(file), read_image(done / file.name)
            assert made.dtype == gray.dtype and np.array_equal(convert_channels(made, 1), gray), file
    assert not np.array_equal(read_image(tmp_path / "done3" / "a.png"), read_image(tmp_path / "doneNone" / "a.png"))
    with pytest.raises(UsageError, match="--render-factor"):
        convert(
            draw_weights(ResNetConfig(channels=4, blocks=1).resolve(1, 3, 32)), scans, tmp_path / "x", render_factor=2
        )


def test_images_wait_by_their_own_size_and_not_by_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a scan of 50 million pixels would count as the few that the network sees, and too many would be in memory."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(24):
        write_image(scans / f"{number:02}.png", draw((128, 160 + 8 * number, 1)))
    monkeypatch.setattr(batching, "WAITING_PIXELS", 2 * 128 * 344)
    read: list[int] = []
    computed: list[int] = []
    start, translate = batching.Pipeline._start, batching.Pipeline._translate
    monkeypatch.setattr(batching.Pipeline, "_start", lambda self, key: read.append(1) or start(self, key))
    monkeypatch.setattr(
        batching.Pipeline, "_translate", lambda self, batch: computed.append(len(read)) or translate(self, batch)
    )
    assert convert(make_colouriser(), scans, tmp_path / "done", device="cpu", dtype="fp32").count("done") == 24
    assert computed[0] <= 5


def test_what_is_measured_has_no_luminance(tmp_path: Path) -> None:
    settings = {"generator": {"kind": "unet", "channels": 4, "depth": 2, "keep_luminance": True}}
    config = tiny_config(tmp_path, tmp_path / "run", settings, data={"range": (0, 100)})
    with pytest.raises(UsageError, match=r"--data\.range says"):
        resolve_config(config)


def test_exported(tmp_path: Path) -> None:
    """ONNX has the whole network; other projects have no such generator."""
    pytest.importorskip("onnxruntime")
    translator, image = make_colouriser(), draw((32, 40, 1))
    done = export_onnx(translator, tmp_path / "model.onnx")
    assert max(done.differences.values()) <= 1
    made = load_translator(tmp_path / "model.onnx")(image)
    assert np.array_equal(convert_channels(made, 1), image)
    assert np.abs(made.astype(int) - translator(image)).max() <= 3
    with pytest.raises(UsageError, match="keeps its source's luminance"):
        translator.save(tmp_path / "model")
        export_reference(tmp_path / "model", tmp_path / "model.pth")


@KINDS
def test_it_is_for_gray_sources_and_coloured_targets(config: Any) -> None:
    for channels, advice in (((3, 3), "--data.derive gray"), ((1, 1), "no colours"), ((1, 4), "--data.out-channels 3")):
        with pytest.raises(UsageError, match=re.escape(advice)):
            config.resolve(*channels, 32)
    names = {name for name, _ in build_generator(config.resolve(1, 3, 32)).named_parameters()}
    assert not any(name.startswith("colours") for name in names), "nothing of it is trained"
