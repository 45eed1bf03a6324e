"""Conversion on a Ray cluster, of which a machine is lost."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.data import picture

from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.images import read_image, write_image
from img2img.inference.cluster import _blame_older, _collect, _reach, convert_on_ray
from img2img.inference.convert import convert
from img2img.inference.report import Outcome, OutcomeFile, Report

pytest.importorskip("ray", reason="Ray has no wheel for this Python yet")

SCRIPT = """
import sys, threading, time
from contextlib import suppress
from pathlib import Path
import psutil
import ray
from ray.cluster_utils import Cluster
from img2img.inference import cluster as room

room.PARTS = 2
model, source, target, record = map(Path, sys.argv[1:])
quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
node = {"num_cpus": 1, "object_store_memory": 10**8, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": quick})
lost = cluster.add_node(num_cpus=1, object_store_memory=10**8)
ray.init(address=cluster.address, log_to_driver=False)


def lose():
    while len(list(target.rglob("*.png"))) < 9:
        time.sleep(0.02)
    for member in psutil.Process(lost.all_processes["raylet"][0].process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended by itself
            member.kill()
    cluster.remove_node(lost, allow_graceful=False)
    print("lost")


thread = threading.Thread(target=lose)
thread.start()
report = room.convert_on_ray(model, source, target, record=record, device="cpu")
thread.join()
print(report.summary())
print(report.notes)
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(48):
        folder = tmp_path / "photos" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / f"{number}.png", picture(20, 24, seed=number))
    return tmp_path / "photos"


def test_a_machine_that_is_lost_loses_nothing(trained: Path, photos: Path, tmp_path: Path) -> None:
    for attempt in range(3):  # a machine may have done its part before it is lost
        out, record = tmp_path / f"out-{attempt}", tmp_path / f"report-{attempt}.jsonl"
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *map(str, (trained, photos, out, record))],
            capture_output=True, text=True, timeout=300, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert "lost" in done.stdout.split() and "0 failed" in done.stdout
        if "begun again" in done.stdout:
            break
    assert "a part was begun again, for the machine that had it was lost" in done.stdout
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert len({line["source"] for line in lines}) == len(lines) == 48, "nothing is lost, nothing is twice"
    assert {line["status"] for line in lines} <= {"done", "skipped"}
    convert(trained, photos, tmp_path / "here", device="cpu")
    made = sorted(out.rglob("*.*"))
    assert len(made) == 48
    for file in made:
        assert (read_image(file) == read_image(tmp_path / "here" / file.relative_to(out))).all()


def test_mistakes_are_sentences(trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="nowhere does not exist; give an image or a folder"):
        convert_on_ray(trained, tmp_path / "nowhere", tmp_path / "out")
    for address, reason in (("127.0.0.1:9", "refused"), ("nonsense", "nvalid address")):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UsageError, match=f"RAY_ADDRESS={address} can't be reached: .*{reason}"):
            convert_on_ray(trained, photos, tmp_path / "out")


def test_a_part_that_fails_leaves_the_others(tmp_path: Path) -> None:
    done, old = (Outcome("a.png", str(tmp_path / name), "done") for name in ("new", "old"))
    rows = [{"outcomes": [done.line()], "ignored": {"txt": 2}, "notes": ["a"], "classes": None}, {"error": "disk full"}]
    outcomes = OutcomeFile()
    report = Report(outcomes=outcomes)
    _collect((2, iter([{"found": json.dumps(row)} for row in rows])), outcomes, report, False, "photos")
    assert (report.count("done"), report.count("failed"), report.ignored["txt"], report.notes) == (1, 1, 2, ["a"])
    assert "disk full" in report.failures[0].reason and report.failures[0].source == "photos"
    with pytest.raises(UsageError, match="disk full"):
        _collect((1, iter([{"found": json.dumps(rows[1])}])), OutcomeFile(), Report(), False, "photos")
    for path, age in ((old.target, 60), (done.target, 0)):
        Path(path).write_text("")
        os.utime(path, (time.time() - age, time.time() - age))
    mine, foreign = (_blame_older(replace(each, status="skipped"), time.time() - 20) for each in (done, old))
    assert (mine.status, foreign.status) == ("skipped", "failed") and "--overwrite" in foreign.reason


def test_paths_of_machines_that_work_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "facebook").mkdir()
    assert _reach("results/run1") == str(tmp_path / "results" / "run1")
    assert _reach("facebook/model", is_model=True) == "facebook/model"
    assert _reach("facebook", is_model=True) == str(tmp_path / "facebook")
    assert _reach("s3://bucket/photos") == "s3://bucket/photos"


def test_what_excludes_a_cluster(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["convert", str(photos), str(tmp_path / "out"), "--model", str(trained), "--engine-cluster", "ray"]
    assert main([*command, "--shard", "1/2"]) == 2
    assert "--engine-cluster ray divides the inputs itself; leave out --shard" in capsys.readouterr().err
    monkeypatch.setattr("img2img.inference.cluster.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package ray: pip install 'ray\[data\]'"):
        convert_on_ray(trained, photos, tmp_path / "out")
