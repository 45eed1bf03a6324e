"""What became of every input of a conversion."""

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, Self, overload

import numpy as np

from img2img.core.errors import UsageError, list_some
from img2img.core.files import write_whole
from img2img.core.processes import ProcessRank
from img2img.data.classes import Classes
from img2img.inference.batching import Times

Status = Literal["done", "skipped", "failed"]

EXISTS = "the target exists; --overwrite replaces it, --skip-existing leaves it"
CHUNK = 2048  # outcomes that processes exchange at once


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input."""

    source: str
    target: str
    status: Status
    reason: str = ""
    """Why, unless it is done."""
    note: str = ""
    """What should be known about it, though it is done."""
    width: int = 0
    height: int = 0
    frames: int = 0
    bits: int = 0
    """Of a channel: 8, 16, or 32 of floats."""
    mode: str = ""
    """How the network was run: eval or paper."""
    dtype: str = ""
    """In which it was computed: fp32, bf16, fp16 or int8."""
    engine: str = ""
    """What computed it: torch, openvino or onnx."""
    seconds: float = 0.0

    def line(self) -> str:
        """As JSON, without what doesn't apply."""
        fixed = ("source", "target", "status")
        defaults = {each.name: each.default for each in fields(self)}
        values = {k: v for k, v in asdict(self).items() if k in fixed or v != defaults[k]}
        return json.dumps(values, ensure_ascii=False) + "\n"


class OutcomeFile(Sequence[Outcome]):
    """Outcomes in a file, one JSON line each, so that a million of them take no memory to speak of.

    They are written as they come, and read in the order of their numbers.

    Args:
        path: a file that shows what was done if the process is killed; by default a temporary one, which nobody sees.

    Raises:
        UsageError: if the file can't be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        try:
            self._file = tempfile.TemporaryFile("w+b", 0) if path is None else path.open("w+b", 0)  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"{path or 'a temporary file'} can't be written: {error.strerror}.") from None
        self.path = path
        self.counts: Counter[str] = Counter()
        """How many have each status."""
        self._numbers, self._starts, self._end = array("q"), array("q"), 0
        self._order: list[int] | None = None

    def add(self, number: int, outcome: Outcome) -> None:
        """Writes an outcome; `number` is its place among all."""
        self._append(number, outcome.status, _encode(outcome.line()))

    def _append(self, number: int, status: str, line: bytes) -> None:
        self._file.seek(self._end)
        self._file.write(line)  # not buffered, so that it is there if the process is killed
        self._numbers.append(number)
        self._starts.append(self._end)
        self._end += len(line)
        self.counts[status] += 1
        self._order = None

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Outcome: ...
    @overload
    def __getitem__(self, place: slice) -> list[Outcome]: ...
    def __getitem__(self, place: int | slice) -> Outcome | list[Outcome]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return Outcome(**json.loads(self._line(self._places()[place])))

    def __iter__(self) -> Iterator[Outcome]:
        return (Outcome(**json.loads(line)) for line in self.lines())

    def lines(self) -> Iterator[bytes]:
        """As they stand in the file, in their order."""
        return (self._line(place) for place in self._places())

    def _places(self) -> list[int]:
        if self._order is None:
            self._order = np.argsort(np.array(self._numbers, np.int64), kind="stable").tolist()
        return self._order

    def _line(self, place: int) -> bytes:
        start = self._starts[place]
        end = self._starts[place + 1] if place + 1 < len(self) else self._end
        self._file.seek(start)
        return self._file.read(end - start)

    def remove(self) -> None:
        """Takes the file's name away, for what is in it stands elsewhere by now."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def gather(self, rank: ProcessRank) -> Self:
        """Those of all processes, for each of them; waits for the last."""
        if rank.count == 1:
            return self
        everything = type(self)()
        for first in range(0, max(rank.gather([len(self)])), CHUNK):
            own = range(first, min(first + CHUNK, len(self)))
            for number, line in rank.gather([(self._numbers[place], self._line(place)) for place in own]):
                everything._append(number, json.loads(line)["status"], line)
        return everything


def _encode(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace")  # names that are no UTF-8 become JSON's \udcxx


@dataclass(repr=False)
class Report:
    """What became of every input, in the order of their names."""

    outcomes: Sequence[Outcome] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """How many files in the source folder were left alone, by their suffix, or why."""
    notes: list[str] = field(default_factory=list)
    """What should be known about the run."""
    times: Times = field(default_factory=Times)
    """Where the seconds went; of several processes, this one's."""
    classes: Classes | None = None
    """Of inputs that are label maps."""
    process: int = 0
    """Which of several processes this is; the report is the same for all, but for the times."""

    def __repr__(self) -> str:
        return f"<Report: {self.summary()}>"

    def count(self, status: Status) -> int:
        """How many inputs ended so."""
        if isinstance(self.outcomes, OutcomeFile):
            return self.outcomes.counts[status]
        return Counter(outcome.status for outcome in self.outcomes)[status]

    @property
    def failures(self) -> list[Outcome]:
        """The inputs that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"] if self.count("failed") else []

    def summary(self) -> str:
        """The counts, for a person."""
        counts = [
            f"{self.count('done')} converted",
            f"{self.count('skipped')} skipped",
            f"{self.count('failed')} failed",
        ]
        kinds = list_some([f"{number} {kind}" for kind, number in self.ignored.most_common()], 3)
        return ", ".join(counts) + (f"; of other files left alone: {kinds}" if kinds else "")

    def remarks(self, most: int = 20) -> list[str]:
        """What failed, was skipped, or should be known, for a person: one line for all that have the same to say."""
        said: dict[str, _Alike] = {"failed": _Alike(), "skipped": _Alike(), "note": _Alike()}
        for each in self.outcomes:
            if each.status != "done":
                said[each.status].add(each.source, each.reason)
            if each.note:
                said["note"].add(each.source, each.note)
        return [*self.notes, *(line for what, alike in said.items() for line in alike.lines(what, most))]

    def write(self, path: Path) -> None:
        """One JSON line per input: source, target, status, and unless done the reason."""
        lines: Iterable[bytes] = (_encode(outcome.line()) for outcome in self.outcomes)
        write_whole(path, self.outcomes.lines() if isinstance(self.outcomes, OutcomeFile) else lines)


class Stopped(KeyboardInterrupt):
    """Ctrl-C: what was done until then is in the report."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


class _Alike:
    """Inputs by what is to be said of them: how many, and the first ones."""

    def __init__(self) -> None:
        self.sources: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, source: str, reason: str) -> None:
        self.counts[reason] += 1
        first = self.sources.setdefault(reason, [])
        if len(first) < 2:
            first.append(source)

    def lines(self, what: str, most: int) -> list[str]:
        lines = []
        for reason, first in list(self.sources.items())[:most]:
            more = self.counts[reason] - len(first)
            names = ", ".join(first) + (f" (+{more} more)" if more else "")
            lines.append(f"{what}: {reason}" if reason.startswith(first[0]) else f"{what}: {names}: {reason}")
        left = len(self.sources) - most
        return [*lines, f"(and {left} more; --report FILE lists all)"] if left > 0 else lines
