"""Files of measurements: any values, any number of bands, and what belongs to them."""

import io
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from img2img.images import ImageError, Rules, count_pixels, read_image, read_picture, write_image, write_picture
from img2img.images.bands import ANY, choose_type, restore_values, scale_values
from img2img.images.decoder import Decoder

LIMITS = (-1000.0, 3000.0)
GEO = [
    (33550, "d", 3, (10.0, 20.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
    (42112, "s", 0, "<GDALMetadata></GDALMetadata>", True),
    (42113, "s", 0, "-9999", True),
]


def values(height: int = 12, width: int = 18, bands: int = 6, dtype: Any = np.int16) -> Any:
    return np.random.default_rng(0).integers(-900, 2900, (height, width, bands)).astype(dtype)


def write_geo(path: Path, array: Any, **options: Any) -> None:
    tifffile.imwrite(
        path, array, photometric="minisblack", planarconfig="contig", extratags=GEO, metadata=None, **options
    )


def tags(path: Path) -> dict[int, Any]:
    with tifffile.TiffFile(path) as file:
        return {tag.code: tag.value for tag in file.pages[0].tags}  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_values_come_back(tmp_path: Path, dtype: str, bands: int, suffix: str) -> None:
    limits = {"uint8": (0.0, 255.0), "uint16": (0.0, 3000.0)}.get(dtype, LIMITS)
    array = values(bands=bands).clip(*limits).astype(dtype)
    if suffix == ".npy":
        np.save(tmp_path / "a.npy", array)
    else:
        flat = array[..., 0] if bands == 1 else array
        tifffile.imwrite(
            tmp_path / "a.tif", flat, photometric="minisblack", planarconfig="contig" if bands > 1 else None
        )
    picture = read_picture(tmp_path / f"a{suffix}", Rules(range=limits))
    assert picture.frames[0].shape == array.shape
    np.testing.assert_allclose(picture.frames[0], (array - limits[0]) / (limits[1] - limits[0]), atol=1e-6)
    write_picture(tmp_path / f"b{suffix}", picture)
    again = (
        np.load(tmp_path / "b.npy") if suffix == ".npy" else tifffile.imread(tmp_path / "b.tif").reshape(array.shape)
    )
    assert again.dtype == dtype
    np.testing.assert_allclose(again, array, atol=0 if np.dtype(dtype).kind in "ui" else 1e-3)


def test_bands_that_lie_apart_are_read_alike(tmp_path: Path) -> None:
    array = values()
    tifffile.imwrite(tmp_path / "a.tif", array.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate")
    picture = read_picture(tmp_path / "a.tif", Rules(range=LIMITS))
    np.testing.assert_allclose(picture.frames[0], (array + 1000.0) / 4000, atol=1e-6)


@pytest.mark.parametrize("compression", ["lzw", "zstd", "deflate"])
def test_compressed_tiles(tmp_path: Path, compression: str) -> None:
    array = values(40, 50)
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        photometric="minisblack",
        planarconfig="contig",
        compression=compression,
        tile=(16, 16),
    )
    picture = read_picture(tmp_path / "a.tif", Rules(range=LIMITS))
    np.testing.assert_allclose(picture.frames[0], (array + 1000.0) / 4000, atol=1e-6)


def test_axes_with_names(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 4000, (3, 2, 16, 18)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    picture = read_picture(tmp_path / "a.tif", Rules(range=(0, 4095)))
    assert [frame.shape for frame in picture.frames] == [(16, 18, 2)] * 3
    np.testing.assert_allclose(picture.frames[1][..., 1], stack[1, 1] / 4095, atol=1e-6)
    assert len(read_picture(tmp_path / "a.tif", Rules(range=(0, 4095), first=True)).frames) == 1
    write_picture(tmp_path / "b.tif", picture)
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif").reshape(3, 16, 18, 2), stack.transpose(0, 2, 3, 1))


def test_the_place_on_earth_stays(tmp_path: Path) -> None:
    array = values()
    write_geo(tmp_path / "a.tif", array)
    write_picture(tmp_path / "b.tif", read_picture(tmp_path / "a.tif", Rules(range=LIMITS)))
    before, after = tags(tmp_path / "a.tif"), tags(tmp_path / "b.tif")
    assert all(before[code] == after[code] for code in (33550, 33922, 34735, 42112, 42113))
    write_picture(tmp_path / "c.tif", read_picture(tmp_path / "a.tif", Rules(range=LIMITS, size=6)))
    assert tags(tmp_path / "c.tif")[33550] == (20.0, 40.0, 0.0)  # half as many pixels, twice as large


def test_no_data_stays_no_data(tmp_path: Path) -> None:
    array = values()
    array[2:4, 3:7] = -9999
    array[8, 8, 0] = -9999  # in one band only
    write_geo(tmp_path / "a.tif", array)
    picture = read_picture(tmp_path / "a.tif", Rules(range=LIMITS))
    assert picture.bands and picture.bands.found == (array[array != -9999].min(), array.max())
    assert (picture.frames[0][2:4, 3:7] == 0).all() and picture.frames[0][8, 8, 0] == 0
    picture.frames = [np.full_like(picture.frames[0][..., :1], 0.5)]
    write_picture(tmp_path / "b.tif", picture)
    made = tifffile.imread(tmp_path / "b.tif")
    assert (made[2:4, 3:7] == -9999).all() and (made == -9999).sum() == 8 and made[8, 8] == 1000


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_what_is_made_is_never_no_data(tmp_path: Path, dtype: str) -> None:
    array = values().clip(1).astype(dtype)
    array[0] = 0
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        photometric="minisblack",
        planarconfig="contig",
        extratags=[(42113, "s", 0, "0", True)],
    )
    picture = read_picture(tmp_path / "a.tif", Rules(range=(0, 3000)))
    picture.frames = [np.zeros((12, 18, 2), np.float32)]
    write_picture(tmp_path / "b.tif", picture)
    made = tifffile.imread(tmp_path / "b.tif")
    assert (made[0] == 0).all() and (made[1:] > 0).all() and (made[1:] <= 1).all()


def test_floats_without_a_number(tmp_path: Path) -> None:
    array = values(dtype=np.float32)
    array[0, 0], array[1, 1, 0] = math.nan, math.inf
    np.save(tmp_path / "a.npy", array)
    picture = read_picture(tmp_path / "a.npy", Rules(range=LIMITS))
    assert np.isfinite(picture.frames[0]).all() and picture.frames[0][1, 1, 0] == 1
    write_picture(tmp_path / "b.npy", picture)
    made = np.load(tmp_path / "b.npy")
    assert np.isnan(made[0, 0]).all() and np.isnan(made).sum() == array.shape[2]


def test_the_decoder_gives_the_same(tmp_path: Path) -> None:
    array = values()
    array[:3] = -9999
    write_geo(tmp_path / "a.tif", array)
    rules = Rules(range=LIMITS)
    here = read_picture(tmp_path / "a.tif", rules)
    decoder = Decoder(rules)
    try:
        there = decoder.picture(tmp_path / "a.tif")
        assert decoder.pixels(tmp_path / "a.tif") == count_pixels(tmp_path / "a.tif", rules) == 12 * 18
    finally:
        decoder.close()
    assert np.array_equal(here.frames[0], there.frames[0]) and here.bands and there.bands
    assert np.array_equal(here.bands.missing[0], there.bands.missing[0])
    assert (here.bands.header, here.bands.no_data, tuple(here.bands.found or ())) == (
        there.bands.header, there.bands.no_data, tuple(there.bands.found or ()),
    )  # fmt: skip


def test_depth_as_png(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).integers(0, 10000, (9, 9, 1)).astype(np.uint16)
    write_image(tmp_path / "a.png", depth)
    picture = read_picture(tmp_path / "a.png", Rules(range=(0, 10000)))
    np.testing.assert_allclose(picture.frames[0], depth / 10000, atol=1e-6)
    write_picture(tmp_path / "b.png", picture)
    assert np.array_equal(read_picture(tmp_path / "b.png").frames[0], depth)


def test_four_bands_are_not_alpha(tmp_path: Path) -> None:
    array = np.full((8, 8, 4), 200, np.uint8)
    array[..., 3] = 0
    array[::2, :, 0] = 100
    write_image(tmp_path / "a.png", array)
    small = read_picture(tmp_path / "a.png", Rules(range=(0, 255), size=4)).frames[0]
    np.testing.assert_allclose(small[..., 0], 150 / 255, atol=1e-6)  # weighted by alpha, nothing would be left of it
    assert (small[..., 3] == 0).all()


@pytest.mark.parametrize(
    ("stored", "limits", "allowed", "chosen"),
    [
        ("int16", (-1000, 3000), ANY, "int16"),
        ("uint8", (0, 255), ANY, "uint8"),
        ("uint8", (0, 10000), ANY, "uint16"),
        ("uint8", (0, 1), ANY, "float32"),
        ("int16", (-0.5, 90.25), ANY, "float32"),
        ("float64", (0, 1), ANY, "float64"),
        ("int16", (0, 10000), ("uint8", "uint16"), "uint16"),
    ],
)
def test_types_hold_the_range(stored: str, limits: Any, allowed: Any, chosen: str) -> None:
    assert choose_type(stored, limits, allowed).name == chosen


def test_what_does_not_go_is_said(tmp_path: Path) -> None:
    array = values()
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match=r"a\.tif: it holds more bands.*--data\.range"):
        read_picture(tmp_path / "a.tif")
    picture = read_picture(tmp_path / "a.tif", Rules(range=LIMITS))
    with pytest.raises(ImageError, match=r"b\.png: its format can't hold values from -1000 to 3000"):
        write_picture(tmp_path / "b.png", picture)
    np.save(tmp_path / "c.npy", array.astype(np.complex64))
    with pytest.raises(ImageError, match=r"c\.npy: its values are complex64"):
        read_picture(tmp_path / "c.npy", Rules(range=LIMITS))
    with pytest.raises(ImageError, match="million pixels"):
        read_picture(tmp_path / "a.tif", Rules(range=LIMITS, max_pixels=100))
    whole = (tmp_path / "a.tif").read_bytes()
    for damaged in (b"", b"II*\0garbage", whole[: len(whole) // 2]):
        (tmp_path / "d.tif").write_bytes(damaged)
        with pytest.raises(ImageError, match=r"d\.tif"):
            read_picture(tmp_path / "d.tif", Rules(range=LIMITS))


def test_pages_that_follow_one_another_in_a_circle_end(tmp_path: Path) -> None:
    pages, tag = 120, struct.pack("<HHHII", 1, 256, 3, 1, 4)  # more than tifffile looks back
    starts = [8 + 18 * number for number in range(pages)]
    chain = b"".join(tag + struct.pack("<I", after) for after in (*starts[1:], starts[-1]))
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + chain)
    with pytest.raises(ImageError, match="in a circle"):
        read_picture(tmp_path / "a.tif", Rules(range=LIMITS))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((150, 4, 4), np.int16), photometric="minisblack")
    assert len(read_picture(tmp_path / "b.tif", Rules(range=LIMITS)).frames) == 150


@pytest.mark.parametrize("big", [False, True])
def test_pages_that_are_missing_are_said(tmp_path: Path, big: bool) -> None:
    """tifffile would drop them, and only log it."""
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((6, 4, 4), np.int16), photometric="minisblack", bigtiff=big, metadata=None
    )
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        starts = [page.offset for page in file.pages]
    kind, data = "<Q" if big else "<I", (tmp_path / "a.tif").read_bytes()
    assert data.count(struct.pack(kind, starts[3])) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(struct.pack(kind, starts[3]), struct.pack(kind, 2**31)))
    with pytest.raises(ImageError, match=r"page 4 is damaged, or cut off"):
        read_picture(tmp_path / "a.tif", Rules(range=LIMITS))


def test_a_resolution_of_nothing_is_left_out(tmp_path: Path) -> None:
    whole = values()
    tifffile.imwrite(tmp_path / "a.tif", whole, photometric="minisblack", planarconfig="contig", resolution=(11, 13))
    data = (tmp_path / "a.tif").read_bytes()
    assert data.count(struct.pack("<II", 11, 1)) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(struct.pack("<II", 11, 1), bytes(8)))
    write_picture(tmp_path / "b.tif", read_picture(tmp_path / "a.tif", Rules(range=LIMITS)))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), whole)


def test_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    write_geo(tmp_path / "a.tif", values())
    for name in "bc":
        write_picture(tmp_path / f"{name}.tif", read_picture(tmp_path / "a.tif", Rules(range=LIMITS)))
    assert (tmp_path / "b.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()
    assert tifffile.imread(io.BytesIO((tmp_path / "b.tif").read_bytes())).dtype == np.int16


def test_scaling_there_and_back() -> None:
    array = np.array([[[-2000], [-1000], [1000], [3000], [5000]]], np.int32)
    unit, missing, found = scale_values(array, LIMITS)
    assert unit.ravel().tolist() == [0, 0, 0.5, 1, 1] and not missing.any() and found == (-2000, 5000)
    assert restore_values(unit, LIMITS, np.dtype(np.int16)).ravel().tolist() == [-1000, -1000, 1000, 3000, 3000]


def test_what_png_can_not_hold_is_said(tmp_path: Path) -> None:
    pages = np.full((2, 16, 16), 5000, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    rules = Rules(range=(0, 10000))
    with pytest.raises(ImageError, match="can't hold values from 0 to 10000"):
        write_picture(tmp_path / "b.png", read_picture(tmp_path / "a.tif", rules))
    np.save(tmp_path / "c.npy", np.full((8, 8, 2), 5000, np.uint16))
    with pytest.raises(ImageError, match=r"2 bands, which \.png can't hold"):
        write_picture(tmp_path / "b.png", read_picture(tmp_path / "c.npy", rules))


def test_texts_in_utf_8_stay(tmp_path: Path) -> None:
    text = "<GDALMetadata><Item>µm, Zürich</Item></GDALMetadata>".encode()
    tifffile.imwrite(
        tmp_path / "a.tif", values(), photometric="minisblack", planarconfig="contig", metadata=None,
        extratags=[(42112, 2, len(text) + 1, text + b"\0", True)],
    )  # fmt: skip
    write_picture(tmp_path / "b.tif", read_picture(tmp_path / "a.tif", Rules(range=LIMITS)))
    assert text in (tmp_path / "b.tif").read_bytes()


def test_floats_are_wide_and_fine_enough() -> None:
    assert choose_type("float16", (0, 100_000), ANY).name == "float32"
    assert choose_type("float16", (0, 1), ANY).name == "float32"
    assert choose_type("float32", (1e9, 1e9 + 100), ANY).name == "float64"


def test_packed_arrays(tmp_path: Path) -> None:
    array = values(bands=5)
    np.savez(tmp_path / "a.npz", anything=array)
    picture = read_picture(tmp_path / "a.npz", Rules(range=LIMITS))
    assert count_pixels(tmp_path / "a.npz", Rules(range=LIMITS)) == 12 * 18
    write_picture(tmp_path / "b.npz", picture)
    with np.load(tmp_path / "b.npz") as made:
        assert made.files == ["image"] and np.array_equal(made["image"], array)
    np.savez_compressed(tmp_path / "gray.npz", np.full((12, 18), 7, np.uint8))
    assert read_picture(tmp_path / "gray.npz").frames[0].shape == (12, 18, 1)
    np.savez(tmp_path / "two.npz", one=array, two=array)
    np.savez(tmp_path / "objects.npz", np.array([{}], object))
    (tmp_path / "text.npz").write_text("nothing")
    with pytest.raises(ImageError, match=r"two\.npz: it holds 2 arrays \(one, two\); an image is a file of one"):
        read_picture(tmp_path / "two.npz")
    with pytest.raises(ImageError, match=r"objects\.npz"):
        read_picture(tmp_path / "objects.npz")
    with pytest.raises(ImageError, match=r"text\.npz can't be read as an image"):
        read_picture(tmp_path / "text.npz", Rules(range=LIMITS))
    with pytest.raises(ImageError, match=r"18 × 12 = .* million pixels"):
        read_picture(tmp_path / "gray.npz", Rules(max_pixels=100))


def test_bands_without_a_range_are_told_what_they_need(tmp_path: Path) -> None:
    for name, shape, kind in (("a", (8, 9, 4), np.int16), ("b", (8, 9, 2), np.float64), ("c", (8, 9, 6), np.uint8)):
        file = tmp_path / f"{name}.tif"
        tifffile.imwrite(file, np.zeros(shape, kind), photometric="minisblack", planarconfig="contig")
        with pytest.raises(ImageError, match=r"bands .*train with their range: --data\.range LOW HIGH"):
            read_image(file)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ImageError, match="damaged"):
        read_image(file)
