"""DICOM images: their units, and images that are derived from them."""

import io
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import pixel_array, set_pixel_data
from pydicom.sequence import Sequence

from img2img.images import ImageError, Rules, count_pixels, read_picture, write_picture

LIMITS = (-1000.0, 2000.0)
ALL = Rules(range=LIMITS)


def make(path: Path, stored: Any, bits: int = 12, **values: Any) -> Any:
    """A CT slice of Hounsfield units."""
    data = FileDataset(str(path), {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", "1.2.3.5"
    data.PatientName, data.Modality, data.SeriesDescription = "Doe^J", "CT", "head"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.WindowCenter, data.WindowWidth = 40, 400
    data.PixelSpacing, data.ImagePositionPatient = [0.5, 0.75], [10, 20, 30]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    for name, value in values.items():
        setattr(data, name, value)
    set_pixel_data(
        data,
        stored,
        "RGB" if stored.ndim == 3 and stored.shape[2] == 3 else "MONOCHROME2",
        bits,
        generate_instance_uid=False,
    )
    data.save_as(path, enforce_file_format=True)
    return data


def stored(shape: tuple[int, ...] = (12, 18)) -> Any:
    return np.random.default_rng(0).integers(100, 3000, shape).astype(np.uint16)


def read(path: Path) -> tuple[Any, Any]:
    """A file, and its values in the units of the modality."""
    data = pydicom.dcmread(path)
    return data, pixel_array(data).astype(float) * float(data.RescaleSlope) + float(data.RescaleIntercept)


def test_hounsfield_units_come_back(tmp_path: Path) -> None:
    make(tmp_path / "a.dcm", stored())
    picture = read_picture(tmp_path / "a.dcm", ALL)
    hounsfield = stored().astype(float) - 1024
    np.testing.assert_allclose(picture.frames[0][..., 0], ((hounsfield + 1000) / 3000).clip(0, 1), atol=1e-6)
    assert picture.bands and picture.bands.dtype == "int16"
    write_picture(tmp_path / "b.dcm", picture)
    data, values = read(tmp_path / "b.dcm")
    np.testing.assert_array_equal(values, hounsfield.clip(*LIMITS))
    assert (data.RescaleSlope, data.RescaleIntercept, data.BitsStored, data.WindowCenter) == (1, -1024, 12, 40)
    assert data.PatientName == "Doe^J" and "PixelPaddingValue" not in data


def test_a_derived_image_says_so(tmp_path: Path) -> None:
    for name, own in (("a", "1.2.3.4"), ("b", "1.2.3.6")):
        make(tmp_path / f"{name}.dcm", stored(), SOPInstanceUID=own)
    made = {}
    for name, maker in (("a", "one"), ("b", "one"), ("a", "two")):
        picture = read_picture(tmp_path / f"{name}.dcm", ALL)
        assert picture.bands
        picture.bands.maker = maker
        write_picture(tmp_path / "c.dcm", picture)
        made[name, maker] = pydicom.dcmread(tmp_path / "c.dcm")
    data = made["a", "one"]
    assert list(data.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"] and data.SeriesDescription == "head (img2img)"
    assert data.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
    assert len({each.SOPInstanceUID for each in made.values()} | {"1.2.3.4", "1.2.3.6"}) == 5
    series = [each.SeriesInstanceUID for each in made.values()]
    assert series[0] == series[1] != series[2] and "1.2.3.5" not in series
    assert data.StudyInstanceUID == "1.2.3"


@pytest.mark.parametrize("limits", [(0.0, 8.0), (-2000.0, 70000.0), (-0.01, 0.02)])
def test_values_that_the_source_cannot_hold_get_a_scale(tmp_path: Path, limits: tuple[float, float]) -> None:
    make(tmp_path / "a.dcm", stored())
    picture = read_picture(tmp_path / "a.dcm", ALL)
    assert picture.bands
    picture.bands.range = limits
    picture.frames[0].flat[:2] = 0, 1
    write_picture(tmp_path / "b.dcm", picture)
    data, values = read(tmp_path / "b.dcm")
    wanted = limits[0] + picture.frames[0][..., 0].astype(float) * (limits[1] - limits[0])
    np.testing.assert_allclose(values, wanted, atol=(limits[1] - limits[0]) / 65000)
    assert data.WindowCenter == pytest.approx(sum(limits) / 2 if limits[0] > -2000 else 40)
    assert pixel_array(data).min() == 1 and data.PixelPaddingValue == 0


def test_padding_stays_padding(tmp_path: Path) -> None:
    pixels = stored()
    pixels[:3], pixels[3:5] = 0, 5
    make(tmp_path / "a.dcm", pixels, PixelPaddingValue=0, PixelPaddingRangeLimit=7)
    picture = read_picture(tmp_path / "a.dcm", ALL)
    assert picture.bands and picture.bands.no_data == -1024 and picture.bands.missing[0].sum() == 5 * 18
    picture.bands.range = (-1024.0, 2000.0)
    picture.frames[0][8] = 0  # what is made is never padding
    write_picture(tmp_path / "b.dcm", picture)
    data, values = read(tmp_path / "b.dcm")
    assert data.PixelPaddingValue == 0 and "PixelPaddingRangeLimit" not in data
    assert (values[:5] == -1024).all() and (values[8] == -1023).all() and (values == -1024).sum() == 5 * 18


def test_scaled_images_lie_where_they_lay(tmp_path: Path) -> None:
    make(tmp_path / "a.dcm", stored())
    write_picture(tmp_path / "b.dcm", read_picture(tmp_path / "a.dcm", Rules(range=LIMITS, size=6)))
    data = pydicom.dcmread(tmp_path / "b.dcm")
    assert (data.Rows, data.Columns, list(data.PixelSpacing)) == (6, 9, [1, 1.5])
    assert list(data.ImagePositionPatient) == [10 + 0.75 / 2, 20 + 0.5 / 2, 30]


def test_frames_and_enhanced_images(tmp_path: Path) -> None:
    def transform(slope: float, intercept: float) -> Any:
        group, place = Dataset(), Dataset()
        place.RescaleSlope, place.RescaleIntercept, place.RescaleType = slope, intercept, "US"
        group.PixelValueTransformationSequence = Sequence([place])
        return group

    def place(group: Any, down: float) -> Any:
        position = Dataset()
        position.ImagePositionPatient = [10, 20, down]
        group.PlanePositionSequence = Sequence([position])
        return group

    each = Sequence([transform(1, -1024), transform(2, 0), place(transform(1, -1024), 7)])
    make(tmp_path / "a.dcm", stored((3, 12, 18)), PerFrameFunctionalGroupsSequence=each)
    picture = read_picture(tmp_path / "a.dcm", Rules(range=(-1024, 6000)))
    assert len(picture.frames) == 3 and count_pixels(tmp_path / "a.dcm", ALL) == 3 * 12 * 18
    second = stored((3, 12, 18))[1] * 2.0
    np.testing.assert_allclose(picture.frames[1][..., 0], (second + 1024) / 7024, atol=1e-6)
    write_picture(tmp_path / "b.dcm", picture)
    again = read_picture(tmp_path / "b.dcm", Rules(range=(-1024, 6000)))
    np.testing.assert_allclose(np.stack(again.frames), np.stack(picture.frames), atol=1e-4)
    one = read_picture(tmp_path / "a.dcm", Rules(range=(-1024, 6000), first=True))
    write_picture(tmp_path / "c.dcm", one)
    data = pydicom.dcmread(tmp_path / "c.dcm")
    write_picture(tmp_path / "d.dcm", read_picture(tmp_path / "a.dcm", Rules(range=(-1024, 6000), size=6)))
    third = pydicom.dcmread(tmp_path / "d.dcm").PerFrameFunctionalGroupsSequence[2]
    assert list(third.PlanePositionSequence[0].ImagePositionPatient) == [10 + 0.75 / 2, 20 + 0.5 / 2, 7]
    assert data.NumberOfFrames == 1 == len(data.PerFrameFunctionalGroupsSequence)


@pytest.mark.parametrize(("written", "kind", "meant"), [(63536, "US", -2000), (-2000, "SS", -2000), (7, "US", 7)])
def test_padding_in_the_other_kind_of_16_bits(tmp_path: Path, written: int, kind: str, meant: int) -> None:
    pixels = stored().astype(np.int16)
    pixels[:2] = meant
    data = make(tmp_path / "a.dcm", pixels, bits=16)
    data.add_new("PixelPaddingValue", kind, written)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    picture = read_picture(tmp_path / "a.dcm", ALL)
    assert picture.bands and picture.bands.no_data == meant - 1024 and picture.bands.missing[0].sum() == 36
    write_picture(tmp_path / "b.dcm", picture)
    again = pydicom.dcmread(tmp_path / "b.dcm")
    assert again.PixelPaddingValue == meant and (pixel_array(again)[:2] == meant).all()


def test_other_headers(tmp_path: Path) -> None:
    values = Dataset()
    values.RealWorldValueSlope, values.RealWorldValueIntercept = 1.0, -1024.0
    data = make(tmp_path / "a.dcm", stored(), ImageType="ORIGINAL", RealWorldValueMappingSequence=Sequence([values]))
    for name in ("SOPInstanceUID", "RescaleSlope", "RescaleIntercept"):
        setattr(data, name, None)
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.9"
    data.save_as(tmp_path / "a.dcm", enforce_file_format=False)
    picture = read_picture(tmp_path / "a.dcm", Rules(range=(0, 3000)))
    assert picture.bands and picture.bands.found == (stored().min(), stored().max()), "an empty slope is none"
    write_picture(tmp_path / "b.dcm", picture)
    same = pydicom.dcmread(tmp_path / "b.dcm")
    assert list(same.ImageType) == ["DERIVED", "SECONDARY"] and "RealWorldValueMappingSequence" in same
    assert same.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.9" != same.SOPInstanceUID
    picture.bands.range = (0.0, 1.0)
    write_picture(tmp_path / "b.dcm", picture)
    assert "RealWorldValueMappingSequence" not in pydicom.dcmread(tmp_path / "b.dcm"), "it was of other stored values"


def test_floats(tmp_path: Path) -> None:
    data = make(tmp_path / "a.dcm", stored(), BitsAllocated=32)
    floats = np.random.default_rng(0).random((12, 18)).astype(np.float32) * 4
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"):
        delattr(data, name)
    data.FloatPixelData, data.BitsAllocated = floats.tobytes(), 32
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    picture = read_picture(tmp_path / "a.dcm", Rules(range=(0, 4)))
    np.testing.assert_allclose(picture.frames[0][..., 0], floats / 4, atol=1e-6)
    write_picture(tmp_path / "b.dcm", picture)
    made, values = read(tmp_path / "b.dcm")
    np.testing.assert_allclose(values, floats, atol=1e-4)
    assert "FloatPixelData" not in made and made.BitsStored == 16


def test_doses(tmp_path: Path) -> None:
    shutil.copy(str(get_testdata_file("rtdose.dcm", download=False)), tmp_path / "a.dcm")
    before = pydicom.dcmread(tmp_path / "a.dcm")
    gray = pixel_array(before) * float(before.DoseGridScaling)
    picture = read_picture(tmp_path / "a.dcm", Rules(range=(0, 2)))
    assert picture.bands and picture.bands.found == pytest.approx((gray.min(), gray.max()))
    write_picture(tmp_path / "b.dcm", picture)
    after = pydicom.dcmread(tmp_path / "b.dcm")
    np.testing.assert_allclose(pixel_array(after) * float(after.DoseGridScaling), gray, atol=2e-5)
    assert "RescaleSlope" not in after
    picture.bands.range = (-1.0, 1.0)
    with pytest.raises(ImageError, match="an RT Dose holds no values below 0"):
        write_picture(tmp_path / "b.dcm", picture)


def test_colours(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 18, 3)).astype(np.uint8)
    make(tmp_path / "a.dcm", pixels, bits=8, RescaleIntercept=0)
    picture = read_picture(tmp_path / "a.dcm", Rules(range=(0, 255)))
    write_picture(tmp_path / "b.dcm", picture)
    data = pydicom.dcmread(tmp_path / "b.dcm")
    np.testing.assert_array_equal(pixel_array(data), pixels)
    assert data.PhotometricInterpretation == "RGB" and "RescaleSlope" not in data
    picture.frames = [picture.frames[0][..., :2]]
    with pytest.raises(
        ImageError, match="it has 2 bands, which a DICOM image that is derived from one of 3 can't hold"
    ):
        write_picture(tmp_path / "c.dcm", picture)


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "image_dfl.dcm",
        "examples_overlay.dcm",
    ],
)
def test_files_of_the_library(tmp_path: Path, name: str) -> None:
    shutil.copy(str(get_testdata_file(name, download=False)), tmp_path / "a.dcm")
    found = read_picture(tmp_path / "a.dcm", ALL).bands
    assert found and found.found
    limits = found.found
    picture = read_picture(tmp_path / "a.dcm", Rules(range=limits))
    write_picture(tmp_path / "b.dcm", picture)
    again = read_picture(tmp_path / "b.dcm", Rules(range=limits))
    np.testing.assert_allclose(np.stack(again.frames), np.stack(picture.frames), atol=1e-5)
    write_picture(tmp_path / "c.tif", picture)


def test_what_is_no_image(tmp_path: Path) -> None:
    make(tmp_path / "a.dcm", stored())
    whole = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "text.dcm").write_text("no DICOM" * 100)
    (tmp_path / "cut.dcm").write_bytes(whole[:-100])
    data = pydicom.dcmread(io.BytesIO(whole))
    del data.PixelData, data.Rows
    data.save_as(tmp_path / "report.dcm")
    data = pydicom.dcmread(io.BytesIO(whole))
    data.NumberOfFrames = 10**9
    data.save_as(tmp_path / "many.dcm")
    assert count_pixels(tmp_path / "many.dcm", Rules(range=LIMITS, first=True)) == 12 * 18
    for name, reason in (
        ("many", "it has 1000000000 frames, more than 65535"),
        ("text", "it is no DICOM file"),
        ("cut", "it is no DICOM image that can be read"),
        ("report", "it is a DICOM file without an image"),
    ):
        with pytest.raises(ImageError, match=f"{name}.dcm: {reason}"):
            read_picture(tmp_path / f"{name}.dcm", ALL)
    data = pydicom.dcmread(io.BytesIO(whole))
    data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    data.save_as(tmp_path / "odd.dcm", implicit_vr=True, little_endian=True)
    short, image_type = b"\x08\0\x06\0\x05\0\0\0abcde", b"\x08\0\x08\0"
    (tmp_path / "odd.dcm").write_bytes((tmp_path / "odd.dcm").read_bytes().replace(image_type, short + image_type, 1))
    with pytest.raises(
        ImageError, match=r"made\.dcm: the header .* its source is damaged \(With tag \(0008,0006\).* position \d+\);"
    ):
        write_picture(tmp_path / "made.dcm", read_picture(tmp_path / "odd.dcm", ALL))
    with pytest.raises(ImageError, match=r"18 × 12 = .* million pixels"):
        read_picture(tmp_path / "a.dcm", Rules(range=LIMITS, max_pixels=100))
    with pytest.raises(ImageError, match="holds measurements"):
        read_picture(tmp_path / "a.dcm")


@pytest.mark.skipif(bool(find_spec("pylibjpeg") or find_spec("gdcm")), reason="the package is there")
def test_pixels_that_need_a_package(tmp_path: Path) -> None:
    file = get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)
    shutil.copy(str(file), tmp_path / "a.dcm")
    with pytest.raises(ImageError, match=r"JPEG-LS Lossless Image Compression.* pip install pylibjpeg"):
        read_picture(tmp_path / "a.dcm", Rules(range=(0, 4000)))
