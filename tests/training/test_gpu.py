"""A GPU's point of view, without a GPU: see helpers/fake_cuda.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import fake_cuda

HELPERS = Path(fake_cuda.__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or torch.version.cuda is None, reason="this PyTorch knows no CUDA"),
    pytest.mark.skipif(not COMPILER, reason="there is no C compiler"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU"),
]
OPERATIONS = {
    "pix2pix": 243,
    "pix2pix, projected": 2227,
    "pix2pix, penalties": 2782,
    "cyclegan": 663,
    "cyclegan, wasserstein": 1283,
    "cut": 1637,
    "fastcut": 864,
    "unsb": 2951,
    "pix2pixhd": 1466,
    "spade": 2215,
    "stargan": 292,
    "gan": 271,
    "gan, biggan": 3043,
    "gan, progressive": 783,
    "infogan": 404,
    "lapgan": 700,
    "stylegan2": 3844,
}
"""Of an update in bf16 with PyTorch 2.14, views not counted: on a GPU, small batches take as long as these do to be launched."""
GROWTH = 1.1  # another PyTorch may divide an operation in two
INSTANCES = "lowest, highest"  # whose number decides on the size of a tensor


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-w", str(HELPERS / "fake_cuda.c"), "-o", str(made)], check=True)
    return made


def run(library: Path, cases: list[str]) -> dict[str, Any]:
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": str(library.parent),
        "OMP_NUM_THREADS": "1",
    }
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": "0"}
    found: dict[str, Any] = {}
    for _ in range(3):  # now and then PyTorch corrupts its heap as it frees graphs on a device that isn't there
        script = [
            sys.executable,
            "-W",
            "ignore",
            str(HELPERS / "fake_cuda.py"),
            *(case for case in cases if case not in found),
        ]
        done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=300)
        found |= {case.pop("case"): case for case in map(json.loads, done.stdout.splitlines())}
        if done.returncode >= 0:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.mark.parametrize("part", range(2))
def test_every_method_trains_without_needless_operations_copies_and_waits(library: Path, part: int) -> None:
    names = list(fake_cuda.CASES)[part::2]
    found = run(library, [f"train/{name}/bf16" for name in names])
    for name in names:
        case = found[f"train/{name}/bf16"]
        assert "error" not in case, f"{name}: {case['error']}"
        assert case["half"] > 0, f"{name}: nothing is computed in bf16"
        assert case["operations"] <= GROWTH * OPERATIONS[name], f"{name} has {case['operations']} operations"
        assert all("move(value" in line for line in case["copies"]), (
            f"{name} copies more than its batch: {case['copies']}"
        )
        assert all(INSTANCES in line for line in case["waits"]), f"{name} waits for the GPU: {case['waits']}"


def test_other_precisions_train_and_networks_translate(library: Path) -> None:
    """In one process, which takes seconds to start. Bytes that go to a GPU and come back are a quarter of what floats are."""
    trained = ["train/pix2pix/fp16", "train/pix2pix/no", "train/spade/fp16"]
    called = ["call/resnet/bf16", "call/unet/no"]
    converted = [f"convert/{name}/{precision}" for name in fake_cuda.TRANSLATORS for precision in ("bf16", "no")]
    found = run(library, [*trained, *called, *converted])
    for name in trained:
        assert "error" not in found[name], f"{name}: {found[name]['error']}"
        assert (found[name]["half"] > 0) == name.endswith("fp16"), name
    numbers = 2 * 3 * 64 * 48
    moved = {"torch.uint8 to cuda": numbers, "torch.uint8 to cpu": numbers}
    for name in called:
        assert found[name] == {"moved": moved, "waits": {}}, f"{name}: {found[name]}"
    for name in converted:  # whole, and in strips
        assert found[name] == {"tile 0": "cuda:0", "tile 64": "cpu"}, f"{name}: {found[name]}"
