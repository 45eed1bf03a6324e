"""Several processes on one folder: each has its share of the files, and all have one report."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

from img2img.machine import choose_device

Thing = TypeVar("Thing")

PATIENCE = timedelta(days=30)  # that the first to finish waits for the last


@dataclass(frozen=True)
class Share:
    """This process among others."""

    index: int = 0
    count: int = 1

    def of(self, things: Sequence[Thing], most: int) -> list[Sequence[Thing]]:
        """Lists of at most so many neighbours; of all processes together they are all, and none twice."""
        length = max(1, min(most, -(-len(things) // self.count)))
        lists = [things[first : first + length] for first in range(0, len(things), length)]
        return lists[self.index :: self.count]

    def gathered(self, things: list[Thing]) -> list[Thing]:
        """Those of all processes, for each of them; waits for the last."""
        if self.count == 1:
            return things
        from accelerate.utils import gather_object

        gathered: Any = gather_object(things)
        return list(gathered)


def end_processes() -> None:
    """Takes leave of the others, at the end of a command: who just ends, with connections open, may crash."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def take_share(device: str) -> tuple[Share, torch.device]:
    """This process' share under `accelerate launch` or torchrun, else all; and its device.

    Raises:
        UsageError: for a device that this machine doesn't have.
    """
    chosen = choose_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Share(), chosen
    from accelerate import PartialState

    state = PartialState(cpu=chosen.type == "cpu", timeout=PATIENCE)
    return Share(state.process_index, state.num_processes), chosen if chosen.index is not None else state.device
