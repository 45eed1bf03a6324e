"""The order of samples: a function of (seed, epoch), with a cursor that is one number."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

Key = tuple[int, int]  # (epoch, index): what a data set is asked for


@lru_cache(maxsize=4)
def permutation(length: int, seed: int, epoch: int) -> NDArray[np.uint32]:
    """The order of an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(length).astype(np.uint32)


class BatchOrder(Sampler[list[Key]]):
    """The batches that one process sees, from a cursor on: epoch after epoch, a batch may reach into the next one.

    The samples of all processes together are one endless row; a global batch is its next `processes × batch_size`
    samples, and each process takes its part. So nothing is dropped, two processes with batch 1 see what one with
    batch 2 sees, and to go on only the number of samples seen so far is needed.

    Args:
        batch_size: samples a process and batch.
        start: samples seen so far by all processes.
        batches: how many batches to give.
        process: which process this is, from 0.
    """

    def __init__(
        self, length: int, batch_size: int, start: int, batches: int, seed: int, process: int = 0, processes: int = 1
    ) -> None:
        self.length, self.seed = length, seed
        self.batch_size, self.start, self.batches = batch_size, start, batches
        self.process, self.processes = process, processes

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in range(self.batches):
            first = self.start + (batch * self.processes + self.process) * self.batch_size
            yield [self._key(position) for position in range(first, first + self.batch_size)]

    def _key(self, position: int) -> Key:
        epoch, place = divmod(position, self.length)
        return epoch, int(permutation(self.length, self.seed, epoch)[place])
