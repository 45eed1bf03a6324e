"""The index of shards: one Parquet file with the place, the size and what is known of every member, so that nothing is read twice."""

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from img2img.core.errors import UsageError
from img2img.core.files import write_whole
from img2img.core.stored import INDEXES, StoredPath, StoreError, TarIndex, read_tar_index

INDEX = "index.parquet"
IMAGE = ("height", "width", "channels", "bits", "digest")  # columns: the facts about an image
TEXTS = ("maps", "label")  # columns: the facts about label maps as JSON; the class


def load_index(folder: Path, strict: bool = False) -> None:
    """Takes over the index of a folder of shards, if there is one; but for shards that have another size by now.

    Raises:
        UsageError: if it can't be read; if `strict`, also if the shards are others than it says.
    """
    file = folder / INDEX
    try:
        if not find_spec("pyarrow") or not file.is_file():
            return
    except (OSError, StoreError):  # the shards' own error will say why
        return
    with refuse_damage(file, "img2img shard"), open_parquet(file) as opened:
        table = opened.read(use_threads=False)  # threads would abort a process that ends early
        columns = read_columns(table, ("start", "size", "whole", *IMAGE, *TEXTS))
        shards, members = (table[name].to_pylist() for name in ("shard", "member"))
        names = {*members, *map(str, shards)}
        if any(
            os.path.normpath(name) != name or name.startswith(("/", "../")) or name in (".", "..") for name in names
        ):
            raise ValueError("a name in it leads out of its folder, or out of a shard")
        start, size = columns["start"], columns["size"]
        if ((start < 0) | (size < 0) | (size > columns["whole"] - start)).any():
            raise ValueError("a place in it is outside its shard")
    borders = [0, *(place for place in range(1, len(shards)) if shards[place] != shards[place - 1]), len(shards)]
    for first, last in pairwise(borders if shards else ()):
        shard = folder / str(shards[first])
        try:
            unchanged = StoredPath(shard).size() == columns["whole"][first]
        except (OSError, StoreError):
            unchanged = False
        if strict and not unchanged:
            raise UsageError(
                f"{shard} is missing, or not the one that {file} lists. Pack the data set again; or remove the index, if this is meant."
            )
        if unchanged:
            places = zip(columns["start"][first:last].tolist(), columns["size"][first:last].tolist(), strict=True)
            facts = {name: columns[name][first:last] for name in (*IMAGE, *TEXTS)}
            index = TarIndex.of(str(shard), dict(zip(members[first:last], places, strict=True)), facts=facts)
            INDEXES[str(shard)] = index


def open_parquet(file: Path) -> Any:
    """A Parquet file, to be closed; it is read whole first."""
    import pyarrow.parquet as parquet

    return parquet.ParquetFile(io.BytesIO(file.read_bytes()))


def read_columns(table: Any, names: Sequence[str]) -> dict[str, Any]:
    """Columns as arrays: of whole numbers, but for texts.

    Raises:
        KeyError, ValueError: if they are not there, or not such.
    """
    columns = {}
    for name in names:
        columns[name] = table[name].to_numpy()
        if table[name].null_count or (name not in ("digest", *TEXTS) and columns[name].dtype.kind not in "iu"):
            raise ValueError(f"its column {name} is incomplete, or of another kind")
    return columns


@contextmanager
def refuse_damage(file: Path, command: str) -> Iterator[None]:
    """Explains what goes wrong while an index is read, which `command` writes.

    Raises:
        UsageError: then.
    """
    import pyarrow

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pyarrow.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UsageError(f"{file} can't be read ({reason}); remove it, and make it anew with {command}.") from None


def recall_facts(kind: str, files: Sequence[Path]) -> dict[str, Any] | None:
    """What an index says of a member, or of a label map's members, as JSON would hold it."""
    file = files[0]
    index = INDEXES.get(file.container) if isinstance(file, StoredPath) else None
    if index is None or not index.facts:
        return None
    columns, place = index.facts, index.locate(file.member)  # type: ignore[attr-defined]
    if kind == "maps":
        return json.loads(columns["maps"][place]) if columns["maps"][place] else None
    return pick_facts(columns, place) if kind == "image" else None


def pick_facts(columns: Mapping[str, Any], row: int) -> dict[str, Any] | None:
    """The facts about an image in a row of an index, as JSON would hold them; None if there are none."""
    if not columns["height"][row]:
        return None
    return {**{name: int(columns[name][row]) for name in IMAGE[:-1]}, "digest": str(columns["digest"][row])}


def read_class(file: StoredPath) -> str:
    """The class that a member names, as the index has it, or else the member itself."""
    index = read_tar_index(file.container)
    label = index.facts["label"][index.locate(file.member)] if index.facts else None
    return str(label or file.read_bytes().decode("utf-8", "replace")).strip().replace("/", "_")


def require_index() -> None:
    """Says before the work that an index can't be written after it.

    Raises:
        UsageError: if the package pyarrow is missing.
    """
    if not find_spec("pyarrow"):
        raise UsageError("the index needs the package pyarrow: pip install pyarrow, or 'img2img[scale]'.")


def write_index(folder: Path, shards: Sequence[str], facts: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
    """Writes the index of a folder.

    Args:
        shards: their names.
        facts: about members, by shard and name: values of columns.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    rows: list[dict[str, Any]] = []
    empty: dict[str, Any] = dict.fromkeys(IMAGE, 0) | dict.fromkeys(("digest", *TEXTS), "")
    for shard in shards:
        path = StoredPath(folder / shard)
        INDEXES.pop(str(path), None)
        index, whole = read_tar_index(str(path)), path.size()
        places = zip(index.list_names(), index.starts.tolist(), index.sizes.tolist(), strict=True)
        rows += [
            {"shard": shard, "member": name, "start": start, "size": size, "whole": whole}
            | empty
            | dict(facts.get((shard, name), {}))
            for name, start, size in places
        ]
    types = {"shard": pyarrow.dictionary(pyarrow.int32(), pyarrow.string())}
    types |= dict.fromkeys(("start", "size", "whole"), pyarrow.int64()) | dict.fromkeys(IMAGE[:-1], pyarrow.int32())
    types |= dict.fromkeys(("member", "digest", *TEXTS), pyarrow.string())
    schema = pyarrow.schema(
        [(name, types[name]) for name in ("shard", "member", "start", "size", "whole", *IMAGE, *TEXTS)]
    )
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema), buffer, compression="zstd")
    write_whole(folder / INDEX, buffer.getvalue())
