"""Which files are converted, and what each becomes: found folder by folder, while others are converted already."""

import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal, Protocol

from img2img.core.errors import UsageError
from img2img.core.files import remove_leftovers
from img2img.core.stored import StoredPath, StoreError, list_folder
from img2img.images import READABLE
from img2img.images.formats import find_suffix, split_ending
from img2img.inference.report import Outcome

Existing = Literal["fail", "skip", "overwrite"]
Refuse = Callable[[int, Outcome], None]
"""Is told what becomes of something that can't be an input, and its place among all."""
STREAM = "-"
AHEAD = 1024  # inputs that are looked at before the first is converted


class Archive(Protocol):
    """A file that several outputs go into."""

    def put(self, job: "Job", data: bytes | None) -> None:
        """The bytes that an input has become; None if it has failed."""
        ...

    def account(self, job: "Job", outcome: Outcome) -> bool:
        """Takes what became of an input; whether it was the last."""
        ...

    def finish(self) -> list[tuple[int, Outcome]]:
        """Gives the file its name; the outcomes of all inputs, with their places."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """One input and its output."""

    number: int
    """Its place among all that was found."""
    source: Path
    target: Path
    note: str = ""
    """If its name is not the one that one would expect."""
    skipped: bool = False
    """Whether it only fills its place in a batch, because its target exists."""
    shard: "Archive | None" = None
    """What its output becomes a part of, unless it is a file."""


class Plan:
    """The inputs of a conversion and their targets. A folder's own files come first, in the order of their names, then its sub-folders.

    Args:
        source: a file or a folder.
        target: a file if the source is one, else a folder.
        suffix: of the outputs; by default as of the inputs.
        listed: paths below the source folder, one a line: the inputs, instead of all images in the folder.

    Raises:
        UsageError: if source or target can't be used.
    """

    def __init__(self, source: Path, target: Path, suffix: str | None = None, listed: list[str] | None = None) -> None:
        self.source, self.target, self.suffix, self.listed = source, target, suffix, listed
        self.ignored: Counter[str] = Counter()
        """How many files were left alone so far, by their suffix, or why."""
        self._number = 0
        refuse_paths(source, target)
        self._stored = isinstance(source, StoredPath)
        self._file = None if source.is_dir() else _plan_file(source, target, suffix)
        self.root = target.parent if self._file else target
        """The folder of all outputs."""
        if self._file:
            if listed is not None:
                raise UsageError(f"--list names files of a folder, but {source} is a file.")
            return
        if target.is_file():
            raise UsageError(f"{target} is a file, but {source} is a folder; give a folder.")
        self._inside, self._outputs = real_path(source), real_path(target)
        if self._inside == self._outputs:
            raise UsageError(f"{target} is the source folder itself; give another target.")

    def divide(self, most: int, part: int, parts: int, refuse: Refuse) -> tuple[list[Job], Iterator[list[Job]]]:
        """As `divide_jobs`, of all jobs."""
        return divide_jobs(self.jobs(refuse), most, part, parts)

    def close(self) -> None:
        """Nothing is open."""

    def jobs(self, refuse: Refuse) -> Iterator[Job]:
        """All inputs with their targets.

        Raises:
            UsageError: at the end, if there were none.
        """
        if self._file:
            yield self._file
            return
        found = links = failed = 0

        def refuse_one(outcome: Outcome) -> None:
            nonlocal links, failed
            links += outcome.reason.startswith("a link")
            failed += outcome.status == "failed"
            refuse(self._count(), outcome)

        folders = self._walk(refuse_one) if self.listed is None else self._read_list(self.listed, refuse_one)
        for folder, names in folders:
            for job in self._plan_folder(folder, names, refuse_one):
                found += 1
                yield job
        if not found and not failed:
            self._refuse_nothing(links)

    def _count(self) -> int:
        self._number += 1
        return self._number - 1

    def _refuse_nothing(self, links: int) -> None:
        if links:
            raise UsageError(
                f"{self.source} holds no images of its own, and links (there are {links}) are not followed; give the folder that they lead to, or copy the images."
            )
        if self.listed is not None:
            raise UsageError("--list names no files.")
        raise UsageError(f"{self.source} holds no images (files that end with {', '.join(READABLE)}).")

    def count(self) -> int:
        """How many files have an image's name; reads nothing but names."""
        if self._file:
            return 1
        if self.listed is not None:
            return len(set(self.listed))
        return sum(len(names) for _, names in Plan(self.source, self.target)._walk(lambda outcome: None))

    def _walk(self, refuse: Callable[[Outcome], None]) -> Iterator[tuple[str, list[str]]]:
        """The folders, as paths below the source, with the names of their images; what links to folders is not followed, so that loops don't hang."""
        excluded = os.path.relpath(self._outputs, self._inside) if self._outputs.is_relative_to(self._inside) else None
        folders = [""]
        while folders:
            folder = folders.pop()
            names: list[str] = []
            below: list[str] = []
            try:
                if self._stored:
                    files, below = list_folder(self.source / folder)
                    names = [name for name in files if self._is_image(name)]
                    below = [name for name in below if not name.startswith(".")]
                else:
                    with os.scandir(self.source / folder) as entries:
                        for entry in entries:
                            self._sort_in(entry, names, below, refuse)
            except (OSError, StoreError) as error:
                reason = str(error) if isinstance(error, StoreError) else f"can't be listed: {error.strerror or error}"
                refuse(Outcome(str(self.source / folder), "", "failed", reason))
            paths = [os.path.join(folder, name) for name in sorted(below, reverse=True)]  # noqa: PTH118 (Path is slow)
            folders += [path for path in paths if path != excluded]
            yield folder, sorted(names)

    def _sort_in(
        self, entry: os.DirEntry[str], names: list[str], below: list[str], refuse: Callable[[Outcome], None]
    ) -> None:
        """Puts an entry of a folder where it belongs; of the system it asks no more than the listing told, but for links."""
        folder = entry.is_dir(follow_symlinks=False)
        if folder and not entry.name.startswith("."):
            below.append(entry.name)
        elif not folder and entry.is_symlink() and not entry.name.startswith(".") and _is_folder(entry):
            refuse(Outcome(entry.path, "", "skipped", "a link to a folder, which is not followed"))
        elif not self._is_image(entry.name):
            return
        elif refusal := _explain_refusal(entry, self._inside):
            refuse(Outcome(entry.path, "", *refusal))  # type: ignore[arg-type]
        else:
            names.append(entry.name)

    def _is_image(self, name: str) -> bool:
        """Whether a file has the name of an image; else it is counted among those that are left alone."""
        suffix = split_ending(name)[1]
        if name.startswith("."):
            self.ignored["hidden"] += 1
        elif suffix not in READABLE:
            self.ignored[suffix or "without a suffix"] += 1
        return not name.startswith(".") and suffix in READABLE

    def _read_list(self, lines: list[str], refuse: Callable[[Outcome], None]) -> Iterator[tuple[str, list[str]]]:
        """The same of files that a list names, in the order of their folders' first lines."""
        folders: dict[str, dict[str, None]] = {}
        inside: dict[str, bool] = {}
        for line in lines:
            path = os.path.normpath(os.path.join(self.source, line))  # noqa: PTH118 (Path is slow)
            folder, name = os.path.split(os.path.relpath(path, self.source))
            try:
                refusal = self._explain_line(Path(path), folder, inside)
            except (OSError, ValueError) as error:  # a name that is too long, or holds a zero
                refusal = f"it can't be read: {getattr(error, 'strerror', None) or error}"
            if refusal:
                refuse(Outcome(path, "", "failed", refusal))
            else:
                folders.setdefault(folder, {})[name] = None
        for folder, names in folders.items():
            yield folder, list(names)

    def _explain_line(self, path: Path, folder: str, inside: dict[str, bool]) -> str:
        """Why a listed file is no input; `inside` remembers which folders are in the source folder."""
        if self._stored:
            inside[folder] = folder != ".." and not folder.startswith("../")
        elif folder not in inside:
            inside[folder] = real_path(self.source / folder).is_relative_to(self._inside)
        linked = not self._stored and path.is_symlink() and not real_path(path).is_relative_to(self._inside)
        if linked or not inside[folder]:
            return f"it lies outside of {self.source}"
        if find_suffix(path) not in READABLE:
            return f"no image: its name ends with none of {', '.join(READABLE)}"
        return ""

    def _plan_folder(self, folder: str, names: list[str], refuse: Callable[[Outcome], None]) -> Iterator[Job]:
        """The jobs of one folder's files, none of which takes the name of another, or the place of an input."""
        if not names:
            return
        source, target = self.source / folder, self.target / folder
        goals = name_outputs(names, self.suffix)
        real = real_path(target)
        below = self._outputs.is_relative_to(self._inside) and real.is_relative_to(self._outputs)
        among_inputs = real.is_relative_to(self._inside) and not below
        for name in names:
            goal, wanted = goals.get(name, (name, name))
            if among_inputs:
                reason = "its output would lie in the source folder; give another target"
                refuse(Outcome(str(source / name), str(target / goal), "failed", reason))
                continue
            note = "" if goal == wanted else f"written as {goal}, for others would be {wanted}, too"
            yield Job(self._count(), source / name, target / goal, note)


def name_outputs(names: list[str], suffix: str | None) -> dict[str, tuple[str, str]]:
    """What the files of a folder become, and what each would have become alone; none if all keep their names."""
    if suffix is None:
        return {}
    wish = {name: split_ending(name)[0] + suffix for name in names}
    often = Counter(wish.values())
    goals: dict[str, tuple[str, str]] = {}
    taken: set[str] = set()
    for name in sorted(names, key=lambda name: wish[name] != name):  # who has the suffix already keeps its name
        goal = wish[name]
        if often[goal] > 1 and goal != name:  # of a.jpg and a.bmp none can be a.png
            goal = f"{name}{suffix}"
        while goal in taken:
            goal = f"{goal}{suffix}"
        taken.add(goal)
        goals[name] = goal, wish[name]
    return goals


def divide_jobs(jobs: Iterable[Job], most: int, part: int, parts: int) -> tuple[list[Job], Iterator[list[Job]]]:
    """Divides the jobs into lists of at most so many neighbours; of all parts together they are all, and none twice.

    Returns:
        The first jobs of all parts, as many as decide on the length of the lists; and the lists of one part.
    """
    jobs = iter(jobs)
    ahead = list(islice(jobs, max(most * parts, AHEAD)))
    length = max(1, min(most, -(-len(ahead) // parts)))
    everything = chain(ahead, jobs)
    lists = iter(lambda: list(islice(everything, length)), [])
    return ahead[:AHEAD], islice(lists, part, None, parts)


def read_list(path: str) -> list[str]:
    """The lines of a list of files; of the standard input for ``-``.

    Raises:
        UsageError: if it can't be read.
    """
    try:
        data = sys.stdin.buffer.read() if path == STREAM else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"--list {path} can't be read: {error.strerror}.") from None
    return [os.fsdecode(line.rstrip(b"\r")) for line in data.split(b"\n") if line.strip()]


def refuse_paths(source: Path, target: Path) -> None:
    """Raises a `UsageError` if a source isn't there, or paths can't be reached."""
    for path in (source, target):
        try:
            path.exists()
        except OSError as error:  # a name that is too long, or a store that can't be reached
            raise UsageError(f"{path}: {error.strerror or error}.") from None
    if not source.exists():
        raise UsageError(f"{source} does not exist; give an image or a folder of images.")


def _plan_file(source: Path, target: Path, suffix: str | None) -> Job:
    if not source.is_file():
        raise UsageError(f"{source} is neither a file nor a folder.")
    folder = target.is_dir()
    target = target / source.name if folder else target
    stem, given = split_ending(target.name)
    if suffix and given in READABLE and _format(given) != _format(suffix) and not folder:
        raise UsageError(f"{target} is not a name for --format {suffix[1:]}; leave one of them out.")
    if suffix and given != suffix:
        target = target.with_name((stem if given in READABLE else target.name) + suffix)
    if find_suffix(target) not in READABLE:
        raise UsageError(f"{target}: give a file that ends with one of {', '.join(READABLE)}, or a folder that exists.")
    if target.exists() and real_path(target) == real_path(source):
        raise UsageError(f"{target} is the source itself; give another target.")
    return Job(0, source, target)


def _format(suffix: str) -> str:
    return {".jpeg": ".jpg", ".tiff": ".tif", ".apng": ".png"}.get(suffix, suffix)


def make_folder(folder: Path) -> None:
    """Makes a folder of outputs, and clears what a killed process left unfinished in it.

    Raises:
        OSError: if it can't be made.
    """
    if not isinstance(folder, StoredPath):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # links that lead to themselves
        return entry.is_dir()
    return False


def _explain_refusal(entry: os.DirEntry[str], inside: Path) -> tuple[str, str] | None:
    """Why a file is no input: it leads out of the source folder, or nowhere, or is none."""
    if entry.is_file(follow_symlinks=False):
        return None
    if entry.is_symlink() and not real_path(Path(entry.path)).is_relative_to(inside):
        return "skipped", "a link that leads out of the source folder"
    try:
        regular = stat.S_ISREG(entry.stat().st_mode)
    except OSError as error:
        return "failed", f"a link that leads nowhere ({error.strerror})"
    return None if regular else ("failed", "no file, but a pipe, socket or device")


def real_path(path: Path) -> Path:
    """Where links lead; a `StoredPath` has none."""
    if isinstance(path, StoredPath):
        return path
    return Path(os.path.realpath(path))  # Path.resolve raises on loops of links
