"""What is summed up between two lines of the log."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from img2img.methods.base import Translations


class Meter:
    """Sums of losses, images and seconds since the last report, and the last translations; all stay on the device."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forgets everything."""
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.translations: Translations = {}
        self.start()

    def start(self) -> None:
        """Begins to count images and seconds; sums that a resumed run brought with it stay."""
        self.images = 0
        self.idle = 0.0
        self.started = time.perf_counter()

    def add(self, losses: dict[str, Tensor], images: int) -> None:
        """Takes in one batch."""
        self.images += images
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, Tensor]:
        """The mean of each loss over the batches that had it, by name."""
        return {name: self.sums[name] / self.counts[name] for name in sorted(self.sums)}

    def state_dict(self) -> dict[str, Any]:
        """The sums of this process: a resumed run reports, and watches, what an uninterrupted one does."""
        return {"sums": {name: value.cpu() for name, value in self.sums.items()}, "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any], device: Any) -> None:
        """Undoes `state_dict`."""
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])

    def seconds(self) -> float:
        """Seconds of training since the start, without pauses."""
        return time.perf_counter() - self.started - self.idle

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here doesn't count."""
        before = time.perf_counter()
        yield
        self.idle += time.perf_counter() - before
