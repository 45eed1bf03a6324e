"""A conversion's page: inputs beside what became of them, and what failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from img2img.data.base import choose_sample
from img2img.pages.render import embed_scaled, write_page

LONGEST = 360  # pixels a side of a picture
MOST = 200  # images, evenly spaced


@dataclass(frozen=True)
class Converted:
    """One image, before and after, as data URLs; empty where it can't be shown."""

    name: str
    before: str
    after: str


def write_contact_sheet(
    path: Path, pairs: Sequence[tuple[Path, Path]], folder: Path, summary: str, remarks: Sequence[str]
) -> None:
    """Writes the page.

    Args:
        pairs: files of inputs and of outputs; of many, some are shown.
        folder: of the inputs.
        summary: how many were converted, for a person.
        remarks: what failed, or should be known.

    Raises:
        UserError: if it can't be written.
    """
    shown = [
        Converted(_name(source, folder), embed_scaled(source, LONGEST), embed_scaled(target, LONGEST))
        for source, target in choose_sample(list(pairs), MOST)
    ]
    write_page(path, "contact_sheet.html", shown=shown, total=len(pairs), summary=summary, remarks=remarks)


def _name(source: Path, folder: Path) -> str:
    """A file's path below the folder."""
    return str(source.relative_to(folder)) if source.is_relative_to(folder) and source != folder else source.name
