"""How much of a large image is done, for whoever waits for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watch = Callable[[float], None]

_watching: ContextVar[Watch | None] = ContextVar("watching", default=None)


@contextmanager
def watch_large_images(watch: Watch) -> Iterator[None]:
    """Calls `watch` with the share that is done, from 0 to 1, after each strip or tile of an image that this thread computes in several.

    What it raises ends the computation.
    """
    token = _watching.set(watch)
    try:
        yield
    finally:
        _watching.reset(token)


def report_share(share: float) -> None:
    """Says how much of an image is done."""
    if watch := _watching.get():
        watch(share)


@contextmanager
def report_part(number: int, count: int) -> Iterator[None]:
    """What is reported within is the share of one of several equal parts, the first being 0."""
    watch = _watching.get()
    if watch is None:
        yield
        return
    with watch_large_images(lambda share: watch((number + share) / count)):
        yield
