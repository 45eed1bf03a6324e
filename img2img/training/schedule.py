"""How long a run is, and its learning rate."""

import math


def total_updates(steps: int | None, epochs: float, samples: int, batch: int) -> int:
    """Optimizer updates of a run: `steps`, or as many as see `samples` images `epochs` times with `batch` images an update."""
    return steps if steps is not None else max(1, math.ceil(epochs * samples / batch))


def learning_rate_factor(update: int, total: int, decay: float) -> float:
    """1, then falling linearly to 0 over the last `decay` share of the run (Zhu et al. 2017, §4).

    Args:
        update: updates done so far, from 0.
        total: updates of the whole run.
        decay: in [0, 1].
    """
    return min(1.0, (total - update) / (decay * total)) if decay else 1.0
