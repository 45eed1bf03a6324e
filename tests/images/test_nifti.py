"""NIfTI volumes: how slices lie, and the way back."""

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from img2img.images import ImageError, Rules, count_pixels, read_picture, write_picture
from img2img.images.bands import Bands
from img2img.images.nifti import Axis

LIMITS = (-1000.0, 3000.0)
ALL = Rules(range=LIMITS)


def volume(shape: tuple[int, ...] = (6, 9, 5), dtype: Any = np.int16) -> Any:
    return np.random.default_rng(0).integers(-900, 2900, shape).astype(dtype)


def save(path: Path, values: Any, affine: Any = None, codes: str = "RAS") -> Any:
    image = nibabel.Nifti1Image(values, np.diag([1.5, 2, 3, 1]) if affine is None else affine)
    order = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt(nibabel.aff2axcodes(image.affine)), nibabel.orientations.axcodes2ornt(codes)
    )
    image = image.as_reoriented(order)
    nibabel.save(image, path)
    return image


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASL", "PIR", "SRP"])
def test_volumes_come_back_however_they_lie(tmp_path: Path, codes: str, axis: Axis) -> None:
    image = save(tmp_path / "a.nii.gz", volume(), codes=codes)
    picture = read_picture(tmp_path / "a.nii.gz", Rules(range=LIMITS, axis=axis))
    write_picture(tmp_path / "b.nii.gz", picture)
    again = nibabel.load(tmp_path / "b.nii.gz")
    assert again.get_data_dtype() == np.int16 and nibabel.aff2axcodes(again.affine) == tuple(codes)
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(image.dataobj))
    np.testing.assert_allclose(again.affine, image.affine)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP"])
def test_slices_are_upright(tmp_path: Path, codes: str) -> None:
    x, y, z = np.meshgrid(np.arange(6), np.arange(9), np.arange(5), indexing="ij")  # to the right, the front, the head
    save(tmp_path / "a.nii", (x + 10 * y + 100 * z).astype(np.int16), codes=codes)

    def cut(axis: Axis) -> Any:
        frames = read_picture(tmp_path / "a.nii", Rules(range=(0, 1000), axis=axis)).frames
        return np.rint(np.stack(frames)[..., 0] * 1000).astype(int)

    axial, coronal, sagittal = cut("axial"), cut("coronal"), cut("sagittal")
    assert (axial.shape, coronal.shape, sagittal.shape) == ((5, 9, 6), (9, 5, 6), (6, 5, 9))
    assert axial[3, 0, 2] == 300 + 80 + 2 and axial[3, 8, 5] == 300 + 0 + 5
    assert coronal[4, 0, 1] == 400 + 40 + 1 and coronal[4, 4, 1] == 40 + 1
    assert sagittal[2, 0, 7] == 400 + 70 + 2


def test_the_header_stays(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(volume(), np.diag([1.5, 2, 3, 1]))
    image.header["descrip"] = b"of a scanner"
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(image.affine, code=4)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"kept"))
    nibabel.save(image, tmp_path / "a.nii")
    write_picture(tmp_path / "b.nii.gz", read_picture(tmp_path / "a.nii", ALL))
    header = nibabel.load(tmp_path / "b.nii.gz").header
    assert header["descrip"].item() == b"of a scanner" and header["sform_code"] == 4
    assert header.get_xyzt_units() == ("mm", "sec")
    assert [each.get_content() for each in header.extensions] == [b"kept"]


def test_two_places_in_space_stay_two(tmp_path: Path) -> None:
    turned = np.array([[0, -1.0, 0, 9], [1, 0, 0, -3], [0, 0, 2, 5], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(volume((8, 12, 5)), np.diag([2.0, 2, 2, 1]))
    image.set_sform(np.diag([2.0, 2, 2, 1]), code=4)
    image.set_qform(turned, code=1)
    nibabel.save(image, tmp_path / "a.nii")
    for size in (None, 4):
        write_picture(tmp_path / "b.nii", read_picture(tmp_path / "a.nii", Rules(range=LIMITS, size=size)))
        header, factor = nibabel.load(tmp_path / "b.nii").header, 2 if size else 1
        sform, qform = header.get_sform(coded=True), header.get_qform(coded=True)
        assert (sform[1], qform[1]) == (4, 1)
        np.testing.assert_allclose(np.diag(sform[0]), [2 * factor, 2 * factor, 2, 1])
        np.testing.assert_allclose(qform[0][:3, :3], turned[:3, :3] * [factor, factor, 1], atol=1e-6)


def test_voxels_of_scaled_slices_are_larger(tmp_path: Path) -> None:
    affine = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -20], [0, 0, 3, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(volume((8, 12, 5)), affine), tmp_path / "a.nii")
    picture = read_picture(tmp_path / "a.nii", Rules(range=LIMITS, size=4))
    write_picture(tmp_path / "b.nii", picture)
    again = nibabel.load(tmp_path / "b.nii")
    assert again.shape == (4, 6, 5)
    np.testing.assert_allclose(np.diag(again.affine), [-4, 3, 3, 1])
    corners = [each @ [-0.5, -0.5, -0.5, 1] for each in (affine, again.affine)]  # of the first voxel, which stay
    np.testing.assert_allclose(*corners)


def test_values_that_the_header_scales(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(volume(), np.eye(4))
    image.header.set_slope_inter(0.5, 100)
    wanted = np.asarray(image.dataobj, float)
    nibabel.save(image, tmp_path / "a.nii")
    read = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj)
    picture = read_picture(tmp_path / "a.nii", ALL)
    assert picture.bands and picture.bands.dtype == "float32"
    np.testing.assert_allclose(picture.bands.found, (read.min(), read.max()))
    write_picture(tmp_path / "b.nii", picture)
    np.testing.assert_allclose(np.asarray(nibabel.load(tmp_path / "b.nii").dataobj), read.clip(*LIMITS), atol=1e-3)
    assert wanted.shape == read.shape


def test_a_fourth_axis_holds_bands_and_one_slice_is_a_volume(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(volume((6, 9, 5, 4)), np.eye(4)), tmp_path / "a.nii")
    picture = read_picture(tmp_path / "a.nii", ALL)
    assert [frame.shape for frame in picture.frames] == [(9, 6, 4)] * 5
    picture.frames = [frame[..., :1] for frame in picture.frames]
    write_picture(tmp_path / "b.nii", picture)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "b.nii").dataobj), volume((6, 9, 5, 4))[..., 0])
    nibabel.save(nibabel.Nifti1Image(volume((6, 9)), np.eye(4)), tmp_path / "c.nii")
    assert [frame.shape for frame in read_picture(tmp_path / "c.nii", ALL).frames] == [(9, 6, 1)]
    nibabel.save(nibabel.Nifti2Image(volume(), np.eye(4)), tmp_path / "d.nii")
    write_picture(tmp_path / "e.nii", read_picture(tmp_path / "d.nii", ALL))
    assert isinstance(nibabel.load(tmp_path / "e.nii"), nibabel.Nifti2Image)


def test_the_first_is_the_one_in_the_middle(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", volume())
    every, one = (
        read_picture(tmp_path / "a.nii", ALL),
        read_picture(tmp_path / "a.nii", Rules(range=LIMITS, first=True)),
    )
    assert len(one.frames) == 1
    np.testing.assert_array_equal(one.frames[0], every.frames[2])
    write_picture(tmp_path / "b.tif", one)
    with pytest.raises(ImageError, match=r"it has 5 slices, and 1 of them make no volume; use --frames all"):
        write_picture(tmp_path / "b.nii", one)


def test_pixels_are_counted_before_they_are_read(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", volume())
    assert count_pixels(tmp_path / "a.nii.gz", ALL) == 6 * 9 * 5
    with pytest.raises(ImageError, match=r"6 × 9 × 5 frames = .* --max-pixels"):
        read_picture(tmp_path / "a.nii.gz", Rules(range=LIMITS, max_pixels=200))


def test_what_is_no_volume(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", volume())
    whole = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[:-200])
    (tmp_path / "cut.nii").write_bytes(gzip.decompress(whole)[:400])
    (tmp_path / "text.nii").write_text("no volume, but a text that is longer than a header" * 20)
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    (tmp_path / "bits.nii.gz").write_bytes(whole[:300] + bytes(byte ^ 255 for byte in whole[300:340]) + whole[340:])
    for name in ("bits.nii.gz", "cut.nii.gz", "cut.nii", "text.nii", "empty.nii.gz"):
        with pytest.raises(ImageError, match=rf"{name}: it is no NIfTI volume that can be read"):
            read_picture(tmp_path / name, ALL)
        assert count_pixels(tmp_path / name, ALL) in (0, 270)  # the header may be whole
    with pytest.raises(ImageError, match=r"holds measurements; to take them, train with their range: --data\.range"):
        read_picture(tmp_path / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(volume().astype(np.complex64), np.eye(4)), tmp_path / "c.nii")
    with pytest.raises(ImageError, match="complex64; use integers or floats"):
        read_picture(tmp_path / "c.nii", ALL)
    nibabel.save(nibabel.Nifti2Image(volume(), np.eye(4)), tmp_path / "d.nii")
    data = (tmp_path / "d.nii").read_bytes()
    slices = struct.Struct("<q")
    (tmp_path / "d.nii").write_bytes(data[:40] + slices.pack(10**9) + data[48:])
    assert slices.unpack(data[40:48]) == (5,) and count_pixels(tmp_path / "d.nii", ALL) == 0
    with pytest.raises(
        ImageError, match=r"d\.nii: its shape is \(6, 9, 1000000000\); a volume has three axes of at most"
    ):
        read_picture(tmp_path / "d.nii", ALL)


def test_other_formats(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", volume())
    picture = read_picture(tmp_path / "a.nii", ALL)
    write_picture(tmp_path / "b.tif", picture)
    again = read_picture(tmp_path / "b.tif", ALL)
    np.testing.assert_array_equal(np.stack(again.frames), np.stack(picture.frames))
    with pytest.raises(ImageError, match=r"only a NIfTI volume becomes \.nii\.gz"):
        write_picture(tmp_path / "c.nii.gz", again)
    with pytest.raises(ImageError, match="only a DICOM image becomes one"):
        write_picture(tmp_path / "c.dcm", again)
    again.bands = None
    with pytest.raises(ImageError, match=r"\.nii holds measurements, and this is an image of colours"):
        write_picture(tmp_path / "c.nii", again)


def test_no_data_in_floats(tmp_path: Path) -> None:
    values = volume(dtype=np.float32)
    values[2, 3, 1] = np.nan
    save(tmp_path / "a.nii", values)
    picture = read_picture(tmp_path / "a.nii", ALL)
    assert isinstance(picture.bands, Bands) and sum(mask.sum() for mask in picture.bands.missing) == 1
    write_picture(tmp_path / "b.nii", picture)
    np.testing.assert_allclose(np.asarray(nibabel.load(tmp_path / "b.nii").dataobj), values, atol=1e-3)
