"""The SPADE generator against the paper, and spectral norm that is taken out again."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.forked import call

from img2img.core.errors import UsageError
from img2img.core.processes import exit_process
from img2img.networks import (
    ImageEncoder,
    ImageEncoderConfig,
    InstanceEncoder,
    InstanceEncoderConfig,
    initialise,
    layers,
)
from img2img.networks.generators.spade import SPADE, SPADEConfig, SPADEGenerator
from img2img.networks.weights import add_spectral_norm, collect_plain_state, copy_without_spectral_norm


def make(**settings: Any) -> SPADEGenerator:
    torch.manual_seed(0)
    config = SPADEConfig(channels=2, hidden=4, **settings).resolve(3, 3, 256)
    if settings.get("latent"):
        config = config.model_copy(update={"latent_size": 256 // config.multiple})
    return initialise(SPADEGenerator(config), "xavier", 1.0)  # type: ignore[return-value]


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_spade_is_equation_1(norm: Any) -> None:
    layer = SPADE(5, 3, 4, norm).train()
    x, source = torch.randn(2, 5, 6, 7), torch.randn(2, 3, 6, 7)
    dims = (0, 2, 3) if norm == "batch" else (2, 3)
    mean, deviation = x.mean(dims, keepdim=True), (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()
    between = F.relu(layer.shared[0](source))
    expected = (1 + layer.scale(between)) * (x - mean) / deviation + layer.shift(between)
    assert torch.allclose(layer(x, source), expected, atol=1e-5)


@pytest.mark.parametrize(("upsampling", "multiple", "blocks"), [("normal", 32, 7), ("more", 64, 7), ("most", 128, 8)])
def test_the_output_has_the_sources_size(upsampling: Any, multiple: int, blocks: int) -> None:
    network = make(upsampling=upsampling)
    assert network.size_multiple == multiple and len(network.blocks) == blocks
    with torch.no_grad():
        for height, width in ((2 * multiple, 2 * multiple), (2 * multiple, 3 * multiple)):
            assert network(torch.randn(1, 3, height, width)).shape == (1, 3, height, width)


def test_one_style_does_for_all_images() -> None:
    config = SPADEConfig(channels=2, hidden=4).resolve(3, 3, 64).model_copy(update={"latent": 6, "latent_size": 2})
    generator, images, style = SPADEGenerator(config).eval(), torch.randn(2, 3, 64, 64), torch.randn(1, 6)
    assert torch.allclose(generator(images, style), generator(images, style.expand(2, -1)), atol=1e-5)


def test_a_style_changes_the_output_at_any_size() -> None:
    network = make(latent=4)
    for side in (64, 96, 256):
        source = torch.randn(1, 3, side, side)
        plain, other = network(source), network(source, torch.ones(1, 4))
        assert plain.shape == other.shape == (1, 3, side, side) and not torch.allclose(plain, other)
        assert torch.equal(plain, network(source, torch.zeros(1, 4))), "without one it is the mean"
    network(source, torch.randn(1, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_generator_is_the_papers() -> None:
    """Its widths: 1024 three times, then halved to 64; γ and β by 128 channels."""
    network = SPADEGenerator(SPADEConfig().resolve(35, 3, 256))
    assert [block.conv_1.out_channels for block in network.blocks] == [1024, 1024, 1024, 512, 256, 128, 64]  # type: ignore[union-attr]
    assert network.blocks[3].norm_s.shared[0].out_channels == 128  # type: ignore[union-attr, index, operator]
    assert not any("norm.weight" in name for name in network.state_dict()), "what is modulated has no scale of its own"


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="use 96 or 128"):
        SPADEConfig().resolve(3, 3, 100)
    with pytest.raises(UsageError, match="at least 64; use 64"):
        SPADEConfig().resolve(3, 3, 32)


def test_spectral_norm_is_taken_out_again() -> None:
    network = add_spectral_norm(make()).train()
    for _ in range(3):
        network(torch.randn(2, 3, 64, 64))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plain, state = copy_without_spectral_norm(network), collect_plain_state(network)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items()), "untouched"
    assert network.training and state.keys() == plain.state_dict().keys() == make().state_dict().keys()
    source = torch.randn(2, 3, 64, 64)
    expected = copy.deepcopy(network).eval()(source)
    assert torch.allclose(plain.eval()(source), expected, atol=1e-6)
    fresh = make()
    fresh.load_state_dict(state)
    assert torch.allclose(fresh.eval()(source), expected, atol=1e-6)
    largest = [
        torch.linalg.matrix_norm(t.flatten(1), 2) for n, t in state.items() if n.endswith("weight") and t.ndim == 4
    ]
    assert max(largest) < 2, "weights are divided by about their largest singular value"
    assert torch.allclose(network.train()(source), network(source), atol=1), "and the original still works"


def test_the_encoder_of_instances_gives_one_style_to_each() -> None:
    encoder = initialise(
        InstanceEncoder(InstanceEncoderConfig(in_channels=3, channels=4, downsampling=2)), "xavier", 1.0
    )
    instances = torch.randint(0, 4, (2, 16, 24))
    features = encoder(torch.randn(2, 3, 16, 24), instances)
    assert features.shape == (2, 3, 16, 24) and features.abs().max() <= 1
    for image in range(2):
        for number in range(4):
            assert features[image, :, instances[image] == number].std(1).max() < 1e-5
    assert features.std() > 0.01
    (features * torch.randn_like(features)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_the_encoder_of_images_takes_any_size() -> None:
    config = ImageEncoderConfig(channels=4, latent=6).resolve(3, 100)
    assert config.size == 64, "the largest power of two in the training size"
    assert ImageEncoderConfig().resolve(3, 1024).size == 256
    encoder = ImageEncoder(config)
    for size in ((64, 64), (100, 37)):
        mean, logvar = encoder(torch.randn(2, 3, *size))
        assert mean.shape == logvar.shape == (2, 6)
    (mean.sum() + logvar.square().sum()).backward()
    assert all(p.grad is not None for p in encoder.parameters())
    with pytest.raises(UsageError, match="power of two"):
        ImageEncoderConfig(size=48).resolve(3, 128)


def test_processes_share_statistics_in_training_only(tmp_path: Path) -> None:
    call(_normalise_in_a_process, (tmp_path,), 2)


def _normalise_in_a_process(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    torch.manual_seed(0)
    images, factors = torch.randn(2, 3, 2, 4, 4), torch.randn(2, 3, 2, 4, 4)
    images[1] += 3
    images = images.transpose(1, 2).contiguous()  # (process, batch, channels, ...)
    factors = factors.transpose(1, 2).contiguous()
    norm, plain = layers.SyncBatchNorm(3).train(), torch.nn.BatchNorm2d(3).train()
    with torch.no_grad():
        assert torch.equal(norm(images[rank]), plain(images[rank])), "at test time each has images of its own"
    norm, plain = layers.SyncBatchNorm(3).train(), torch.nn.BatchNorm2d(3).train()
    own, all_of_them = images[rank].requires_grad_(), images.flatten(0, 1).requires_grad_()
    done, expected = norm(own), plain(all_of_them)
    assert torch.allclose(done, expected.unflatten(0, (2, 2))[rank], atol=1e-5)
    (done * factors[rank]).sum().backward()
    (expected * factors.flatten(0, 1)).sum().backward()
    assert own.grad is not None and all_of_them.grad is not None
    assert torch.allclose(own.grad, all_of_them.grad.unflatten(0, (2, 2))[rank], atol=1e-5)
    for name, tensor in norm.state_dict().items():
        assert torch.allclose(tensor.float(), plain.state_dict()[name].float(), atol=1e-5), name
    norm.eval()
    if rank == 0:
        norm(own)  # asks nobody
    exit_process(0)
