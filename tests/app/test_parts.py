"""The app's parts, without a browser."""

import asyncio
import base64
import errno
import json
import os
import shutil
import stat
import time
import warnings
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.data import picture
from helpers.translators import draw_weights, sampler

pytest.importorskip("gradio")

from img2img.app.canvas import empty_drawing, empty_map, filled_map, read_drawing, read_map
from img2img.app.components import Canvas
from img2img.app.explore import _Explore as Explore
from img2img.app.jobs import Jobs, hide_folders, in_words, remove_old
from img2img.app.limits import Limits
from img2img.app.models import Models
from img2img.app.page import Page
from img2img.app.paint import save_maps
from img2img.app.private import make_private_folder
from img2img.app.server import find_login
from img2img.app.sheet import Sheet
from img2img.app.tab import App, choose_style, whole_number
from img2img.app.translate import run_conversion
from img2img.app.uploads import Upload, clean_name, collect, unpack
from img2img.core.errors import UsageError, UserError
from img2img.data.classes import Class, Classes
from img2img.images import write_image
from img2img.images.labels import read_indices
from img2img.inference.report import Stopped
from img2img.models import Latent, cross, draw_latents, vary
from img2img.networks import UNetConfig

WATCH = lambda done, total: None  # noqa: E731
CLASSES = Classes(count=3, ignore=255, table={1: Class(name="sky", colour=(1, 2, 3))})


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("a.png", "a.png"), ("../../etc/passwd", "passwd"), ("C:\\x\\b.jpg", "b.jpg"), (".hidden.png", "hidden.png"),
        ("..", "image"), ("", "image"), ("a\nb\0.png", "ab.png"), ("x" * 300 + ".png", "x" * 150 + ".png"), ("漢" * 100 + ".png", "漢" * 50 + ".png"), ("dir/", "image"),
    ],
)  # fmt: skip
def test_names_are_made_safe(name: str, clean: str) -> None:
    assert clean_name(name) == clean


def zip_of(path: Path, entries: dict[str, bytes]) -> Upload:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return Upload(path, path.name)


def test_nothing_leaves_the_folder_of_an_archive(tmp_path: Path) -> None:
    names = ("../a.png", "/b.png", "x/../../c.png", "..\\d.png", "C:/e.png", "fine/f.png", "g.png")
    upload = zip_of(tmp_path / "a.zip", dict.fromkeys(names, b"x"))
    with zipfile.ZipFile(upload.path, "a") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    refused = unpack(upload, tmp_path / "out" / "in", WATCH)
    made = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert made == ["a.zip", "out/in/fine/f.png", "out/in/g.png"]
    assert len(refused) == 6 and {each.status for each in refused} == {"failed"}


def test_archives_that_are_too_large_or_damaged_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("img2img.app.uploads.MOST_BYTES", 10**6)
    monkeypatch.setattr("img2img.app.uploads.MOST_FILES", 5)
    with pytest.raises(UserError, match="send it in parts"):
        unpack(zip_of(tmp_path / "large.zip", {"a": bytes(10**6 + 1)}), tmp_path / "out", WATCH)
    with pytest.raises(UserError, match="send it in parts"):
        unpack(zip_of(tmp_path / "many.zip", {str(number): b"" for number in range(6)}), tmp_path / "out", WATCH)
    lies = zip_of(tmp_path / "lies.zip", {"a": bytes(3 * 10**6)})
    data = lies.path.read_bytes().replace((3 * 10**6).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    lies.path.write_bytes(data)  # its table says 10 bytes
    with pytest.raises(UserError, match=r"lies\.zip"):
        unpack(lies, tmp_path / "out", WATCH)
    broken = zip_of(tmp_path / "broken.zip", {"a": os.urandom(1000)})
    broken.path.write_bytes(broken.path.read_bytes()[:300] + bytes(100) + broken.path.read_bytes()[400:])
    for upload in (broken, Upload(tmp_path / "lies.zip", "lies.zip")):
        with pytest.raises(UserError, match=upload.name):
            unpack(upload, tmp_path / "out", WATCH)
    (tmp_path / "text.zip").write_text("none")
    with pytest.raises(UserError, match="damaged, or no zip file"):
        unpack(Upload(tmp_path / "text.zip", "text.zip"), tmp_path / "out", WATCH)


def test_names_that_no_disk_takes_are_refused_alone(tmp_path: Path) -> None:
    deep = "/".join("d" * 3 for _ in range(1200)) + "/a.png"
    upload = zip_of(tmp_path / "a.zip", {deep: b"x", "漢" * 100 + ".png": b"x", "fine.png": b"x", "x" * 300: b"x"})
    refused = unpack(upload, tmp_path / "out", WATCH)
    assert [file.name for file in (tmp_path / "out").rglob("*.png")] == ["fine.png"] and len(refused) == 3


def test_a_thousand_of_one_name_take_no_time(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(3000):
            archive.writestr("a.png", str(number))
    calls: list[int] = []
    unpack(Upload(tmp_path / "a.zip", "a.zip"), tmp_path / "out", lambda done, total: calls.append(total))
    assert len({file.read_text() for file in (tmp_path / "out").iterdir()}) == 3000 and len(calls) > 10

    def stop(done: float, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(Upload(tmp_path / "a.zip", "a.zip"), tmp_path / "other", stop)


def test_a_disk_without_room_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**30 + 10))
    with pytest.raises(UserError, match="no room"):
        unpack(zip_of(tmp_path / "a.zip", {"a": bytes(1000)}), tmp_path / "out", WATCH)


def test_no_upload_takes_the_place_of_another(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / str(number) / "a.png", picture(4, 4, 3, seed=number))
    archive = zip_of(tmp_path / "b.zip", {"a.png": b"1", "b/a.png": b"2"})
    uploads = [Upload(tmp_path / str(number) / "a.png", "a.png") for number in range(3)]
    assert collect([*uploads, archive, archive], tmp_path / "out", WATCH) == []
    made = sorted(file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.png"))
    assert made == ["a-2.png", "a-3.png", "a.png", "b-2/a.png", "b-2/b/a.png", "b/a.png", "b/b/a.png"]


def test_larger_maps_than_the_canvas_takes_are_a_sentence() -> None:
    with pytest.raises(UsageError, match="2048 pixels a side"):
        filled_map(CLASSES, np.zeros((2, 2049), np.int64), None)
    with pytest.raises(UsageError, match="label 7 is out of range"):
        filled_map(CLASSES, np.full((2, 2), 7), None)
    with pytest.raises(UsageError, match="as many instances"):
        filled_map(CLASSES, np.zeros((300, 300), np.int64), np.arange(90000).reshape(300, 300))


def test_the_label_that_says_nothing_may_be_any_number(tmp_path: Path) -> None:
    for ignore in (-1, 1, 70000):
        classes = Classes(count=3, ignore=ignore)
        labels = np.array([[0, ignore], [2, 0]])
        sent = json.loads(filled_map(classes, labels, None))
        assert [entry["name"] for entry in sent["palette"]] == [str(k) for k in range(3) if k != ignore] + ["no class"]
        assert (read_map(json.dumps(sent), classes)[0] == labels).all()
        places = np.frombuffer(base64.b64decode(sent["labels"]), "<u2")
        assert [sent["palette"][place]["name"] for place in places] == ["0", "no class", "2", "0"]
        (tmp_path / str(ignore)).mkdir()
        files = save_maps(labels, np.array([[0, 1], [300, 0]]), tmp_path / str(ignore))
        assert (read_indices(Path(files[0])) == labels).all()
        assert (read_indices(Path(files[1])) == [[0, 1], [300, 0]]).all()


def test_the_canvas_gets_and_gives_label_maps_exactly() -> None:
    labels = np.array([[0, 1, 2], [255, 1, 0]])
    sent = json.loads(filled_map(CLASSES, labels, np.array([[9, 9, 70000], [0, 0, 0]])))
    assert [entry["name"] for entry in sent["palette"]] == ["0", "sky", "2", "no class"]
    assert sent["palette"][1]["colour"] == "#010203"
    back = {name: sent[name] for name in ("height", "width", "labels", "instances")}
    again, instances = read_map(json.dumps(back), CLASSES)
    assert (again == labels).all() and instances is not None
    assert (instances == [[1, 1, 2], [0, 0, 0]]).all()
    assert read_map(json.dumps({**back, "instances": None}), CLASSES)[1] is None
    assert "instances" not in json.loads(empty_map(CLASSES, False, 2, 3))
    assert json.loads(empty_drawing(2, 3)) == {"setup": "drawing", "height": 2, "width": 3}
    assert read_drawing(json.dumps({"image": "data:image/png;base64,aGk="})) == b"hi"


@pytest.mark.parametrize(
    "text",
    [
        None, "", "[]", "nonsense", "{}", "[" * 10**5, '{"height": 2, "width": 2}', '{"height": 2, "width": 2, "labels": "!"}',
        '{"height": -1, "width": 2, "labels": ""}', '{"height": 1e9, "width": 2, "labels": ""}',
        '{"height": 99999, "width": 2, "labels": ""}', '{"height": true, "width": 2, "labels": 7}',
        json.dumps({"height": 2, "width": 2, "labels": base64.b64encode(bytes(7)).decode()}),
        json.dumps({"height": 2, "width": 2, "labels": base64.b64encode(bytes(16)).decode()}),
        json.dumps({"height": 2, "width": 2, "labels": base64.b64encode(b"\4\0" * 4).decode()}),
        '{"image": "data:image/svg+xml;base64,aGk="}', '{"image": 7}', '{"image": "data:image/png;base64,%"}',
    ],
)  # fmt: skip
def test_what_a_canvas_can_t_have_sent_is_a_sentence(text: str | None) -> None:
    with pytest.raises(UsageError):
        read_map(text, CLASSES)
    with pytest.raises(UsageError):
        read_drawing(text)


def test_a_canvas_sends_text() -> None:
    import gradio

    canvas = Canvas("Drawing")
    assert (canvas.preprocess("{}"), canvas.preprocess(None)) == ("{}", None)
    with pytest.raises(gradio.Error, match="damaged"):
        canvas.preprocess({"image": ""})


def test_sheets_go_through_links_unharmed() -> None:
    made = sampler(classes=("cat", "dog"))
    (first, second) = Sheet(count=2, seed=3, label="dog").list_latents(made)
    for sheet in (
        Sheet(),
        Sheet(count=5, seed=7, label="cat", truncation=0.5),
        Sheet(kind="children", first=first, distance=0.2),
        Sheet(kind="way", first=first, second=second),
        Sheet(codes={0: 2, 1: -0.5}),
    ):
        text = sheet.pack()
        assert (
            Sheet.unpack(text) == sheet and len(text) < 2000 and text.isascii() and "/" not in text and "+" not in text
        )
    for values in (
        {"truncation": -1},
        {"truncation": 0},
        {"truncation": 1e-9},
        {"count": 1000},
        {"codes": {"0": float("nan")}},
    ):
        text = base64.urlsafe_b64encode(zlib.compress(json.dumps(values).encode())).decode()
        with pytest.raises(UsageError, match="damaged"):
            Sheet.unpack(text)
    for text in ("", "x", "eJw=", Sheet().pack()[:-4], base64.urlsafe_b64encode(b"{}").decode()):
        with pytest.raises(UsageError, match="damaged"):
            Sheet.unpack(text)


def test_children_and_crosses() -> None:
    made = sampler(classes=("cat", "dog"))
    parent, other = Sheet(count=2, seed=3).list_latents(made)
    children = Sheet(kind="children", count=6, seed=1, first=parent, distance=0.3).list_latents(made)
    assert children[0] == parent and len(set(children)) == 6
    assert children[1] == vary(made, parent, 1, 0.3, None) != vary(made, parent, 2, 0.3, None)
    assert vary(made, parent, 1, 0.0, None) == parent
    noise = np.array([child.noise for child in children])
    near, far = (np.linalg.norm(np.array(vary(made, parent, 1, d, None).noise) - noise[0]) for d in (0.1, 0.8))
    assert 0 < near < far
    own = Sheet(kind="children", count=6, seed=3, first=parent, distance=0.3).list_latents(made)
    assert parent not in own[1:]  # seed 3 is the parent's own
    way = Sheet(kind="way", count=3, first=parent, second=other).list_latents(made)
    assert (way[0], way[2]) == (parent, other) and way[1] == cross(made, parent, other, 0.5)
    assert way[1].classes == (0.5, 0.5)
    images = draw_latents(made, way)
    assert (images[0] == made.sample(1, seed=3)[0]).all() and (images[2] == made.sample(1, seed=4)[0]).all()
    for strange in (Latent(noise=(1.0,) * 8), Latent(noise=(1.0,) * 7, classes=(1.0, 0.0))):
        with pytest.raises(UsageError, match="another model"):
            draw_latents(made, [strange])


def test_models_are_found_by_name(models: Path, tmp_path: Path) -> None:
    found = Models([models], "cpu")
    assert list(found.entries) == ["classes", "codes", "labels", "pairs"]
    assert list(found.runs) == ["labels", "pairs", "young"]
    assert found.translator("pairs") is found.translator("pairs")
    with pytest.raises(UsageError, match="there is no model 'nobody'"):
        found.entry("nobody")
    with pytest.raises(UsageError, match="from noise"):
        found.translator("classes")
    with pytest.raises(UsageError, match="translator"):
        found.noise_generator("pairs")
    shutil.copytree(models / "pairs", tmp_path / "other" / "pairs")
    both = Models([models / "pairs", tmp_path / "other" / "pairs", models / "codes"], "cpu")
    assert list(both.entries) == ["pairs", "other/pairs", "codes"]
    with pytest.raises(UsageError, match="no such folder"):
        Models([tmp_path / "missing"], "cpu")
    with pytest.raises(UsageError, match="is no model and no run"):
        Models([tmp_path], "cpu")  # what lies deeper is not looked for


def test_a_model_that_a_run_replaces_is_loaded_again(models: Path, tmp_path: Path) -> None:
    sampler().save(tmp_path / "model")
    found = Models([tmp_path / "model"], "cpu")
    before = found.noise_generator("model")
    sampler().save(tmp_path / "model")
    os.utime(tmp_path / "model" / "config.json", (1, 1))
    assert found.noise_generator("model") is not before


def test_models_of_measurements_are_left_out_with_a_sentence(tmp_path: Path) -> None:
    model = sampler()
    model.save(tmp_path / "colours")
    model.config = model.config.model_copy(update={"range": (0.0, 9.0)})
    model.save(tmp_path / "noise")
    draw_weights(UNetConfig(channels=4, depth=2).resolve(3, 3, 32), out_range=(0.0, 9.0)).save(tmp_path / "translator")
    found = Models([tmp_path], "cpu")
    assert list(found.entries) == ["colours"]
    said = [found.damaged[str(tmp_path / name)] for name in ("noise", "translator")]
    assert "use img2img sample" in said[0] and "use img2img convert" in said[1]


def test_a_damaged_model_does_not_stop_the_others(models: Path, tmp_path: Path) -> None:
    sampler().save(tmp_path / "good")
    sampler().save(tmp_path / "bad")
    (tmp_path / "bad" / "config.json").write_text("{")
    found = Models([tmp_path], "cpu")
    assert list(found.entries) == ["good"] and "damaged" in found.damaged[str(tmp_path / "bad")]


def test_what_nobody_wrote_to_for_an_hour_is_removed(tmp_path: Path) -> None:
    for name in ("old/a", "old/deep/b", "both/old", "both/new", "running/a", "file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "both")
    for path in [*tmp_path.rglob("*")]:
        if path.name != "new":
            os.utime(path, (time.time() - 5000,) * 2, follow_symlinks=False)
    remove_old(tmp_path, 3600, frozenset([tmp_path / "running"]))
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["both/new", "both/old", "running/a"]  # a job's files stay as long as one of them is new


def test_the_private_folder_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = make_private_folder()
    assert first.stat().st_mode & 0o077 == 0
    dead = first.with_name(first.name.replace(f"-{os.getpid()}-", "-999999999-"))
    first.rename(dead)
    second = make_private_folder()
    assert not dead.exists() and make_private_folder() != second and second.exists()


def test_a_job_that_is_stopped_keeps_what_is_done(models: Path, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "private", Limits())
    jobs.folder.mkdir()
    app = App(Models([models / "pairs"], "cpu"), jobs)
    for number in range(3):  # of several sizes, so that none shares a batch
        write_image(tmp_path / "in" / f"{number}.png", picture(16 + number, 16, 3))
    request, other = SimpleNamespace(session_hash="me"), SimpleNamespace(session_hash="you")
    shown: list[str] = []
    try:
        with (
            pytest.raises(Stopped) as caught,
            jobs.run(request, lambda share, desc: shown.append(desc)) as (folder, watch),
        ):

            def stop_at_two(done: float, total: int) -> None:
                jobs.stop(other if done < 2 else request)
                watch(done, total)

            options: Any = {"format": None, "size": None, "mode": None, "seed": 0}
            run_conversion(app, app.models.translator("pairs"), tmp_path / "in", folder / "out", options, stop_at_two)
        report = caught.value.report
        assert 2 <= report.count("done") <= 3 and "0 of 3 images" in shown
        assert len(list((folder / "out").iterdir())) >= 2
        with pytest.raises(RuntimeError), jobs.run(request, lambda share, desc: None):
            raise RuntimeError
        jobs.stop(request)  # nothing runs any more
        assert not jobs._stops and not jobs._running
    finally:
        jobs.close()
    assert not jobs.folder.exists()


def test_errors_are_sentences_without_the_server_s_folders() -> None:
    import gradio

    @in_words
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(gradio.Error) as caught:
        fail(UserError("/tmp/img2img-serve-host-7-abc/job-x/a b.png is damaged"))
    assert "img2img-serve" not in str(caught.value) and "a b.png is damaged" in str(caught.value)
    with pytest.raises(gradio.Error, match="should not have: KeyError") as caught:
        fail(KeyError("/secret"))
    assert "secret" not in str(caught.value)
    for said, shown in (
        ("x: /tmp/img2img-serve-h-1-a/b/c.png, y", "x: c.png, y"),
        ("'/models/a/config.json' is damaged", "'config.json' is damaged"),
        ("give AtoB and/or https://host/a/b", "give AtoB and/or https://host/a/b"),
    ):
        assert hide_folders(said) == shown


def test_who_may_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMG2IMG_PASSWORD", raising=False)
    for host in ("127.0.0.1", "localhost", "::1"):
        assert find_login(host, None) is None
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.com"):
        with pytest.raises(UsageError, match="--auth USER"):
            find_login(host, None)
    with pytest.raises(UsageError, match="IMG2IMG_PASSWORD"):
        find_login("0.0.0.0", "me")
    monkeypatch.setenv("IMG2IMG_PASSWORD", "secret")
    assert find_login("0.0.0.0", "me") == ("me", "secret")


def test_styles_and_numbers() -> None:
    given: dict[str | None, Any] = {
        None: None,
        "": None,
        "3": 3,
        "night": "night",
        "sky=1, car=2": {"sky": 1, "car": 2},
    }
    for text, style in given.items():
        assert choose_style(text) == style
    with pytest.raises(UsageError, match="CLASS=NUMBER"):
        choose_style("sky=blue")
    assert whole_number(4.0, "x") == 4
    for wrong in (None, 1.5, -1):
        with pytest.raises(UsageError, match="whole number"):
            whole_number(wrong, "x")


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_nobody_sent_is_not_blamed_on_the_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrapped: bool
) -> None:
    import gradio

    function = SimpleNamespace(api_visibility="private", api_name="paint", inputs=[])

    async def fail(*_: Any) -> None:
        full = OSError(errno.ENOSPC, "No space left on device")
        if wrapped:
            raise ValueError("a component") from full
        raise full

    monkeypatch.setattr(gradio.Blocks, "preprocess_data", fail)
    with pytest.raises(gradio.Error, match="This failed, and should not have") as caught:
        asyncio.run(Page().preprocess_data(function))
    assert not caught.value.print_exception and "No space left" in capsys.readouterr().err

    async def refuse(*_: Any) -> None:
        raise ValueError("what Gradio says to itself")

    monkeypatch.setattr(gradio.Blocks, "preprocess_data", refuse)
    with pytest.raises(gradio.Error, match="don't fit; load the page again"):
        asyncio.run(Page().preprocess_data(function))
    assert not capsys.readouterr().err


def test_only_images_of_the_sheet_are_chosen() -> None:
    import gradio

    explore = SimpleNamespace(app=SimpleNamespace(models=SimpleNamespace(noise_generator=lambda name: None)))
    for place, words in ((2, "choose an image of the sheet"), (1, "should not have")):  # there is no generator here
        with pytest.raises(gradio.Error, match=words):
            Explore.choose(explore, SimpleNamespace(place=place), "noise", [Sheet(count=2).pack()], None)  # type: ignore[arg-type]
