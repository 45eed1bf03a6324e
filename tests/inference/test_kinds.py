"""Every kind of image comes out as the same kind, to the pixel (by a translator that changes nothing)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.data import picture
from helpers.identity import identity
from PIL import Image, ImageCms

import img2img
from img2img.images import Picture, composite_over_white, read_image, read_picture, to_8_bit, write_image, write_picture
from img2img.inference.report import Outcome, Report

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def converted(folder: Path, channels: int = 3, **options: Any) -> Report:
    return img2img.convert(identity(channels), folder / "in", folder / "out", dtype="fp32", **options)


def only(folder: Path, **options: Any) -> Outcome:
    (outcome,) = converted(folder, **options).outcomes
    return outcome


def frames_of(count: int) -> list[np.ndarray[Any, Any]]:
    return [picture(20, 30, seed=seed) // 64 * 64 for seed in range(count)]  # 4 × 4 × 4 colours: a palette holds them


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_full_16_bit_ramp_is_kept(tmp_path: Path, suffix: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    write_image(tmp_path / "in" / f"ramp.{suffix}", ramp)
    assert only(tmp_path, channels=1).bits == 16
    assert np.array_equal(read_image(tmp_path / "out" / f"ramp.{suffix}"), ramp)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_colour_and_its_metadata_are_kept(tmp_path: Path, suffix: str) -> None:
    deep = picture(20, 30, dtype=np.uint16)
    exif = Image.Exif()
    exif[271] = "Maker"
    write_picture(tmp_path / "in" / f"a.{suffix}", Picture([deep], exif=exif.tobytes(), icc=SRGB, dpi=(300, 300)))
    assert only(tmp_path).status == "done"
    done = read_picture(tmp_path / "out" / f"a.{suffix}")
    assert np.array_equal(done.frames[0], deep) and done.icc == SRGB and b"Maker" in done.exif
    assert done.dpi == pytest.approx((300, 300), abs=0.01)


def test_soft_alpha_is_carried_and_the_network_sees_white_behind(tmp_path: Path) -> None:
    image = picture(20, 30, 4)
    write_image(tmp_path / "in" / "a.png", image)
    assert only(tmp_path).status == "done"
    done = read_image(tmp_path / "out" / "a.png")
    assert np.array_equal(done[..., 3], image[..., 3]) and np.array_equal(done[..., :3], composite_over_white(image))


def test_cmyk_becomes_srgb(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inks = np.zeros((16, 32, 4), np.uint8)
    inks[:, :16, 0] = 255  # cyan, and paper beside
    Image.fromarray(inks, "CMYK").save(tmp_path / "in" / "a.jpg", quality=100, subsampling=0)
    assert only(tmp_path).status == "done"
    with Image.open(tmp_path / "out" / "a.jpg") as done:
        assert done.mode == "RGB" and done.format == "JPEG"
    values = read_image(tmp_path / "out" / "a.jpg").astype(int)
    assert abs(values[8, 4] - [0, 255, 255]).max() < 4 and abs(values[8, 28] - 255).max() < 4


def test_lab_and_1_bit_become_what_they_look_like(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = Image.fromarray(picture(16, 24))
    spaces = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    lab = ImageCms.profileToProfile(image, *spaces, outputMode="LAB")
    assert lab is not None
    lab.save(tmp_path / "in" / "lab.tif")
    image.convert("1").save(tmp_path / "in" / "bits.png")
    assert converted(tmp_path).count("done") == 2
    done = read_image(tmp_path / "out" / "lab.tif").astype(int)
    assert abs(done - np.asarray(image)).mean() < 3
    assert np.array_equal(
        read_image(tmp_path / "out" / "bits.png")[..., 0], np.asarray(image.convert("1").convert("L"))
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_gone_from_the_metadata(tmp_path: Path, orientation: int) -> None:
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[0x0112], exif[271] = orientation, "Maker"
    exif.get_ifd(34665)[33434] = 0.01  # exposure in seconds
    image = Image.fromarray(picture(16, 24))
    image.save(tmp_path / "in" / "a.jpg", exif=exif, dpi=(300, 200), icc_profile=SRGB)
    assert only(tmp_path, quality=100).status == "done"
    turned = read_image(tmp_path / "in" / "a.jpg")
    assert turned.shape[:2] == ((16, 24) if orientation < 5 else (24, 16))
    with Image.open(tmp_path / "out" / "a.jpg") as done:
        assert abs(np.asarray(done).astype(int) - turned).max() < 8
        kept = done.getexif()
        assert kept.get(0x0112, 1) == 1 and kept[271] == "Maker" and float(kept.get_ifd(34665)[33434]) == 0.01
        assert done.info["dpi"] == (300, 200) and done.info["icc_profile"] == SRGB
    img2img.convert(identity(), tmp_path / "in", tmp_path / "bare", metadata=False)
    with Image.open(tmp_path / "bare" / "a.jpg") as done:
        assert not len(done.getexif()) and done.info["icc_profile"] == SRGB


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = Image.new("P", (24, 16), 1)
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    image.paste(0, (0, 0, 12, 16))
    image.save(tmp_path / "in" / "a.png", transparency=0)
    assert only(tmp_path).status == "done"
    done = read_image(tmp_path / "out" / "a.png")
    assert done[8, 4].tolist() == [255, 255, 255, 0] and done[8, 20].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("suffix", ["gif", "png", "apng"])
def test_every_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = frames_of(3)
    write_picture(tmp_path / "in" / f"a.{suffix}", Picture(frames, [50, 70, 90], loop=2))
    assert only(tmp_path).frames == 3
    done = read_picture(tmp_path / "out" / f"a.{suffix}")
    assert done.durations == [50, 70, 90] and done.loop == 2
    for frame, truth in zip(done.frames, frames, strict=True):
        assert np.array_equal(frame, truth)


def test_a_gif_keeps_what_is_transparent(tmp_path: Path) -> None:
    mask = np.zeros((20, 30, 1), np.uint8)
    mask[5:15] = 255
    frames = [np.concatenate([frame, np.roll(mask, shift, 0)], 2) for shift, frame in enumerate(frames_of(3))]
    write_picture(tmp_path / "in" / "a.gif", Picture(frames, [50] * 3))
    assert only(tmp_path).frames == 3
    for done, truth in zip(read_picture(tmp_path / "out" / "a.gif").frames, frames, strict=True):
        assert np.array_equal(done[..., 3], truth[..., 3])
        assert np.array_equal(done[done[..., 3] > 0], truth[truth[..., 3] > 0])


def test_animated_webp_to_gif_and_the_first_frame_by_choice(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.webp", Picture(frames_of(3), [50, 70, 90]), quality=100)
    assert only(tmp_path).frames == 3
    assert read_picture(tmp_path / "out" / "a.webp").durations == [50, 70, 90]
    converted(tmp_path, format="gif")
    assert len(read_picture(tmp_path / "out" / "a.gif").frames) == 3
    converted(tmp_path, format="jpg", frames="first")
    assert abs(read_image(tmp_path / "out" / "a.jpg").astype(int) - frames_of(1)[0]).mean() < 8


def test_a_format_of_one_image_gets_no_animation(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.gif", Picture(frames_of(3), [50] * 3))
    outcome = only(tmp_path, format="jpg")
    assert outcome.status == "failed" and "3 frames" in outcome.reason and "--frames first" in outcome.reason


def test_every_page_of_a_tiff_has_its_own_size_and_depth(tmp_path: Path) -> None:
    pages = [picture(20, 30), picture(24, 16, dtype=np.uint16), picture(20, 30, seed=2)]
    write_picture(tmp_path / "in" / "a.tif", Picture(pages))
    assert only(tmp_path).frames == 3
    for done, truth in zip(read_picture(tmp_path / "out" / "a.tif").frames, pages, strict=True):
        assert done.dtype == truth.dtype and np.array_equal(done, truth)


def test_floats_and_wide_integers(tmp_path: Path) -> None:
    unit = np.random.default_rng(0).random((16, 24, 1)).astype(np.float32)
    write_image(tmp_path / "in" / "a.tif", unit)
    Image.fromarray(np.full((16, 24), 40000, np.int32)).save(tmp_path / "in" / "b.tif")
    Image.fromarray(np.full((16, 24), 70000, np.int32)).save(tmp_path / "in" / "c.tif")
    Image.fromarray(np.full((16, 24), 2.0, np.float32)).save(tmp_path / "in" / "d.tif")
    report = converted(tmp_path, channels=1)
    assert [outcome.status for outcome in report.outcomes] == ["done", "done", "failed", "failed"]
    done = read_picture(tmp_path / "out" / "a.tif").frames[0]
    assert done.dtype == np.float32 and abs(done - unit).max() < 1e-6
    assert read_image(tmp_path / "out" / "b.tif")[0, 0] == 40000
    assert "70000" in report.outcomes[2].reason and "16 bits" in report.outcomes[2].reason
    assert "1 (white)" in report.outcomes[3].reason
    converted(tmp_path, channels=1, format="png", existing="overwrite")
    assert read_image(tmp_path / "out" / "a.png").dtype == np.uint16
    assert img2img.convert(identity(), tmp_path / "in" / "a.tif", tmp_path / "rgb.tif").count("done")
    assert read_picture(tmp_path / "rgb.tif").frames[0].shape == (16, 24, 3), (
        "floats in colour, which Pillow can't read"
    )


@pytest.mark.parametrize(
    "array",
    [
        picture(16, 24),
        picture(16, 24, dtype=np.uint16),
        picture(16, 24)[..., 0],
        (picture(16, 24) / 255).astype(np.float64),
        picture(16, 24).astype(np.int64),
        picture(16, 24, 5),
        picture(16, 24, 1) > 127,
    ],
    ids=["8 bits", "16 bits", "flat", "floats", "wide integers", "5 channels", "bools"],
)
def test_arrays(tmp_path: Path, array: Any) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", array)
    channels = 1 if array.ndim == 2 else array.shape[2]
    assert only(tmp_path, channels=channels).status == "done"
    done = np.load(tmp_path / "out" / "a.npy")
    assert done.shape == array.shape
    assert np.allclose(done, array * 255 if array.dtype == bool else array, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 4, 5)), "its shape is"),
        (np.zeros((0, 3)), "its shape is"),
        (np.array([[object()]]), "can't be read"),
        (np.full((4, 4), -1), "from -1 to -1"),
        (np.full((4, 4), np.nan), "no numbers (NaN)"),
        (np.full((4, 4), 1.1), "floats go beyond 0 (black) to 1 (white): scale them"),
        (np.zeros((4, 4), np.complex64), "complex64"),
    ],
)
def test_arrays_that_are_no_images(tmp_path: Path, array: Any, words: str) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", array, allow_pickle=True)
    outcome = only(tmp_path)
    assert outcome.status == "failed" and words in outcome.reason and "a.npy" in outcome.reason


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1)])
def test_the_smallest_and_the_longest(tmp_path: Path, shape: tuple[int, int]) -> None:
    write_image(tmp_path / "in" / "a.png", picture(*shape))
    assert only(tmp_path).status == "done"
    assert np.array_equal(read_image(tmp_path / "out" / "a.png"), picture(*shape))


def test_sizes_by_choice(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.jpg", picture(401, 603))
    write_image(tmp_path / "in" / "b.png", picture(40, 60, 4))
    sizes = {}
    for name, options in {
        "size": {"size": 50},
        "side": {"max_side": 100},
        "both": {"size": 80, "max_side": 90},
    }.items():
        report = img2img.convert(identity(), tmp_path / "in", tmp_path / name, **options)
        sizes[name] = [read_image(tmp_path / name / each).shape[:2] for each in ("a.jpg", "b.png")]
        assert [(each.height, each.width) for each in report.outcomes] == sizes[name]
    assert sizes == {"size": [(50, 75), (50, 75)], "side": [(67, 100), (40, 60)], "both": [(60, 90), (60, 90)]}
    small = read_image(tmp_path / "size" / "a.jpg").astype(int)
    assert abs(small - np.asarray(Image.fromarray(picture(401, 603)).resize((75, 50), Image.Resampling.BOX))).mean() < 4


def test_transparent_pixels_lend_no_colour_when_an_image_shrinks(tmp_path: Path) -> None:
    image = np.zeros((32, 32, 4), np.uint8)
    image[:, 15:] = (0, 0, 255, 255)  # blue beside transparent black
    write_image(tmp_path / "in" / "a.png", image)
    img2img.convert(identity(4), tmp_path / "in", tmp_path / "out", size=8)
    done = read_image(tmp_path / "out" / "a.png")
    assert (done[done[..., 3] > 0][:, 2] >= 254).all() and 0 < done[0, 3, 3] < 255


def test_a_report_says_in_which_type_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("img2img.inference.engine.choose_precision", lambda *_: "bf16")
    write_image(tmp_path / "in" / "a.png", picture(32, 32))
    write_image(tmp_path / "in" / "b.png", picture(32, 32, dtype=np.uint16))
    report = img2img.convert(identity(), tmp_path / "in", tmp_path / "out")
    assert [(each.bits, each.dtype) for each in report.outcomes] == [(8, "bf16"), (16, "fp32")]
    report = img2img.convert(identity(), tmp_path / "in", tmp_path / "half", dtype="bf16")
    assert [each.dtype for each in report.outcomes] == ["bf16", "bf16"]


def test_a_report_says_what_came_out(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.gif", Picture(frames_of(2), [50] * 2))
    converted(tmp_path).write(tmp_path / "report.jsonl")
    line = json.loads((tmp_path / "report.jsonl").read_text())
    expected = {"status": "done", "width": 30, "height": 20, "frames": 2, "bits": 8, "mode": "eval", "dtype": "fp32"}
    assert {key: line[key] for key in expected} == expected
    assert to_8_bit(read_image(tmp_path / "out" / "a.gif")).shape == (20, 30, 3)
