"""Conversion on a Ray cluster: parts of the inputs, each converted by whichever machine is free, and again if a machine is lost."""

import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from img2img.core.errors import UsageError, UserError
from img2img.core.stored import is_remote, resolve_path
from img2img.data.classes import Classes
from img2img.inference.plan import refuse_paths
from img2img.inference.report import EXISTS, Outcome, OutcomeFile, Report, Stopped

PARTS = 4  # a worker, so that a slow one doesn't keep the others waiting
ATTEMPTS = 3  # of a part, which may itself be what ends its process
CLOCKS = 10.0  # seconds that the clocks of machines may differ
LOST = "its process was lost three times; perhaps its machine has too little memory"
AGAIN = (
    "a part was begun again, for the machine that had it was lost: what it had converted until then counts as skipped"
)


def convert_on_ray(
    model: Path | str,
    source: Path | str,
    target: Path | str,
    *,
    existing: str = "fail",
    record: Path | None = None,
    progress: bool = False,
    **options: Any,
) -> Report:
    """Translates a folder or shards as `convert` does, on all machines of a Ray cluster, with one worker a GPU, or a machine without.

    It joins the cluster that the environment variable `RAY_ADDRESS` names; without it, this machine is the cluster. The
    inputs are divided into parts. Ray Data gives a part that was lost with its machine to another one, which leaves what was
    done. All machines see source, target and model by the same paths.

    Args:
        existing: as of `convert`.
        record: a file for the report, one JSON line an input.
        progress: whether to show a progress bar, of parts.
        options: more options of `convert`.

    Returns:
        What became of each input, part by part.

    Raises:
        UsageError: if ray is missing, or nothing can be converted at all.
        Stopped: by Ctrl-C; with the report of the parts that were done.
    """
    if not find_spec("ray") or not find_spec("pandas"):
        raise UsageError("--engine-cluster ray needs the package ray: pip install 'ray[data]', or 'img2img[cluster]'.")
    refuse_paths(resolve_path(source), resolve_path(target))
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # machines that are lost are no errors here
    import ray

    joined = not ray.is_initialized()
    if joined:
        _join(os.environ.get("RAY_ADDRESS"))
    outcomes = OutcomeFile(record and record.with_name(f"{record.name}.0"))
    report, stopped = Report(outcomes=outcomes), False
    paths = [_reach(model, is_model=True), _reach(source), _reach(target)]
    options = {name: _reach(value) if isinstance(value, Path) else value for name, value in options.items()}
    try:
        _collect(_run(paths, existing, options), outcomes, report, progress, str(source))
    except KeyboardInterrupt:
        stopped = True
    except UsageError:
        outcomes.remove()
        raise
    finally:
        if joined:
            ray.shutdown()
    if record is not None:
        report.write(record)
        outcomes.remove()
    if stopped:
        raise Stopped(report)
    return report


def _join(address: str | None) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    named = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or "")
    try:
        if named:  # Ray itself would try for minutes
            socket.create_connection((named[1], int(named[2])), timeout=10).close()
        if address:
            ray.init(**quiet)
        else:
            ray.init(address="local", include_dashboard=False, **quiet)
    except (OSError, ValueError, RuntimeError) as error:  # the last of other versions of Ray or Python
        reason = str(error).splitlines()[0].rstrip(".")
        what = f"the Ray cluster RAY_ADDRESS={address} can't be reached" if address else "Ray can't be started"
        raise UsageError(f"{what}: {reason}.") from None


def _reach(path: Path | str, is_model: bool = False) -> str:
    """A path as it is called from any folder; URLs, and names of models on the Hub, stay as they are."""
    if is_remote(resolve_path(path)) or (is_model and not Path(path).exists()):
        return str(path)
    return str(Path(path).absolute())


def _run(paths: list[str], existing: str, options: dict[str, Any]) -> tuple[int, Iterator[dict[str, Any]]]:
    """How many parts there are, and what came of each, as they are done."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cores = sum(node.get("GPU", 0) for node in nodes), [int(node["CPU"]) for node in nodes if node.get("CPU")]
    if not cores:
        raise UsageError("the Ray cluster has no machine with CPUs.")
    workers = int(gpus) or sum(each // min(cores) for each in cores)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    begun = ray.remote(num_cpus=0, scheduling_strategy=here)(_Begun).remote()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0  # as one part at a time keeps a worker busy
    count = PARTS * workers
    parts = [{"part": part} for part in range(count)]
    results = ray.data.from_items(parts, override_num_blocks=count).map_batches(
        _Worker,
        batch_size=1,
        compute=ActorPoolStrategy(
            min_size=1, initial_size=workers, max_size=count, max_tasks_in_flight_per_actor=1
        ),  # more workers, if the cluster grows
        fn_constructor_args=(paths, count, existing, options, begun),
        num_gpus=1 if gpus else 0,
        num_cpus=1 if gpus else min(cores),
    )
    return count, results.iter_rows()


class _Begun:
    """When parts were begun; it lives on the machine of the command, without which all ends."""

    def __init__(self) -> None:
        self.parts: dict[int, tuple[int, float]] = {}

    def add(self, part: int) -> tuple[int, float]:
        """How often it was begun before, and when first."""
        times, first = self.parts.get(part, (0, time.time()))
        self.parts[part] = times + 1, first
        return times, first


class _Worker:
    """Converts parts, one by one, on one machine or GPU."""

    def __init__(self, paths: list[str], count: int, existing: str, options: dict[str, Any], begun: Any) -> None:
        self.paths, self.count, self.existing, self.options, self.begun = paths, count, existing, options, begun

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """``part`` → what became of it, as JSON."""
        import ray

        from img2img.inference.convert import convert

        part = int(batch["part"][0])
        before, first = ray.get(self.begun.add.remote(part))
        if before >= ATTEMPTS:
            return {"found": [json.dumps({"error": f"{LOST} (part {part + 1} of {self.count})"})]}
        existing: Any = "skip" if before and self.existing == "fail" else self.existing
        try:
            report = convert(*self.paths, existing=existing, shard=(part + 1, self.count), **self.options)
        except UserError as error:
            return {"found": [json.dumps({"error": str(error)})]}
        outcomes: Iterable[Outcome] = report.outcomes
        if existing != self.existing:
            outcomes = (_blame_older(outcome, first) for outcome in outcomes)
        found = {
            "outcomes": [outcome.line() for outcome in outcomes],
            "ignored": report.ignored if part == 0 else {},
            "notes": [*report.notes, *([AGAIN] if before else [])],
            "classes": report.classes and report.classes.model_dump_json(),
        }
        return {"found": [json.dumps(found)]}


def _blame_older(outcome: Outcome, first: float) -> Outcome:
    """A target that was there before its part was begun first was not made by it."""
    if outcome.status != "skipped" or is_remote(resolve_path(outcome.target)):
        return outcome
    with suppress(OSError):
        if Path(outcome.target).stat().st_mtime < first - CLOCKS:
            return replace(outcome, status="failed", reason=EXISTS)
    return outcome


def _collect(
    results: tuple[int, Iterator[dict[str, Any]]], outcomes: OutcomeFile, report: Report, progress: bool, what: str
) -> None:
    """Adds what came of the parts to the report.

    Raises:
        UsageError: if Ray gives up, or nothing came of any part.
    """
    from ray.exceptions import RayError

    count, rows = results
    errors: list[str] = []
    columns = (TextColumn("converting, in parts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not progress) as bar:
        task = bar.add_task("", total=count)
        try:
            for row in rows:
                found = json.loads(row["found"])
                if "error" in found:
                    errors.append(found["error"])
                    outcomes.add(
                        len(outcomes), Outcome(what, "", "failed", f"of a part of it nothing became: {found['error']}")
                    )
                    found = {"outcomes": [], "ignored": {}, "notes": [], "classes": None}
                for line in found["outcomes"]:
                    outcomes.add(len(outcomes), Outcome(**json.loads(line)))
                report.ignored.update(found["ignored"])
                report.notes += [note for note in found["notes"] if note not in report.notes]
                if found["classes"]:
                    report.classes = Classes.model_validate_json(found["classes"])
                bar.advance(task)
        except RayError as error:
            raise UsageError(f"the Ray cluster gave up: {str(error).strip().splitlines()[-1]}") from None
    if len(errors) == count:
        raise UsageError(errors[0])
