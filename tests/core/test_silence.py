"""Nothing is told to the makers of libraries."""

import os
import subprocess
import sys
from pathlib import Path

from img2img.interop.onnx import export_onnx
from img2img.models import Translator

SCRIPT = """
import sys
import img2img

img2img.load(sys.argv[1])(__import__("numpy").zeros((32, 32, 3), "uint8"))
"""


def test_onnxruntime_makes_no_notes_for_its_makers(trained: Path, tmp_path: Path) -> None:
    """With its reports on, it numbers the device and keeps what it will send below the home folder."""
    export_onnx(Translator.load(trained), tmp_path / "model.onnx")
    home = tmp_path / "home"
    home.mkdir()
    given = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    given |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "model.onnx")], check=True, cwd=tmp_path, env=given)
    assert not [file for file in home.rglob("*") if "onnxruntime" in str(file)]
