"""Which files are converted, and what each becomes."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from img2img.core.errors import UsageError
from img2img.core.files import remove_leftovers
from img2img.images import ARRAY_SUFFIX, SUFFIXES
from img2img.inference.report import Outcome, Report

READ = (*SUFFIXES, ARRAY_SUFFIX)


@dataclass(frozen=True)
class Job:
    """One input and its output."""

    source: Path
    target: Path
    note: str = ""
    """If its name is not the one that one would expect."""


def plan_jobs(source: Path, target: Path, suffix: str | None, report: Report) -> list[Job]:
    """All inputs with their targets, in the order of their names; what can't be an input goes into the report.

    Raises:
        UsageError: if source or target can't be used.
    """
    for path in (source, target):
        try:
            path.exists()
        except OSError as error:  # a name that is too long
            raise UsageError(f"{path}: {error.strerror}.") from None
    if not source.exists():
        raise UsageError(f"{source} does not exist; give an image or a folder of images.")
    if not source.is_dir():
        return [_plan_file(source, target, suffix)]
    if target.is_file():
        raise UsageError(f"{target} is a file, but {source} is a folder; give a folder.")
    if _real_path(target) == _real_path(source):
        raise UsageError(f"{target} is the source folder itself; give another target.")
    jobs: list[Job] = []
    taken: set[Path] = set()
    inputs = list(_find_inputs(source, target, report))
    wish = {file: file.with_suffix(suffix) if suffix else file for file in inputs}
    often = Counter(wish.values())
    for file in sorted(inputs, key=lambda file: wish[file] != file):  # who has the suffix already keeps its name
        wanted = goal = target / wish[file].relative_to(source)
        if often[wish[file]] > 1 and wish[file] != file:  # of a.jpg and a.bmp none can be a.png
            goal = wanted.with_name(f"{file.name}{suffix}")
        while goal in taken:
            goal = goal.with_name(f"{goal.name}{suffix}")
        taken.add(goal)
        note = "" if goal == wanted else f"written as {goal.name}, for others would be {wanted.name}, too"
        jobs.append(Job(file, goal, note))
    place = {file: number for number, file in enumerate(inputs)}
    jobs.sort(key=lambda job: place[job.source])
    sources = {_real_path(job.source) for job in jobs}
    for job in jobs:
        if _real_path(job.target) in sources:
            raise UsageError(
                f"{job.target} is an input, which what {job.source} becomes would replace; give another target."
            )
    if not jobs and not report.failures:
        links = sum(outcome.reason.startswith("a link") for outcome in report.outcomes)
        if links:
            raise UsageError(
                f"{source} holds no images of its own, and links (there are {links}) are not followed; give the folder that they lead to, or copy the images."
            )
        raise UsageError(f"{source} holds no images (files that end with {', '.join(READ)}).")
    return jobs


def _plan_file(source: Path, target: Path, suffix: str | None) -> Job:
    if not source.is_file():
        raise UsageError(f"{source} is neither a file nor a folder.")
    folder = target.is_dir()
    target = target / source.name if folder else target
    if suffix and target.suffix.lower() in READ and _format(target.suffix) != _format(suffix) and not folder:
        raise UsageError(f"{target} is not a name for --format {suffix[1:]}; leave one of them out.")
    if suffix and target.suffix.lower() != suffix:
        target = target.with_suffix(suffix) if target.suffix.lower() in READ else target.with_name(target.name + suffix)
    if target.suffix.lower() not in READ:
        raise UsageError(f"{target}: give a file that ends with one of {', '.join(READ)}, or a folder that exists.")
    if target.exists() and _real_path(target) == _real_path(source):
        raise UsageError(f"{target} is the source itself; give another target.")
    return Job(source, target)


def _format(suffix: str) -> str:
    return {".jpeg": ".jpg", ".tiff": ".tif", ".apng": ".png"}.get(suffix.lower(), suffix.lower())


def make_folders(target: Path, folders: set[Path]) -> None:
    """Makes the folders of the outputs, and clears what a killed process left unfinished in them.

    Raises:
        UsageError: if the target can't be made; what is wrong with others, their images' outcomes say.
    """
    for folder in [target, *folders]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        except OSError as error:
            if folder == target:
                raise UsageError(f"{folder} can't be made: {error.strerror}.") from None


def _find_inputs(source: Path, target: Path, report: Report) -> Iterator[Path]:
    """The images below a folder, but for those below the target, and links that lead out of the folder."""
    inside, outputs = _real_path(source), _real_path(target)

    def note_unlisted(error: OSError) -> None:
        report.outcomes.append(Outcome(str(error.filename), "", "failed", f"can't be listed: {error.strerror}"))

    for root, folders, names in os.walk(source, onerror=note_unlisted):
        for name in sorted(folders):
            link = Path(root, name)
            if link.is_symlink() and name[0] != ".":  # os.walk doesn't follow it, so that loops don't hang
                report.outcomes.append(Outcome(str(link), "", "skipped", "a link to a folder, which is not followed"))
        report.ignored.update("hidden" for name in folders if name.startswith("."))
        folders[:] = sorted(name for name in folders if name[0] != "." and _real_path(Path(root, name)) != outputs)
        for name in sorted(names):
            file = Path(root, name)
            if name.startswith("."):
                report.ignored["hidden"] += 1
            elif file.suffix.lower() not in READ:
                report.ignored[file.suffix.lower() or "without a suffix"] += 1
            elif refusal := _explain_refusal(file, inside):
                report.outcomes.append(Outcome(str(file), "", *refusal))  # type: ignore[arg-type]
            else:
                yield file


def _explain_refusal(file: Path, inside: Path) -> tuple[str, str] | None:
    """Why a file is no input: it leads out of the source folder, or nowhere, or is none."""
    if file.is_symlink() and not _real_path(file).is_relative_to(inside):
        return "skipped", "a link that leads out of the source folder"
    try:
        regular = stat.S_ISREG(file.stat().st_mode)
    except OSError as error:
        return "failed", f"a link that leads nowhere ({error.strerror})"
    return None if regular else ("failed", "no file, but a pipe, socket or device")


def _real_path(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises on loops of links
