"""Running a network over an image that is too large for the memory: strip by strip, with the result of the whole image.

The network is traced into a graph of layers. Each layer can say what any rows of its output are from some rows of its input, so that
a strip needs only its own rows and a few beside them. Where a layer must know the whole image (a norm's mean and variance), or
several layers read the same tensor, the tensor is computed once, strip by strip, and stored outside the device: in RAM, and beyond a
limit in a file. So nothing is approximated: there are no seams, and every norm sees the whole image.
"""

import math
import operator
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from img2img.networks.conditioning import Modulate
from img2img.networks.layers import AddColours, BlurPool, InstanceNorm, ReflectionPad, Shift
from img2img.tiling.progress import report_share
from img2img.tiling.rows import (
    AveragePoolRows,
    BlurRows,
    ConvRows,
    NotInStripsError,
    PaddedRows,
    PointwiseRows,
    ReflectedRows,
    Rows,
    StoredRows,
    TransposedConvRows,
    UpsampleRows,
)
from img2img.tiling.store import Store, tensor_in

NORMS = (InstanceNorm, nn.BatchNorm2d, nn.GroupNorm)
POINTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign, nn.Tanh,
    nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.PReLU, nn.Identity, nn.Dropout,
    Shift, Modulate,
)  # fmt: skip
LAYERS: dict[type[nn.Module], Callable[[Rows, Any], Rows]] = {
    nn.Conv2d: ConvRows,
    nn.ConvTranspose2d: TransposedConvRows,
    nn.Upsample: UpsampleRows,
    BlurPool: BlurRows,
    nn.AvgPool2d: AveragePoolRows,
    ReflectionPad: lambda source, layer: ReflectedRows(source, layer.pixels),
    nn.ReplicationPad2d: lambda source, layer: PaddedRows(source, layer.padding[0], "replicate"),
    nn.ZeroPad2d: lambda source, layer: PaddedRows(source, layer.padding[0], "constant"),
}


@dataclass(frozen=True)
class Budget:
    """How much is held at once."""

    elements: int
    """Numbers in one strip of one layer's output, about; a handful of such strips are alive at a time."""
    in_memory: int
    """Bytes of stored tensors in RAM; what goes beyond is stored in files."""


@torch.no_grad()
def run_in_strips(network: nn.Module, source: Tensor, budget: Budget) -> Tensor:
    """What `network(source)` is, in bounded memory.

    Args:
        network: its layers are those of `LAYERS`, `NORMS`, `POINTWISE`, sums, and concatenations of channels. Norms that take the
            batch's statistics and dropout work as they stand, in training or evaluation mode.
        source: (1, C, H, W), on any device; strips are taken to the network's.
        budget: how much is held at once.

    Returns:
        (1, C', H', W'), on the CPU.

    Raises:
        NotInStripsError: if the network has other layers, or can't be traced.
        UserError: if the disk has no space for what is stored.
    """
    graph = _trace(network)
    weight = next(network.parameters())
    total, done = _check_layers(network, graph, source), 0
    store = Store(budget.in_memory)
    last_use = {each: node for node in graph.nodes for each in node.all_input_nodes}
    known: dict[fx.Node, Rows] = {}
    for node in graph.nodes:
        if node.op == "output":
            (last,) = known.values()
            assert isinstance(last, StoredRows)
            return last.tensor
        inputs = [known[each] for each in node.all_input_nodes]
        if node.op == "placeholder":
            found: Rows = StoredRows(source.to(weight.dtype), weight.device)
        else:
            found = _layer(network, node, inputs)
        del inputs
        if _must_be_stored(network, node):
            found = _compute_stored(
                found, store, budget, weight, _is_measured(network, node), partial(_report, done, total)
            )
            done += found.size
        known[node] = found
        for each in node.all_input_nodes:
            if last_use[each] is node:
                del known[each]  # what was stored for it is free as soon as nothing is computed from it
    raise AssertionError("a graph ends with its output")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*LAYERS, *NORMS, *POINTWISE, AddColours)) or super().is_leaf_module(
            m, module_qualified_name
        )


class _Plain(nn.Module):
    """Calls a network with its image alone, so that other arguments have their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, source: Tensor) -> Any:
        return self.network(source)


def _trace(network: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(_Plain(network))
    except Exception as error:  # whatever a network does with its input's values
        raise NotInStripsError(f"a forward pass that can't be traced ({error})") from None


def _module(network: nn.Module, node: fx.Node) -> nn.Module | None:
    return network.get_submodule(str(node.target).removeprefix("network.")) if node.op == "call_module" else None


def _must_be_stored(network: nn.Module, node: fx.Node) -> bool:
    """What several layers read, what a norm measures, what is random, and the end."""
    if node.op in ("output", "placeholder"):
        return False
    layer = _module(network, node)
    random = isinstance(layer, nn.Dropout) and layer.training
    last = any(user.op == "output" for user in node.users)
    return len(node.users) > 1 or _is_measured(network, node) or random or last


def _is_measured(network: nn.Module, node: fx.Node) -> bool:
    readers = [_module(network, user) for user in node.users]
    return any(isinstance(reader, NORMS) and _measures(reader) for reader in readers)


def _measures(norm: nn.Module) -> bool:
    """Whether a norm takes its mean and variance from the image."""
    return not isinstance(norm, nn.BatchNorm2d) or norm.training or norm.running_mean is None


def _report(before: int, total: int, numbers: int) -> None:
    report_share((before + numbers) / total)


def _check_layers(network: nn.Module, graph: fx.Graph, source: Tensor) -> int:
    """Meets what can't be done in strips before anything is computed, by setting up all layers; gives how many numbers are to be stored."""
    known: dict[fx.Node, Rows] = {}
    for node in graph.nodes:
        inputs = [known[each] for each in node.all_input_nodes]
        layer = _module(network, node)
        if node.op == "placeholder":
            known[node] = StoredRows(source, source.device)
        elif isinstance(layer, NORMS):
            known[node] = PointwiseRows(layer, inputs[0])
        elif node.op != "output":
            known[node] = _layer(network, node, inputs)
    return sum(rows.size for node, rows in known.items() if _must_be_stored(network, node))


def _layer(network: nn.Module, node: fx.Node, inputs: list[Rows]) -> Rows:
    layer = _module(network, node)
    if isinstance(layer, NORMS) and _measures(layer):
        return _normalise(inputs[0], layer)
    if isinstance(layer, (*POINTWISE, nn.BatchNorm2d)):
        return PointwiseRows(layer, inputs[0])
    if isinstance(layer, AddColours):
        return PointwiseRows(layer, *inputs, channels=3)
    for kind, make in LAYERS.items():
        if isinstance(layer, kind):
            return make(inputs[0], layer)
    if node.target in (operator.add, torch.add) and len(inputs) == 2 and len(node.args) == 2:
        return PointwiseRows(torch.add, *inputs)
    if node.target is torch.cat and (node.kwargs.get("dim", 0) if len(node.args) < 2 else node.args[1]) == 1:
        return PointwiseRows(_concatenate, *inputs, channels=sum(each.channels for each in inputs))
    raise NotInStripsError(f"{type(layer).__name__ if layer else node.target}")


def _concatenate(*parts: Tensor) -> Tensor:
    return torch.cat(parts, dim=1)


def _compute_stored(
    rows: Rows, store: Store, budget: Budget, weight: Tensor, measured: bool, report: Callable[[int], None]
) -> StoredRows:
    """Computes a tensor strip by strip, with the mean and variance of each channel if they are wanted; reports the numbers that are done."""
    shape = (1, rows.channels, rows.height, rows.width)
    buffer = store.lend(math.prod(shape) * weight.dtype.itemsize)
    tensor = tensor_in(buffer, shape, weight.dtype)
    height = max(1, int(budget.elements / rows.row_size()))
    mean = torch.zeros(rows.channels, dtype=torch.float64, device=weight.device)
    spread, count = torch.zeros_like(mean), 0
    for first in range(0, rows.height, height):
        last = min(first + height, rows.height)
        strip = rows.rows(first, last)
        tensor[:, :, first:last] = strip
        report(rows.channels * last * rows.width)
        if not measured:
            continue
        average, variance = _statistics(strip)
        new = (last - first) * rows.width
        apart = average.double() - mean  # merged by Chan et al. 1979
        mean += apart * new / (count + new)
        spread += variance.double() * new + apart**2 * count * new / (count + new)
        count += new
    found = (
        _StoredWithStatistics(tensor, weight.device, mean, spread / count)
        if measured
        else StoredRows(tensor, weight.device)
    )
    weakref.finalize(found, store.give_back, buffer)  # as soon as nothing is computed from it any more
    return found


def _statistics(strip: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, (C,) in fp32."""
    if strip.device.type not in ("cpu", "cuda"):
        variance, mean = torch.var_mean(strip.float(), dim=(0, 2, 3), correction=0)
        return mean, variance
    unused = torch.zeros(2, strip.shape[1], device=strip.device)  # in fp32, which makes the sums fp32
    mean, variance = torch.batch_norm_update_stats(strip, unused[0], unused[1], 0.0)  # far faster than var_mean
    return mean, variance


class _StoredWithStatistics(StoredRows):
    """A stored tensor, with the mean and variance of each channel, (C,) in float64."""

    def __init__(self, tensor: Tensor, device: torch.device, mean: Tensor, variance: Tensor) -> None:
        super().__init__(tensor, device)
        self.mean, self.variance = mean, variance


def _normalise(source: Rows, norm: nn.Module) -> Rows:
    assert isinstance(source, _StoredWithStatistics)
    mean, variance, channels = source.mean, source.variance, source.channels
    values: Any = norm
    weight, bias, epsilon = getattr(values, "weight", None), getattr(values, "bias", None), values.eps
    if isinstance(norm, nn.GroupNorm):
        means, squares = (each.view(norm.num_groups, -1).mean(1, keepdim=True) for each in (mean, variance + mean**2))
        mean, variance = (
            each.expand(-1, channels // norm.num_groups).flatten() for each in (means, squares - means**2)
        )
    mean, variance = mean.float(), variance.float()
    scale, shift = (None if each is None else each.float() for each in (weight, bias))
    return PointwiseRows(lambda strip: F.batch_norm(strip, mean, variance, scale, shift, eps=epsilon), source)
