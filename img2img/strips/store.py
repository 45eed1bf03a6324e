"""Where intermediate results are kept while a large image is worked through."""

import math
import os
import tempfile
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from img2img.errors import UserError


class Store:
    """Gives out tensors in RAM up to a limit, and beyond it in files without names, which vanish with the process.

    Args:
        in_memory: bytes that may be in RAM at once.
    """

    def __init__(self, in_memory: int) -> None:
        self.in_memory = in_memory
        self.held: list[Callable[[], Any]] = []  # weak references to what is in RAM

    def new(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An empty tensor; its place is free again when nobody needs it any more.

        Raises:
            UserError: if the disk is full.
        """
        size = math.prod(shape) * dtype.itemsize
        self.held = [each for each in self.held if each() is not None]
        if sum(each().nbytes for each in self.held) + size <= self.in_memory:
            array = np.empty(size, np.uint8)
            self.held.append(weakref.ref(array))
        else:
            array = _in_file(size)
        return torch.from_numpy(array).view(dtype).view(shape)


def _in_file(size: int) -> Any:
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
