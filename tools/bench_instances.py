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

RUNS = 15


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


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(height: int = 256, width: int = 512, instances: int = 60, channels: int = 3) -> None:
    """Prints the largest difference, the medians of both, and their ratio.

    Args:
        height: Of the features in pixels.
        width: Of the features in pixels.
        instances: How many there are.
        channels: Of the features.
    """
    torch.manual_seed(0)
    identities = drawn(height, width, instances)
    features = torch.randn(1, channels, height, width)
    difference = (plain_loop(features, identities) - instance_means(features, identities)).abs().max().item()
    times: list[tuple[float, float]] = []
    for _ in range(RUNS):  # interleaved, for machines are noisy
        times.append(
            (seconds(lambda: plain_loop(features, identities)), seconds(lambda: instance_means(features, identities)))
        )
    loop, pooled = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"largest difference {difference:.2g}; loop {loop:.1f} ms, pooling {pooled:.2f} ms: {loop / pooled:.1f} times as fast"
    )


if __name__ == "__main__":
    tyro.cli(main)
