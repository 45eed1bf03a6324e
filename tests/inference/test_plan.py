"""Which files are converted, under which names."""

import json
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from helpers.data import picture
from helpers.identity import identity

import img2img
from img2img.core.errors import UsageError
from img2img.core.processes import ProcessRank
from img2img.images import read_image, write_image
from img2img.inference.plan import Job, Plan, divide_jobs, read_list
from img2img.inference.report import Outcome, OutcomeFile, Report


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def planned(folder: Path, suffix: str | None = None, listed: list[str] | None = None) -> tuple[dict[str, str], Report]:
    refused: list[Outcome] = []
    plan = Plan(folder / "in", folder / "out", suffix, listed)
    jobs = list(plan.jobs(lambda number, outcome: refused.append(outcome)))
    report = Report(refused, plan.ignored)
    assert len({job.target for job in jobs}) == len(jobs)
    return {str(j.source.relative_to(folder / "in")): str(j.target.relative_to(folder / "out")) for j in jobs}, report


def test_two_inputs_that_would_land_on_one_name_are_both_kept(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.bmp", "a.jpg", "a.jpg.png", "A.JPG", "b.png", "sub/a.jpg")
    names, _ = planned(tmp_path, ".png")
    assert names == {
        "A.JPG": "A.png",
        "a.bmp": "a.bmp.png",
        "a.jpg": "a.jpg.png.png",
        "a.jpg.png": "a.jpg.png",
        "b.png": "b.png",
        "sub/a.jpg": "sub/a.png",
    }
    assert planned(tmp_path)[0] == {name: name for name in names}


def test_another_name_is_told(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.bmp", picture(8, 8, seed=1))
    write_image(tmp_path / "in" / "a.jpg", picture(8, 8, seed=2))
    report = img2img.convert(identity(), tmp_path / "in", tmp_path / "out", format="png")
    assert [Path(outcome.target).name for outcome in report.outcomes] == ["a.bmp.png", "a.jpg.png"]
    lines = report.remarks()
    assert len(lines) == 2 and "a.jpg: written as a.jpg.png, for others would be a.png, too" in lines[1]


def test_who_has_the_suffix_keeps_its_name(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "a.png")
    assert planned(tmp_path, ".png")[0] == {"a.png": "a.png", "a.jpg": "a.jpg.png"}


def test_links_and_what_is_no_file(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/sub/b.png", "outside/c.png")
    (tmp_path / "in" / "inner.png").symlink_to("a.png")
    (tmp_path / "in" / "outer.png").symlink_to(tmp_path / "outside" / "c.png")
    (tmp_path / "in" / "nowhere.png").symlink_to("gone.png")
    (tmp_path / "in" / "ring.png").symlink_to("ring.png")
    (tmp_path / "in" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "round").symlink_to("round")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    names, report = planned(tmp_path)
    assert set(names) == {"a.png", "inner.png", "sub/b.png"}
    assert {Path(outcome.source).name: outcome.status for outcome in report.outcomes} == {
        "outer.png": "skipped",
        "nowhere.png": "failed",
        "ring.png": "failed",
        "up": "skipped",
        "pipe.png": "failed",
    }
    assert report.ignored == {"without a suffix": 1}, "a link to itself, of no image's name"


def test_a_folder_of_links_alone_is_explained(tmp_path: Path) -> None:
    touch(tmp_path, "outside/c.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "c.png").symlink_to(tmp_path / "outside" / "c.png")
    with pytest.raises(UsageError, match=r"links \(there are 1\) are not followed; give the folder"):
        planned(tmp_path)


def test_names_of_every_kind_are_converted(tmp_path: Path) -> None:
    names = [
        "with space.PNG",
        "-n.png",
        "ü漢字.png",
        "n" * 246 + ".png",
        "two\nlines.png",
        "'quote\".png",
        "no\udcffutf.png",
    ]
    for name in names:
        write_image(tmp_path / "in" / name, picture(8, 8))
    report = img2img.convert(identity(), tmp_path / "in", tmp_path / "out")
    assert report.count("done") == len(names)
    for name in names:
        assert read_image(tmp_path / "out" / name).shape == (8, 8, 3)
    report.write(tmp_path / "report.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert sorted(Path(line["source"]).name for line in lines) == sorted(names)


def test_a_name_that_becomes_too_long_is_one_files_failure(tmp_path: Path) -> None:
    for suffix in (".bmp", ".png"):
        write_image(tmp_path / "in" / ("n" * 251 + suffix), picture(8, 8))
    report = img2img.convert(identity(), tmp_path / "in", tmp_path / "out", format="png")
    assert [outcome.status for outcome in report.outcomes] == ["failed", "done"]
    assert "too long" in report.failures[0].reason


def test_shares_are_complete_and_disjoint(tmp_path: Path) -> None:
    jobs = [Job(number, tmp_path / str(number), tmp_path) for number in range(11)]
    for most, lengths in ((64, [4, 4, 3]), (2, [2, 2, 2, 2, 2, 1])):
        shares = [list(divide_jobs(jobs, most, part, 3)[1]) for part in range(3)]
        lists = [each for share in shares for each in share]
        assert sorted(job.number for each in lists for job in each) == list(range(11))
        assert all(each == jobs[each[0].number : each[-1].number + 1] for each in lists), "they are neighbours"
        assert sorted(map(len, lists), reverse=True) == lengths
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    first, lists_of_all = divide_jobs(iter(jobs), 64, 0, 1)
    assert first == jobs and list(lists_of_all) == [jobs]
    assert list(divide_jobs([], 64, 0, 1)[1]) == [] and ProcessRank().gather(jobs) == jobs


def test_the_first_are_converted_before_all_are_found(tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterator[Job]:
        nonlocal taken
        for number in count():
            taken += 1
            yield Job(number, tmp_path / str(number), tmp_path)

    for part in range(3):
        _, lists = divide_jobs(endless(), 64, part, 3)
        assert [job.number for job in next(lists)] == list(range(64 * part, 64 * part + 64))
    assert taken < 5000


def test_a_list_names_the_inputs_and_nothing_outside(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/b.png", "in/c.txt", "in/s/a.png", "in/s/b.png", "outside/c.png")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "outside" / "c.png")
    (tmp_path / "in" / "door").symlink_to(tmp_path / "outside")
    lines = [
        "s/b.png",
        "b.png",
        "./b.png",
        "s/../b.png",
        "../outside/c.png",
        str(tmp_path / "in" / "s" / "a.png"),
        "/etc/a.png",
        "b.png",
    ]
    names, report = planned(
        tmp_path, listed=[*lines, "link.png", "door/c.png", "c.txt", "gone.png", "n" * 300 + ".png", "a\0/b.png"]
    )
    assert list(names) == ["s/b.png", "s/a.png", "b.png", "gone.png"], "each once, by folders"
    reasons = {Path(each.source).name: each.reason for each in report.outcomes}
    assert {each.status for each in report.outcomes} == {"failed"} and len(report.outcomes) == 7
    assert all("lies outside of" in reasons[name] for name in ("c.png", "a.png", "link.png"))
    assert "no image" in reasons["c.txt"]
    with pytest.raises(UsageError, match="names no files"):
        planned(tmp_path, listed=[])
    with pytest.raises(UsageError, match="is a file"):
        Plan(tmp_path / "in" / "a.png", tmp_path / "out.png", None, ["a.png"])


def test_names_are_read_from_lines(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes("ü.png\r\n\n a b.png \n".encode() + b"no\xffutf.png")
    assert read_list(str(tmp_path / "names")) == ["ü.png", " a b.png ", "no\udcffutf.png"]
    with pytest.raises(UsageError, match="can't be read"):
        read_list(str(tmp_path / "gone"))


def test_the_order_is_that_of_names_folder_by_folder(tmp_path: Path) -> None:
    names = ["b.png", "z.png", "a/b.png", "a/a/c.png", "b/a.png"]
    touch(tmp_path / "in", *reversed(names))
    assert list(planned(tmp_path)[0]) == names
    assert Plan(tmp_path / "in", tmp_path / "out").count() == len(names)


def test_a_target_in_the_source_is_left_out_by_any_name(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/s/out/b.png", "in/s/c.png")
    (tmp_path / "out").symlink_to(tmp_path / "in" / "s" / "out")
    assert list(planned(tmp_path)[0]) == ["a.png", "s/c.png"]


def test_outcomes_in_a_file_are_those_of_a_list(tmp_path: Path) -> None:
    made = [
        Outcome("a.png", "o/a.png", "done", note="ends early", width=3, dtype="fp32"),
        Outcome("b\udcff.png", "", "failed", "two\nlines"),
        Outcome("c.png", "o/c.png", "skipped", "the target exists"),
    ]
    file = OutcomeFile(tmp_path / "report.jsonl.0")
    for number in (2, 0, 1):
        file.add(number, made[number])
        assert len((tmp_path / "report.jsonl.0").read_bytes().splitlines()) == len(file), "written at once"
    assert list(file) == made and [file[n] for n in range(3)] == made and file[-1] == made[2] and file[1:] == made[1:]
    as_list, as_file = Report(made), Report(file)
    assert as_list.remarks() == as_file.remarks() and as_list.summary() == as_file.summary()
    assert as_file.failures == [made[1]]
    as_list.write(tmp_path / "list"), as_file.write(tmp_path / "file")
    assert (tmp_path / "list").read_bytes() == (tmp_path / "file").read_bytes()
    file.add(3, made[0])
    assert file[1] == made[1] and list(file) == [*made, made[0]], "what was read doesn't change where it is written"
    file.remove()
    assert not (tmp_path / "report.jsonl.0").exists() and list(file)[:3] == made
    with pytest.raises(UsageError, match="can't be written"):
        OutcomeFile(tmp_path / "no" / "folder")


def test_outcomes_of_several_processes_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("img2img.inference.report.CHUNK", 2)
    files = [OutcomeFile(), OutcomeFile()]
    made = [Outcome(f"{n}.png", "", "failed" if n % 3 else "done") for n in range(7)]
    for number, outcome in enumerate(made):
        files[number % 2 if number < 4 else 0].add(number, outcome)
    pending: list[Any] = []

    class Both(ProcessRank):
        def gather(self, things: list[Any]) -> list[Any]:
            if things and isinstance(things[0], int):
                return [len(file) for file in files]
            pending.append(things)
            place = 2 * (len(pending) - 1)
            other = [(files[1]._numbers[n], files[1]._line(n)) for n in range(place, min(place + 2, len(files[1])))]
            return [*things, *other]

    together = files[0].gather(Both(0, 2))
    assert list(together) == made and together.counts == {"done": 3, "failed": 4}


def test_what_alike_is_said_once() -> None:
    outcomes = [Outcome(f"{n}.png", "", "failed", "the disk is full") for n in range(30)]
    report = Report([*outcomes, *(Outcome(f"{n}.jpg", "", "failed", f"{n}.jpg is bad") for n in range(30))])
    lines = report.remarks(most=3)
    assert lines[0] == "failed: 0.png, 1.png (+28 more): the disk is full"
    assert lines[1:3] == ["failed: 0.jpg is bad", "failed: 1.jpg is bad"] and "28 more" in lines[3]


@pytest.mark.parametrize("suffix", [".npy", ".gif"])
def test_every_format_can_be_asked_for(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    img2img.convert(identity(), tmp_path / "in", tmp_path / "out", format=suffix)
    assert [file.name for file in (tmp_path / "out").iterdir()] == [f"a{suffix}"]


def test_an_output_never_takes_an_inputs_place(tmp_path: Path) -> None:
    for name in ("x/a.png", "x/x/a.png"):
        write_image(tmp_path / name, picture(8, 8))
    before = (tmp_path / "x" / "a.png").read_bytes()
    report = img2img.convert(identity(), tmp_path / "x", tmp_path, existing="overwrite")
    assert [each.status for each in report.outcomes] == ["done", "failed"]
    assert "would lie in the source folder" in report.failures[0].reason
    assert (tmp_path / "x" / "a.png").read_bytes() == before


def test_hidden_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", ".b.png", ".thumbnails/a.png")
    names, report = planned(tmp_path)
    assert set(names) == {"a.png"} and report.ignored == {"hidden": 2}


def test_a_folder_that_cannot_be_made_fails_its_images_only(tmp_path: Path) -> None:
    for name in ("a.png", "s/b.png"):
        write_image(tmp_path / "in" / name, picture(8, 8))
    touch(tmp_path / "out", "s")
    report = img2img.convert(identity(), tmp_path / "in", tmp_path / "out")
    assert {Path(each.source).name: each.status for each in report.outcomes} == {"a.png": "done", "b.png": "failed"}


def test_names_that_are_too_long_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        img2img.convert(identity(), tmp_path / ("n" * 300 + ".png"), tmp_path / "out")
    write_image(tmp_path / "in" / "a.png", picture(8, 8))
    with pytest.raises(UsageError, match="too long"):
        img2img.convert(identity(), tmp_path / "in", tmp_path / ("n" * 300))


def test_a_name_with_a_dot_keeps_it(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(8, 8))
    img2img.convert(identity(), tmp_path / "a.png", tmp_path / "out.v2", format="png")
    with pytest.raises(UsageError, match=r"b\.jpg is not a name for --format png"):
        img2img.convert(identity(), tmp_path / "a.png", tmp_path / "b.jpg", format="png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out.v2.png"]
