"""What a run's page says that is not in its log: what is trained on what, which settings were chosen, what to type next."""

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from img2img.config import RunConfig, run_type
from img2img.core.errors import UsageError
from img2img.pages.curves import read_log
from img2img.pages.run import RunPage
from img2img.training.recipes import apply_recipe, as_option, list_settings, name_option
from img2img.training.run_folder import load_run_config

UNTOLD = ("output", "recipe", "generator.in-channels", "generator.out-channels")
"""Settings that are said elsewhere, or follow from the data."""


def describe_run(
    config: RunConfig,
    facts: list[tuple[str, str]],
    update: int,
    total: int,
    directions: Sequence[str],
    styles: Sequence[str] = (),
    whole: Path | None = None,
) -> RunPage:
    """A run's page.

    Args:
        facts: what is trained on what.
        directions: of its models; one that is empty if there is no other.
        styles: of a model that has several.
        whole: the folder of the run that this is a stage of.
    """
    state = "finished" if update >= total else "running, or stopped"
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    told = [
        *facts,
        ("recipe", config.recipe),
        ("state", f"update {update:,} of {total:,}, {state}; page written {now}"),
    ]
    if config.method.model == "translator" and not styles:
        row = "the source, its translation, with two directions the way back, and the target if it is known"
        told.append(("each row of a picture", row))
    folder = (config.output or Path()).resolve().name
    if whole:
        commands = [("Go on with the whole run, exactly where it stopped:", f"img2img train --resume {quote(whole)}")]
    else:
        commands = list_commands(config, update >= total, directions, styles)
    return RunPage(f"{config.method.name}: {folder}", told, list_chosen(config), commands, update)


def describe_saved_run(folder: Path) -> RunPage:
    """A run's page, from what is in its folder; also of a run whose settings this version doesn't know."""
    points = [point for points in read_log(folder / "log.jsonl").curves.values() for point in points[-1:]]
    update = int(max((update for update, _ in points), default=0))
    try:
        config = load_run_config(folder)
    except UsageError as error:
        return RunPage(folder.name, [("settings", str(error)), ("logged until update", f"{update:,}")], (), (), update)
    directions = [way for way in ("AtoB", "BtoA") if (folder / way).is_dir()] or [""]
    facts = [("method", config.method.name), ("data", str(config.data.path)), ("size", config.data.size_text)]
    facts += [("recipe", config.recipe), ("logged until update", f"{update:,}")]
    commands = list_commands(config.model_copy(update={"output": folder}), False, directions, ())
    return RunPage(f"{config.method.name}: {folder.name}", facts, list_chosen(config), commands, update)


def list_chosen(config: RunConfig) -> list[tuple[str, str]]:
    """Options that differ from the recipe's, as they are typed, and the recipe's values."""
    usual = run_type(config.method.name)(method={"name": config.method.name}, recipe=config.recipe)
    known = dict(list_settings(apply_recipe(usual).model_dump()))
    own = list_settings(config.model_dump())
    return [
        (as_option(name_option(name), value), known.get(name, "–"))
        for name, value in own
        if known.get(name) != value and name not in UNTOLD
    ]


def list_commands(
    config: RunConfig, finished: bool, directions: Sequence[str], styles: Sequence[str]
) -> list[tuple[str, str]]:
    """What to type next: what it does, and the command."""
    run, data = quote(config.output), config.data
    commands = (
        [] if finished else [("Go on with the training, exactly where it stopped:", f"img2img train --resume {run}")]
    )
    if config.method.model == "noise_generator":
        commands.append(("Make images:", f"img2img sample --model {run} --count 64 --output SAMPLES"))
    for direction in directions if config.method.model == "translator" else ():
        option = f" --direction {direction}" if direction else f" --style {quote(styles[0])}" if styles else ""
        commands.append(("Convert a folder:", f"img2img convert SOURCE TARGET --model {run}{option}"))
    if data.path and not styles:
        held_out = f" --holdout {data.holdout:g}" if data.holdout else ""
        commands.append(("Score it:", f"img2img evaluate --model {run} --data {quote(data.path)}{held_out}"))
    if data.ranges == (None, None):
        commands.append(("Use it in the browser:", f"img2img serve {run}"))
    if finished:
        longer = f"--steps {2 * config.steps}" if config.steps else f"--epochs {2 * config.epochs:g}"
        commands.append(("Train longer:", f"img2img train --resume {run} {longer}"))
    return commands


def quote(word: object) -> str:
    """A word as a shell takes it."""
    return shlex.quote(str(word))
