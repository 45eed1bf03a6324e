"""Conversion from shards to shards: a tar file becomes a tar file of the same samples, whole or not at all."""

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from img2img.core.errors import UsageError
from img2img.core.files import make_temporary, move_into_place
from img2img.core.stored import TAR, StoredPath, StoreError, TarIndex, read_tar_index, write_stored
from img2img.data.index import load_index
from img2img.data.shards import FOLDERS, find_shards, split_name
from img2img.data.write_shards import end_archive, pad_member
from img2img.images import READABLE
from img2img.inference.plan import AHEAD, Existing, Job, Refuse, name_outputs, real_path
from img2img.inference.report import EXISTS, Outcome
from img2img.models import TranslatorConfig

MAP = "label"
KINDS = (*FOLDERS, MAP, "inst")  # of a sample's files, which a translation's name doesn't have


class ShardWriter:
    """One tar file on its way: its members are written in their order, and it gets its name when the last one is there.

    Args:
        shard: which is converted.
        path: what it becomes.
        entries: the names of its members, each with that of the member that it is made of.
        copied: members that are taken over as they are.
        replace: whether it may take the place of another file.
    """

    def __init__(
        self, shard: StoredPath, path: Path, entries: list[tuple[str, str]], copied: set[str], replace: bool
    ) -> None:
        self.shard, self.path, self.replace = shard, path, replace
        self.left = len(entries) - len(copied)
        """Inputs of which nothing is known yet."""
        self.outcomes: list[tuple[int, Outcome]] = []
        self._entries, self._copied = entries, copied
        self._ready: dict[str, bytes | None] = {}
        self._broken: Exception | None = None
        self._next = self._written = 0
        self._file: IO[bytes] | None = None
        self._temporary: Path | None = None
        self._lock = threading.Lock()

    def put(self, job: Job, data: bytes | None) -> None:
        """The bytes that an input has become; None if it has failed.

        Raises:
            OSError: if they can't be written.
        """
        assert isinstance(job.source, StoredPath)
        with self._lock:
            self._ready[job.source.member] = data
            self._write_ready()

    def _write_ready(self) -> None:
        """Writes all whose turn it is."""
        if self._broken:
            raise self._broken
        try:
            while self._next < len(self._entries):
                name, made_of = self._entries[self._next]
                if made_of in self._copied:
                    self._append(pad_member(name, StoredPath(self.shard / made_of).read_bytes()))
                elif made_of not in self._ready:
                    break
                elif (data := self._ready.pop(made_of)) is not None:
                    self._append(pad_member(name, data))
                self._next += 1
        except Exception as error:
            self._broken = error  # what is written may end within a member
            raise

    def _append(self, data: bytes) -> None:
        if self._file is None:
            folder = Path(tempfile.gettempdir()) if isinstance(self.path, StoredPath) else self.path.parent
            handle, self._temporary = make_temporary(folder)
            self._file = os.fdopen(handle, "wb")
        self._file.write(data)
        self._written += len(data)

    def account(self, job: Job, outcome: Outcome) -> bool:
        """Takes what became of an input; whether it was the last."""
        if outcome.status == "failed":
            with suppress(Exception):  # `finish` will say it
                self.put(job, None)
        self.outcomes.append((job.number, outcome))
        self.left -= 1
        return not self.left

    def finish(self) -> list[tuple[int, Outcome]]:
        """Gives the tar file its name; the outcomes of all inputs, which have failed if that can't be done."""
        try:
            with self._lock:
                self._write_ready()  # also if all of the last ones are copied
                assert self._next == len(self._entries)
            if any(outcome.status == "done" for _, outcome in self.outcomes):
                self._append(end_archive(self._written))
                self._place()
        except Exception as error:
            reason = f"{self.path} can't be written: {getattr(error, 'strerror', None) or error}"
            self.outcomes = [
                (number, Outcome(each.source, each.target, "failed", reason)) for number, each in self.outcomes
            ]
        finally:
            self.close()
        return self.outcomes

    def _place(self) -> None:
        assert self._file is not None and self._temporary is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if isinstance(self.path, StoredPath):
            write_stored(self.path, self._temporary)
        else:
            move_into_place(self._temporary, self.path, self.replace)

    def close(self) -> None:
        """Removes what is not finished."""
        with self._lock:
            self._broken = self._broken or OSError("the conversion has ended")
            if self._file is not None:
                with suppress(OSError):  # a full disk may refuse the last bytes, which nobody wants
                    self._file.close()
            if self._temporary is not None:
                with suppress(OSError):  # it has got its name, or the disk fails
                    self._temporary.unlink()


class ShardPlan:
    """The members of shards that are converted, and the shards that they become; as `Plan`, of which it takes the place.

    Where samples have parts, the sources are converted, or the targets for a translator from B to A, or the label maps; else all images. What is no image, such as
    ``cat.cls`` or ``cat.json``, is copied.

    Args:
        shards: in their order.
        target: the folder of the new shards; or a tar file, of one shard.
        existing: what to do with a shard whose target exists.

    Raises:
        UsageError: if they can't be used.
    """

    def __init__(
        self, source: Path, shards: list[StoredPath], target: Path, suffix: str | None, existing: Existing
    ) -> None:
        if not shards:
            raise UsageError(f"{source} names no shards.")
        one = target.suffix == TAR
        if one and len(shards) > 1:
            raise UsageError(f"{target} is one tar file, and {source} are {len(shards)}; give a folder.")
        self.shards, self.suffix, self.existing = shards, suffix, existing
        self.root = target.parent if one else target
        self.targets = [target if one else target / shard.name for shard in shards]
        same = [each for each, made in zip(shards, self.targets, strict=True) if real_path(each) == real_path(made)]
        if same:
            raise UsageError(f"{same[0]} is the source and the target; give another target.")
        twice = [path for path, count in Counter(self.targets).items() if count > 1]
        if twice:
            raise UsageError(
                f"{twice[0]} would be written by several shards of that name; convert one folder at a time."
            )
        if not isinstance(target, StoredPath) and self.root.is_file():
            raise UsageError(f"{self.root} is a file; give a folder.")
        self.ignored: Counter[str] = Counter()
        self.writers: list[ShardWriter] = []
        self.part_of_samples = "source"
        """Which of a sample's files are converted, where they have such parts."""
        load_index(shards[0].parent)

    def count(self) -> int:
        """How many images there are in all shards."""
        total = 0
        for shard in self.shards:
            with suppress(StoreError):
                total += len(self._choose(read_tar_index(str(shard))))
        return total

    def divide(self, most: int, part: int, parts: int, refuse: Refuse) -> tuple[list[Job], Iterator[list[Job]]]:
        """As `divide_jobs`; a part has whole shards, and a list has members of one."""
        first: list[Job] = []
        for shard in self.shards:
            with suppress(StoreError):
                names = self._choose(read_tar_index(str(shard)))
                first += [Job(0, StoredPath(shard / name), shard / name) for name in names[: AHEAD - len(first)]]
            if len(first) >= AHEAD:
                break
        return first, self._list(most, part, parts, refuse)

    def _list(self, most: int, part: int, parts: int, refuse: Refuse) -> Iterator[list[Job]]:
        for place, (shard, target) in enumerate(zip(self.shards, self.targets, strict=True)):
            if place % parts != part:
                continue
            number = place << 32
            try:
                index = read_tar_index(str(shard))
                names = self._choose(index)
                outcome = self._decide_on_shard(shard, target, index, names)
            except (StoreError, OSError) as error:
                outcome = Outcome(str(shard), str(target), "failed", str(error))
            if outcome:
                refuse(number, outcome)
                continue
            jobs = self._plan_shard(number + 1, shard, target, index, names)
            yield from (jobs[first : first + most] for first in range(0, len(jobs), most))

    def _decide_on_shard(self, shard: StoredPath, target: Path, index: TarIndex, names: list[str]) -> Outcome | None:
        """What becomes of a shard whose members are not converted."""
        which = str(shard), str(target)
        if index.cut:
            return Outcome(*which, "failed", f"the shard is cut off after {index.cut}; make it anew")
        if not names and any(name.lower().endswith(READABLE) for name in index.list_names()):
            reason = "its images are none that this translator takes, but label maps, instance maps or targets"
            return Outcome(*which, "failed", reason)
        if not names:
            return Outcome(*which, "skipped", "it holds no images")
        if self.existing == "overwrite" or not target.exists():
            return None
        if self.existing == "fail":
            return Outcome(*which, "failed", EXISTS)
        made = set(read_tar_index(str(target)).list_names())
        goals = self._name(names)
        missing = [name for name in names if goals[name] not in made]
        if missing:
            reason = f"the target exists, but {len(missing)} translations are missing in it, such as that of {missing[0]}; remove it to convert the shard again"
            return Outcome(*which, "failed", reason)
        return Outcome(*which, "skipped", "the target exists")

    def _plan_shard(self, number: int, shard: StoredPath, target: Path, index: TarIndex, names: list[str]) -> list[Job]:
        goals, chosen = self._name(names), set(names)
        every = index.list_names()
        copied = {name for name in every if not name.lower().endswith(READABLE)}
        entries = [(goals.get(name, name), name) for name in every if name in chosen or name in copied]
        writer = ShardWriter(shard, target, entries, copied, self.existing == "overwrite")
        self.writers = [each for each in self.writers if each.left] + [writer]
        return [
            Job(number + place, StoredPath(shard / name), target / goals[name], shard=writer)
            for place, name in enumerate(names)
        ]

    def _choose(self, index: TarIndex) -> list[str]:
        """The members that are converted."""
        visible = [name for name in index.list_names() if not name.rpartition("/")[2].startswith(".")]
        names = [name for name in visible if name.lower().endswith(READABLE)]
        parts = {name: split_name(name)[1].rpartition(".")[0] for name in names}
        if self.part_of_samples in parts.values():
            return [name for name in names if parts[name] == self.part_of_samples]
        return [name for name in names if parts[name] not in KINDS]

    def _name(self, names: list[str]) -> dict[str, str]:
        """What each becomes: ``cat.png`` of ``cat.source.png``."""
        plain = {}
        for name in names:
            key, kind = split_name(name)
            part, _, suffix = kind.rpartition(".")
            plain[name] = f"{key}.{suffix}" if part in KINDS else name
        goals = name_outputs(list(plain.values()), self.suffix)
        return {name: goals.get(each, (each, each))[0] for name, each in plain.items()}

    def close(self) -> None:
        """Removes what is not finished."""
        for writer in self.writers:
            writer.close()


def choose_part(config: TranslatorConfig) -> str:
    """Which of a sample's files a translator takes."""
    if config.classes is not None:
        return MAP
    return "target" if config.direction == "BtoA" else "source"


def list_source_shards(source: Path) -> list[StoredPath] | None:
    """The shards that a source names.

    Raises:
        UsageError: if they can't be listed.
    """
    try:
        return find_shards(source)
    except (StoreError, OSError) as error:
        raise UsageError(str(error)) from None
