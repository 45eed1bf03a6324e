"""What a method promises to the trainer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

Batch = Mapping[str, Tensor]
Outputs = dict[str, Tensor]
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """One kind of update: which networks it trains, by which losses, with which Adam.

    Args:
        name: shown in logs; the key of its optimizer in a checkpoint.
        trains: names in `Method.networks`; all others are frozen meanwhile.
        losses: from a batch and the outputs of `Method.forward` to weighted losses, which the trainer sums.
        lr: Adam's learning rate before the schedule.
        betas: Adam's betas.
        every: the phase is due at every so many optimizer updates.
    """

    name: str
    trains: tuple[str, ...]
    losses: Callable[[Batch, Outputs], Losses]
    lr: float
    betas: tuple[float, float]
    every: int = 1


class Method(Protocol):
    """One paper. The trainer drives any object of this shape, which the method's config makes by `build`."""

    networks: dict[str, nn.Module]
    """All networks by name. The trainer puts its wrapped ones in place; always call through this dict."""
    phases: Sequence[Phase]
    """In the paper's order of updates."""
    generator: str
    """Which network becomes the translator, and which EMA follows."""

    def forward(self, batch: Batch) -> Outputs:
        """What several phases share, computed once."""
        ...
