"""A log that can't be written: the run's own stops it with a sentence, TensorBoard's doesn't."""

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking
from helpers.configs import tiny_config

from img2img.core.errors import UsageError, UserError
from img2img.training import trackers as room
from img2img.training.checkpoint import find_checkpoints
from img2img.training.run_folder import load_run_config
from img2img.training.trackers import TensorBoard
from img2img.training.train import train


def fail(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_goes_on_without_tensorboard(
    pairs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    heard: list[Any] = []
    monkeypatch.setattr(RecordWriter, "write", fail)
    monkeypatch.setattr(threading, "excepthook", heard.append)
    run = train(tiny_config(pairs, tmp_path / "run"))
    said = capfd.readouterr().err
    assert said.count("TensorBoard's log can't be written (No space left on device)") == 1
    assert "Traceback" not in said and len((run / "log.jsonl").read_text().splitlines()) >= 4
    assert find_checkpoints(run / "checkpoints")
    assert threading.excepthook == heard.append and not heard, "which would print the thread's traceback"


def test_it_is_said_once_and_threads_of_others_are_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    said: list[str] = []
    monkeypatch.setattr(threading, "excepthook", heard.append)
    log = TensorBoard(tmp_path, 0, said.append)
    monkeypatch.setattr(log.writer, "add_scalar", fail)
    for _ in range(3):
        log.log_scalars({"loss": 1.0}, 1)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    log.close()
    assert len(said) == 1 and [event.exc_type for event in heard] == [ZeroDivisionError]


def test_names_of_domains_are_made_such_that_trackers_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, float] = {}

    class Picky:
        def start(self) -> None: ...

        def store_init_configuration(self, settings: Any) -> None: ...

        def log(self, values: dict[str, float], update: int) -> None:
            seen.update(values)

    monkeypatch.setattr(room, "_build", lambda name, folder: Picky())
    tracker = room.AccelerateTracker("mlflow", tmp_path, {}, print)
    tracker.log_scalars({"val/kid of T1+c (ä)": 1.0, "val/kid": 2.0, "D/r-1_2.x:": 3.0}, 1)
    assert seen == {"val/kid of T1_c ___": 1.0, "val/kid": 2.0, "D/r-1_2.x:": 3.0}


def test_a_run_goes_on_without_the_folder_of_tensorboard(
    pairs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    config = tiny_config(pairs, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.tensorboard.SummaryWriter.__init__", fail)
        train(config)
    assert capfd.readouterr().err.count("the run goes on without") == 1


def test_a_full_disk_stops_a_run_with_a_sentence_and_it_can_be_resumed(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from img2img.training.logging import RunLog

    init = RunLog.__init__

    class Full:
        name = str(tmp_path / "run" / "log.jsonl")
        write = close = staticmethod(fail)

    def full(self: Any, *given: Any) -> None:
        init(self, *given)
        self.file.close()
        self.file = Full()

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "__init__", full)
        with pytest.raises(UserError, match=r"log\.jsonl can't be written: No space left on device"):
            train(tiny_config(pairs, tmp_path / "run"), quiet=True)
    run = train(resume=tmp_path / "run", quiet=True)
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"] == 4


def test_a_log_that_cannot_be_opened_is_a_sentence(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def refuse(self: Path, mode: str = "r", *given: Any, **named: Any) -> Any:
        return fail() if self.name == "log.jsonl" and mode == "a" else opened(self, mode, *given, **named)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"log\.jsonl can't be written: No space left on device"):
        train(tiny_config(pairs, tmp_path / "run"), quiet=True)


class FakeTracker:
    """What Accelerate's trackers have in common."""

    def __init__(self, project: str, **options: Any) -> None:
        self.project, self.options = project, options
        self.started: list[Any] = []
        self.settings: dict[str, str] = {}
        self.lines: list[tuple[dict[str, float], int]] = []
        self.pictures: list[tuple[dict[str, Any], int]] = []
        self.finished = 0

    def start(self) -> None:
        self.started.append(self)

    def store_init_configuration(self, values: dict[str, str]) -> None:
        self.settings = values

    def log(self, values: dict[str, float], step: int) -> None:
        self.lines.append((values, step))

    def log_images(self, values: dict[str, Any], step: int) -> None:
        self.pictures.append((values, step))

    def finish(self) -> None:
        self.finished += 1


def test_trackers_are_told_all(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeTracker] = []

    def build(project: str, **options: Any) -> FakeTracker:
        made.append(FakeTracker(project, **options))
        return made[-1]

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", build)
    monkeypatch.setattr(room, "find_spec", lambda name: object())
    run = train(
        tiny_config(pairs, tmp_path / "run", steps=4, log_every=2, validate_every=4, trackers=("wandb",)), quiet=True
    )
    train(load_run_config(run).model_copy(update={"steps": 6}), resume=run, quiet=True)
    first, second = made
    assert not (run / "tensorboard").exists(), "which nobody asked for"
    assert first.settings["generator.channels"] == "4" and first.settings["steps"] == "4"
    assert (
        [step for _, step in first.lines] == [2, 4, 4] and "G/l1" in first.lines[0][0] and "val/l1" in first.lines[2][0]
    )
    [(picture, step)] = first.pictures
    assert step == 4 and picture["samples"][0].shape[2] == 3
    assert first.finished == second.finished == 1
    assert first.options["id"] == second.options["id"] and first.options["name"] == "run", (
        "a resumed run is the same one"
    )


@pytest.mark.parametrize("method", ["start", "log", "log_images", "finish"])
def test_a_tracker_that_fails_stops_nothing(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], method: str
) -> None:
    class Failing(FakeTracker):
        pass

    def refuse(*_: Any) -> None:
        raise ConnectionError("nobody is there\nand more")

    setattr(Failing, method, refuse)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mlflow", Failing)
    monkeypatch.setattr(room, "find_spec", lambda name: object())
    run = train(tiny_config(pairs, tmp_path / "run", trackers=("mlflow", "tensorboard")))
    said = capfd.readouterr().err
    assert said.count("Warning: mlflow fails (nobody is there); the run goes on without.") == 1
    assert "Traceback" not in said and (run / "latest").is_dir() and (run / "tensorboard").is_dir()


def test_a_tracker_that_is_not_installed_is_said_first(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install comet-ml"):
        train(tiny_config(pairs, tmp_path / "run", trackers=("comet_ml",)))
    assert not (tmp_path / "run").exists()
