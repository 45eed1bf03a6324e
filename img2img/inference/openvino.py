"""OpenVINO: a translator's network, compiled in memory for the CPU at hand; in fp32, in bf16, or in int8."""

import copy
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import img2img
from img2img.core.errors import UsageError, UserError
from img2img.images import Array
from img2img.networks.layers import ImageNetwork, InstanceNorm

Precision = Literal["fp32", "bf16"]
LOCK = Lock()
HINTS = {"fp32": "f32", "bf16": "bf16"}
SIDE = 64  # pixels of the image with which the network is traced, or the next size that it takes


def import_openvino() -> Any:
    """The package, without the reports of its use that it would send to its makers.

    Raises:
        UsageError: if it isn't installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it weren't installed
    try:
        import openvino
    except ImportError:
        raise UsageError(
            "--engine openvino and --dtype int8 need the package openvino: pip install 'img2img[openvino]'."
        ) from None
    return openvino


def open_core() -> Any:
    """OpenVINO's core, one from the first use to the end of the process.

    Each core gives the thread that makes it a stack for signals, and takes that away with itself (2026.4). If two end in
    the order in which they were made, or one ends in another thread, the next signal (Ctrl-C) ends the process.
    """
    with LOCK:  # two threads at once would make two
        return _make_core()


@cache
def _make_core() -> Any:
    return import_openvino().Core()


class OpenVinoGenerator(ImageNetwork):
    """A network that OpenVINO computes on the CPU; it takes batches and sizes that the original takes.

    Args:
        network: in fp32 on the CPU, with folded norms, run in evaluation mode.
        precision: of weights and activations that are not in int8.
        model: the network as OpenVINO's model, if it is there already.
    """

    not_saved = "what OpenVINO computes is made anew for each conversion; save the translator that it was made from."

    def __init__(self, network: ImageNetwork, precision: Precision, model: Any = None) -> None:
        super().__init__()
        self.size_multiple, self.min_size = network.size_multiple, network.min_size
        self.model = model or convert_network(network)
        self.compiled = compile_model(self.model, precision, torch.get_num_threads())
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)  # says where it is: on the CPU

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # compiled models can't be copied, and needn't be

    def forward(self, source: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H, W), float32."""
        try:
            return torch.from_numpy(self.compiled(source.float().contiguous().numpy())[0])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"OpenVINO can't compute this (--engine torch can): {reason}") from None


class _PlainInstanceNorm(nn.Module):
    """As PyTorch names it, so that it becomes one step."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.eps = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, eps=self.eps)


def convert_network(network: ImageNetwork) -> Any:
    """A network as a model of OpenVINO, for batches and images of any size.

    Raises:
        UsageError: if it has parts that OpenVINO doesn't know.
    """
    openvino = import_openvino()
    plain = copy.deepcopy(network)
    for parent in plain.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, InstanceNorm):  # whose group norm would become many slow steps
                setattr(parent, name, _PlainInstanceNorm(layer.eps))
    channels = next(layer.weight.shape[1] for layer in network.modules() if isinstance(layer, nn.Conv2d))
    side = max(network.min_size, -(-SIDE // network.size_multiple) * network.size_multiple)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is deprecated in PyTorch, and of sizes that stay variable
            return openvino.convert_model(
                plain, example_input=torch.zeros(1, channels, side, side), input=[-1, channels, -1, -1]
            )
    except Exception as error:  # it has many kinds
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"OpenVINO can't convert this network (--engine torch can compute it): {reason}") from None


@dataclass(frozen=True)
class Quantised:
    """A model whose inner convolutions compute in int8, as far as they can."""

    model: Any
    count: int
    """Convolutions in int8."""
    total: int
    """Convolutions."""
    psnr: float
    """To fp32, in dB, of values in [-1, 1]."""


def quantise(model: Any, sources: Sequence[Array], truths: Sequence[Array], least: float, rest: Precision) -> Quantised:
    """Lets the inner convolutions compute in int8, but for those that would take it too far from fp32.

    Args:
        model: of `convert_network`.
        sources: what the network sees of some images, (1, C, H, W), by which the ranges of values are set.
        truths: what it makes of them in fp32, (1, C', H, W).
        least: PSNR to the truths that it shall have, in dB. If it is below, layers go back one by one, the worst first.
        rest: the precision of all that is not in int8.
    """
    if find_spec("nncf") is None:
        raise UsageError("--dtype int8 needs the package nncf: pip install 'img2img[openvino]'.")
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
        arrays: dict[str, Any] = {f"source{number}": source for number, source in enumerate(sources)}
        arrays |= {f"truth{number}": truth for number, truth in enumerate(truths)}
        np.savez(folder / "images.npz", **arrays)
        paths = os.pathsep.join([str(Path(img2img.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        shown = None if sys.stderr.isatty() else subprocess.PIPE  # NNCF's progress bars
        done = subprocess.run(
            [sys.executable, "-P", "-m", "img2img.inference.quantisation", place, str(least), rest, str(torch.get_num_threads())],
            stdout=sys.stderr if shown is None else shown, stderr=shown, text=True, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        if done.returncode:
            reason = ((done.stderr or "").strip().splitlines() or ["see above"])[-1][:200]
            raise UsageError(f"--dtype int8: this network can't be quantised ({reason}); use another --dtype.")
        found = open_core().read_model(folder / "quantised.xml")
        near = measure_psnr(compile_model(found, rest, torch.get_num_threads()), sources, truths)
        total = sum(is_convolution(node) for node in found.get_ordered_ops())
    return Quantised(found, _count_quantised(found), total, near)


def _count_quantised(model: Any) -> int:
    """Convolutions whose weights are integers, or are made such."""
    return sum(_has_integer_weights(node) for node in model.get_ordered_ops() if is_convolution(node))


def _has_integer_weights(convolution: Any) -> bool:
    """Looks from the weights' input up to the stored numbers."""
    value = convolution.input_value(1).get_node()
    while value.get_type_name() not in ("Constant", "FakeQuantize"):
        value = value.input_value(0).get_node()
    return value.get_type_name() == "FakeQuantize" or value.get_element_type().to_string() in (
        "i8",
        "u8",
        "int8_t",
        "uint8_t",
    )


def is_convolution(node: Any) -> bool:
    """Whether a node of a model is a convolution, transposed or not."""
    return "Convolution" in node.get_type_name()


def compile_model(model: Any, precision: Precision, threads: int) -> Any:
    """Compiles a model for the CPU at hand.

    Raises:
        UsageError: if OpenVINO can't.
    """
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    try:
        return open_core().compile_model(model, "CPU", options)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"OpenVINO can't compile this network (--engine torch can compute it): {reason}") from None


def measure_psnr(compiled: Any, sources: Sequence[Array], truths: Sequence[Array]) -> float:
    """In dB, of all images together."""
    errors = [
        np.square(np.clip(compiled(source)[0], -1, 1) - np.clip(truth, -1, 1)).mean()
        for source, truth in zip(sources, truths, strict=True)
    ]
    return float(10 * np.log10(4 / max(float(np.mean(errors)), 1e-12)))
