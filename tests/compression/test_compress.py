"""A small translator learns from a large one, is compared with it, and what was stopped goes on exactly."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from helpers.data import picture, write_bands, write_labelled, write_unpaired, write_volumes
from helpers.forked import fork
from helpers.runs import assert_equal, free_port
from helpers.translators import draw_weights, make, sampler

import img2img
from img2img.cli import main
from img2img.compression import compress as room
from img2img.compression.comparison import compare_with_teacher
from img2img.compression.compress import compress, resume
from img2img.compression.student import choose_student
from img2img.config import read_config
from img2img.core.errors import UsageError, UserError
from img2img.data.base import DataConfig, Pair
from img2img.data.classes import Class, Classes
from img2img.data.distilled import DistilledData, DistilledImages, choose_real, find_photos
from img2img.data.distilled_labels import DistilledLabels, find_label_maps, match_translations
from img2img.data.paired import read_validation_pair
from img2img.images import read_image, write_image
from img2img.images.labels import read_maps
from img2img.inference import convert
from img2img.models import Translator, TranslatorConfig
from img2img.networks import ResNetConfig, SPADEConfig, UNetConfig
from img2img.networks.operations import count_multiply_adds, list_narrower
from img2img.training.train import train


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "model"
    make(ResNetConfig(channels=16, blocks=1)).save(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve of a size that the network must pad."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        write_image(folder / "deeper" / f"{number}.png", picture(37, 45, seed=number))
    return folder


def run(teacher: Path, photos: Path, output: Path, **options: Any) -> room.Compression:
    given = {"macs": 0.3, "steps": 2, "batch_size": 2, "size": 32, "device": "cpu", "quiet": True, "holdout": 0.2}
    return compress(teacher, photos, output, **{**given, **options})


@pytest.fixture(scope="module")
def done(teacher: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, room.Compression]:
    """A run's folder, and what came of it."""
    folder = tmp_path_factory.mktemp("compressed") / "run"
    return folder, run(teacher, photos, folder)


def test_the_student_is_a_smaller_translator_that_names_its_teacher(
    teacher: Path, done: tuple[Path, room.Compression]
) -> None:
    folder, found = done
    student, large = img2img.load(folder), img2img.load(teacher)
    assert isinstance(student.config, TranslatorConfig) and student.config.generator.kind == "resnet"
    assert student.config.method == "distill" and student.config.training.teacher == str(teacher)
    assert "Imitates" in student.generate_model_card().text and str(teacher) not in student.generate_model_card().text
    data = read_config(folder / "config.yaml").data
    assert (data.resize, data.jitter, data.flip) == ("none", 1, 0), "as convert will show photos to it"
    costs = found.teacher.multiply_adds, found.student.multiply_adds
    assert costs == tuple(
        count_multiply_adds(each.config.generator.model_copy(update={"in_channels": 3}), 32, 32)
        for each in (large, student)
    )
    assert 0 < costs[1] <= 0.3 * costs[0]
    assert found.student.parameters == sum(each.numel() for each in student.generator.parameters())
    saved = json.loads((folder / "compression.json").read_text())
    assert saved["comparison"]["photos"] == found.comparison.photos == 2 and saved["accepted"] == found.accepted


def test_it_learns_from_what_convert_makes_of_the_photos(
    teacher: Path, photos: Path, done: tuple[Path, room.Compression], tmp_path: Path
) -> None:
    img2img.convert(teacher, photos, tmp_path / "converted", device="cpu")
    for number in range(12):
        name = f"deeper/{number}.png"
        made = read_image(done[0] / "teacher" / "train" / name)
        assert np.array_equal(made, read_image(tmp_path / "converted" / name)), name
    assert not (done[0] / "teacher-unfinished").exists()


def test_the_comparison_is_with_the_teacher_on_photos_that_were_held_out(done: tuple[Path, room.Compression]) -> None:
    found = done[1].comparison
    student, order = img2img.load(done[0]), sorted(map(str, range(12)))
    held = [order[place] for place in (2, 8)]  # evenly spaced
    made = [read_image(done[0] / "teacher" / "train" / "deeper" / f"{name}.png") / 255 for name in held]
    given = [picture(37, 45, seed=int(name)) for name in held]
    errors = [np.abs(student(each) / 255 - truth).mean() for each, truth in zip(given, made, strict=True)]
    assert found.to_teacher["l1"] == pytest.approx(np.mean(errors), abs=1e-6)
    copied = [np.abs(each / 255 - truth).mean() for each, truth in zip(given, made, strict=True)]
    assert found.copied["l1"] == pytest.approx(np.mean(copied), abs=1e-6)


def test_what_was_stopped_goes_on_as_if_it_had_not_been(
    teacher: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "val"):
        for number in range(6):
            write_image(tmp_path / "data" / split / f"{number}.png", picture(32, 32, seed=number))
    run(teacher, tmp_path / "data", tmp_path / "whole", steps=4)

    def stop_at(split: str) -> Any:
        def convert(model: Any, source: Path, *rest: Any, **options: Any) -> Any:
            if source.name == split:
                raise KeyboardInterrupt
            return img2img.convert(model, source, *rest, **options)

        return convert

    with monkeypatch.context() as patched:
        patched.setattr(room, "convert", stop_at("val"))
        with pytest.raises(KeyboardInterrupt):
            run(teacher, tmp_path / "data", tmp_path / "parts", steps=4)
    assert not (tmp_path / "parts" / "teacher").exists()
    with pytest.raises(UsageError, match=r"not there.*compress --resume"):
        train(resume=tmp_path / "parts", quiet=True)
    before = (tmp_path / "parts" / "teacher-unfinished" / "train" / "3.png").stat().st_mtime_ns
    (tmp_path / "parts").rename(tmp_path / "moved")
    found = resume(tmp_path / "moved", quiet=True)
    (tmp_path / "moved").rename(tmp_path / "parts")
    assert (tmp_path / "parts" / "teacher" / "train" / "3.png").stat().st_mtime_ns == before
    assert_equal(tmp_path / "whole", tmp_path / "parts")
    assert resume(tmp_path / "whole", quiet=True).comparison == found.comparison


def test_two_processes_share_the_work(teacher: Path, photos: Path, tmp_path: Path) -> None:
    command = [
        "compress", str(teacher), "--data", str(photos), "--output", str(tmp_path / "run"), "--macs", "0.3", "--steps", "2",
        "--size", "32", "--batch-size", "1", "--device", "cpu", "--accept", "100",
    ]  # fmt: skip
    code = fork(command, tmp_path / "said", 2, free_port()).wait(300)
    said = (tmp_path / "said").read_text()
    assert code == 0, said[-3000:]
    assert len(list((tmp_path / "run" / "teacher").rglob("*.png"))) == 12
    assert json.loads((tmp_path / "run" / "compression.json").read_text())["accepted"]
    assert "2 processes" in said


def test_a_student_that_is_too_far_from_its_teacher_is_kept_and_not_called_good(
    teacher: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["compress", str(teacher), "--data", str(photos), "--output", str(tmp_path / "run"), "--macs", "0.3"]
    options += ["--steps", "1", "--size", "32", "--device", "cpu"]
    assert main([*options, "--accept", "0"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "not near enough" in text and "× less" in text
    assert img2img.load(tmp_path / "run")
    assert main(["compress", "--resume", str(tmp_path / "run"), "--accept", "100"]) == 0
    assert "near enough to its teacher: it has" in " ".join(capsys.readouterr().out.split())


def test_a_full_disk_leaves_no_photo_out(
    teacher: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo that is damaged is left out, and training goes on; one that has no room would be missing for no reason."""
    output, real = tmp_path / "run", convert.write_picture

    def fail(path: Path, *given: Any) -> None:
        if path.stem == "3":
            raise UserError(f"{path} can't be written: {os.strerror(errno.ENOSPC)}.")
        real(path, *given)

    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_picture", fail)
        with pytest.raises(UserError, match=rf"3\.png can't be written: No space.* compress --resume {output}"):
            run(teacher, photos, output)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", no_room)
        with pytest.raises(UserError, match=rf"unfinished can't be renamed: No space.* compress --resume {output}"):
            resume(output, quiet=True)
    resume(output, quiet=True)
    assert len(list((output / "teacher").rglob("*.png"))) == len(list(photos.rglob("*.png")))


def test_a_photo_that_is_damaged_is_left_out_and_named(
    teacher: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        write_image(tmp_path / "data" / f"{number}.png", picture(32, 32, seed=number))
    (tmp_path / "data" / "bad.png").write_bytes(b"nothing")
    run(teacher, tmp_path / "data", tmp_path / "run")
    assert "left out" in (said := capsys.readouterr().err) and "bad.png" in said
    for file in (tmp_path / "data").glob("?.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="translate none of"):
        run(teacher, tmp_path / "data", tmp_path / "other")


def test_what_is_transparent_is_learned_without_its_alpha(teacher: Path, tmp_path: Path) -> None:
    for number in range(4):
        image = picture(32, 32, 4, seed=number)
        write_image(tmp_path / "data" / f"{number}.png", image)
    run(teacher, tmp_path / "data", tmp_path / "run")
    large = img2img.load(teacher)
    for number in range(4):
        made = read_image(tmp_path / "run" / "teacher" / "train" / f"{number}.png")
        whole = large(picture(32, 32, 4, seed=number))  # over white, and with its alpha
        assert made.shape == (32, 32, 3) and np.abs(made.astype(int) - whole[..., :3]).mean() < 4


def test_the_other_side_shows_real_images(teacher: Path, tmp_path: Path) -> None:
    data = write_unpaired(tmp_path / "data", 6, 5, size=32)
    write_unpaired(data, 12, 11, size=32, split="test")
    found = run(teacher, data, tmp_path / "run", adversarial=0.1)
    assert set(found.comparison.kid) == {"student to teacher", "student to real", "teacher to real"}
    assert found.comparison.photos == 12
    losses = {name for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines() for name in json.loads(line)}
    assert {"D/real", "G/adversarial"} <= losses
    plain = run(teacher, data, tmp_path / "plain")
    assert plain.comparison.photos == 12
    assert not any("D/" in line for line in (tmp_path / "plain" / "log.jsonl").read_text().splitlines())


def test_real_images_are_drawn_from_all_of_them(teacher: Path, tmp_path: Path) -> None:
    data = write_unpaired(tmp_path / "data", 6, 5, size=32)
    for number in range(6):
        write_image(tmp_path / "made" / "train" / f"A{number}.png", picture(32, 32, seed=number))
    config = DataConfig(path=data, target=tmp_path / "made", size=32, jitter=1, flip=0)
    without = DistilledData(config, with_classes=False)
    without.divide(0)
    assert "real" not in without.build_training_set(config.build_transform(), 3, 3, 0)[0, 0]
    opened = DistilledData(config)
    opened.divide(0)
    samples = opened.build_training_set(opened.config.build_transform(), 3, 3, 0)
    assert isinstance(samples, DistilledImages)
    whole = {
        file.name: 255 - picture(32, 32, seed=100 + place)
        for place, file in enumerate(sorted((data / "trainB").iterdir()))
    }
    seen = set()
    for epoch in range(6):
        for index in range(6):
            item = samples[epoch, index]
            shown = ((item["real"].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
            seen |= {name for name, image in whole.items() if np.array_equal(image, shown)}
            assert torch.equal(item["real"], samples[epoch, index]["real"])
    assert len(seen) == 5


MEASURED: dict[str, Any] = {"in_range": (-1000, 3000), "out_range": (0, 10000)}


def test_a_translator_of_measurements_is_compressed(tmp_path: Path) -> None:
    data = write_bands(tmp_path / "data", 4, size=40)
    draw_weights(UNetConfig(channels=8, depth=3).resolve(4, 1, 32), **MEASURED).save(tmp_path / "model")
    found = run(tmp_path / "model", data, tmp_path / "run", adversarial=0.1)
    large, student = img2img.load(tmp_path / "model"), img2img.load(tmp_path / "run")
    assert isinstance(large, Translator) and isinstance(student, Translator)
    assert (student.config.in_range, student.config.out_range) == ((-1000, 3000), (0, 10000))
    assert found.comparison.photos == 2 and found.comparison.copied is None, "sources are no targets"
    off = []
    for number in range(2):
        values = read_bands(data / "valA" / f"{number}.tif")
        made = read_bands(tmp_path / "run" / "teacher" / "val" / f"{number}.tif")
        truth = large(values)
        assert np.abs(made - truth).max() <= 0.5, (
            "what the student learns from is exact to the whole numbers of its file"
        )
        off.append(np.abs(student(values).clip(0, 10000) - truth).mean() / 10000)
    assert found.comparison.to_teacher["l1"] == pytest.approx(np.mean(off), rel=1e-3)
    config = read_config(tmp_path / "run" / "config.yaml").data
    opened = DistilledData(config)
    opened.divide(config.holdout)
    item = opened.build_training_set(config.build_transform(), 4, 1, 0)[0, 0]
    real = {tuple(np.unique(read_bands(file))) for file in (data / "trainB").iterdir()}
    seen = set(np.rint((item["real"].numpy() + 1) * 5000).astype(int).ravel())
    assert any(seen <= set(each) for each in real), "real images are read by the target's range"
    losses = {name for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines() for name in json.loads(line)}
    assert {"D/real", "G/adversarial"} <= losses


def read_bands(file: Path) -> Any:
    values = tifffile.imread(file).astype(np.float32)
    return values if values.ndim == 3 else values[..., None]


@pytest.mark.parametrize(
    ("channels", "limits", "copied"),
    [
        ((3, 1), None, True),
        ((4, 3), None, True),
        ((2, 2), (0, 1), True),
        ((1, 2), (0, 1), False),
        ((1, 5), (0, 1), False),
    ],
)
def test_photos_as_they_are_are_compared_if_they_can_be(
    channels: tuple[int, int], limits: Any, copied: bool, tmp_path: Path
) -> None:
    student = draw_weights(UNetConfig(channels=4, depth=3).resolve(*channels, 32), in_range=limits, out_range=limits)
    for side, count in zip("AB", channels, strict=True):
        (tmp_path / side).mkdir()
        values = np.random.default_rng(0).random((32, 32, count), np.float32)
        if limits:
            np.save(tmp_path / side / "x.npy", values)
        else:
            write_image(tmp_path / side / "x.png", values)
    ending = "npy" if limits else "png"
    pair = Pair("x", tmp_path / "A" / f"x.{ending}", tmp_path / "B" / f"x.{ending}", ranges=(limits, limits))
    found = compare_with_teacher(student, [pair], [], read_validation_pair)
    assert (found.copied is not None) == copied
    if limits:
        apart = replace(pair, ranges=(limits, (0, 2)))
        assert compare_with_teacher(student, [apart], [], read_validation_pair).copied is None


def test_label_maps_are_not_compared_with_images() -> None:
    student = draw_weights(UNetConfig(channels=4, depth=3).resolve(4, 1, 32), classes=Classes(count=4))
    maps, truth = np.zeros((32, 32, 1), np.int32), np.zeros((32, 32, 1), np.uint8)
    pair = Pair("x", Path("x.png"), Path("y.png"), labels=True)
    assert compare_with_teacher(student, [pair], [], lambda *_: (maps, truth)).copied is None


def test_a_translator_of_volumes_is_compressed(tmp_path: Path) -> None:
    data = write_volumes(tmp_path / "data", slices=6, train=2)
    values = {**MEASURED, "out_range": (-1000, 3000), "axis": "coronal"}
    draw_weights(UNetConfig(channels=8, depth=3).resolve(1, 1, 32), **values).save(tmp_path / "model")
    found = run(tmp_path / "model", data, tmp_path / "run")
    assert found.comparison.photos == 36 and found.comparison.copied, "each slice along the teacher's axis"
    assert (tmp_path / "run" / "teacher" / "train" / "p.0.nii.gz").is_file()
    student = img2img.load(tmp_path / "run")
    assert isinstance(student, Translator) and student.config.axis == "coronal"
    write_image(data / "trainA" / "x.png", picture(32, 32))
    with pytest.raises(UsageError, match=r"holds volumes, and others such as x\.png"):
        run(tmp_path / "model", data, tmp_path / "other")
    draw_weights(UNetConfig(channels=8, depth=3).resolve(1, 3, 32), in_range=(-1000, 3000)).save(tmp_path / "colours")
    with pytest.raises(UsageError, match="doesn't make such: give it slices"):
        run(tmp_path / "colours", data, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def label_teacher(folder: Path, config: Any, edges: bool, **values: Any) -> Path:
    classes = Classes(count=4, ignore=255, table={1: Class(name="sky", colour=(1, 2, 3))})
    draw_weights(config.resolve(4 + edges, 3, 64), classes=classes, edges=edges, **values).save(folder)
    return folder


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize(
    "config", [SPADEConfig(channels=8, hidden=16), UNetConfig(channels=8, depth=3)], ids=["spade", "unet"]
)
def test_a_translator_of_label_maps_is_compressed(config: Any, edges: bool, tmp_path: Path) -> None:
    held = 10 if config.kind == "unet" and not edges else 2  # of fewer there is no KID
    data = write_labelled(write_labelled(tmp_path / "data", 4, 64), held, 64, split="val", first=4)
    write_image(data / "train_label" / "colours.png", picture(64, 64))  # which the teacher leaves out
    write_labelled(data, 1, 64, split="test", first=40)
    shutil.rmtree(data / "test_inst")
    model = label_teacher(tmp_path / "model", config, edges)
    found = run(model, data, tmp_path / "run", size=64, adversarial=0.1)
    large, student = img2img.load(model), img2img.load(tmp_path / "run")
    assert isinstance(large, Translator) and isinstance(student, Translator)
    assert student.config.classes and large.config.classes and student.config.edges == edges
    assert (student.config.classes.count, student.config.classes.ignore) == (4, 255)
    assert student.config.classes.name(1) == "sky" and tuple(student.config.classes.colours()[1]) == (1, 2, 3)
    assert student.config.generator.kind == config.kind
    assert found.student.multiply_adds <= 0.3 * found.teacher.multiply_adds
    if config.kind == "spade":
        assert student.config.generator.hidden < large.config.generator.hidden
    assert found.comparison.copied is None and found.comparison.photos == held
    assert ("teacher to real" in found.comparison.kid) == (held == 10)
    names = [f"{number}.png" for number in range(4, 4 + held)]
    maps = {name: read_maps(data / "val_label" / name, data / "val_inst" / name if edges else None) for name in names}
    made = {name: read_image(tmp_path / "run" / "teacher" / "val" / name) for name in maps}
    assert all(np.abs(made[name].astype(int) - large(maps[name]).astype(int)).max() <= 1 for name in maps)
    errors = [np.abs(student(maps[name]) / 255 - made[name] / 255).mean() for name in maps]
    assert found.comparison.to_teacher["l1"] == pytest.approx(np.mean(errors), abs=1e-6)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert resume(tmp_path / "moved", quiet=True).comparison == found.comparison


def test_real_images_are_shown_beside_label_maps(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", 3, 64)
    for number in range(3):
        write_image(tmp_path / "made" / "train" / f"{number}.png", picture(64, 64, seed=50 + number))
    config = DataConfig(labels=data, target=tmp_path / "made", size=64, resize="none", jitter=1, flip=0, classes=4)
    for wanted in (True, False):
        kind = DistilledLabels(config, wanted)
        kind.divide(0)
        item = kind.build_training_set(config.build_transform(), 5, 3, 0)[0, 1]
        assert item["source"].shape == (2, 64, 64) and ("real" in item) == wanted
        made = ((item["target"].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
        assert np.array_equal(made, picture(64, 64, seed=51))
        assert len(choose_real(kind.real)) == (3 if wanted else 0)
        if wanted:
            shown = ((item["real"].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
            assert any(np.array_equal(shown, read_image(file)) for file in (data / "train_img").iterdir())
    with pytest.raises(UsageError, match=r"--data\.instances: distill finds instance maps beside"):
        DistilledLabels(config.model_copy(update={"instances": data / "train_inst"}))
    with pytest.raises(UsageError, match=r"--data\.labels FOLDER"):
        DistilledLabels(config.model_copy(update={"target": None}))
    with pytest.raises(UsageError, match=r"not there.*compress --resume"):
        DistilledLabels(config.model_copy(update={"target": tmp_path / "gone"}))


def test_translations_have_the_label_maps_names_and_instance_maps_others(tmp_path: Path) -> None:
    """As in Cityscapes, where all kinds of maps lie in one folder."""
    for kind in ("labelIds", "instanceIds", "color"):
        write_image(tmp_path / "labels" / "town" / f"a_gtFine_{kind}.png", picture(8, 8))
    write_image(tmp_path / "made" / "town" / "a_gtFine_labelIds.png", picture(8, 8))
    write_image(tmp_path / "inst" / "town" / "a_gtFine_instanceIds.png", picture(8, 8))
    (pair,) = match_translations("train", tmp_path / "labels", None, tmp_path / "made").pairs
    assert pair.labels and pair.source.name == pair.target.name == "a_gtFine_labelIds.png" and pair.instances is None
    (pair,) = match_translations("train", tmp_path / "labels", tmp_path / "inst", tmp_path / "made").pairs
    assert pair.instances == tmp_path / "inst" / "town" / "a_gtFine_instanceIds.png"
    (tmp_path / "inst" / "town" / "a_gtFine_instanceIds.png").unlink()
    found = match_translations("train", tmp_path / "labels", tmp_path / "inst", tmp_path / "made")
    assert not found.pairs and tmp_path / "labels" / "town" / "a_gtFine_labelIds.png" in found.unmatched


@pytest.mark.parametrize(
    ("folders", "splits", "real", "instances"),
    [
        (["."], {"train": "."}, None, None),
        (["train", "val"], {"train": "train", "val": "val"}, None, None),
        (["train_label", "val_label"], {"train": "train_label", "val": "val_label"}, None, None),
        (["train_label", "train_inst", "train_img"], {"train": "train_label"}, "train_img", "train_inst"),
        (
            ["label/train", "inst/train", "label/test"],
            {"train": "label/train", "test": "label/test"},
            None,
            "inst/train",
        ),
        (["train/label", "train/img"], {"train": "train/label"}, "train/img", None),
        (["label", "inst", "img"], {"train": "label"}, "img", "inst"),
    ],
)
def test_label_maps_are_found_in_any_layout(
    folders: list[str], splits: dict[str, str], real: str | None, instances: str | None, tmp_path: Path
) -> None:
    for name in folders:
        write_image(tmp_path / name / "one.png", picture(16, 16))
    found = find_label_maps(tmp_path)
    assert {split: each.source for split, each in found.items()} == {k: tmp_path / v for k, v in splits.items()}
    assert found["train"].real == (tmp_path / real if real else None)
    assert found["train"].instances == (tmp_path / instances if instances else None)


def test_what_cannot_be_compressed_is_told_so(teacher: Path, photos: Path, tmp_path: Path) -> None:
    def refuse(model: Path | str, words: str, **options: Any) -> None:
        with pytest.raises(UsageError, match=words):
            run(model, **{"photos": photos, "output": tmp_path / "out", **options})  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()

    sampler().save(tmp_path / "noise")
    refuse(tmp_path / "noise", "noise")
    refuse(tmp_path / "nowhere", "nowhere")
    assert main(["export", str(teacher), str(tmp_path / "file.onnx")]) == 0
    refuse(tmp_path / "file.onnx", "ONNX file.*give the translator's folder")
    labels = write_labelled(tmp_path / "labels", 3, 64)
    with_instances = label_teacher(tmp_path / "edges", UNetConfig(channels=4, depth=3), True)
    shutil.rmtree(labels / "train_inst")
    refuse(with_instances, "with instance maps, and there are none", photos=labels)
    (tmp_path / "empty").mkdir()
    refuse(with_instances, "holds no label maps", photos=tmp_path / "empty")
    refuse(with_instances, "takes label maps: .*holds colours", photos=photos)
    write_image(tmp_path / "empty" / "one.png", np.full((8, 8, 1), 9, np.uint8))
    refuse(
        with_instances, r"one\.png has labels that it doesn't know, which are 0–3 and 255", photos=tmp_path / "empty"
    )
    (tmp_path / "empty" / "one.png").unlink()
    (tmp_path / "empty").rmdir()
    refuse(teacher, r"smallest resnet.*computes 0\.\d+", macs=0.001)
    refuse(teacher, "--macs 1", macs=1)
    refuse(teacher, "no such folder", photos=tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    refuse(teacher, "holds no images", photos=tmp_path / "empty")
    write_image(tmp_path / "empty" / "one.png", picture(32, 32))
    refuse(teacher, "there is 1.*none would be left", photos=tmp_path / "empty")
    refuse(teacher, "--holdout 0", holdout=0)
    refuse(teacher, "--size 30: a ResNet needs a multiple of 4", size=30)
    refuse(teacher, "--size 0", size=0)
    refuse(teacher, "--max-side 0", max_side=0)
    refuse(teacher, "--size 16", size=16, adversarial=0.1)
    refuse(teacher, "lies in", output=photos / "run")
    refuse(teacher, "direction BtoA", direction="BtoA")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(UsageError, match="not empty"):
        run(teacher, photos, tmp_path / "full")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert main(["compress", str(teacher)]) == 2
    assert main(["compress", str(teacher), "--resume", str(tmp_path / "full")]) == 2
    assert main(["compress", "--resume", str(tmp_path / "full"), "--steps", "9"]) == 2


def test_only_a_run_of_compress_is_resumed(pairs: Path, tmp_path: Path) -> None:
    options = [
        "train",
        "pix2pix",
        "--data",
        str(pairs),
        "--size",
        "32",
        "--steps",
        "1",
        "--output",
        str(tmp_path / "run"),
    ]
    options += ["--generator.channels", "2", "--generator.depth", "2", "--recipe", "paper", "--device", "cpu"]
    assert main(options) == 0
    with pytest.raises(UsageError, match="run of pix2pix, which img2img train --resume continues"):
        resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("folders", "direction", "splits", "real"),
    [
        (["."], "AtoB", {"train": "."}, None),
        (["train", "val"], "AtoB", {"train": "train", "val": "val"}, None),
        (["trainA", "testA"], "AtoB", {"train": "trainA", "test": "testA"}, None),
        (["trainA", "trainB"], "AtoB", {"train": "trainA"}, "trainB"),
        (["trainA", "trainB"], "BtoA", {"train": "trainB"}, "trainA"),
        (["train/A", "train/B"], "AtoB", {"train": "train/A"}, "train/B"),
        (["A", "B"], "BtoA", {"train": "B"}, "A"),
        (["A/train", "A/val", "B/train"], "AtoB", {"train": "A/train", "val": "A/val"}, "B/train"),
    ],
)
def test_photos_are_found_in_any_layout(
    folders: list[str], direction: Any, splits: dict[str, str], real: str | None, tmp_path: Path
) -> None:
    for name in folders:
        write_image(tmp_path / name / "one.png", picture(16, 16))
    found = find_photos(tmp_path, direction)
    assert {split: each.source for split, each in found.items()} == {k: tmp_path / v for k, v in splits.items()}
    assert found["train"].real == (tmp_path / real if real else None)


def test_multiply_adds_are_counted() -> None:
    config = UNetConfig(channels=4, depth=1, norm="none").resolve(3, 3, 32)
    down, up = 16 * 16 * 4 * (3 * 16), 16 * 16 * 16 * (4 * 3)  # a transposed convolution spreads each of its inputs
    assert count_multiply_adds(config, 32, 32) == down + up
    assert count_multiply_adds(config, 64, 32) == 2 * (down + up)


def test_the_widest_student_that_is_allowed_is_taken() -> None:
    teacher = ResNetConfig(blocks=2, dropout=0.5).resolve(3, 3, 64)
    counts = [count_multiply_adds(each, 64, 64) for each in list_narrower(teacher)]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == len(counts)
    whole = count_multiply_adds(teacher, 64, 64)
    student = choose_student(teacher, 0.3, 3, 64)
    assert student.channels == 32 and student.dropout == 0
    assert (
        count_multiply_adds(student, 64, 64)
        <= 0.3 * whole
        < count_multiply_adds(student.model_copy(update={"channels": 40}), 64, 64)
    )
