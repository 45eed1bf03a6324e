"""`img2img index`: what is known of a folder's images, beside them."""

import sys
from collections.abc import Callable
from pathlib import Path

from tyro.conf import Positional

from img2img.cli.usage import run_command
from img2img.core.errors import UsageError


def command(path: Positional[Path]) -> int:
    """Reads every image of a folder, with its sub-folders, and writes what it learns to index.parquet in it. Checks and training on other machines then read none of them to check them.

    Called again, it reads what is new or changed.

    Args:
        path: The folder, such as a data set's.
    """
    from rich.progress import Progress

    from img2img.core.stored import StoredPath, resolve_path
    from img2img.data.shards import find_shards
    from img2img.data.write_folder_index import write_folder_index

    path = resolve_path(path)
    if isinstance(path, StoredPath):
        raise UsageError(f"{path}: give a folder of this machine.")
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such folder.")
    if find_shards(path) is not None:
        raise UsageError(f"{path} holds shards, to which img2img shard gives an index.")
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:

        def start(files: int) -> Callable[[], None]:
            task = bar.add_task("reading", total=files)
            return lambda: bar.advance(task)

        count, unreadable = write_folder_index(path, start)
    for reason in unreadable[:20]:
        print(f"left out: {reason}")
    if len(unreadable) > 20:
        print(f"(and {len(unreadable) - 20:,} more)")
    print(f"{path / 'index.parquet'}: {count:,} images.")
    return 1 if unreadable else 0


def index(arguments: list[str]) -> int:
    """`img2img index`."""
    return run_command(command, "index", arguments)
