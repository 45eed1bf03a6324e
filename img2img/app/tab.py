"""What the tabs of the page have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio

from img2img.app.jobs import Jobs
from img2img.app.models import Entry, Models
from img2img.core.errors import UsageError
from img2img.models import Style, TranslatorConfig
from img2img.models.styles import parse_style

DEVICE: dict[str, Any] = {"concurrency_id": "device", "concurrency_limit": 1}
"""Of events that compute: one at a time."""
STYLES = 10  # that are offered, of styles that are drawn by a seed


@dataclass(frozen=True)
class App:
    """What all tabs use."""

    models: Models
    jobs: Jobs


@dataclass(frozen=True)
class Restoring:
    """How a tab comes back to the state that a link holds."""

    function: Callable[..., Any]
    """Of a model's name and the state, which is empty if there is none."""
    outputs: list[Any]


@dataclass(frozen=True)
class Tab:
    """What the page must know of a tab: what follows the model that is chosen."""

    parts: list[Any]
    """Components that depend on the model, the tab itself first."""
    adapt: Callable[[Entry | None], list[Any]]
    """Their updates for a model."""
    restoring: Restoring | None = None


def adapt_direction(entry: Entry | None) -> Any:
    """The update of a choice of directions."""
    return gradio.update(visible=bool(entry and entry.directions), value="AtoB")


def adapt_style(config: TranslatorConfig | None) -> Any:
    """The update of a choice of styles."""
    if config is None or not (config.domains or config.encoder):
        return gradio.update(visible=False, choices=[], value=None)
    label = "Made into" if config.domains else "Style (empty: the model's own)"
    names = list(config.domains) or [str(number) for number in range(STYLES)]
    return gradio.update(visible=True, label=label, choices=names, value=names[0] if config.domains else None)


def choose_style(style: str | None) -> Style | None:
    """What somebody chose or typed: a domain, a number, or CLASS=NUMBER.

    Raises:
        UsageError: for anything else.
    """
    words = tuple((style or "").split(",")) if "=" in (style or "") else tuple(filter(None, [style]))
    try:
        return parse_style(tuple(word.strip() for word in words))
    except UsageError:
        raise UsageError(f"style {style}: give a number, a name, or CLASS=NUMBER, CLASS=NUMBER.") from None


def whole_number(value: float | None, what: str, least: int = 0) -> int:
    """What a number field holds.

    Raises:
        UsageError: if it is no whole number, or too small.
    """
    if value is None or value != int(value) or value < least:
        raise UsageError(f"{what}: give a whole number of at least {least}.")
    return int(value)
