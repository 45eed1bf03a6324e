"""Makes small wrong changes one by one, and sees whether the nearest tests notice.

    python tools/mutate.py
    python tools/mutate.py --only losses --sample 40

The changes are those of tools/mutations.toml; `--sample` adds changes of single operators and numbers in the same files, drawn
by cosmic-ray (pip install cosmic-ray). Tests run in a copy of the project. What was found is kept, and a change isn't tried again
until its file or its tests change. Exit code 1: a change survived that isn't listed as equivalent.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from queue import Queue
from typing import Any

import tyro
from rich.console import Console
from rich.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("mutations.toml")
COPIED = ["pyproject.toml", "README.md", "img2img", "tests", "tools", "docs", "datasets", "checkpoints"]
PRELOADED = [
    *("torch", "torchvision", "albumentations", "kornia", "accelerate", "pydantic", "pytest", "scipy.stats", "tyro"),
    *("skimage.metrics.simple_metrics", "torch._dynamo", "torch.distributed.tensor", "torch.utils.tensorboard"),
]


@dataclass(frozen=True, eq=False)
class Mutant:
    """A file with a wrong change."""

    file: str
    change: str
    """For a person."""
    text: str
    """Of the whole file."""
    tests: tuple[str, ...]
    equivalent: str = ""
    """Why no test can notice it."""

    @cached_property
    def key(self) -> str:
        """Changes with the file and its tests."""
        digest = hashlib.blake2b(self.text.encode(), digest_size=12)
        for name in self.tests:
            path = ROOT / name.partition("::")[0]
            for test in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                digest.update(test.read_bytes())
        return digest.hexdigest()


def read_mutants(only: str, sample: int, seed: int) -> list[Mutant]:
    """The changes of the list, and as many others as are asked for.

    Raises:
        SystemExit: if a line that is to be changed isn't there.
    """
    found: list[Mutant] = []
    drawn: list[Mutant] = []
    for file, group in tomllib.loads(LIST.read_text("utf-8")).items():
        if only not in file:
            continue
        text, tests = (ROOT / file).read_text("utf-8"), tuple(group["tests"])
        for old, new, *why in group["changes"]:
            if text.count(old) != 1:
                sys.exit(f"tools/mutations.toml: {file} has {text.count(old)} times {old!r}; it must be there once.")
            found.append(Mutant(file, f"{old} → {new or 'nothing'}", text.replace(old, new), tests, "".join(why)))
        if sample:
            drawn += _list_operators(file, text, tests)
    return found + random.Random(seed).sample(drawn, min(sample, len(drawn)))


def _list_operators(file: str, text: str, tests: tuple[str, ...]) -> Iterator[Mutant]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    tree = get_ast(text)
    for name in operator_names():
        if "Variable" in name or "Decorator" in name:  # which want settings, or do nothing to a result
            continue
        operator = get_operator(name)()
        count = sum(1 for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
        for number in range(count):
            changed = mutate_code(text, operator, number)
            if changed is None or changed == text:
                continue
            lines = zip(text.splitlines(), changed.splitlines(), strict=False)
            old, new = next(((a, b) for a, b in lines if a != b), ("", ""))
            yield Mutant(file, f"{old.strip()} → {new.strip()}", changed, tests)


def _copy_project(folder: Path) -> Path:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def _run_tests(folder: Path, tests: tuple[str, ...], log: Path) -> None:
    """In a process of its own: exits with pytest's code."""
    import pytest

    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    import torch

    torch.set_num_threads(1)
    os._exit(int(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests])))


def _try(context: Any, folder: Path, tests: tuple[str, ...], timeout: float) -> str:
    process = context.Process(target=_run_tests, args=(folder, tests, folder / ".mutant.log"))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        return "caught"  # it hangs
    return "survived" if process.exitcode == 0 else "caught"


def main(only: str = "", jobs: int = 2, sample: int = 0, seed: int = 0, timeout: float = 600.0,
         results: Path = Path("~/.cache/img2img/mutants.jsonl")) -> None:  # fmt: skip
    """Prints what survived.

    Args:
        only: files whose path holds this.
        jobs: how many run at once.
        sample: how many more changes to draw.
        seed: of that draw.
        timeout: seconds after which tests that hang have noticed.
        results: what was found is kept here.
    """
    mutants = read_mutants(only, sample, seed)
    results = results.expanduser()
    results.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, str] = {}
    if results.is_file():
        known = dict(json.loads(line) for line in results.read_text("utf-8").splitlines())
    for each in mutants:
        _ = each.key  # of the tests as they are now, before they are copied
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    folders: Queue[Path] = Queue()
    with tempfile.TemporaryDirectory() as work, results.open("a", encoding="utf-8") as kept:
        for number in range(jobs):
            folders.put(_copy_project(Path(work, str(number))))

        def run(mutant: Mutant) -> None:
            if mutant.key in known:
                return
            folder = folders.get()
            place = folder / mutant.file
            whole = place.read_text("utf-8")
            place.write_text(mutant.text, "utf-8")
            try:
                known[mutant.key] = _try(context, folder, mutant.tests, timeout)
            finally:
                place.write_text(whole, "utf-8")
                folders.put(folder)
            kept.write(json.dumps([mutant.key, known[mutant.key]]) + "\n")
            kept.flush()

        unchanged = {each.tests: Mutant(each.file, "nothing", (ROOT / each.file).read_text("utf-8"), each.tests) for each in mutants}  # fmt: skip
        with Progress(transient=True) as bar, ThreadPoolExecutor(jobs) as pool:
            task = bar.add_task("mutants", total=len(mutants) + len(unchanged))
            for _ in pool.map(run, [*unchanged.values(), *mutants]):
                bar.advance(task)
    console = Console(width=160, highlight=False)
    broken = [each.tests for each in unchanged.values() if known[each.key] != "survived"]
    for tests in broken:
        console.print(f"These tests fail as the code stands: {' '.join(tests)}", style="red")
    alive = [each for each in mutants if known[each.key] == "survived"]
    for each in alive:
        reason = f" (equivalent: {each.equivalent})" if each.equivalent else ""
        console.print(f"survived  {each.file}: {each.change}{reason}", markup=False)
    for each in mutants:
        if each.equivalent and each not in alive:
            console.print(f"caught, though it is listed as equivalent: {each.file}: {each.change}", markup=False)
    console.print(f"{len(mutants) - len(alive)} of {len(mutants)} changes were caught.")
    sys.exit(1 if broken or any(not each.equivalent for each in alive) else 0)


if __name__ == "__main__":
    tyro.cli(main)
