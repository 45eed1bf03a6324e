"""A log that can't be written: the run's own stops it with a sentence, TensorBoard's doesn't."""

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers.configs import tiny_config

from img2img.core.errors import UserError
from img2img.training.checkpoint import find_checkpoints
from img2img.training.logging import _TensorBoard
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
    log = _TensorBoard(tmp_path, 0, said.append)
    monkeypatch.setattr(log.writer, "add_scalar", fail)
    for _ in range(3):
        log.add("scalar", "loss", 1.0, 1)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    log.close()
    assert len(said) == 1 and [event.exc_type for event in heard] == [ZeroDivisionError]


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
