"""How one of several processes ends."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import atexit, sys
import torch.distributed
from img2img.core.processes import exit_process
if sys.argv[1]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
atexit.register(print, "cleaned up")
print("said", end="")
exit_process(3)
"""


def end(store: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, store], stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout.splitlines()[-1]


def test_one_of_several_processes_ends_before_the_interpreter_cleans_up(tmp_path: Path) -> None:
    """Cleaning up races with gloo's threads: one run in six was aborted after its work was done."""
    assert end(str(tmp_path / "store")) == (3, "said")


def test_a_single_process_ends_as_usual() -> None:
    assert end("") == (3, "saidcleaned up")
