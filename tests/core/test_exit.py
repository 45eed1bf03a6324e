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
torch.distributed.destroy_process_group = lambda: print("left,", end="")
print("said", end=",")
exit_process(int(sys.argv[2]))
"""


def end(store: str, code: int = 3) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, store, str(code)], stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout.splitlines()[-1]


def test_one_of_several_processes_ends_before_the_interpreter_cleans_up(tmp_path: Path) -> None:
    """Cleaning up races with gloo's threads: one run in six was aborted after its work was done."""
    assert end(str(tmp_path / "store"), 130) == (130, "said,left,")


def test_after_a_failure_it_does_not_wait_for_the_others(tmp_path: Path) -> None:
    assert end(str(tmp_path / "store")) == (3, "said,")


def test_a_single_process_ends_as_usual() -> None:
    assert end("") == (3, "said,cleaned up")
