"""Tiny data and settings that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.configs import tiny_config
from helpers.data import write_classes, write_labelled, write_pairs, write_unpaired
from helpers.forked import stop_forked

torch.set_num_threads(1)  # tiny tensors: a second thread only waits for the first


CRASHED: set[str] = set()
"""Tests whose worker died."""


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport, sched: Any) -> None:
    """Runs a test once more whose worker died, and names it in the end.

    In about every second run one did. The cause that was found, two OpenVINO cores in one process, is gone.
    """
    if crashitem not in CRASHED:
        CRASHED.add(crashitem)
        sched.mark_test_pending(crashitem)
        report.outcome = "rerun"  # type: ignore[assignment]


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Shows such tests."""
    return ("rerun after its worker died", "C", "CRASHED") if report.outcome == "rerun" else None  # type: ignore[comparison-overlap]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names them: a worker that dies is a finding."""
    for test in sorted(CRASHED):
        terminalreporter.line(f"The worker died in {test}.", red=True)


LONG = ("test_cluster.py", "test_tools.py", "test_gpu.py", "test_killed.py", "test_docs.py", "test_server.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take longest come first, so that in the end no worker waits for another's."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is known of files goes into a cache of the tests' own; commands that they start inherit it."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def no_process_stays() -> Iterator[None]:
    """Else Python would wait for it at its end."""
    yield
    stop_forked()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Six training and two validation pairs of 16×16 pixels."""
    folder = write_pairs(tmp_path / "pairs", 6)
    return write_pairs(folder, 2, split="val", first=6)


@pytest.fixture
def unpaired(tmp_path: Path) -> Path:
    """Five and four unpaired training images of 16×16 pixels, and four test pairs."""
    folder = write_unpaired(tmp_path / "unpaired")
    return write_pairs(folder, 4, split="test", first=200)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Six label maps with instances and images of 32×32 pixels, and two for validation."""
    return write_labelled(write_labelled(tmp_path / "labelled", 6, 32), 2, 32, split="val", first=6)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Twelve gray training images of 32×32 pixels in two classes, and twelve for validation."""
    return write_classes(write_classes(tmp_path / "classes"), split="val")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run."""
    from img2img.training.train import train

    root = tmp_path_factory.mktemp("trained")
    data = write_pairs(write_pairs(root / "pairs", 4), 2, split="val", first=4)
    return train(tiny_config(data, root / "run", ema=0.5), quiet=True)
