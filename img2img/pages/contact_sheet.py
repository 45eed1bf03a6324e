"""A conversion's page: inputs beside what became of them, and what failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from img2img.data.classes import Classes
from img2img.images import ImageError
from img2img.images.labels import read_indices
from img2img.pages.render import embed_array, embed_scaled, write_page

LONGEST = 360  # pixels a side of a picture
PICTURES = 200  # on a page, evenly spaced


@dataclass(frozen=True)
class Converted:
    """One image, before and after, as data URLs; empty where it can't be shown."""

    name: str
    before: str
    after: str


def write_contact_sheet(
    path: Path,
    pairs: Sequence[tuple[Path, Path]],
    total: int,
    folder: Path,
    summary: str,
    remarks: Sequence[str],
    classes: Classes | None = None,
) -> None:
    """Writes the page.

    Args:
        pairs: files of inputs and of outputs that are shown.
        total: of which so many there are.
        folder: of the inputs.
        summary: how many were converted, for a person.
        remarks: what failed, or should be known.
        classes: of inputs that are label maps, which are shown in their colours.

    Raises:
        UserError: if it can't be written.
    """
    shown = [
        Converted(_name(source, folder), _embed_source(source, classes), embed_scaled(target, LONGEST))
        for source, target in pairs
    ]
    write_page(path, "contact_sheet.html", shown=shown, total=total, summary=summary, remarks=remarks)


def _embed_source(source: Path, classes: Classes | None) -> str:
    if classes is None:
        return embed_scaled(source, LONGEST)
    try:
        return embed_array(classes.paint(read_indices(source)), LONGEST)
    except ImageError:  # it has changed since
        return ""


def _name(source: Path, folder: Path) -> str:
    """A file's path below the folder."""
    return str(source.relative_to(folder)) if source.is_relative_to(folder) and source != folder else source.name
