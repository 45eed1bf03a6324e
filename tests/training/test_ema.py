"""The moving average of a network with spectral norm follows the weights as they are used."""

import torch
from torch import nn

from img2img.networks.weights import add_spectral_norm, collect_plain_state
from img2img.training.ema import EMA


def test_spectral_norm_is_not_averaged() -> None:
    torch.manual_seed(0)
    network = add_spectral_norm(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1)))
    ema = EMA(network, 0.9)
    assert ema.network.state_dict().keys() == collect_plain_state(network).keys()
    expected = {name: tensor.clone().double() for name, tensor in collect_plain_state(network).items()}
    for number in range(3):
        network(torch.randn(2, 2, 8, 8))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        ema.update(network)
        share = min(0.9, (1 + number) / (10 + number))
        for name, tensor in collect_plain_state(network).items():
            if tensor.is_floating_point():
                expected[name] = share * expected[name] + (1 - share) * tensor.double()
    for name, tensor in ema.network.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor.double(), expected[name], atol=1e-6), name
    largest = torch.linalg.matrix_norm(ema.network[0].weight.flatten(1), 2)  # type: ignore[arg-type, index, operator, union-attr]
    assert 0.3 < largest < 1.5, "an average of weights of norm 1"
    assert ema.network[1].num_batches_tracked == 3 and not ema.network.training  # type: ignore[index]
