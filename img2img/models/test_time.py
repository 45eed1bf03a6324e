"""A network as it is run at test time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from img2img.models.config import Mode


@contextmanager
def test_time(generator: nn.Module, mode: Mode, seed: int) -> Iterator[None]:
    """Puts a network into a test-time mode and back; running statistics and the global random state stay as they were."""
    modules = list(generator.modules())
    before = [module.training for module in modules]
    tracked = [m for m in modules if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    device = next(generator.parameters()).device
    try:
        generator.eval()
        if mode == "eval":
            with torch.no_grad():
                yield
            return
        for module in modules:
            if isinstance(module, nn.BatchNorm2d | nn.Dropout):
                module.training = True
        for norm in tracked:
            norm.track_running_stats = False
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        for norm in tracked:
            norm.track_running_stats = True
        for module, training in zip(modules, before, strict=True):
            module.training = training
