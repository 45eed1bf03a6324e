"""The tools that look into what a run leaves know its files."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from img2img.training.checkpoint import find_checkpoints

TOOLS = Path(__file__).parent.parent / "tools"


def test_kill_resume_compares_all_of_a_checkpoint(trained: Path) -> None:
    tool = runpy.run_path(str(TOOLS / "kill_resume.py"))
    (checkpoint,) = find_checkpoints(trained / "checkpoints")
    found = tool["_tensors"](checkpoint)
    assert {"diagnostics", "random.0", "D.0.exp_avg"} <= found.keys()
    assert {name for name in found if name.startswith("generator.")} and tool["_differences"](
        checkpoint, checkpoint
    ) == []


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=TOOLS.parent, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc")
def test_a_sample_of_injected_faults_loses_nothing() -> None:
    """The whole is thousands of faults: python tools/inject_faults.py."""
    assert "Nothing was lost." in run("tools/inject_faults.py", "train", "import", "shards", "--every", "197")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
def test_a_sample_of_damaged_files_ends_with_a_result_or_a_sentence() -> None:
    """The whole is a million files: python tools/fuzz.py --count 150000."""
    assert "0 findings" in run("tools/fuzz.py", "--count", "40")


def test_the_list_of_mutations_fits_the_code_and_the_tool_sees_them_caught(tmp_path: Path) -> None:
    tool = runpy.run_path(str(TOOLS / "mutate.py"), run_name="mutate")
    for mutant in tool["read_mutants"]("", 0, 0):  # every line that is to be changed is there once
        compile(mutant.text, mutant.file, "exec")
        assert all((TOOLS.parent / test.partition("::")[0]).exists() for test in mutant.tests)
    said = run("tools/mutate.py", "--only", "data/sampler", "--jobs", "1", "--results", str(tmp_path / "results"))
    assert "4 of 4 changes were caught." in said
