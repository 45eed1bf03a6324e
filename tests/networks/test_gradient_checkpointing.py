"""`--gradient-checkpointing`: the same training, with activations computed twice."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.configs import tiny_config
from helpers.runs import final_state
from torch import nn
from torch.nn.utils import parametrize

from img2img.core.errors import UsageError
from img2img.networks import build_generator, initialise
from img2img.networks.generators.pix2pixhd import Pix2PixHDConfig
from img2img.networks.generators.resnet import ResNetConfig
from img2img.networks.generators.spade import SPADEConfig
from img2img.networks.generators.unet import UNetConfig
from img2img.networks.gradient_checkpointing import checkpoint_gradients, find_blocks
from img2img.networks.weights import add_adapters
from img2img.training.train import train


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(channels=4, depth=3),
        ResNetConfig(channels=4, blocks=2),
        Pix2PixHDConfig(channels=4, downsampling=2, blocks=1, enhancers=1, enhancer_blocks=1),
        SPADEConfig(channels=2, hidden=4),
    ],
)
def test_every_convolution_is_in_a_stage(config: Any) -> None:
    network = build_generator(config.resolve(3, 3, 64))
    inside = {id(layer) for stage in find_blocks(network) for layer in stage.modules()}
    outside = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and id(m) not in inside]
    assert len(outside) <= (2 if config.kind == "spade" else 0), "but for SPADE's first and last"
    assert len(find_blocks(network)) >= 4


def test_less_is_held() -> None:
    held = []
    for low in (False, True):
        torch.manual_seed(0)
        network = initialise(build_generator(ResNetConfig(channels=8, blocks=6).resolve(3, 3, 64)), gain=0.2)
        if low:
            checkpoint_gradients(network)
        sizes: list[int] = []

        def note(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(0 if isinstance(tensor, nn.Parameter) else tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network(torch.randn(1, 3, 64, 64))
        held.append(sum(sizes))
    assert held[1] < 0.4 * held[0]


@pytest.mark.parametrize(
    "method",
    [
        {"name": "pix2pix", "generator": {"kind": "unet", "channels": 4, "depth": 2, "dropout": 0.5}},
        {"name": "pix2pixhd", "encoder": True},
        {"name": "spade", "encoder": True},
        {"name": "cyclegan", "generator": {"kind": "unet", "channels": 4, "depth": 2}},
    ],
    ids=lambda method: method["name"],
)
def test_the_results_are_the_same(labelled: Path, unpaired: Path, tmp_path: Path, method: Any) -> None:
    """Weights, running statistics, power iterations and random numbers."""
    data = unpaired if method["name"] == "cyclegan" else labelled
    size = {"size": 64 if method["name"] == "spade" else 16}
    options: dict[str, Any] = {"steps": 4, "data": size, "batch_size": 2, "features": "none", "best": "l1"}
    runs = [
        final_state(
            train(tiny_config(data, tmp_path / str(twice), method, gradient_checkpointing=twice, **options), quiet=True)
        )
        for twice in (False, True)
    ]
    for name, value in runs[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.allclose(value.double(), runs[1][name].double(), atol=1e-6), name


def test_it_does_not_go_with_compile(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        train(tiny_config(labelled, tmp_path / "run", gradient_checkpointing=True, compile=True), quiet=True)


def test_weights_that_are_computed_may_be_used_twice() -> None:
    """With an adapter, in a phase that calls the network more than once."""
    torch.manual_seed(0)
    network = initialise(build_generator(ResNetConfig(channels=4, blocks=1).resolve(3, 3, 32)), gain=0.2)
    add_adapters(network, 2, 1.0, but=())
    for name, parameter in network.named_parameters():
        if name.endswith("up"):
            nn.init.normal_(parameter, 0, 0.1)
    twice, image, gradients = copy.deepcopy(network), torch.randn(1, 3, 32, 32), []
    checkpoint_gradients(twice)
    for each in (network, twice):
        with parametrize.cached():
            made = each(image)
            (each(made).square().mean() + made.mean()).backward()
        gradients.append({name: parameter.grad for name, parameter in each.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is None or torch.allclose(gradient, gradients[1][name], atol=1e-6), name
