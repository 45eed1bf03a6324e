"""Facts about files, read once: kept in the user's cache by path, size and time of change."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from img2img.core.downloads import cache_folder
from img2img.core.processes import count_cores, current_rank
from img2img.data.index import recall_facts
from img2img.images import ImageError, read_image

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


def read_image_facts(
    files: Sequence[Path], advance: Callable[[], None] = lambda: None
) -> tuple[dict[Path, ImageFacts], dict[Path, str]]:
    """The facts about images, and why some files can't be read."""

    def read(file: Path) -> dict[str, Any] | str:
        try:
            array = read_image(file)
        except ImageError as error:
            return str(error)
        digest = hashlib.blake2b(array.tobytes() + repr(array.shape).encode(), digest_size=16).hexdigest()
        height, width, channels = array.shape
        return asdict(ImageFacts(height, width, channels, array.dtype.itemsize * 8, digest))

    return collect_facts("image", files, lambda file: (file,), read, lambda values: ImageFacts(**values), advance)


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
