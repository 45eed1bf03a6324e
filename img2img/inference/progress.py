"""How far a conversion is."""

import threading
from collections.abc import Callable
from typing import Self

from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

Watch = Callable[[float, int], None]


class ConversionProgress:
    """Shows, or tells, how many images are done; of how many, as soon as they are counted.

    Args:
        count: gives the number of all images; it may take a while.
        parts: into which they are divided; this process converts one.
        progress: as of `convert`.
        shown: whether this process may show a bar.
    """

    def __init__(self, count: Callable[[], int], parts: int, progress: bool | Watch, shown: bool) -> None:
        self.watch = progress if callable(progress) else None
        columns = *Progress.get_default_columns(), _Speed()
        self.bar = Progress(*columns, transient=True, disable=progress is not True or not shown)
        what = "converting" if parts == 1 else f"converting a {parts}th"
        self.task = self.bar.add_task(what, total=None)
        self.ended = 0
        self.total = -(-count() // parts) if self.watch else 0
        if not self.bar.disable:

            def tell_total() -> None:
                self.bar.update(self.task, total=-(-count() // parts))

            threading.Thread(target=tell_total, daemon=True).start()

    def __enter__(self) -> Self:
        self.bar.start()
        self.tell(0.0)
        return self

    def __exit__(self, *of_error: object) -> None:
        self.bar.stop()

    def advance(self, images: int) -> None:
        """So many more are done."""
        self.ended += images
        self.tell(0.0)

    def tell(self, share: float) -> None:
        """Which share of the next one is done."""
        self.bar.update(self.task, completed=self.ended + share)
        if self.watch:
            self.watch(self.ended + share, self.total)


class _Speed(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.3g} images/s", style="progress.data.speed")
