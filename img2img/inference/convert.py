"""Folder to folder, or file to file: every image translated once, none lost, each accounted for."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text
from torch import Tensor

from img2img.data.folders import Direction
from img2img.errors import UsageError, UserError, listed
from img2img.files import sweep, write_whole
from img2img.images import SUFFIXES, pixels_of, read_image, write_image
from img2img.inference.engine import DType, Engine
from img2img.inference.pipeline import Item, Pipeline, Times
from img2img.machine import choose_device, tune_allocator
from img2img.translator import Mode, Translator, load

Existing = Literal["fail", "skip", "overwrite"]


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    source: str
    target: str
    status: Literal["done", "skipped", "failed"]
    reason: str = ""
    """Why, unless it is done."""
    width: int = 0
    height: int = 0
    seconds: float = 0.0


@dataclass
class Report:
    """What became of every input."""

    outcomes: list[Outcome] = field(default_factory=list)
    ignored: int = 0
    """Files in the source folder that are no images."""
    note: str = ""
    """What should be known about the run."""
    times: Times = field(default_factory=Times)
    """Where the seconds went."""

    def count(self, status: Literal["done", "skipped", "failed"]) -> int:
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
        return ", ".join(counts + ([f"{self.ignored} other files left alone"] if self.ignored else []))

    def complaints(self, most: int = 20) -> list[str]:
        """What failed, for a person: a line for each file, but one for all that failed for the same reason."""
        alike: dict[str, list[str]] = {}
        for failure in self.failures:
            alike.setdefault(failure.reason, []).append(failure.source)
        lines = []
        for reason, sources in list(alike.items())[:most]:
            where = "" if reason.startswith(sources[0]) else f"{listed(sources, 2)}: "
            lines.append(f"failed: {where}{reason}")
        return lines + ([f"(and {len(alike) - most} more; --report FILE lists all)"] if len(alike) > most else [])

    def write(self, path: Path) -> None:
        """One JSON line per input: source, target, status, and unless done the reason."""
        lines = []
        for outcome in self.outcomes:
            values = asdict(outcome)
            if outcome.status == "done":
                del values["reason"]
            lines.append(json.dumps(values, ensure_ascii=False) + "\n")
        write_whole(path, "".join(lines).encode())


@dataclass(frozen=True)
class _Job:
    source: Path
    target: Path


def convert(
    translator: Translator | Path | str,
    source: Path | str,
    target: Path | str,
    *,
    direction: Direction | None = None,
    format: str | None = None,
    existing: Existing = "fail",
    mode: Mode | None = None,
    seed: int = 0,
    quality: int = 95,
    dtype: DType = "auto",
    batch_size: int | None = None,
    tile: int | None = None,
    compile: bool = False,
    device: str = "auto",
    progress: bool = False,
) -> Report:
    """Translates a file or a folder of images, with its sub-folders; the outputs have the inputs' sizes and names.

    Decoding and encoding run beside the network, and images of equal size share a batch.

    Args:
        translator: one that is loaded, or the folder of one, or of a run.
        source: a file or a folder.
        target: a file if the source is one, else a folder, which is made if need be.
        direction: which translator of a run that learned both ways; by default AtoB.
        format: suffix of the outputs, such as ``png``; by default that of each input.
        existing: what to do with an input whose target exists: report it as failed, skip it, or overwrite the target.
        mode: ``eval`` or ``paper``; by default the translator's own.
        seed: of mode ``paper``.
        quality: of JPEG and WebP, 1–100.
        dtype: of weights and activations; ``auto`` is bf16 where the device computes in it, if the first image comes out
            within 40 dB of fp32's, else fp32.
        batch_size: images of equal size that the network gets at once; by default as many as pay.
        tile: images of more than so many pixels squared are computed in strips, with the same result; 0 for never. By
            default such as don't fit into the memory at hand.
        compile: whether to torch.compile the network, which pays for thousands of images.
        device: where to run; ``auto`` is the fastest there is. A translator that is loaded stays where it is.
        progress: whether to show a progress bar.

    Returns:
        What became of each input. A bad file is reported, and the others are translated.

    Raises:
        UsageError: if source, target or translator can't be used at all.
    """
    tune_allocator()
    source, target = Path(source), Path(target)
    suffix = f".{format.lower().lstrip('.')}" if format else None
    if suffix and suffix not in SUFFIXES:
        raise UsageError(f"--format {format}: use one of {', '.join(s[1:] for s in SUFFIXES)}.")
    if not 1 <= quality <= 100:
        raise UsageError(f"--quality {quality}: give a number from 1 to 100.")
    report = Report()
    jobs = _plan(source, target, suffix, report)
    if not isinstance(translator, Translator):
        translator = load(translator, choose_device(device), direction=direction)
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: give at least 1.")
    if tile is not None and tile < 0:
        raise UsageError(f"--tile {tile}: give the side of a square in pixels, or 0 for never.")
    outcomes = {job: _existing(job, existing) for job in jobs}
    sample = _sample(translator, jobs) if dtype == "auto" else None
    engine = Engine(translator, mode or translator.config.mode, dtype, compile, sample)
    report.note = engine.note
    _make_folders({job.target.parent for job in jobs})
    pipeline: Pipeline[_Job] = Pipeline(
        engine,
        lambda job: read_image(job.source),
        lambda job, image: write_image(job.target, image, quality),
        lambda job: pixels_of(job.source),
        seed,
        tile,
        batch_size,
    )
    columns = *Progress.get_default_columns(), _Speed()
    with Progress(*columns, transient=True, disable=not progress) as bar, torch.inference_mode():
        task = bar.add_task("converting", total=len(jobs), completed=len(jobs) - list(outcomes.values()).count(None))
        for item in pipeline.run(job for job in jobs if outcomes[job] is None):
            outcomes[item.key] = _outcome(item)
            bar.advance(task)
    report.outcomes += [outcome for outcome in outcomes.values() if outcome]
    report.times = pipeline.times
    return report


def _sample(translator: Translator, jobs: list[_Job]) -> Tensor | None:
    """The first image that can be read, at most 512 pixels of it: whatever is skipped, so that a second run decides alike."""
    for job in jobs:
        with suppress(Exception):
            return translator.prepare(read_image(job.source))[0][None, :, :512, :512]
    return None


class _Speed(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.3g} images/s", style="progress.data.speed")


def _existing(job: _Job, existing: Existing) -> Outcome | None:
    """What becomes of an input whose target is there already."""
    names = str(job.source), str(job.target)
    if existing == "overwrite" or not job.target.exists():
        return None
    if existing == "skip":
        return Outcome(*names, "skipped", "the target exists")
    return Outcome(*names, "failed", "the target exists; --overwrite replaces it, --skip-existing leaves it")


def _outcome(item: Item[_Job]) -> Outcome:
    names = str(item.key.source), str(item.key.target)
    if item.error is None:
        seconds = round(item.decode + item.network + item.encode, 4)
        return Outcome(*names, "done", "", item.width, item.height, seconds)
    if isinstance(item.error, UserError):
        return Outcome(*names, "failed", str(item.error))
    if isinstance(item.error, MemoryError):
        return Outcome(*names, "failed", "not enough memory for this image")
    return Outcome(*names, "failed", f"{type(item.error).__name__}: {item.error}")


def _plan(source: Path, target: Path, suffix: str | None, report: Report) -> list[_Job]:
    """All inputs with their targets, in the order of their names."""
    if not source.exists():
        raise UsageError(f"{source} does not exist; give an image or a folder of images.")
    if source.is_file():
        if target.is_dir():
            target = target / source.name
        target = target.with_suffix(suffix) if suffix else target
        if target.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"{target}: give a file that ends with one of {', '.join(SUFFIXES)}, or a folder that exists."
            )
        if target.exists() and target.resolve() == source.resolve():
            raise UsageError(f"{target} is the source itself; give another target.")
        return [_Job(source, target)]
    if target.is_file():
        raise UsageError(f"{target} is a file, but {source} is a folder; give a folder.")
    if target.resolve() == source.resolve():
        raise UsageError(f"{target} is the source folder itself; give another target.")
    inputs = list(_inputs(source, target, report))
    if not inputs:
        raise UsageError(f"{source} holds no images (files that end with {', '.join(SUFFIXES)}).")
    jobs, taken = [], set()
    for file in inputs:
        goal = target / file.relative_to(source)
        if suffix and goal.with_suffix(suffix) in taken:
            goal = goal.with_name(goal.name + suffix)  # a.jpg and a.png both become .png: the second is a.png.png
        elif suffix:
            goal = goal.with_suffix(suffix)
        taken.add(goal)
        jobs.append(_Job(file, goal))
    return jobs


def _make_folders(folders: set[Path]) -> None:
    """Makes the folders of the outputs, and clears what a killed process left unfinished in them."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
        except OSError as error:
            raise UsageError(f"{folder} can't be made: {error.strerror}.") from None


def _inputs(source: Path, target: Path, report: Report) -> Iterator[Path]:
    """The images below a folder, but for those below the target, and links that lead out of the folder."""
    inside, outputs = source.resolve(), target.resolve()
    for root, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if Path(root, name).resolve() != outputs)
        for name in sorted(names):
            file = Path(root, name)
            if file.suffix.lower() not in SUFFIXES or name.startswith("."):
                report.ignored += 1
            elif file.is_symlink() and not file.resolve().is_relative_to(inside):
                report.outcomes.append(Outcome(str(file), "", "skipped", "a link that leads out of the source folder"))
            else:
                yield file
