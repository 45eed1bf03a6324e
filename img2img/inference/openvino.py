"""OpenVINO: a translator's network, compiled in memory for the CPU at hand; in fp32, in bf16, or in int8."""

import copy
import io
import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.core.errors import UsageError, UserError
from img2img.images import Array
from img2img.networks.layers import ImageNetwork, InstanceNorm

Precision = Literal["fp32", "bf16"]
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


def _import_nncf() -> Any:
    import_openvino()
    try:
        import nncf
    except ImportError:
        raise UsageError("--dtype int8 needs the package nncf: pip install 'img2img[openvino]'.") from None
    nncf.set_log_level(logging.ERROR)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # which misses CUDA
    return nncf


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
        self.compiled = _compile(self.model, precision)
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
    nncf = _import_nncf()
    convolutions = [node for node in model.get_ordered_ops() if _is_convolution(node)]
    outer = nncf.IgnoredScope(names=[node.get_friendly_name() for node in (convolutions[0], convolutions[-1])])
    data = nncf.Dataset(list(sources))
    with redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):  # NNCF's progress bars
        found = nncf.quantize(model, data, subset_size=len(sources), ignored_scope=outer)
        if _psnr(_compile(found, rest), sources, truths) < least:

            def validate(compiled: Any, _: Any) -> tuple[float, None]:
                return min(least, _psnr(compiled, sources, truths)), None

            found = nncf.quantize_with_accuracy_control(
                model, data, data, validate, max_drop=0.01, subset_size=len(sources), ignored_scope=outer
            )
    near = _psnr(_compile(found, rest), sources, truths)
    return Quantised(found, _count_quantised(found), len(convolutions), near)


def _count_quantised(model: Any) -> int:
    """Convolutions whose weights are integers, or are made such."""
    return sum(_has_integer_weights(node) for node in model.get_ordered_ops() if _is_convolution(node))


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


def _is_convolution(node: Any) -> bool:
    return "Convolution" in node.get_type_name()


def _compile(model: Any, precision: Precision) -> Any:
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return import_openvino().Core().compile_model(model, "CPU", options)


def _psnr(compiled: Any, sources: Sequence[Array], truths: Sequence[Array]) -> float:
    """In dB, of all images together."""
    errors = [
        np.square(np.clip(compiled(source)[0], -1, 1) - np.clip(truth, -1, 1)).mean()
        for source, truth in zip(sources, truths, strict=True)
    ]
    return float(10 * np.log10(4 / max(float(np.mean(errors)), 1e-12)))
