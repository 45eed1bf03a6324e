"""Volumes and DICOM series from the data set to what is made of them."""

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from helpers.configs import tiny_config
from helpers.data import write_volumes
from pydicom.data import get_testdata_file

from img2img.cli import main
from img2img.core.errors import UsageError, UserError
from img2img.data.paired import find_pairs, hold_out
from img2img.data.unpaired import find_unpaired, hold_out_images
from img2img.inference.convert import convert
from img2img.inference.evaluate import evaluate
from img2img.models import Translator
from img2img.training.train import train

RANGE = (-1000.0, 3000.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volumes") / "data")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    train(tiny_config(data, folder, data={"range": RANGE, "axis": "coronal"}), quiet=True)
    return folder


def test_slices_are_the_pairs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = find_pairs(data, ranges=(RANGE, RANGE), axis="sagittal")["train"].pairs
    assert len(pairs) == 2 * 32 and pairs[0].name == "p.0/00000" and pairs[-1].name == "p.1/00031"
    assert all(pair.source.stem == pair.target.stem and pair.source != pair.target for pair in pairs)
    assert np.load(pairs[0].source).shape == (5, 36, 1)
    assert "Cutting 4 volumes into sagittal slices, into" in capsys.readouterr().err
    find_pairs(data, ranges=(RANGE, RANGE), axis="sagittal")
    assert "Cutting" not in capsys.readouterr().err, "they are kept"
    folders = find_unpaired(data, ranges=(RANGE, RANGE))["train"]
    assert len(folders.sources) == len(folders.targets) == len(folders.pairs) == 2 * 5


def test_whole_volumes_are_held_out(tmp_path: Path) -> None:
    data = write_volumes(tmp_path, train=4)
    whole = find_pairs(data, ranges=(RANGE, RANGE))["train"]
    rest, held = hold_out(whole, 0.25)
    assert (len(rest.pairs), len(held.pairs)) == (15, 5)
    assert {pair.source.parent for pair in rest.pairs}.isdisjoint({pair.source.parent for pair in held.pairs})
    folders = find_unpaired(data, ranges=(RANGE, RANGE))["train"]
    assert [len(part.sources) for part in hold_out_images(folders, 0.5)] == [10, 10]


def test_a_volume_that_changes_is_cut_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_volumes(tmp_path)
    before = find_pairs(data, ranges=(RANGE, RANGE))["val"].pairs
    os.utime(data / "valA" / "p.0.nii.gz", (1, 1))
    capsys.readouterr()
    assert find_pairs(data, ranges=(RANGE, RANGE))["val"].pairs[0].source != before[0].source
    assert "Cutting a volume into axial slices" in capsys.readouterr().err
    nibabel.save(nibabel.Nifti1Image(np.zeros((32, 36, 7), np.int16), np.eye(4)), data / "valA" / "p.0.nii.gz")
    with pytest.raises(
        UsageError, match=r"valA/p\.0\.nii\.gz has 7 axial slices, and .*valB/p\.0\.nii\.gz 5; .* resample"
    ):
        find_pairs(data, ranges=(RANGE, RANGE))
    assert len(before) == 5
    (data / "valA" / "p.0.nii.gz").write_bytes(b"no volume")
    with pytest.raises(UsageError, match=r"valA/p\.0\.nii\.gz: it is no NIfTI volume that can be read"):
        find_pairs(data, ranges=(RANGE, RANGE))


def test_volumes_need_a_range_and_a_cache(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for find in (find_pairs, find_unpaired):
        with pytest.raises(
            UsageError, match=r"p\.0\.nii\.gz holds measurements: say with --data\.range \(check: --range\)"
        ):
            find(data)
    assert main(["check", str(data)]) == 2, "these are no images of one kind"
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"can't be made: Not a directory; XDG_CACHE_HOME"):
        find_pairs(data, ranges=(RANGE, RANGE))


def test_volumes_are_converted_as_they_were_cut(run: Path, data: Path, tmp_path: Path) -> None:
    translator = Translator.load(run)
    assert translator.config.axis == "coronal" and translator.config.in_range == RANGE
    report = convert(run, data / "valA", tmp_path / "out", device="cpu")
    assert report.count("done") == 1 and [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["p.0.nii.gz"]
    source, made = (nibabel.load(folder / "p.0.nii.gz") for folder in (data / "valA", tmp_path / "out"))
    np.testing.assert_allclose(made.affine, source.affine)
    values, given = np.asarray(made.dataobj), np.asarray(source.dataobj)
    assert values.dtype == np.int16 and values.shape == given.shape
    one = translator(np.ascontiguousarray(given[::-1, 20, ::-1].T))  # which lies from the left to the right
    np.testing.assert_allclose(values[::-1, 20, ::-1].T, one, atol=40)
    assert evaluate(run, data, device="cpu").about["count"] == 36


def test_other_formats_of_a_volume(run: Path, data: Path, tmp_path: Path) -> None:
    report = convert(run, data / "valA", tmp_path / "pages", format="tif", device="cpu")
    assert report.count("done") == 1 and (tmp_path / "pages" / "p.0.tif").is_file()
    report = convert(run, data / "valA" / "p.0.nii.gz", tmp_path / "one.npy", frames="first", device="cpu")
    assert report.count("done") == 1 and np.load(tmp_path / "one.npy").shape == (5, 32, 1)
    report = convert(run, data / "valA", tmp_path / "plain", format="nii", device="cpu")
    assert report.count("done") == 1 and (tmp_path / "plain" / "p.0.nii").is_file()
    with pytest.raises(UsageError, match=r"no output can be written as \.png"):
        convert(run, data / "valA", tmp_path / "images", format="png", device="cpu")


def test_a_series_becomes_a_series(run: Path, tmp_path: Path) -> None:
    import pydicom

    slices = tmp_path / "series"
    slices.mkdir()
    for number in range(2):
        whole: Any = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
        whole.SOPInstanceUID = f"{whole.SOPInstanceUID}.{number}"
        whole.save_as(slices / f"{number}.dcm", enforce_file_format=True)
    report = convert(run, slices, tmp_path / "out", device="cpu")
    assert report.count("done") == 2
    made = [pydicom.dcmread(tmp_path / "out" / f"{number}.dcm") for number in range(2)]
    assert made[0].SeriesInstanceUID == made[1].SeriesInstanceUID != whole.SeriesInstanceUID
    assert made[0].SOPInstanceUID != made[1].SOPInstanceUID
    assert made[0].pixel_array.shape == (128, 128) and made[0].PatientName == whole.PatientName
    assert convert(run, slices, tmp_path / "out", device="cpu", existing="overwrite").count("done") == 2
    assert pydicom.dcmread(tmp_path / "out" / "0.dcm").SOPInstanceUID == made[0].SOPInstanceUID
    convert(run, slices, tmp_path / "small", size=64, device="cpu")
    small = pydicom.dcmread(tmp_path / "small" / "0.dcm")
    assert small.SeriesInstanceUID != made[0].SeriesInstanceUID, "these are other pixels"
