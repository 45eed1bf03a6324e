"""How long a run is, and its learning rate."""

import math


def total_updates(steps: int | None, epochs: float, length: int, batch: int, update: int = 0, samples: int = 0) -> int:
    """Optimizer updates of a whole run: `steps`, or as many as see `length` images `epochs` times.

    Args:
        steps: if given, `epochs` doesn't count.
        epochs: of the whole run.
        length: images in the data set.
        batch: images an update, from now on.
        update: updates done so far.
        samples: images seen so far, perhaps with another `batch`.
    """
    if steps is not None:
        return steps
    return max(1, update + math.ceil(max(0, round(epochs * length) - samples) / batch))


def learning_rate_factor(update: int, total: int, decay: float) -> float:
    """1, then falling linearly to 0 over the last `decay` share of the run (Zhu et al. 2017, §4).

    Args:
        update: updates done so far, from 0.
        total: updates of the whole run.
        decay: in [0, 1].
    """
    return min(1.0, (total - update) / (decay * total)) if decay else 1.0
