"""Watches a run for what no amount of further training mends."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from img2img.errors import UserError

REMEDY = "What was saved before stays; resume with a lower learning rate (--lr) or --mixed-precision no."


class DivergedError(UserError):
    """A loss or a weight is no number any more."""


def assert_finite(losses: dict[str, Tensor], update: int) -> None:
    """Raises a sentence if a loss, or a sum or mean of losses, is NaN or infinite.

    Raises:
        DivergedError: naming the first such loss.
    """
    for name, value in losses.items():
        if not torch.isfinite(value).item():
            raise DivergedError(
                f"the loss {name} became {value.item()} by update {update}, so training was stopped. {REMEDY}"
            )


def assert_finite_weights(networks: Iterable[tuple[str, nn.Module]], update: int) -> None:
    """Raises a sentence if a network has a weight that is NaN or infinite: such a state must not become a checkpoint.

    Raises:
        DivergedError: naming the first such network.
    """
    for name, network in networks:
        norms = torch._foreach_norm([p.detach() for p in network.parameters()])
        if not torch.isfinite(torch.stack([norm.float() for norm in norms])).all().item():
            raise DivergedError(
                f"the {name} has weights that are no numbers by update {update}, so training was stopped. {REMEDY}"
            )
