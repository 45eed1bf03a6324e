"""What the machine at hand is good at: device, precision, memory format, allocator. Measured with tools/bench_train.py."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from img2img.core.errors import UsageError

Precision = Literal["auto", "no", "bf16", "fp16"]


def tune_allocator() -> None:
    """Makes glibc keep freed memory instead of handing it back to the system after each use.

    Activations are freed and allocated again at every step; without this each time is paid for in page faults, up to
    half of a training step on a CPU. Called by the commands, not by `import img2img`: it is a choice for the process.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    mallopt(-3, 2**30)  # M_MMAP_THRESHOLD


def release_memory() -> None:
    """Hands back what `tune_allocator` made glibc keep, after something large."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def choose_device(device: str) -> torch.device:
    """``auto`` is the first of CUDA, MPS and CPU that is there.

    Raises:
        UsageError: for a device that this machine doesn't have.
    """
    if device == "auto" and os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1"):
        return torch.device("cpu")  # accelerate launch --cpu
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device {device}: give auto, cpu, cuda, cuda:1 or mps.") from None
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(chosen.type, False):
        raise UsageError(
            f"--device {device}: this machine has no such device for PyTorch; --device auto takes what is there."
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {device}: there are {torch.cuda.device_count()} GPUs, counted from 0.")
    return chosen


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; of a CPU, without swap, and within the container's limit."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for later
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return free if limit == "max" else max(0, min(free, int(limit) - int(used)))
    except (OSError, ValueError):  # no container, or another kind
        return free


@contextmanager
def convolve_exactly(device: torch.device, exactly: bool = True) -> Iterator[None]:
    """Convolutions in fp32 on CUDA are computed in fp32: PyTorch's default there, TF32, keeps 10 bits of each factor."""
    if device.type != "cuda":
        yield
        return
    chosen: Any = getattr(torch.backends.cudnn, "conv", None)  # since PyTorch 2.9
    place, name = (chosen, "fp32_precision") if chosen else (torch.backends.cudnn, "allow_tf32")
    before = getattr(place, name)
    setattr(place, name, ("ieee" if exactly else "tf32") if chosen else not exactly)
    try:
        yield
    finally:
        setattr(place, name, before)


def choose_precision(precision: Precision, device: torch.device) -> Literal["no", "bf16", "fp16"]:
    """``auto`` is bf16 where the device computes in it natively, else fp32 (``no``).

    Raises:
        UsageError: for fp16 on a CPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("--mixed-precision fp16 needs a GPU; use bf16, no or auto.")
    if precision != "auto":
        return precision
    if device.type == "cpu":
        fast = torch.backends.cpu.get_cpu_capability() in ("AVX512", "AVX2") and torch.cpu._is_avx512_bf16_supported()
        return "bf16" if fast else "no"
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "no"
    return "no"
