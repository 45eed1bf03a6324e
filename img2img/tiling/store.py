"""Where intermediate results are kept while a large image is worked through."""

import math
import mmap
import os
import tempfile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from img2img.core.errors import UserError

Buffer = NDArray[np.uint8]


class Store:
    """Lends buffers: in RAM up to so many bytes, and beyond them in files without names, which vanish with the process.

    What is given back is lent again, for fresh pages cost the system more than the network costs the processor.
    """

    def __init__(self, in_memory: int) -> None:
        self.in_memory = in_memory
        self.used = 0
        self.free: list[Buffer] = []

    def lend(self, size: int) -> Buffer:
        """A buffer of at least so many bytes, of any content.

        Raises:
            UserError: if the disk is full.
        """
        fitting = [buffer for buffer in self.free if size <= buffer.nbytes <= 2 * size]
        if fitting:
            best = min(fitting, key=lambda buffer: buffer.nbytes)
            self.free = [buffer for buffer in self.free if buffer is not best]
            return best
        self._drop_free()
        if self.used + size > self.in_memory:
            return _in_file(size)
        self.used += size
        return np.frombuffer(mmap.mmap(-1, size), np.uint8)  # not malloc's, which may keep what is freed

    def give_back(self, buffer: Buffer) -> None:
        """Ends a loan."""
        self.free.append(buffer)

    def _drop_free(self) -> None:
        """What is free, but doesn't fit, must not keep others out."""
        self.used -= sum(buffer.nbytes for buffer in self.free if not isinstance(buffer, np.memmap))
        self.free = []


def tensor_in(buffer: Buffer, shape: tuple[int, int, int, int], dtype: torch.dtype) -> Tensor:
    """The beginning of a buffer as a tensor (B, C, H, W) in channels-last layout: convolutions like it, and rows lie together."""
    batch, channels, height, width = shape
    flat = torch.from_numpy(buffer[: math.prod(shape) * dtype.itemsize]).view(dtype)
    return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _in_file(size: int) -> Buffer:
    try:
        with tempfile.TemporaryFile() as file:  # has no name any more, and lives as long as the mapping
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, and a crash later
            return np.memmap(file, np.uint8, "r+", shape=(size,))
    except OSError as error:
        raise UserError(
            f"{size / 1e9:.1f} GB for intermediate results don't fit into {tempfile.gettempdir()} ({error.strerror}); "
            "set TMPDIR to a folder with more space."
        ) from None
