"""The memory that a network's activations take, counted without computing anything."""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from img2img.networks import build_generator


class _Peak(TorchDispatchMode):
    """The most bytes that are held at once, of what is made within."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self.alive = {key: (held, size) for key, (held, size) in self.alive.items() if not held.expired()}
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return made


def measure_activations(config: Any, side: int) -> float:
    """Bytes for a pixel of an image of side × side, in fp32 and without gradients."""
    with FakeTensorMode(), torch.no_grad():
        network = build_generator(config).eval()
        source = torch.empty(1, config.in_channels, side, side)
        with _Peak() as peak:
            network(source)
    return (peak.peak + source.nbytes) / side**2
