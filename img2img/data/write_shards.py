"""A data set's files, as they are, in tar files that `webdataset` and img2img read."""

import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from img2img.core.errors import UsageError, list_some
from img2img.core.files import remove_leftovers, write_whole
from img2img.core.stored import StoredPath, StoreError, read_tar_index
from img2img.data.base import Pair, Sample
from img2img.data.facts import read_image_facts
from img2img.data.index import write_index
from img2img.data.labelled import read_map_facts
from img2img.data.shards import CLASS

BLOCK = tarfile.BLOCKSIZE
MAPS = ("label", "inst")  # kinds of files that are no images


@dataclass(frozen=True)
class Member:
    """One file in a shard."""

    name: str
    content: Path | bytes
    size: int


@dataclass(frozen=True)
class PlannedShard:
    """One tar file, and what belongs into it."""

    name: str
    samples: list[tuple[Sample, list[Member]]]
    """Each with its members: its files in their order, then its class."""

    @property
    def members(self) -> list[Member]:
        """All of them, in their order."""
        return [member for _, members in self.samples for member in members]


def plan_shards(samples: Mapping[str, Sequence[Sample]], limit: int) -> list[PlannedShard]:
    """Which samples get into which shard, in their order: a new one is begun after so many bytes.

    Raises:
        UsageError: if a file is gone.
    """
    shards: list[PlannedShard] = []
    for prefix, each in samples.items():
        taken: set[str] = set()
        number, filled = 0, limit
        for sample in each:
            key = choose_key(sample.key, taken)
            members = _list_members(key, sample)
            if filled >= limit:
                shards.append(PlannedShard(f"{prefix}-{number:06}.tar", []))
                number, filled = number + 1, 0
            shards[-1].samples.append((sample, members))
            filled += sum(member.size for member in members)
    return shards


def choose_key(name: str, taken: set[str]) -> str:
    """A key of its own without dots in its last part, for what follows a dot there is a file's kind."""
    folder, slash, base = name.rpartition("/")
    wish = key = folder + slash + base.replace(".", "_")
    number = 2
    while key in taken:
        key, number = f"{wish}_{number}", number + 1
    taken.add(key)
    return key


def _list_members(key: str, sample: Sample) -> list[Member]:
    members = []
    for kind, file in sample.files.items():
        try:
            inside = isinstance(file, StoredPath) and file.member
            size = file.find()[1] if inside else file.stat().st_size  # type: ignore[attr-defined]
        except OSError as error:
            raise UsageError(f"{file} can't be read: {error.strerror or error}.") from None
        members.append(Member(".".join(filter(None, (key, kind))) + file.suffix.lower(), file, size))
    if sample.label:
        label = sample.label.encode()
        members.append(Member(f"{key}.{CLASS}", label, len(label)))
    return members


def write_shards(
    folder: Path, shards: Sequence[PlannedShard], advance: Callable[[int], None] = lambda size: None
) -> int:
    """Writes the shards that are not there yet, each whole or not at all, and tells of every one how many bytes it holds.

    Returns:
        How many were there.

    Raises:
        UsageError: if something else is there under the name of one.
        UserError: if one can't be written.
    """
    there = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        strange = sorted({path.name for path in folder.glob("*.tar")} - {shard.name for shard in shards})
    except OSError as error:
        raise UsageError(f"{folder} can't be made: {error.strerror}.") from None
    if strange:
        raise UsageError(f"{folder} holds other shards ({list_some(strange, 2)}); give another folder, or remove them.")
    for shard in shards:
        path = folder / shard.name
        if path.exists():
            _refuse_another(path, shard)
            there += 1
        else:
            write_whole(path, _list_chunks(shard.members), replace=False)
        advance(sum(member.size for member in shard.members))
    return there


def _refuse_another(path: Path, shard: PlannedShard) -> None:
    try:
        index = read_tar_index(str(path))
        same = index.list_names() == [member.name for member in shard.members] and not index.cut
        same = same and index.sizes.tolist() == [member.size for member in shard.members]
    except StoreError:
        same = False
    if not same:
        raise UsageError(f"{path} is there already, and holds something else; give another folder, or remove it.")


def _list_chunks(members: Sequence[Member]) -> Iterator[bytes]:
    """The bytes of a tar file, the same for the same members."""
    written = 0
    for member in members:
        data = member.content if isinstance(member.content, bytes) else member.content.read_bytes()
        chunk = pad_member(member.name, data)
        written += len(chunk)
        yield chunk
    yield end_archive(written)


def pad_member(name: str, data: bytes) -> bytes:
    """A member as it stands in a tar file."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    return entry.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape") + data + bytes(-len(data) % BLOCK)


def end_archive(written: int) -> bytes:
    """What follows the last member, after so many bytes."""
    return bytes(2 * BLOCK + -(written + 2 * BLOCK) % tarfile.RECORDSIZE)


def index_shards(folder: Path, shards: Sequence[PlannedShard], advance: Callable[[], None] = lambda: None) -> None:
    """Writes the index of shards, with what is known of the files that they were made of."""
    samples = [(shard.name, sample, members) for shard in shards for sample, members in shard.samples]
    images = [file for _, sample, _ in samples for kind, file in sample.files.items() if kind not in MAPS]
    known, _ = read_image_facts(list(dict.fromkeys(images)), advance)
    pairs = {
        (shard, sample.key): Pair(f"{shard}/{sample.key}", files["label"], files["target"], labels=True, instances=files.get("inst"))
        for shard, sample, _ in samples
        if "label" in (files := sample.files)
    }  # fmt: skip
    maps = read_map_facts(list(pairs.values()), advance)[0] if pairs else {}
    facts: dict[tuple[str, str], dict[str, Any]] = {}
    for shard, sample, members in samples:
        for member, (kind, file) in zip(members, sample.files.items(), strict=False):
            if kind == "label" and (pair := pairs[shard, sample.key]) in maps:
                facts[shard, member.name] = {"maps": maps[pair].to_json()}
            elif file in known:
                facts[shard, member.name] = vars(known[file])
        if sample.label:
            facts[shard, members[-1].name] = {"label": sample.label}
    write_index(folder, [shard.name for shard in shards], facts)
