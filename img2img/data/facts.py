"""Facts about files, read once: kept in the user's cache by path, size and time of change."""

import hashlib
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from img2img.core.downloads import cache_folder
from img2img.core.processes import count_cores, current_rank
from img2img.data.folder_index import recall_image
from img2img.data.index import recall_facts
from img2img.images import ImageError, Rules, read_picture
from img2img.images.arrays import to_16_bit
from img2img.images.bands import Range

Item = TypeVar("Item", bound=Hashable)
Fact = TypeVar("Fact")

CACHE_FILE = "facts.sqlite"
CHUNK = 256  # items after which what was learnt is kept, and told
FRESH = 2.0  # seconds: a file that changed so recently may change again without a trace in its time
TABLE = "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, state TEXT NOT NULL, facts TEXT NOT NULL)"


@dataclass(frozen=True)
class ImageFacts:
    """What decoding an image told: height, width, channels, bits a channel, and a digest of its pixels."""

    height: int
    width: int
    channels: int
    bits: int
    digest: str
    extent: Range | None = None
    """Of measurements, the least and the greatest value, unless there are none."""


def read_image_facts(
    files: Sequence[Path], advance: Callable[[], None] = lambda: None, ranges: Mapping[Path, Range | None] | None = None
) -> tuple[dict[Path, ImageFacts], dict[Path, str]]:
    """The facts about images, and why some files can't be read.

    Args:
        ranges: of files that hold measurements.
    """
    groups: dict[Range | None, list[Path]] = defaultdict(list)
    for file in files:
        groups[ranges.get(file) if ranges else None].append(file)
    facts: dict[Path, ImageFacts] = {}
    unreadable: dict[Path, str] = {}
    for limits, group in groups.items():
        kind = f"bands {limits[0]!r} {limits[1]!r}" if limits else "image"
        found = collect_facts(kind, group, lambda file: (file,), partial(_read_facts, limits), _restore_facts, advance)
        facts |= found[0]
        unreadable |= found[1]
    return facts, unreadable


def _read_facts(limits: Range | None, file: Path) -> dict[str, Any] | str:
    try:
        picture = read_picture(file, Rules(first=True, metadata=False, range=limits))
    except ImageError as error:
        return str(error)
    array = picture.frames[0] if limits else to_16_bit(picture.frames[0])
    digest = hashlib.blake2b(array.tobytes() + repr(array.shape).encode(), digest_size=16).hexdigest()
    height, width, channels = array.shape
    extent = picture.bands.found if picture.bands else None
    return asdict(ImageFacts(height, width, channels, array.dtype.itemsize * 8, digest, extent))


def _restore_facts(values: dict[str, Any]) -> ImageFacts:
    extent = values.get("extent")
    return ImageFacts(**{**values, "extent": tuple(extent) if extent else None})


def collect_facts(
    kind: str,
    items: Sequence[Item],
    files_of: Callable[[Item], tuple[Path, ...]],
    read: Callable[[Item], dict[str, Any] | str],
    restore: Callable[[dict[str, Any]], Fact],
    advance: Callable[[], None] = lambda: None,
) -> tuple[dict[Item, Fact], dict[Item, str]]:
    """Facts about items, from the cache where their files haven't changed since; else read in parallel, and cached.

    Args:
        kind: of the facts; a part of their name in the cache.
        read: gives the facts about an item as JSON holds them, or a sentence that says what is wrong; sentences aren't cached.
        restore: makes the facts of what JSON holds.

    Several processes that train together each read a part, and all learn the same.

    Returns:
        The facts, and the sentences.
    """
    rank = current_rank()
    names = {item: json.dumps([kind, *(str(file.absolute()) for file in files_of(item))]) for item in items}
    indexed = {item: json.dumps(found) for item in items if (found := recall_facts(kind, files_of(item)))}
    if kind == "image":  # of folders, whose files may change while processes look
        mine = [item for item in items if item not in indexed] if rank.index == 0 else []
        indexed |= rank.share({item: json.dumps(found) for item in mine if (found := recall_image(files_of(item)[0]))})
    states = {item: _state_of(files_of(item)) for item in items if item not in indexed}
    cached = _load({names[item] for item in states}) if rank.index == 0 else {}
    known = rank.share({item: values for item in states if (values := _recall(cached, names[item], states[item]))})
    known |= indexed
    facts = {item: restore(json.loads(values)) for item, values in known.items()}
    unreadable: dict[Item, str] = {}
    for _ in known:
        advance()
    missing = [item for item in items if item not in known]
    with ThreadPoolExecutor(min(8, count_cores())) as pool:
        for first in range(0, len(missing), CHUNK * rank.count):
            chunk = missing[first : first + CHUNK * rank.count]
            own = chunk[rank.index :: rank.count]
            fresh: list[tuple[str, str, str]] = []
            for item, outcome in rank.gather(list(zip(own, pool.map(read, own), strict=True))):
                if isinstance(outcome, str):
                    unreadable[item] = outcome
                else:
                    values = json.dumps(outcome)
                    facts[item] = restore(json.loads(values))
                    if states[item]:
                        fresh.append((names[item], states[item], values))
                advance()
            if rank.index == 0:
                _store(fresh)
    return {item: facts[item] for item in items if item in facts}, unreadable


def _recall(cached: dict[str, tuple[str, str]], name: str, state: str) -> str:
    """What the cache holds of an item, as JSON; empty if that is nothing, or its files may have changed."""
    then, values = cached.get(name, ("", ""))
    return values if then and then == state else ""


def _state_of(files: Sequence[Path]) -> str:
    """Sizes and times of change; empty if they can't be relied on."""
    with suppress(OSError):
        stats = [file.stat() for file in files]
        if all(time.time() - each.st_mtime > FRESH for each in stats):
            return json.dumps([(each.st_size, each.st_mtime_ns) for each in stats])
    return ""


def _load(names: set[str]) -> dict[str, tuple[str, str]]:
    file = cache_folder() / CACHE_FILE
    if not file.is_file():
        return {}
    found = {}
    with suppress(sqlite3.Error), closing(sqlite3.connect(file)) as database:
        for name in names:
            row = database.execute("SELECT state, facts FROM facts WHERE name = ?", (name,)).fetchone()
            if row is not None:
                found[name] = (row[0], row[1])
    return found


def _store(rows: list[tuple[str, str, str]]) -> None:
    """A cache that can't be written is none."""
    if not rows:
        return
    with suppress(sqlite3.Error, OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(cache_folder() / CACHE_FILE)) as database, database:
            database.execute(TABLE)
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)
