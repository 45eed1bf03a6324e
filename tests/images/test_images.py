import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from helpers.data import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from img2img.images import (
    ImageError,
    Picture,
    Rules,
    composite_over_white,
    convert_channels,
    from_pil,
    read_image,
    read_picture,
    reading,
    to_8_bit,
    to_pil,
    write_image,
    write_picture,
)
from img2img.images.arrays import check_16_bit_range, to_16_bit
from img2img.images.formats import SUFFIXES
from img2img.images.tensors import build_grid, to_array, to_tensor

LOSSLESS = [".png", ".tif", ".tiff", ".bmp", ".PNG"]


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_come_back_equal(tmp_path: Path, suffix: str, channels: int) -> None:
    image = picture(7, 11, channels)
    write_image(tmp_path / f"a{suffix}", image)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), image)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_depth_and_alpha_are_kept(tmp_path: Path, suffix: str, channels: int, dtype: type) -> None:
    image = picture(9, 5, channels, dtype=dtype)
    write_image(tmp_path / f"a{suffix}", image)
    again = read_image(tmp_path / f"a{suffix}")
    expected = convert_channels(image, 4) if channels == 2 and dtype == np.uint16 else image
    assert again.dtype == dtype
    assert np.array_equal(again, expected)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats_come_back_near(tmp_path: Path, suffix: str) -> None:
    image = picture(32, 32)
    write_image(tmp_path / f"a{suffix}", image)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - image).mean() < 4


def test_formats_without_alpha_or_16_bits_get_what_they_can_hold(tmp_path: Path) -> None:
    image = picture(8, 8, 4, dtype=np.uint16)
    write_image(tmp_path / "a.bmp", image)
    assert np.array_equal(read_image(tmp_path / "a.bmp"), composite_over_white(to_8_bit(image)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(picture(6, 10))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    assert np.array_equal(read_image(tmp_path / "a.png"), upright)


def test_modes_are_converted_by_rule(tmp_path: Path) -> None:
    rgb = Image.fromarray(picture(8, 8))
    assert from_pil(rgb.convert("1")).shape == (8, 8, 1)
    assert set(np.unique(from_pil(rgb.convert("1")))) <= {0, 255}
    assert from_pil(rgb.convert("P")).shape == (8, 8, 3)
    assert from_pil(rgb.convert("CMYK")).shape == (8, 8, 3)
    palette = rgb.convert("P")
    palette.info["transparency"] = 0
    assert from_pil(palette).shape == (8, 8, 4)
    deep = Image.fromarray(np.array([[0, 65535]], np.uint16))
    assert from_pil(deep)[..., 0].tolist() == [[0, 65535]]
    for mode in ("F",):
        with pytest.raises(ImageError, match="float"):
            from_pil(rgb.convert(mode))


def test_16_bit_gray_goes_to_pillow_and_back() -> None:
    image = picture(4, 4, 1, dtype=np.uint16)
    assert np.array_equal(from_pil(to_pil(image)), image)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 50], ids=["empty", "text", "broken header"]
)
def test_unreadable_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.png"):
        read_image(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = tmp_path / f"cut{suffix}"
    channels = 1 if suffix == ".pgm" else 3
    noise = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (64, 64, channels)).astype(dtype)
    write_image(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match="cut"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".avif", ".heic", ".jxl", ".ppm", ".tga"])
def test_less_common_formats_come_back(tmp_path: Path, suffix: str) -> None:
    exact = suffix in (".ppm", ".tga")
    for channels in (1, 3, 4):
        image = picture(24, 40, channels)
        write_image(tmp_path / f"a{suffix}", image)
        back = read_image(tmp_path / f"a{suffix}")
        wanted = composite_over_white(image) if suffix == ".ppm" else image
        assert back.shape[2] in (wanted.shape[2], 3), "AVIF has no gray"
        assert abs(back.astype(int) - wanted).mean() <= (0 if exact else 3)
    image = picture(24, 40, seed=1)
    write_image(tmp_path / f"low{suffix}", image, quality=10)
    write_image(tmp_path / f"high{suffix}", image, quality=95)
    sizes = [(tmp_path / f"{name}{suffix}").stat().st_size for name in ("low", "high")]
    assert sizes[0] == sizes[1] if exact else sizes[0] < sizes[1]


def test_gray_formats_refuse_colour(tmp_path: Path) -> None:
    write_image(tmp_path / "a.pgm", picture(8, 8, 1))
    assert np.array_equal(read_image(tmp_path / "a.pgm"), picture(8, 8, 1))
    with pytest.raises(ImageError, match=r"use \.ppm or \.png"):
        write_image(tmp_path / "b.pgm", picture(8, 8, 3))


def test_avif_keeps_its_frames(tmp_path: Path) -> None:
    frames = [picture(24, 24, seed=seed) for seed in range(3)]
    write_picture(tmp_path / "a.avif", Picture(frames, durations=[100, 200, 300]))
    back = read_picture(tmp_path / "a.avif")
    assert len(back.frames) == 3 and back.durations == [100, 200, 300]


def test_a_format_that_needs_a_package_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.heic", picture(16, 16))
    monkeypatch.setattr("img2img.images.formats.find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"a\.heic: .*pip install pillow-heif"):
        read_image(tmp_path / "a.heic")
    with pytest.raises(ImageError, match="pillow-jxl-plugin"):
        write_image(tmp_path / "a.jxl", picture(16, 16))


def test_a_format_without_a_mark_is_taken_by_its_ending_only(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tga", picture(16, 16))
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    with pytest.raises(ImageError, match="no image of a known format"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif", ".heic"])
def test_xmp_is_kept_but_for_the_orientation(tmp_path: Path, suffix: str) -> None:
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6" dc:creator="me"/><tiff:Orientation>8</tiff:Orientation></x:xmpmeta>'
    wanted = packet.replace(b'="6"', b'="1"').replace(b">8<", b">1<")
    exif = Image.Exif()
    exif[0x010F] = "maker"
    Image.fromarray(picture(16, 24)).save(tmp_path / "a.jpg", xmp=packet, exif=exif)
    photo = read_picture(tmp_path / "a.jpg")
    assert photo.xmp == wanted and not read_picture(tmp_path / "a.jpg", Rules(metadata=False)).xmp
    for dtype in (np.uint8, np.uint16):
        write_picture(tmp_path / f"b{suffix}", replace(photo, frames=[picture(16, 24, dtype=dtype)]))
        back = read_picture(tmp_path / f"b{suffix}")
        assert back.xmp.rstrip(b"\0") == wanted and b"maker" in back.exif


def test_a_missing_file_and_an_unknown_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match=r"\.xyz is not a format"):
        write_image(tmp_path / "a.xyz", picture(4, 4))
    assert not list(tmp_path.iterdir())


@given(st.sampled_from([np.uint8, np.uint16]), st.integers(1, 5), st.integers(0, 1000))
def test_tensors_come_back_equal(dtype: type, channels: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (3, 4, channels)).astype(dtype)
    tensor = to_tensor(image)
    assert tensor.shape == (channels, 3, 4)
    assert tensor.min() >= -1 and tensor.max() <= 1
    assert np.array_equal(to_array(tensor, dtype), image)


def test_the_range_is_exact() -> None:
    ends = np.array([[[0], [255]]], np.uint8)
    assert to_tensor(ends).flatten().tolist() == [-1.0, 1.0]
    assert to_array(torch.tensor([[[-3.0, 3.0]]])).flatten().tolist() == [0, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_change_by_rule(dtype: type) -> None:
    white = np.iinfo(dtype).max
    rgb = picture(4, 4, 3, dtype=dtype)
    gray = convert_channels(rgb, 1)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[..., 0] - luma).max() <= 0.5
    assert np.array_equal(convert_channels(gray, 3), np.repeat(gray, 3, 2))
    assert (convert_channels(rgb, 4)[..., 3] == white).all()
    clear = np.concatenate([rgb, np.zeros_like(gray)], 2)
    assert (convert_channels(clear, 3) == white).all(), "transparent pixels are white"
    with pytest.raises(ImageError, match="5 channels"):
        convert_channels(picture(4, 4, 5), 3)


def test_grids_have_a_row_for_each_image() -> None:
    columns = [torch.zeros(2, channels, 8, 8) for channels in (1, 3, 5)]
    image = build_grid(columns)
    assert image.shape == (2 * 10 + 2, 3 * 10 + 2, 3)
    assert image.dtype == np.uint8


def test_16_bit_colour_png_is_not_cut_to_8_bits(tmp_path: Path) -> None:
    image = picture(4, 4, 3, dtype=np.uint16)
    done, data = cv2.imencode(".png", image[..., ::-1])
    assert done
    (tmp_path / "a.png").write_bytes(data.tobytes())
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    assert Image.open(io.BytesIO(data.tobytes())).mode == "RGB", "Pillow alone would hide the depth"


def test_16_bit_gray_with_alpha_is_gray_with_alpha(tmp_path: Path) -> None:
    """Written by hand: neither Pillow nor OpenCV writes one."""
    gray, alpha = picture(4, 6, 1, 1, np.uint16), picture(4, 6, 1, 2, np.uint16)
    rows = np.concatenate([gray, alpha], 2).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 6, 4, 16, 4, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.concatenate([gray, alpha], 2))


def test_a_16_bit_tiff_whose_white_is_zero_is_not_inverted(tmp_path: Path) -> None:
    image = picture(5, 6, 1, dtype=np.uint16)[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", 65535 - image, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., 0], image)


def test_training_leaves_the_metadata_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (4, 4))
    exif = image.getexif()
    exif[0x013B] = "somebody"
    image.save(tmp_path / "a.png", exif=exif, dpi=(72, 72))
    whole = read_picture(tmp_path / "a.png")
    assert b"somebody" in whole.exif and whole.dpi is not None
    monkeypatch.setattr(reading, "_kept_exif", None)  # calling it would fail
    monkeypatch.setattr(reading, "_dpi", None)
    assert read_image(tmp_path / "a.png").shape == (4, 4, 3)


def test_depths_are_rounded_and_never_wrap() -> None:
    sixteen = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(to_8_bit(sixteen), np.rint(sixteen / 257).astype(np.uint8))
    steps = np.arange(1000) / 999
    assert np.array_equal(to_16_bit(steps), np.rint(steps * 65535).astype(np.uint16))
    assert np.array_equal(to_8_bit(steps), np.rint(steps * 255).astype(np.uint8))
    for value in (-1, 65536):
        with pytest.raises(ImageError, match="only 0 to 65535 can be read"):
            check_16_bit_range(np.array([[0, value]]))
    assert check_16_bit_range(np.array([[0, 65535]])).dtype == np.uint16


def test_a_jpeg_may_be_decoded_smaller(tmp_path: Path) -> None:
    """Never below what is enough, whichever way it is turned; other formats stay whole."""
    smooth = cv2.resize(picture(10, 15), (600, 400), interpolation=cv2.INTER_CUBIC)
    write_image(tmp_path / "a.jpg", smooth)
    write_image(tmp_path / "a.png", smooth)
    for enough, shape in ((400, (400, 600)), (201, (400, 600)), (200, (200, 300)), (100, (100, 150)), (20, (50, 75))):
        assert read_image(tmp_path / "a.jpg", enough).shape[:2] == shape
    assert read_image(tmp_path / "a.png", 20).shape[:2] == (400, 600)
    write_image(tmp_path / "odd.jpg", smooth[:396])
    assert read_image(tmp_path / "odd.jpg", 20).shape[:2] == (99, 150), "an eighth would end within a pixel"
    expected = cv2.resize(smooth, (300, 200), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(read_image(tmp_path / "a.jpg", 200) - expected).mean() < 2
