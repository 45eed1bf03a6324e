"""`img2img shard`: a data set in tar files."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from img2img.cli.usage import run_command
from img2img.core.errors import UsageError, UserError


def command(
    path: Positional[Path],
    output: Positional[Path],
    kind: Literal["auto", "paired", "unpaired", "labels", "images"] = "auto",
    size_mb: float = 500,
) -> int:
    """Packs a data set into tar files (shards), which store and network read faster than many small files. `--data`, `check` and `convert` take their folder.

    Every image is read first, as by img2img check, and what was learnt goes into an index, so that nobody has to read them again. A command that was stopped goes
    on when it is called again.

    Args:
        path: The data set's folder.
        output: The folder of the shards.
        kind: What the data set is, as in img2img check.
        size_mb: Begin a new shard after so many million bytes.
    """
    from rich.progress import Progress

    from img2img.cli.check import open_data
    from img2img.core.files import write_whole
    from img2img.core.stored import StoredPath, resolve_path
    from img2img.data.base import DataConfig
    from img2img.data.index import require_index
    from img2img.data.write_shards import index_shards, plan_shards, write_shards

    if not 0.001 <= size_mb <= 1e6:
        raise UsageError(f"--size-mb {size_mb:g}: give a number from 0.001 to 1,000,000.")
    require_index()
    path, output = resolve_path(path), resolve_path(output)
    if isinstance(output, StoredPath):
        raise UsageError(f"{output}: shards are written to a folder of this machine; copy them from there.")
    if output.resolve().is_relative_to(path.resolve()):
        raise UsageError(f"{output} lies in the data set; give a folder outside of it.")
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; give a folder.")
    data = open_data(DataConfig(path=path), kind)
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:

        def start(files: int) -> Callable[[], None]:
            task = bar.add_task("reading", total=files)
            return lambda: bar.advance(task)

        report = data.check(start)
        if report.errors:
            raise UserError("; ".join(report.errors))
        for warning in report.warnings:
            print(f"warning: {warning}")
        shards = plan_shards(data.list_samples(), int(size_mb * 1e6))
        total = sum(member.size for shard in shards for member in shard.members)
        task = bar.add_task("writing", total=total)
        there = write_shards(output, shards, lambda size: bar.advance(task, size))
        index_shards(output, shards)
    if (path / "classes.yaml").is_file():
        write_whole(output / "classes.yaml", (path / "classes.yaml").read_bytes())
    samples = sum(len(shard.samples) for shard in shards)
    print(
        f"{output}: {samples:,} samples in {len(shards):,} shards, {total / 1e6:,.1f} MB"
        + (f"; {there:,} of them were there already." if there else ".")
    )
    return 0


def shard(arguments: list[str]) -> int:
    """`img2img shard`."""
    return run_command(command, "shard", arguments)
