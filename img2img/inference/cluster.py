"""Conversion on a Ray cluster: parts of the inputs, each converted by whichever machine is free, and again if a machine is lost."""

import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from img2img.core.errors import UsageError, UserError
from img2img.core.stored import is_remote, resolve_path
from img2img.inference.plan import refuse_paths
from img2img.inference.report import Outcome, OutcomeFile, Report, Stopped

PARTS = 4  # a worker, so that a slow one doesn't keep the others waiting
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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it tells its makers that it runs
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # machines that are lost are no errors here
    import ray

    joined = not ray.is_initialized()
    if joined:
        _join(os.environ.get("RAY_ADDRESS"))
    outcomes = OutcomeFile(record and record.with_name(f"{record.name}.0"))
    report = Report(outcomes=outcomes)
    paths = [_reach(path) for path in (model, source, target)]
    options = {name: _reach(value) if isinstance(value, Path) else value for name, value in options.items()}
    try:
        _collect(_run(paths, existing, options), outcomes, report, progress)
    except KeyboardInterrupt:
        raise Stopped(report) from None
    except UsageError:
        outcomes.remove()
        raise
    finally:
        if joined:
            ray.shutdown()
    if record is not None:
        report.write(record)
        outcomes.remove()
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
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"the Ray cluster RAY_ADDRESS={address} can't be reached: {reason}.") from None


def _reach(path: Path | str) -> str:
    """A path as it is called from any folder; URLs, and names of models on the Hub, stay as they are."""
    there = not is_remote(resolve_path(path)) and Path(path).parent.exists()
    return str(Path(path).absolute()) if there else str(path)


def _run(paths: list[str], existing: str, options: dict[str, Any]) -> tuple[int, Iterator[dict[str, Any]]]:
    """How many parts there are, and what came of each, as they are done."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cores = sum(node.get("GPU", 0) for node in nodes), [int(node["CPU"]) for node in nodes if node.get("CPU")]
    if not cores:
        raise UsageError("the Ray cluster has no machine with CPUs.")
    workers = int(gpus) or len(cores)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    begun = ray.remote(num_cpus=0, scheduling_strategy=here)(_Begun).remote()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    DataContext.get_current().enable_progress_bars = False
    count = PARTS * workers
    parts = [{"part": part} for part in range(count)]
    results = ray.data.from_items(parts, override_num_blocks=count).map_batches(
        _Worker,
        batch_size=1,
        compute=ActorPoolStrategy(min_size=1, initial_size=workers, max_size=count),  # more, if the cluster grows
        fn_constructor_args=(paths, count, existing, options, begun),
        num_gpus=1 if gpus else 0,
        num_cpus=1 if gpus else min(cores),
    )
    return count, results.iter_rows()


class _Begun:
    """Which parts were begun; it lives on the machine of the command, without which all ends."""

    def __init__(self) -> None:
        self.parts: set[int] = set()

    def add(self, part: int) -> bool:
        """Whether it was begun before."""
        again = part in self.parts
        self.parts.add(part)
        return again


class _Worker:
    """Converts parts, one by one, on one machine or GPU."""

    def __init__(self, paths: list[str], count: int, existing: str, options: dict[str, Any], begun: Any) -> None:
        self.paths, self.count, self.existing, self.options, self.begun = paths, count, existing, options, begun

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        import ray

        from img2img.inference.convert import convert

        part = int(batch["part"][0])
        again = ray.get(self.begun.add.remote(part))
        existing: Any = "skip" if again and self.existing == "fail" else self.existing
        found: dict[str, Any] = {"error": "", "outcomes": [], "ignored": {}, "notes": []}
        try:
            report = convert(*self.paths, existing=existing, shard=(part + 1, self.count), **self.options)
        except UserError as error:
            found["error"] = str(error)
        else:
            found |= {"outcomes": [each.line() for each in report.outcomes], "notes": report.notes}
            found["ignored"] = report.ignored if part == 0 else {}
        if again:
            found["notes"] = [*found["notes"], AGAIN]
        return {"part": [part], "found": [json.dumps(found)]}


def _collect(
    results: tuple[int, Iterator[dict[str, Any]]], outcomes: OutcomeFile, report: Report, progress: bool
) -> None:
    count, rows = results
    columns = (TextColumn("converting, in parts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not progress) as bar:
        task = bar.add_task("", total=count)
        for row in rows:
            found = json.loads(row["found"])
            if found["error"]:
                raise UsageError(found["error"])
            for line in found["outcomes"]:
                outcomes.add(len(outcomes), Outcome(**json.loads(line)))
            report.ignored.update(found["ignored"])
            report.notes += [note for note in found["notes"] if note not in report.notes]
            bar.advance(task)
