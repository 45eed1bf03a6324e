"""What became of every input of a conversion."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from img2img.core.errors import list_some
from img2img.core.files import write_whole
from img2img.data.classes import Classes
from img2img.inference.batching import Times

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
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


@dataclass
class Report:
    """What became of every input, in the order of their names."""

    outcomes: list[Outcome] = field(default_factory=list)
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

    def count(self, status: Status) -> int:
        """How many inputs ended so."""
        return Counter(outcome.status for outcome in self.outcomes)[status]

    @property
    def failures(self) -> list[Outcome]:
        """The inputs that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

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
        lines = list(self.notes)
        lines += _lines("failed", [(each.source, each.reason) for each in self.failures], most)
        skipped = [(each.source, each.reason) for each in self.outcomes if each.status == "skipped"]
        lines += _lines("skipped", skipped, most)
        lines += _lines("note", [(each.source, each.note) for each in self.outcomes if each.note], most)
        return lines

    def write(self, path: Path) -> None:
        """One JSON line per input: source, target, status, and unless done the reason."""
        text = "".join(outcome.line() for outcome in self.outcomes)
        write_whole(path, text.encode("utf-8", "backslashreplace"))  # names that are no UTF-8 become JSON's \udcxx


class Stopped(KeyboardInterrupt):
    """Ctrl-C: what was done until then is in the report."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


def _lines(what: str, entries: list[tuple[str, str]], most: int) -> list[str]:
    alike: dict[str, list[str]] = {}
    for source, reason in entries:
        alike.setdefault(reason, []).append(source)
    lines = []
    for reason, sources in list(alike.items())[:most]:
        where = "" if reason.startswith(sources[0]) else f"{list_some(sources, 2)}: "
        lines.append(f"{what}: {where}{reason}")
    return lines + ([f"(and {len(alike) - most} more; --report FILE lists all)"] if len(alike) > most else [])
