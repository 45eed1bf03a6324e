"""What a run's page says that is not in its log: what is trained on what, which settings were chosen, what to type next."""

from datetime import datetime

from img2img.config import RunConfig, run_type
from img2img.pages.run import RunPage
from img2img.training.recipes import apply_recipe, list_settings

UNTOLD = ("output", "recipe", "generator.in-channels", "generator.out-channels")
"""Settings that are said elsewhere, or follow from the data."""


def describe_run(
    config: RunConfig, facts: list[tuple[str, str]], update: int, total: int, directions: list[str]
) -> RunPage:
    """A run's page.

    Args:
        facts: what is trained on what.
        directions: of its models; one that is empty if there is no other.
    """
    state = "finished" if update >= total else "running, or stopped"
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    told = [
        *facts,
        ("recipe", config.recipe),
        ("state", f"update {update:,} of {total:,}, {state}; this page is of {now}"),
    ]
    folder = config.output.name if config.output else "run"
    return RunPage(
        f"{config.method.name}: {folder}", told, list_chosen(config), list_commands(config, update >= total, directions)
    )


def list_chosen(config: RunConfig) -> list[tuple[str, str, str]]:
    """Options that differ from the recipe's: their names, values, and the recipe's."""
    usual = run_type(config.method.name)(method={"name": config.method.name}, recipe=config.recipe)
    known = dict(list_settings(apply_recipe(usual).model_dump()))
    own = list_settings(config.model_dump())
    return [
        (name, value, known.get(name, "–")) for name, value in own if known.get(name) != value and name not in UNTOLD
    ]


def list_commands(config: RunConfig, finished: bool, directions: list[str]) -> list[tuple[str, str]]:
    """What to type next: what it does, and the command."""
    run = config.output
    commands = (
        [] if finished else [("Go on with the training, exactly where it stopped:", f"img2img train --resume {run}")]
    )
    if config.method.model == "noise_generator":
        commands.append(("Make images:", f"img2img sample --model {run} --count 64 --output SAMPLES"))
    else:
        for direction in directions:
            option = f" --direction {direction}" if direction else ""
            commands.append(("Convert a folder:", f"img2img convert SOURCE TARGET --model {run}{option}"))
    data = config.data.path
    if data:
        commands.append(("Score it:", f"img2img evaluate --model {run} --data {data}"))
    if finished:
        longer = f"--steps {2 * config.steps}" if config.steps else f"--epochs {2 * config.epochs:g}"
        commands.append(("Train longer:", f"img2img train --resume {run} {longer}"))
    return commands
