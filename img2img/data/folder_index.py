"""The index of a folder: what is known of its images, in one Parquet file, so that nobody reads them to check them again."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from img2img.data.index import IMAGE, INDEX, open_parquet, pick_facts, read_columns, refuse_damage

STATE = ("size", "time")  # columns: bytes, and when it was changed last, in ns
FOLDERS: dict[Path, tuple[dict[str, int], dict[str, Any]]] = {}
"""By folder: the rows of files, and columns."""


def load_folder_index(folder: Path) -> None:
    """Takes over the index of a folder, or of the one above, if there is one.

    Raises:
        UsageError: if it can't be read.
    """
    for root in (folder.absolute(), folder.absolute().parent):
        file = root / INDEX
        if not find_spec("pyarrow") or not file.is_file():
            continue
        with refuse_damage(file, "img2img index"), open_parquet(file) as opened:
            if "file" not in opened.schema_arrow.names:  # of shards
                continue
            table = opened.read(use_threads=False)  # threads would abort a process that ends early
            columns = read_columns(table, (*STATE, *IMAGE))
            FOLDERS[root] = {name: row for row, name in enumerate(table["file"].to_pylist())}, columns


def recall_image(file: Path) -> dict[str, Any] | None:
    """What an index says of an image, if that has not changed since."""
    path = file.absolute() if FOLDERS else file
    for root in path.parents if FOLDERS else ():
        if root in FOLDERS:
            rows, columns = FOLDERS[root]
            row = rows.get(path.relative_to(root).as_posix())
            with suppress(OSError):
                state = path.stat()
                if row is not None and (columns["size"][row], columns["time"][row]) == (
                    state.st_size,
                    state.st_mtime_ns,
                ):
                    return pick_facts(columns, row)
            return None
    return None
