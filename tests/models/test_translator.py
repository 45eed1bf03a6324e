import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data import picture
from PIL import Image

import img2img
from img2img.core.errors import UsageError, UserError
from img2img.images import ImageError, composite_over_white
from img2img.models import BlendedWarning, Training, Translator, TranslatorConfig, pad_to
from img2img.networks import build_generator, initialise
from img2img.networks.generators.resnet import ResNetConfig
from img2img.networks.generators.unet import UNetConfig
from img2img.networks.layers import ImageNetwork
from img2img.tiling.translate import _window


def make(kind: str = "unet", in_channels: int = 3, out_channels: int = 3, **settings: Any) -> Translator:
    torch.manual_seed(0)
    base: Any = UNetConfig(channels=4, depth=3, **settings) if kind == "unet" else ResNetConfig(channels=4, blocks=1)
    config = base.resolve(in_channels, out_channels, 16)
    about = TranslatorConfig(method="pix2pix", generator=config, size=16, training=Training(img2img="0"))
    return Translator(about, initialise(build_generator(config), gain=0.2).eval())


SIZES = [(1, 1), (17, 31), (257, 255), (1000, 300), (1, 50), (8, 8)]


@pytest.mark.parametrize("kind", ["unet", "resnet"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["eval", "paper"])
def test_the_output_has_the_inputs_size_and_kind(kind: str, size: tuple[int, int], mode: Any) -> None:
    translator = make(kind)
    for dtype in (np.uint8, np.uint16):
        for channels in (1, 2, 3, 4):
            image = picture(*size, channels, dtype=dtype)
            done = translator(image, mode=mode)
            assert done.shape == (*size, 4 if channels in (2, 4) else 3) and done.dtype == dtype
    assert translator(torch.zeros(2, 3, *size), mode=mode).shape == (2, 3, *size)
    assert translator(Image.new("RGB", size), mode=mode).size == size


def test_pil_images_and_arrays_and_tensors_agree() -> None:
    translator, image = make(), picture(16, 24)
    array = translator(image)
    assert np.array_equal(np.asarray(translator(Image.fromarray(image))), array)
    tensor = torch.from_numpy(image.transpose(2, 0, 1) / 127.5 - 1).float()
    by_tensor = (translator(tensor).numpy().transpose(1, 2, 0) + 1) * 127.5
    assert np.abs(by_tensor - array).max() <= 0.51
    with torch.no_grad():
        assert torch.allclose(translator(tensor), translator.generator(tensor[None])[0], atol=1e-6)


@pytest.mark.parametrize("mode", ["eval", "paper"])
@pytest.mark.parametrize("tile", [None, 16])
def test_tensors_of_bytes_are_translated_as_images_are(mode: Any, tile: int | None) -> None:
    translator, image = make("resnet"), picture(36, 24)
    image[0, :2] = [[0, 127, 128], [1, 254, 255]]
    array = translator(image, mode=mode, tile=tile)
    planes = torch.from_numpy(image.transpose(2, 0, 1).copy())
    alone = translator(planes, mode=mode, tile=tile)
    batch = translator(torch.stack([planes, planes]), mode=mode, tile=tile)
    (mapped,) = translator.map([planes], mode=mode, tile=tile)
    assert alone.dtype == batch.dtype == mapped.dtype == torch.uint8
    assert np.array_equal(alone.permute(1, 2, 0), array) and np.array_equal(mapped.permute(1, 2, 0), array)
    assert (batch[1].permute(1, 2, 0).int() - torch.from_numpy(array).int()).abs().max() <= 1
    assert np.array_equal(planes.permute(1, 2, 0), image)  # what went in stays as it was
    with pytest.raises(UsageError, match=r"or uint8, not .* torch.int16"):
        translator(planes.short())


def test_only_what_is_8_bits_of_colour_goes_as_bytes() -> None:
    for channels in (1, 2, 3, 4):
        for translator in (make(), make(in_channels=1, out_channels=1)):
            image = picture(16, 24, channels)
            prepared, carried, dtype = translator.prepare(image, as_bytes=True)
            assert prepared.dtype == torch.uint8 and dtype == np.uint8
            assert np.array_equal(translator.finish(translator(prepared), carried, dtype), translator(image))
            prepared, carried, dtype = translator.prepare(picture(16, 24, channels, dtype=np.uint16), as_bytes=True)
            assert prepared.dtype == torch.float32 and dtype == np.uint16
    measuring = make()
    measuring.config = measuring.config.model_copy(update={"out_range": (0.0, 5.0)})
    assert measuring.prepare(picture(16, 24), as_bytes=True)[0].dtype == torch.float32
    with pytest.raises(UsageError, match=r"float in \[-1, 1\], not .* torch\.uint8"):
        measuring(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_bytes_that_do_not_fit_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    translator, images = make("resnet"), torch.randint(256, (2, 3, 24, 24), dtype=torch.uint8)
    expected = translator(images)
    move, moved = torch.Tensor.to, list[torch.Tensor]()

    def full(self: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if "non_blocking" in options:
            moved.append(self)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return move(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "to", full)
    assert torch.equal(translator(images), expected) and len(moved) == 1
    assert translator(images, tile=8).shape == images.shape and len(moved) == 1  # strips take it from where it is


def test_alpha_is_carried_untouched_and_gray_becomes_colour() -> None:
    translator, image = make(), picture(16, 16, 4)
    done = translator(image)
    assert np.array_equal(done[..., 3], image[..., 3])
    assert np.array_equal(done[..., :3], translator(composite_over_white(image))), (
        "the network sees what it saw in training"
    )
    gray = picture(16, 16, 1)
    assert np.array_equal(translator(gray), translator(np.repeat(gray, 3, 2)))
    assert np.array_equal(translator(gray[..., 0]), translator(gray))


def test_pil_modes() -> None:
    translator = make()
    rgb = Image.fromarray(picture(16, 16))
    modes = {"L": "RGB", "P": "RGB", "LA": "RGBA", "RGBA": "RGBA", "CMYK": "RGB", "1": "RGB"}
    for mode, expected in modes.items():
        assert translator(rgb.convert(mode)).mode == expected
    gray = make(in_channels=1, out_channels=1)
    assert gray(rgb).mode == "L"
    assert gray(Image.fromarray(picture(8, 8, 1, dtype=np.uint16)[..., 0])).mode.startswith("I;16")


def test_16_bits_are_kept_and_not_scaled_to_8() -> None:
    translator = make(in_channels=1, out_channels=1)
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    done = translator(ramp)
    assert done.shape == (64, 64) and done.dtype == np.uint16
    assert len(np.unique(done)) > 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_tensors_that_are_not_scaled_are_refused(dtype: torch.dtype) -> None:
    translator, image = make(in_channels=2), torch.zeros(1, 2, 8, 8, dtype=dtype)
    for value, words in (
        (255.0, "has values from 0 to 255"),
        (-1000.0, "from -1000 to 0"),
        (float("nan"), "holds NaN"),
    ):
        wrong = image.clone()
        wrong[0, 1, 3, 3] = value
        with pytest.raises(UsageError, match=rf"scaled to \[-1, 1\]; this one .*{words}"):
            translator(wrong)
    image[0, 1, 3, 3] = 1.3
    assert translator(image).shape == (1, 3, 8, 8), "interpolation goes a little beyond"


def test_channels_that_do_not_fit_are_refused() -> None:
    translator = make(in_channels=2)
    with pytest.raises(UsageError, match=r"must be \(2, H, W\) or \(B, 2, H, W\), float"):
        translator(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UsageError, match=r"a tensor of \(0, 2, 8, 8\) holds no image"):
        translator(torch.zeros(0, 2, 8, 8))
    with pytest.raises(UserError, match="5 channels"):
        make()(picture(8, 8, 5))
    with pytest.raises(UsageError, match="not str"):
        make()("image.png")  # type: ignore[type-var]
    with pytest.raises(UsageError, match="there are eval and paper"):
        make()(picture(8, 8), mode="papper")  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="its floats go beyond 0"):
        make()(np.full((4, 4, 3), 255.0))
    assert translator(picture(8, 8, 2)).shape == (8, 8, 3)


def test_modes_are_explicit_seeded_and_leave_no_trace() -> None:
    translator, image = make(), torch.randn(1, 3, 16, 16)
    before = {name: tensor.clone() for name, tensor in translator.generator.state_dict().items()}
    plain = translator(image)
    state = torch.get_rng_state()
    paper = translator(image, mode="paper", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(paper, translator(image, mode="paper", seed=1))
    assert not torch.equal(paper, translator(image, mode="paper", seed=2)), "dropout depends on the seed"
    assert torch.equal(plain, translator(image)) and not torch.equal(plain, paper)
    assert all(torch.equal(before[name], tensor) for name, tensor in translator.generator.state_dict().items())
    assert not any(module.training for module in translator.generator.modules())
    translator.generator.train()
    translator(image)
    assert all(module.training for module in translator.generator.modules())


def test_paper_mode_uses_the_images_own_statistics_whatever_the_batch() -> None:
    translator = make(dropout=0.0)
    images = torch.randn(3, 3, 16, 16)
    together = translator(images, mode="paper")
    alone = torch.cat([translator(image[None], mode="paper") for image in images])
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_saved_translator_is_the_same(tmp_path: Path) -> None:
    translator, image = make("resnet"), picture(20, 30)
    translator.save(tmp_path / "t")
    assert sorted(file.name for file in (tmp_path / "t").iterdir()) == ["config.json", "generator.safetensors"]
    again = img2img.load(tmp_path / "t")
    assert again.config == translator.config
    assert np.array_equal(again(image), translator(image))
    translator.save(tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_runs_folder_is_loaded_by_its_best_else_its_latest(trained: Path) -> None:
    best = img2img.load(trained / "best").generator.state_dict()
    assert all(torch.equal(best[name], tensor) for name, tensor in img2img.load(trained).generator.state_dict().items())


def test_saving_over_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="other files"):
        make().save(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        make().save(tmp_path / "letter.txt")
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_half_precision_weights_are_loaded_as_fp32(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    translator, image = make(), picture(8, 8)
    translator.save(tmp_path / "t")
    weights = tmp_path / "t" / "generator.safetensors"
    assert weights.stat().st_mode & 0o044 == 0o044, "others may read it"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights)
    assert np.abs(img2img.load(tmp_path / "t")(image).astype(int) - translator(image)).max() <= 3


def test_too_little_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = make()

    def fail(*_: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(translator.generator, "forward", fail)
    with pytest.raises(ImageError, match="not enough memory"):
        translator(picture(8, 8))


def test_a_translator_that_is_being_replaced_is_still_found(tmp_path: Path) -> None:
    make().save(tmp_path / "run" / "latest")
    (tmp_path / "run" / "latest").rename(tmp_path / "run" / ".latest.older")
    assert img2img.load(tmp_path / "run").config.size == 16
    assert not (tmp_path / "run" / "latest").exists(), "a reader changes nothing"


def broken(folder: Path, how: str) -> Path:
    make().save(folder)
    config, weights = folder / "config.json", folder / "generator.safetensors"
    values = json.loads(config.read_text())
    if how == "no weights":
        weights.unlink()
    elif how == "random weights":
        weights.write_bytes(os_random(1000))
    elif how == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "other architecture":
        values["generator"]["channels"] = 8
    elif how == "unknown key":
        values["colour"] = "red"
    elif how == "bad value":
        values["mode"] = "fast"
    if how == "no json":
        config.write_text("{")
    else:
        config.write_text(json.dumps(values))
    return folder


def os_random(count: int) -> bytes:
    return bytes(np.random.default_rng(0).integers(0, 256, count, dtype=np.uint8))


@pytest.mark.parametrize(
    "how", ["no weights", "random weights", "cut weights", "other architecture", "unknown key", "bad value", "no json"]
)
def test_damaged_translators_get_a_sentence_that_names_the_file(tmp_path: Path, how: str) -> None:
    with pytest.raises(UsageError, match=r"config\.json|generator\.safetensors"):
        img2img.load(broken(tmp_path / "t", how))


def test_no_translator_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        img2img.load(tmp_path / "none")
    with pytest.raises(UsageError, match="no translator"):
        img2img.load(tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 2), (5, 9)])
def test_padding_reflects_however_small_the_image(size: tuple[int, int]) -> None:
    image = torch.arange(float(size[0] * size[1])).reshape(1, 1, *size)
    padded = pad_to(image, 16, 24)
    assert padded.shape == (1, 1, 16, 24)
    assert torch.equal(padded[..., : size[0], : size[1]], image)
    expected = np.pad(
        image[0, 0].numpy(), ((0, 16 - size[0]), (0, 24 - size[1])), "reflect" if min(size) > 1 else "edge"
    )
    if min(size) > 1 or size == (1, 1):
        assert np.array_equal(padded[0, 0].numpy(), expected)


@pytest.mark.parametrize("mode", ["eval", "paper"])
def test_a_large_image_is_computed_in_strips_with_the_same_result(mode: Any) -> None:
    translator = make(dropout=0.0)
    image = np.random.default_rng(0).integers(0, 256, (70, 45, 4), np.uint8)
    whole, strips = (translator(image, mode=mode, tile=tile).astype(int) for tile in (0, 16))
    assert abs(whole - strips).max() <= 1 and (whole != whole[0, 0]).any()
    assert translator.fits(512, 512) and not translator.fits(10**6, 10**6)
    assert translator.fits(16, 16, 16) and not translator.fits(17, 16, 16) and translator.fits(10**6, 10**6, 0)
    batch = torch.randn(2, 3, 40, 40).tanh()
    a, b = (translator(batch, mode=mode, tile=tile) for tile in (0, 16))
    assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("mode", ["eval", "paper"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_images_in_memory_are_mapped_in_their_order(batch_size: int, mode: Any) -> None:
    translator = make("unet")
    arrays = [
        picture(16, 24, seed=0),
        picture(16, 24, 4, seed=1),
        picture(9, 9, seed=2),
        picture(16, 24, seed=3)[..., 0],
    ]
    images: list[Any] = [*arrays, Image.fromarray(picture(16, 24, seed=4)), torch.rand(3, 16, 24) * 2 - 1]
    mapped = list(translator.map(iter(images), batch_size=batch_size, mode=mode, seed=3))
    for done, image in zip(mapped, images, strict=True):
        alone = translator(image, mode=mode, seed=3)
        assert type(done) is type(image)
        assert np.abs(np.asarray(done, np.float32) - np.asarray(alone, np.float32)).max() <= (
            1 if image is not images[-1] else 1e-5
        )


def test_what_cannot_be_mapped_is_said() -> None:
    translator = make()
    with pytest.raises(UsageError, match="batch_size 0"):
        next(translator.map([], batch_size=0))
    with pytest.raises(UsageError, match=r"\(3, H, W\)"):
        next(translator.map([torch.rand(1, 3, 16, 16)]))
    with pytest.raises(UsageError, match="not str"):
        next(translator.map(["a.png"]))  # type: ignore[type-var]


class Global(ImageNetwork):
    """A network that strips can't compute: it adds the image's own mean, and blurs."""

    size_multiple, min_size = 4, 8

    def __init__(self, share: float) -> None:
        super().__init__()
        self.blur, self.share = torch.nn.Conv2d(3, 3, 5, padding=2), share

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return self.blur(source) + self.share * source.mean(dim=(2, 3), keepdim=True)


@pytest.mark.parametrize("tile", [0, 16])
def test_every_pixel_stays_at_its_place_whatever_the_size(tile: int) -> None:
    translator = make()
    with torch.no_grad():
        translator.generator = Global(0.0)
        translator.generator.blur.weight.zero_()
        translator.generator.blur.bias.zero_()  # type: ignore[union-attr]
        for channel in range(3):
            translator.generator.blur.weight[channel, channel, 2, 2] = 1
    for size in ((13, 30), (18, 17), (5, 6), (33, 41)):
        image = torch.rand(2, 3, *size) * 2 - 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BlendedWarning)
            assert torch.allclose(translator(image, tile=tile), image, atol=1e-5)


def test_the_weights_of_a_tile_fall_over_a_quarter_at_both_ends() -> None:
    assert _window(16).tolist() == [0.125, 0.375, 0.625, 0.875, *[1.0] * 8, 0.875, 0.625, 0.375, 0.125]


def test_what_cannot_be_done_in_strips_is_blended_from_tiles_with_a_sentence() -> None:
    translator = make()
    translator.generator = Global(0.0)
    image = torch.rand(1, 3, 203, 150) * 2 - 1
    whole = translator(image, tile=0)
    with pytest.warns(BlendedWarning, match="overlapping tiles of 64 pixels.*mean"):
        tiled = translator(image, tile=64)
    assert tiled.shape == whole.shape
    inner = (whole - tiled).abs()
    assert inner.mean() < 0.01, "only where a tile's border is near do they differ"
    smooth = torch.linspace(-1, 1, 203).view(1, 1, -1, 1).expand(1, 3, -1, 150)
    translator.generator = Global(1.0)
    with pytest.warns(BlendedWarning):
        tones = translator(smooth, tile=64)[0, 0, 3:-3, 75]
    assert (tones.diff().abs() < 0.1).all(), "tones shift, as each tile has its own mean, but there are no seams"


def test_arrays_of_floats(tmp_path: Path) -> None:
    translator, image = make(), picture(16, 24)
    done = translator((image / 255).astype(np.float32))
    assert done.dtype == np.float32 and abs(done * 255 - translator(image)).max() < 0.51
    with pytest.raises(UsageError, match="not int64"):
        translator(image.astype(np.int64))
    with pytest.raises(UsageError, match="tile -1"):
        translator(image, tile=-1)


@pytest.mark.parametrize("channels", [None, 999_999_999_999])
def test_a_config_of_no_network_is_a_sentence(tmp_path: Path, channels: int | None) -> None:
    """Found by tools/fuzz.py."""
    make().save(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    values = json.loads(config.read_text())
    values["generator"]["in_channels" if channels is None else "channels"] = channels
    config.write_text(json.dumps(values))
    with pytest.raises(UsageError, match=r"config\.json describes no network that can be built"):
        img2img.load(tmp_path / "model")
