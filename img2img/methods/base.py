"""What a method promises to the trainer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from img2img.networks import AnyEncoder, GeneratorConfig

Batch = Mapping[str, Tensor]
Losses = dict[str, Tensor]
Role = Literal["", "A2B", "B2A"]
"""Which translator of a run: the only one, or one of the two directions."""
Translations = dict[Role, tuple[Tensor, Tensor, Tensor]]
"""Sources, what they were translated to, and real targets, which needn't belong to them; all detached."""


@dataclass
class Outputs:
    """What the phases of one step share."""

    update: int = 0
    """Optimizer updates done before this one."""
    images: dict[str, Tensor] = field(default_factory=dict)
    """Made once, used by several phases."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Numbers that are logged and watched like losses, but not minimised."""
    translations: Translations = field(default_factory=dict)
    """What the monitor looks at."""


@dataclass(frozen=True)
class Phase:
    """One kind of update: which networks it trains, by which losses, with which Adam.

    Args:
        name: shown in logs; the key of its optimizer in a checkpoint.
        trains: names in `Method.networks`; all others are frozen meanwhile.
        parts: each from a batch and what is shared to weighted losses, which the trainer sums. They are backpropagated one
            after the other, so that only one part's activations are held in memory; if there are several, each must
            use all the networks that are trained.
        lr: Adam's learning rate before the schedule.
        betas: Adam's betas.
        every: the phase is due at every so many optimizer updates, and first when so many were done.
        after: called after each step of the optimizer.
    """

    name: str
    trains: tuple[str, ...]
    parts: Sequence[Callable[[Batch, Outputs], Losses]]
    lr: float
    betas: tuple[float, float]
    every: int = 1
    after: Callable[[], None] | None = None


class Memory(Protocol):
    """What a method remembers from step to step beside its networks: saved with them."""

    def state_dict(self) -> dict[str, Tensor]:
        """All of it."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Undoes `state_dict`."""
        ...


class Method(Protocol):
    """One paper. The trainer drives any object of this shape, which the method's config makes by `build`."""

    networks: dict[str, nn.Module]
    """All networks by name. The trainer puts its wrapped ones in place; always call through this dict."""
    phases: Sequence[Phase]
    """In the paper's order of updates."""
    generators: Mapping[Role, str]
    """Which networks become translators, and are followed by EMA."""
    generator_configs: Mapping[Role, GeneratorConfig]
    """Their architectures."""
    encoders: Mapping[Role, tuple[str, AnyEncoder]]
    """Which networks read the styles that a generator is given, with their architectures."""
    memories: Mapping[str, Memory]
    """What else belongs into a checkpoint; the same in every process."""

    def forward(self, batch: Batch, update: int) -> Outputs:
        """What several phases share, computed once."""
        ...


@runtime_checkable
class CoarseToFine(Protocol):
    """A method that may begin with what was trained at half the size."""

    def begin_from(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes over networks by name."""
        ...

    def freeze_until(self, update: int) -> None:
        """Leaves them as they are until then."""
        ...


def is_due(phase: Phase, update: int) -> bool:
    """Whether it is, after so many updates."""
    return (update + 1) % phase.every == 0


def shown(batch: Batch) -> Tensor:
    """The sources for the eye: images as they are, label maps in their colours."""
    return batch.get("shown", batch["source"])


def independent(norm: str | None) -> bool:
    """Whether images of one batch don't influence each other, so that batches may be merged."""
    return norm not in ("batch", "sync-batch")


def merged(network: nn.Module, batches: Sequence[Tensor], norm: str | None) -> list[Any]:
    """Calls a network on several batches: at once if its norm permits, else one after the other.

    Returns:
        For each batch what the network gives: a tensor, or a list.
    """
    if not independent(norm) or len(batches) == 1:
        return [network(batch) for batch in batches]
    return _split(network(torch.cat(list(batches))), [len(batch) for batch in batches])


def _split(found: Tensor | list[Any], lengths: list[int]) -> list[Any]:
    """What a network gave for batches that were merged, for each of them."""
    if isinstance(found, Tensor):
        return list(found.split(lengths))
    return [list(each) for each in zip(*(_split(part, lengths) for part in found), strict=True)]
