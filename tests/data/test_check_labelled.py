"""What is wrong with label maps: by file name, value and place, before anything reaches a network."""

from pathlib import Path

import numpy as np
import pytest
from helpers.configs import tiny_config
from helpers.data import write_labelled
from PIL import Image

from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.data.base import DataReport, group_reasons
from img2img.data.classes import Classes, read_classes, resolve_classes
from img2img.data.labelled import check_labelled, find_labelled
from img2img.data.unpaired import find_unpaired
from img2img.images import write_image
from img2img.training.train import train


def check(folder: Path, classes: int | Path | None = None, ignore: int | None = None) -> DataReport:
    return check_labelled(find_labelled(folder), resolve_classes(classes, folder, ignore), ignore)


def spoil(folder: Path, name: str, value: int, pixels: int = 1, split: str = "train") -> Path:
    file = folder / f"{split}_label" / name
    labels = np.array(Image.open(file))
    labels.flat[37 : 37 + pixels] = value
    Image.fromarray(labels).save(file)
    return file


def test_a_clean_data_set(labelled: Path) -> None:
    report = check(labelled, 4)
    assert report.problems == []
    assert report.classes == Classes(count=4) and report.edges
    assert (report.in_channels, report.out_channels, report.splits) == (5, 3, {"train": 6, "val": 2})
    undeclared = check(labelled)
    assert undeclared.classes == Classes(count=4) and undeclared.errors == []
    assert any("a guess from the labels: 4" in text for text in undeclared.warnings)


@pytest.mark.parametrize("classes", [4, None])
@pytest.mark.parametrize("value", [4, 9, 200, 255])
@pytest.mark.parametrize("split", ["train", "val"])
def test_one_pixel_out_of_range_is_named(labelled: Path, classes: int | None, value: int, split: str) -> None:
    file = spoil(labelled, "3.png" if split == "train" else "7.png", value, split=split)
    (text,) = check(labelled, classes).errors
    assert str(file) in text and f"label {value} at row 1, column 5" in text and "allowed are 0–3" in text
    assert f"--data.ignore-label {value}" in text
    assert (f"--data.classes {value + 1}" in text) == (value < 16), "so many classes are no remedy"
    assert check(labelled, value + 1).errors == []
    assert check(labelled, 4, ignore=value).errors == [] and check(labelled, None, ignore=value).errors == []


def test_many_files_are_counted(labelled: Path) -> None:
    for number in range(3):
        spoil(labelled, f"{number}.png", 99, pixels=50)
    (text,) = check(labelled).errors
    assert "2 more files have such labels: 1.png, 2.png" in text, "99 lies above a gap, however many pixels it has"


def test_what_lacks_a_map_is_told_what_belongs_together(labelled: Path) -> None:
    (labelled / "train_inst" / "2.png").unlink()
    (text,) = [text for text in check(labelled).warnings if "have no partner" in text]
    assert "2.png" in text and "there must be a label map, an instance map and an image" in text


def test_classes_with_small_gaps_are_fine(labelled: Path) -> None:
    spoil(labelled, "0.png", 5, pixels=100)
    report = check(labelled)
    assert report.errors == [] and report.classes == Classes(count=6)
    assert any("no pixel is of class 4" in text for text in report.warnings)


def test_the_command_says_it_with_exit_code_2(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = spoil(labelled, "3.png", 77)
    for method in ("spade", "pix2pixhd", "pix2pix"):  # before VGG-19's weights are asked for
        options = ["train", method, "--data", str(labelled), "--size", "64", "--output", str(tmp_path / "run")]
        assert main(options) == 2
        told = capsys.readouterr().err
        assert str(file) in told and "77" in told and "0–3" in told and "Traceback" not in told
    assert not (tmp_path / "run").exists()
    assert main(["check", str(labelled)]) == 1
    told = capsys.readouterr().out
    assert "error: " in told and "4 classes with instances" in told
    assert main(["check", str(labelled), "--classes", "78"]) == 0
    assert main(["check", str(labelled), "--ignore-label", "77"]) == 0


def test_files_that_are_no_label_maps(labelled: Path) -> None:
    write_image(labelled / "train_label" / "0.png", np.zeros((32, 32, 3), np.uint8))
    (labelled / "train_inst" / "1.png").write_bytes(b"broken")
    (labelled / "train_img" / "2.png").write_bytes(b"broken")
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(labelled / "train_inst" / "3.png")
    errors = check(labelled).errors
    assert len(errors) == 4
    for name, reason in (
        ("train_label/0.png", "colours"),
        ("train_inst/1.png", ""),
        ("train_img/2.png", ""),
        ("train_inst/3.png", "9×8"),
    ):
        assert any(name in text and reason in text for text in errors)


def test_sizes_that_differ_and_instances_that_are_one(labelled: Path) -> None:
    write_image(labelled / "train_img" / "0.png", np.zeros((64, 48, 3), np.uint8))
    for file in sorted((labelled / "train_inst").iterdir()):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(file)
    warnings = check(labelled, 4).warnings
    assert any("1 pairs differ in size" in text and "32×32 and 48×64" in text for text in warnings)
    assert any("one instance only" in text for text in warnings)


def test_palette_images_are_indices(labelled: Path) -> None:
    for file in (labelled / "train_label").iterdir():
        image = Image.open(file)
        paletted = Image.new("P", image.size)
        paletted.frombytes(image.tobytes())
        paletted.putpalette([90, 10, 200] * 256)
        paletted.save(file)
    report = check(labelled, 4)
    assert report.errors == [] and not any("no pixel" in text for text in report.warnings)


def test_a_table_of_classes(tmp_path: Path) -> None:
    table = tmp_path / "classes.yaml"
    table.write_text('0: {name: sky, colour: "#4682b4"}\n2: {name: car, colour: [0, 0, 142]}\n1:\n')
    classes = read_classes(table, ignore=255)
    assert classes.count == 3 and classes.allowed == "0–2 and 255 (ignored)"
    assert [classes.name(k) for k in range(3)] == ["sky", "1", "car"]
    assert classes.number("car") == 2 and classes.number("1") == 1
    assert classes.colours()[[0, 2]].tolist() == [[70, 130, 180], [0, 0, 142]]
    assert classes.beyond(np.array([0, 2, 3, 255, -1])).tolist() == [False, False, True, False, True]
    with pytest.raises(UsageError, match="no class 'bus'; there are sky, car"):
        classes.number("bus")
    assert resolve_classes(None, tmp_path, None) == read_classes(table) and resolve_classes(
        7, tmp_path, None
    ) == Classes(count=7)
    table.write_text("[sky, {name: road}]")
    assert read_classes(table).table[1].name == "road"
    assert len(np.unique(Classes(count=40).colours(), axis=0)) == 40, "colours differ"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0: {name: sky, shade: red}", "there is no such setting"),
        ("0: {name: sky, color: red}", "'red' is no colour: give \"#rrggbb\""),
        ("0: {colour: '#46zz'}", "'#46zz' is no colour"),
        ("0:\n  colour: #4682b4", "the colour of label 0 is empty; # begins a comment, so it needs quotes"),
        ("0: {colour: #4682b4}", "A colour needs quotes"),
        ("0: sky\n0: car", "0 stands twice"),
        ("0: sky\n1: sky", "several classes are called 'sky'"),
        ("0: '1'\n1: a", "the name '1' of label 0 is the number of another"),
        ("-1: void\n0: sky", "label -1 can't be a class"),
        ("0: {colour: [1, 2, 300]}", "300"),
        ("sky: 0", "by their labels"),
        ("{", "not YAML"),
        ("", "by their labels"),
    ],
)
def test_a_table_that_is_wrong_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"classes\.yaml") as error:
        read_classes(tmp_path / "classes.yaml")
    assert reason in str(error.value)


def test_settings_that_have_no_use_are_refused(labelled: Path, pairs: Path, tmp_path: Path) -> None:
    out = ["--output", str(tmp_path / "run")]
    assert main(["train", "pix2pix", "--data", str(pairs), "--data.classes", "4", *out]) == 2
    assert main(["train", "cyclegan", "--data", str(pairs), "--data.classes", "4", *out]) == 2
    assert main(["train", "pix2pix", "--data", str(labelled), "--direction", "BtoA", *out]) == 2
    assert main(["train", "pix2pix", "--data", str(labelled), "--data.in-channels", "3", *out]) == 2


def test_a_single_folder_of_labels(tmp_path: Path) -> None:
    write_labelled(tmp_path, 2)
    assert main(["check", str(tmp_path / "train_label"), "--kind", "labels"]) == 2


def test_a_split_without_instances_is_no_secret(labelled: Path) -> None:
    import shutil

    shutil.rmtree(labelled / "val_inst")
    report = check(labelled, 4)
    assert report.edges and "val: there are no instance maps" in report.errors[0]
    assert check_labelled(find_labelled(labelled, with_instances=False), Classes(count=4)).errors == []
    (labelled / "val_label").rename(labelled / "test_label")
    (labelled / "val_img").rename(labelled / "test_img")
    assert "test: there are no instance maps" in check(labelled, 4).errors[0], "it would be validated on"
    write_labelled(labelled, 1, 32, split="val", first=9)
    assert check(labelled, 4).errors == [] and any("test: " in text for text in check(labelled, 4).warnings)


def test_labels_below_zero_are_named_as_they_are(labelled: Path) -> None:
    for file in (labelled / "train_label").iterdir():
        np.save(file.with_suffix(".npy"), np.array(Image.open(file)).astype(np.int16) - (5 if file.stem == "2" else 0))
        file.unlink()
    (text,) = check(labelled, 4, ignore=-1).errors
    assert "2.npy" in text and "label -5" in text


def test_folders_that_would_be_ignored_are_refused(labelled: Path, pairs: Path, tmp_path: Path) -> None:
    out = ["--output", str(tmp_path / "run")]
    for extra in (["--data.instances", str(labelled / "val_inst")], ["--data.target", str(labelled / "val_img")]):
        assert main(["train", "pix2pix", "--data", str(labelled), *extra, *out]) == 2
    assert main(["train", "pix2pix", "--data", str(pairs), "--data.ignore-label", "0", *out]) == 2
    assert main(["check", "--kind", "labels"]) == 2


def test_both_spellings_of_colour(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text('0: {name: sky, color: "#102030"}')
    assert read_classes(tmp_path / "classes.yaml").colours().tolist() == [[16, 32, 48]]


def test_files_that_are_wrong_alike_are_one_sentence(labelled: Path) -> None:
    for number in range(4):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(labelled / "train_label" / f"{number}.png")
    (text,) = check(labelled, 4).errors
    assert "0.png holds colours" in text and "The same holds for 3 more: 1.png, 2.png, 3.png" in text
    assert group_reasons(["/a/x/1.png: empty.", "/a/y/1.png: empty."]) == [
        "/a/x/1.png: empty. The same holds for 1 more: y/1.png."
    ]


def test_folders_that_are_given_one_by_one(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = {
        name: str(labelled / f"train_{kind}")
        for name, kind in (("labels", "label"), ("instances", "inst"), ("target", "img"))
    }
    for prefix in ("--", "--data."):  # as train has them
        options = [word for name, folder in sides.items() for word in (f"{prefix}{name}", folder)]
        assert main(["check", *options, f"{prefix}classes", "4"]) == 0
        assert "train: 6 label maps" in capsys.readouterr().out
    assert main(["check", str(labelled), "--classes", "0"]) == 2
    assert "--data.classes 0: give 1 to 65536" in capsys.readouterr().err


def test_label_maps_where_images_are_wanted(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a data set of label maps \(train_label\): spade"):
        find_unpaired(labelled)
    (tmp_path / "wrong" / "train_labels").mkdir(parents=True)
    with pytest.raises(UsageError, match="of label maps: train_label, train_inst and train_img"):
        train(tiny_config(tmp_path / "wrong", tmp_path / "run"), quiet=True)


@pytest.mark.parametrize("text", ["- sky\n- {true: sea}\n", "- " * 3000, "0: {name: [" + "1, " * 5000 + "]}"])
def test_odd_tables_of_classes_are_short_sentences(tmp_path: Path, text: str) -> None:
    """Found by tools/fuzz.py."""
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_classes(tmp_path / "classes.yaml")
    assert str(tmp_path / "classes.yaml") in str(caught.value) and len(str(caught.value)) < 600
