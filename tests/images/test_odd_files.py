"""Files that libraries misread, or that are not what they seem."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers.data import picture
from PIL import Image

from img2img.images import ImageError, Picture, Rules, read_image, read_picture, write_picture
from img2img.images.gif import gif_is_whole

DEEP = picture(20, 30, dtype=np.uint16)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_channels_that_lie_apart(tmp_path: Path, compression: str | None, kind: type) -> None:
    image = DEEP if kind is np.uint16 else (DEEP / 65535).astype(np.float32)
    for page in range(2):
        tifffile.imwrite(
            tmp_path / "a.tif", np.moveaxis(image // (page + 1) if kind is np.uint16 else image / (page + 1), 2, 0),
            photometric="rgb", planarconfig="separate", compression=compression, append=page > 0, metadata=None,
        )  # fmt: skip
    first, second = read_picture(tmp_path / "a.tif").frames
    assert np.array_equal(first, image) and first.dtype == kind
    assert np.allclose(second, image // 2 if kind is np.uint16 else image / 2)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
def test_uncompressed_tiffs_are_turned(tmp_path: Path, orientation: int, mode: str) -> None:
    image = Image.fromarray(picture(16, 24)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.tif", exif=exif)
    image.save(tmp_path / "b.tif", exif=exif, compression="tiff_lzw")
    assert np.array_equal(read_image(tmp_path / "a.tif"), read_image(tmp_path / "b.tif"))
    assert read_image(tmp_path / "a.tif").shape[:2] == ((16, 24) if orientation < 5 else (24, 16))


def test_what_a_fourth_channel_of_16_bits_means(tmp_path: Path) -> None:
    alpha = np.full((20, 30, 1), 32768, np.uint16)
    multiplied = np.concatenate([DEEP // 2, alpha], axis=2)
    for meaning in ("assocalpha", "unassalpha", "unspecified"):
        tifffile.imwrite(
            tmp_path / f"{meaning}.tif", multiplied, photometric="rgb", extrasamples=[meaning], metadata=None
        )
    straight = read_image(tmp_path / "assocalpha.tif")
    assert abs(straight[..., :3].astype(int) - DEEP).max() <= 3 and np.array_equal(straight[..., 3:], alpha)
    assert np.array_equal(read_image(tmp_path / "unassalpha.tif"), multiplied)
    assert np.array_equal(read_image(tmp_path / "unspecified.tif"), DEEP // 2)


def test_transparent_values_of_1_and_16_bits(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1000, 65535]], np.uint16)).save(tmp_path / "deep.png", transparency=1000)
    assert read_image(tmp_path / "deep.png").tolist() == [[[0, 65535], [1000, 0], [65535, 65535]]]
    Image.new("1", (2, 1), 1).save(tmp_path / "bits.png", transparency=255)
    assert read_image(tmp_path / "bits.png").shape == (1, 2, 2)


def test_bombs_behind_a_small_first_frame(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.tif", Picture([picture(4, 4), picture(300, 300)]))
    with pytest.raises(ImageError, match=r"0\.09002 million pixels"):
        read_picture(tmp_path / "a.tif", Rules(max_pixels=1000))
    write_picture(tmp_path / "b.png", Picture([picture(1, 200)]))
    with pytest.raises(ImageError, match="million pixels"):
        read_picture(tmp_path / "b.png", Rules(max_pixels=1000, size=64))
    np.save(tmp_path / "c.npy", np.zeros((10, 10, 500), np.uint8))
    with pytest.raises(ImageError, match="million pixels"):
        read_picture(tmp_path / "c.npy", Rules(max_pixels=1000))


def test_a_gif_that_ends_between_two_frames_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    write_picture(path, Picture([picture(20, 30, seed=seed) for seed in range(4)], [50] * 4))
    data = path.read_bytes()
    assert gif_is_whole(data) and gif_is_whole(data + b"junk")
    whole = [count for count in range(len(data)) if gif_is_whole(data[:count])]
    assert not whole, "every shorter one is noticed"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="truncated"):
        read_picture(path)
    found = read_picture(path, Rules(accept_truncated=True))
    assert found.truncated and 1 <= len(found.frames) <= 4


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage that is long enough", b"Exif\0\0II", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_damaged_exif_does_not_cost_the_image(tmp_path: Path, exif: bytes, suffix: str) -> None:
    Image.fromarray(picture(16, 24)).save(tmp_path / f"a.{suffix}", exif=exif)
    found = read_picture(tmp_path / f"a.{suffix}")
    assert found.frames[0].shape == (16, 24, 3) and found.exif == b""


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_texts_keep_their_bytes(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[270] = "déjà 你".encode()
    Image.fromarray(picture(16, 24)).save(tmp_path / "a.jpg", exif=exif)
    write_picture(tmp_path / f"b.{suffix}", read_picture(tmp_path / "a.jpg"))
    with Image.open(tmp_path / f"b.{suffix}") as image:
        assert image.getexif()[270].encode("latin-1") == "déjà 你".encode()


def test_metadata_that_a_format_cannot_hold_does_not_cost_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[270] = "x" * 70000
    for suffix in ("png", "jpg", "tif", "bmp", "gif", "webp"):
        write_picture(tmp_path / f"a.{suffix}", Picture([picture(16, 24)], exif=exif.tobytes()))
        assert read_image(tmp_path / f"a.{suffix}").shape == (16, 24, 3)
    Image.fromarray(picture(16, 24)).save(tmp_path / "b.tif", dpi=(1e9, 1e9))
    assert read_picture(tmp_path / "b.tif").dpi is None


def test_pages_of_several_sizes_stay_in_a_tiff(tmp_path: Path) -> None:
    pages: Any = Picture([picture(12, 10), picture(8, 20)])
    with pytest.raises(ImageError, match=r"several sizes.*--frames first"):
        write_picture(tmp_path / "a.gif", pages)
    write_picture(tmp_path / "a.tif", pages)


def test_frames_of_a_16_bit_animation_are_read(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + picture(4, 4, dtype=np.uint16)[row].astype(">u2").tobytes() for row in range(4))
    control = [struct.pack(">IIIIIHHBB", number, 4, 4, 0, 0, 1, 20, 0, 0) for number in (0, 1)]
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
        + chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", control[0]) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"fcTL", control[1]) + chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(rows)) + chunk(b"IEND", b"")
    )  # fmt: skip
    assert [frame.shape for frame in read_picture(tmp_path / "a.png").frames] == [(4, 4, 3)] * 2
    assert read_image(tmp_path / "a.png").dtype == np.uint16
