"""Plain networks of other projects: computed and saved."""

from pathlib import Path
from typing import Any

import torch

from helpers.plain_networks import Plain


def image(channels: int = 3, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def made(compute: Any, x: torch.Tensor, norm: str, bias: bool | None = None, **options: Any) -> tuple[Plain, Any]:
    """What a plain network has drawn, and its output."""
    network = Plain(norm, bias)
    compute(network, x, **options)
    with torch.no_grad():
        return network, compute(network, x, **options)


def saved(network: Plain, file: Path, prefix: str = "") -> Path:
    torch.save({f"{prefix}{name}": tensor for name, tensor in network.state.items()}, file)
    return file
