"""`img2img fetch`: published models and data sets by name."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tyro.conf import Positional

from img2img.cli.usage import run_command
from img2img.core.errors import UsageError


def command(name: Positional[str], dataset: bool = False, output: Path | None = None, checksum: str = "") -> int:
    """Downloads a published CycleGAN, pix2pix or CUT model, or a data set of these projects, by its name.

    Where a name was given twice, the project goes before it: pix2pix/sat2map. A broken download is resumed, and a finished one is not repeated.

    Args:
        name: Such as horse2zebra, style_monet, facades_label2photo, horse2zebra_fastcut; a wrong one lists all.
        dataset: It is a data set, such as facades or horse2zebra.
        output: The translator's folder, by default one in the cache; of a data set by default datasets/NAME.
        checksum: sha256:… that the file must have, instead of the one that is known.
    """
    from img2img.core.downloads import announce, cache_folder
    from img2img.interop import fetch as room
    from img2img.interop import print_assumptions

    if checksum and not re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", checksum):
        raise UsageError(f"--checksum {checksum}: give sha256: and 64 hexadecimal digits.")
    published = room.find_published(name, "dataset" if dataset else "model")
    with _bytes() as advance:
        if dataset:
            target = output or Path("datasets", published.name)
            room.fetch_dataset(published, target, announce, advance, checksum)
            print(f"It is in {target}. Its terms: {published.licence}.\n  img2img check {target}")
            return 0
        file, imported = room.fetch_model(published, announce, advance, checksum)
    target = output or cache_folder() / "translators" / published.project / published.name
    print_assumptions(imported, file)
    imported.translator.save(target)
    print(f"The translator is in {target}. Its terms: {published.licence}. Convert with it:\n"
          f"  img2img convert SOURCE TARGET --model {target}")  # fmt: skip
    return 0


def fetch(arguments: list[str]) -> int:
    """`img2img fetch`."""
    return run_command(command, "fetch", arguments)


@contextmanager
def _bytes() -> Iterator[Callable[[int, int | None], None]]:
    """A bar for a download."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None, start=False)

        def advance(done: int, total: int | None) -> None:
            bar.start_task(task)
            bar.update(task, completed=done, total=total)

        yield advance
