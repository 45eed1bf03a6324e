"""The tools that look into what a run leaves know its files."""

import runpy
from pathlib import Path

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
