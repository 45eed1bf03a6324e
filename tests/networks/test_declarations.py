"""What every registered network declares of itself is true: sizes, memory, how it tiles, what gradient checkpointing computes again."""

from typing import Any

import pytest
import torch
from torch import nn

from img2img.networks import (
    DISCRIMINATORS,
    GENERATORS,
    NOISE_DISCRIMINATORS,
    NOISE_GENERATORS,
    build_generator,
    build_noise_generator,
    initialise,
)
from img2img.networks.gradient_checkpointing import find_blocks
from img2img.tiling.rows import NotInStripsError
from img2img.tiling.strips import Budget, run_in_strips

SMALL = {"channels": 4}


def build(kind: str) -> tuple[Any, nn.Module]:
    torch.manual_seed(0)
    config = GENERATORS[kind][0].model_validate(SMALL)
    size = 256 if kind == "spade" else 64
    resolved = config.resolve(3, 3, size)
    return resolved, initialise(build_generator(resolved), "xavier", 1.0).eval()


@pytest.mark.parametrize("kind", GENERATORS)
def test_generators(kind: str) -> None:
    config, network = build(kind)
    limits: Any = network
    assert config.kind == kind and config.bytes_per_pixel > 0
    side = max(limits.min_size, limits.size_multiple)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, side, side + limits.size_multiple)).shape[2:] == (
            side,
            side + limits.size_multiple,
        )
    blocks = find_blocks(network)
    covered = {id(p) for block in blocks for p in block.parameters()}
    assert sum(p.numel() for p in network.parameters() if id(p) in covered) > 0.5 * sum(
        p.numel() for p in network.parameters()
    )


@pytest.mark.parametrize("kind", GENERATORS)
def test_tiling(kind: str) -> None:
    """A network that says so has its whole result in strips; one that doesn't says why."""
    config, network = build(kind)
    limits: Any = network
    side = max(limits.min_size, 2 * limits.size_multiple)
    source = torch.rand(1, 3, side, side) * 2 - 1
    budget = Budget(8 * side * config.channels, 10**8)
    if config.tiling == "blended":
        with pytest.raises(NotInStripsError):
            run_in_strips(network, source, budget)
        return
    with torch.no_grad():
        assert torch.allclose(run_in_strips(network, source, budget), network(source), atol=1e-4)


@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.SiLU(), nn.ELU(), nn.PReLU(4), nn.Hardswish()], ids=lambda each: type(each).__name__
)
def test_other_activations_stay_exact(activation: nn.Module) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), activation, nn.Conv2d(4, 3, 3, 1, 1)).eval()
    source = torch.rand(1, 3, 32, 24)
    with torch.no_grad():
        assert torch.allclose(run_in_strips(network, source, Budget(400, 10**8)), network(source), atol=1e-6)


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_discriminators(kind: str) -> None:
    config, network = DISCRIMINATORS[kind]
    small = config.model_validate({**SMALL, "norm": "none"})
    built: Any = network(small, 3)  # type: ignore[call-arg]
    found = built(torch.zeros(1, 3, small.min_size, small.min_size))
    assert all(each.numel() for each in (found if isinstance(found, list) else [found])) and small.smaller
    names = [name for name, _ in built.named_parameters()]
    layers = built.layer_names()
    assert all(any(name.startswith(tuple(layer)) for name in names) for layer in layers)
    assert all(any(name.startswith(tuple(layer)) for layer in layers) for name in names), "every weight is in a layer"


@pytest.mark.parametrize("kind", NOISE_GENERATORS)
def test_noise_generators(kind: str) -> None:
    config = NOISE_GENERATORS[kind][0].model_validate({**SMALL, "out_channels": 1, "size": 32})
    assert config.kind == kind
    config = config.model_copy(update={"latent": config.count_numbers(32)})
    assert build_noise_generator(config).eval()(torch.zeros(2, config.latent)).shape == (2, 1, 32, 32)
    assert config.grows == (kind == "progressive") == NOISE_DISCRIMINATORS.get(kind, (config,))[0].grows
