"""Instance-wise average pooling against a plain loop over instances: equal values, and how much faster.

python tools/bench_instances.py
"""

import statistics
import time
from collections.abc import Callable

import torch
import tyro
from torch import Tensor

from img2img.networks.labels import instance_means

ROUNDS, EACH = 15, 10


def plain_loop(features: Tensor, instances: Tensor) -> Tensor:
    """Image by image, instance by instance, channel by channel."""
    means = torch.zeros_like(features)
    for image in range(len(features)):
        for identity in instances[image].unique():
            rows, columns = (instances[image] == identity).nonzero(as_tuple=True)
            for channel in range(features.shape[1]):
                means[image, channel, rows, columns] = features[image, channel, rows, columns].mean()
    return means


def drawn(height: int, width: int, count: int) -> Tensor:
    """(1, height, width): the cells nearest to random points, numbered from 0."""
    points = torch.rand(count, 2) * torch.tensor([height, width])
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2).argmin(-1)[None]


def milliseconds(work: Callable[[], object], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        work()
    return 1e3 * (time.perf_counter() - started) / times


def trained(pooling: Callable[[Tensor, Tensor], Tensor], features: Tensor, instances: Tensor) -> Tensor:
    """The gradient of the squared means, as training computes one."""
    leaf = features.detach().requires_grad_()
    pooling(leaf * 1.0, instances).square().sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def main(height: int = 256, width: int = 512, instances: int = 60, channels: int = 3) -> None:
    """Prints the largest differences, the medians of both, and their ratio; of the values, and with the gradient.

    Args:
        height: Of the features in pixels.
        width: Of the features in pixels.
        instances: How many there are.
        channels: Of the features.
    """
    torch.manual_seed(0)
    identities = drawn(height, width, instances)
    features = torch.randn(1, channels, height, width)
    print(f"{channels} channels of {height}x{width} pixels, {instances} instances, {torch.get_num_threads()} threads")
    compare("values", plain_loop, instance_means, features, identities)
    compare(
        "values and gradient",
        lambda x, y: trained(plain_loop, x, y),
        lambda x, y: trained(instance_means, x, y),
        features,
        identities,
    )


def compare(
    name: str,
    slow: Callable[[Tensor, Tensor], Tensor],
    fast: Callable[[Tensor, Tensor], Tensor],
    features: Tensor,
    identities: Tensor,
) -> None:
    difference = (slow(features, identities) - fast(features, identities)).abs().max().item()
    times = [  # by turns, for machines are noisy
        (milliseconds(lambda: slow(features, identities), 1), milliseconds(lambda: fast(features, identities), EACH))
        for _ in range(ROUNDS)
    ]
    loop, pooled = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{name}: largest difference {difference:.2g}; loop {loop:.1f} ms, pooling {pooled:.2f} ms: {loop / pooled:.1f} times as fast"
    )


if __name__ == "__main__":
    tyro.cli(main)
