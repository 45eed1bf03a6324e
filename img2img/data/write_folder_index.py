"""Writes the index of a folder; `folder_index` reads it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from img2img.core.errors import UsageError
from img2img.core.files import write_whole
from img2img.data.facts import read_image_facts
from img2img.data.folder_index import FOLDERS, STATE, load_folder_index
from img2img.data.index import IMAGE, INDEX, require_index
from img2img.data.layouts import list_image_kinds
from img2img.data.listing import list_images
from img2img.images.formats import VOLUMES, find_suffix


def write_folder_index(folder: Path, start: Callable[[int], Callable[[], None]]) -> tuple[int, list[str]]:
    """Reads the images of a folder that its index doesn't know as they are, and writes it.

    Args:
        start: gets the number of images, and gives what is called after each.

    Returns:
        How many images it holds, and why others can't be read.

    Raises:
        UsageError: if there are no images, or the folder has an index of shards, or it can't be written.
    """
    require_index()
    import pyarrow
    import pyarrow.parquet as parquet

    load_folder_index(folder)
    if (folder / INDEX).exists() and folder.absolute() not in FOLDERS:
        raise UsageError(f"{folder / INDEX} is not the index of a folder of images; it stays as it is.")
    files = [file for file in list_images(folder).files if find_suffix(file) not in VOLUMES]
    if not files:
        raise UsageError(
            f"{folder} holds no images besides volumes, whose slices are kept elsewhere (image files: {list_image_kinds()})."
        )
    states = {file: file.stat() for file in files}  # before they are read
    facts, unreadable = read_image_facts(files, start(len(files)))
    known = sorted(facts)
    columns: dict[str, Any] = {
        "file": [file.relative_to(folder).as_posix() for file in known],
        "size": [states[file].st_size for file in known],
        "time": [states[file].st_mtime_ns for file in known],
        **{name: [getattr(facts[file], name) for file in known] for name in IMAGE},
    }
    types = {"file": pyarrow.string(), "digest": pyarrow.string()} | dict.fromkeys(STATE, pyarrow.int64())
    table = pyarrow.table({n: pyarrow.array(v, types.get(n, pyarrow.int32())) for n, v in columns.items()})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    try:
        write_whole(folder / INDEX, buffer.getvalue())
    except OSError as error:
        raise UsageError(f"{folder / INDEX} can't be written: {error.strerror}.") from None
    FOLDERS.pop(folder.absolute(), None)
    return len(known), [reason for _, reason in sorted(unreadable.items())]
