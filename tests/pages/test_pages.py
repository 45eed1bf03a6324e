"""Pages are one file each, hold what they should, and never stop what they are about."""

import html
import json
import math
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import tiny_config
from helpers.data import picture

from img2img.cli import main
from img2img.core.errors import UserError
from img2img.images import write_image
from img2img.pages import gallery
from img2img.pages import run as room
from img2img.pages.curves import POINTS, draw_curve, explain, find_best, read_log
from img2img.pages.gallery import Gallery, draw_difference
from img2img.pages.render import embed_array, embed_scaled
from img2img.pages.run import read_strips, render_run
from img2img.training import train as training
from img2img.training.page import describe_saved_run
from img2img.training.train import train


def addresses(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="(?!data:)', page) + re.findall(r"https?://(?!www.w3.org)", page)


def test_a_run_has_a_page(pairs: Path, tmp_path: Path) -> None:
    run = train(tiny_config(pairs, tmp_path / "a <b> run", steps=4, validate_every=2, log_every=1), quiet=True)
    page = (run / "index.html").read_text()
    assert not addresses(page)
    assert page.count("data:image/png;base64,") == 2, "a picture for each validation"
    assert page.count("<svg") == len(read_log(run / "log.jsonl").curves) and "val/psnr" in page and "G/l1" in page
    assert "<b> run" not in page and "a &lt;b&gt; run" in page, "names can't write HTML"
    assert "update 4 of 4, finished" in page and "img2img convert SOURCE TARGET" in page
    settings = re.findall(r"<code>--([^<]+)</code>", page)
    assert {"steps 4", "generator.channels 4", "size 16", f"data {pairs}"} <= set(settings)
    assert not any(option.startswith(("lr ", "data.size", "data.path")) for option in settings)
    [command] = re.findall(r"img2img convert SOURCE TARGET --model ([^\n<]*)", page)
    assert shlex.split(html.unescape(command)) == [str(run)]


def test_it_is_rewritten_at_each_validation_and_can_fail(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    failure: list[Exception] = [UserError("the disk is full."), KeyError("x")]

    def look(folder: Path, page: room.RunPage) -> None:
        seen.append(next(value for name, value in page.facts if name == "state").partition(",")[0])
        if len(seen) > 4:
            raise failure[0]

    monkeypatch.setattr(training, "write_run_page", look)
    for words in ("the disk is full.", "KeyError"):
        seen.clear()
        run = train(tiny_config(pairs, tmp_path / words, steps=8, validate_every=2))
        assert seen == [f"update {update} of 8" for update in (0, 2, 4, 6, 8)], "and no more after a failure"
        assert capsys.readouterr().err.count(f"the run's page can't be written: {words}") == 1
        assert (run / "latest").is_dir() and not (run / "index.html").exists()
        failure.pop(0)


def test_of_many_pictures_some_are_shown(tmp_path: Path) -> None:
    for number in range(60):
        for direction in ("AtoB", "BtoA"):
            write_image(tmp_path / f"{number:08d}-{direction}.png", picture(8, 8, seed=number))
    write_image(tmp_path / "00000060-AtoB.png", picture(8, 8))  # of before the run was stopped
    (tmp_path / "00000059-AtoB.png").write_bytes(b"half a pict")
    (tmp_path / "other.png").write_bytes(b"no picture of ours")
    strips = read_strips(tmp_path, 59)
    assert list(strips) == ["AtoB", "BtoA"]
    assert [frame.update for frame in strips["BtoA"]][::23] == [0, 59] and len(strips["BtoA"]) == room.PICTURES
    assert len(strips["AtoB"]) == room.PICTURES - 1, "one that can't be read is left out"


def test_logs_are_read_while_they_are_written(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "G/l1": 2.0, "epoch": 0.1},
        {"step": 2, "warning": "look"},
        {"step": 3, "val/l1": None, "G/l1": 1.0},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 4, "G/')
    log = read_log(tmp_path / "log.jsonl")
    assert log.curves == {"G/l1": [(1, 2.0), (3, 1.0)]} and log.warnings == [(2, "look")]
    assert not read_log(tmp_path / "none.jsonl").curves


def test_curves() -> None:
    curve = draw_curve("val/AtoB/psnr", [(0, 10.0), (50, 30.0), (100, 20.0)])
    assert (curve.low, curve.high, curve.last, curve.last_update) == (10.0, 30.0, 20.0, 100) and "dB" in curve.meaning
    places = [tuple(map(float, place.split(","))) for place in curve.line.split()]
    assert places[1][1] < places[2][1] < places[0][1], "high values are at the top"
    assert find_best("val/AtoB/psnr", [(1, 3.0), (2, 5.0)]) == (2, 5.0)
    assert find_best("val/kid", [(1, 3.0), (2, 5.0)]) == (1, 3.0)
    first, second = draw_curve("val/l1", [(500, 0.1)]).line.split()
    assert first == second, "a dot"
    assert "nan" not in draw_curve("G/l1", [(1, 1.0), (2, math.inf), (3, 2.0)]).line
    long = draw_curve("G/l1", [(update, float(update % 2)) for update in range(100_000)])
    assert len(long.line.split()) <= POINTS and long.last == 1.0 and long.low == pytest.approx(0.5, abs=0.01)


def test_every_curve_of_the_methods_is_explained(trained: Path) -> None:
    names = [
        *read_log(trained / "log.jsonl").curves,
        "G/AtoB_gradient",
        "D/B_accuracy",
        "G/A_cycle",
        "val/AtoB/kid",
        "D/r1",
    ]
    assert all(explain(name) for name in names), [name for name in names if not explain(name)]


def test_pictures_of_any_kind_are_shown(tmp_path: Path) -> None:
    for channels in (1, 2, 3, 4, 6):
        for dtype in (np.uint8, np.uint16):
            assert embed_array(picture(20, 30, channels, dtype=dtype), 16).startswith("data:image/png;base64,")
    assert embed_array(picture(400, 900), 800).startswith("data:image/jpeg;base64,")
    assert embed_scaled(tmp_path / "none.png", 10) == ""


def test_a_gallery_goes_from_worst_to_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "WORST", 4)
    monkeypatch.setattr(gallery, "BEST", 2)
    made = Gallery()
    target = picture(16, 16)
    for number in range(20):
        image = np.clip(target.astype(int) + 5 * number, 0, 255).astype(np.uint8)
        made.add(
            "mine <1>",
            f"{number:02d}",
            target,
            image,
            target,
            {"perceptual": float(number), "psnr": math.inf, "ssim": math.nan},
        )
    made.add("other", "19", target, target, target, {"perceptual": 0.0})
    made.add("other", "07", target, target, target, {"perceptual": 0.0})
    rows = {"mine <1>": {"perceptual": 9.5}, "other": {"perceptual": 0.0}}
    made.write(tmp_path / "page.html", rows, "20 images")
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r'data-name="(\d+)"', page) == ["19", "18", "17", "16", "01", "00"]
    assert not addresses(page) and "<1>" not in page.replace("\\u003c1>", "") and "6 of 20 images" in page
    scores = [json.loads(html.unescape(text)) for text in re.findall(r'data-scores="([^"]*)"', page)]
    assert scores[0] == {"mine <1>": {"perceptual": 19.0, "psnr": 1e6}, "other": {"perceptual": 0.0}}, (
        "no NaN, no infinity"
    )
    assert "psnr ∞" in page
    assert sum(map(int, re.findall(r": (\d+) images</title>", page))) == 20


def test_without_scores_the_first_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "WORST", 2)
    monkeypatch.setattr(gallery, "BEST", 1)
    made = Gallery()
    for number in range(9):
        made.add("translation", f"caf\udce9-{number}", picture(8, 8), picture(8, 8), None, None)
    made.write(tmp_path / "page.html", {"translation": {"kid": 0.1}}, "9 images")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<figure class=") == 3 and "3 of 9 images.<" in page and 'alt="target"' not in page


def test_differences_are_bright(tmp_path: Path) -> None:
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 1), 65535, np.uint16)
    equal, apart = draw_difference(black, black), draw_difference(black, white)
    assert equal.sum() < apart.sum() and (apart[0, 0] == [253, 231, 37]).all(), "viridis: yellow is most"


def test_commands_write_pages(trained: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, sheet = tmp_path / "e.html", tmp_path / "c.html"
    run, other = str(trained), str(trained / "latest")
    arguments = [
        "evaluate",
        "--model",
        run,
        other,
        "--data",
        str(pairs),
        "--page",
        str(page),
        "--json",
        str(tmp_path / "e.json"),
    ]
    assert main(arguments) == 0
    text = page.read_text()
    values = json.loads((tmp_path / "e.json").read_text())["models"]
    count = values[run]["count"]
    assert text.count('<figure class="triple"') == count and text.count('class="map"') == 2 * count
    assert list(values) == [run, other] and f"<td>{run}<" in text and f"<td>{other}<" in text
    assert main(["evaluate", str(pairs / "valA"), str(pairs / "valB"), "--page", str(page)]) == 0
    assert page.read_text().count('alt="source"') == 0
    bad = tmp_path / "in" / "bad.png"
    write_image(tmp_path / "in" / "good.png", picture(20, 24))
    bad.write_bytes(b"no image")
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--model", run, "--page", str(sheet)]) == 1
    text = sheet.read_text()
    assert text.count("<img") == 2 and "1 converted" in text and "bad.png" in text and not addresses(text)
    assert main(["evaluate", "--model", run, "--data", str(pairs), "--page", str(tmp_path / "in" / "good.png")]) == 2
    again = ["convert", str(tmp_path / "in"), str(tmp_path / "out2"), "--model", run]
    assert main([*again, "--page", str(tmp_path / "in" / "good.png")]) == 2, "only a page may be replaced"
    assert main([*again, "--page", str(sheet), "--report", str(sheet)]) == 2
    assert not (tmp_path / "out2").exists()


def test_a_run_whose_settings_are_unknown_still_shows_its_log(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    with (tmp_path / "run" / "config.yaml").open("a") as file:
        file.write("gone: 1\n")
    page = describe_saved_run(tmp_path / "run")
    assert page.facts[0][0] == "settings" and "gone" in page.facts[0][1] and page.update > 0
    assert "<svg" in render_run(tmp_path / "run", page)
    assert "pix2pix" in render_run(trained, describe_saved_run(trained))
