"""`img2img train`: its options are made from the method's settings."""

import re
from pathlib import Path
from typing import Any

from img2img.cli.usage import method_names, usage
from img2img.core.errors import UsageError


def train(arguments: list[str]) -> int:
    """Parses the options of the method that the first argument, --config or --resume names, and trains."""
    options = _peek(arguments, "--resume", "--config", "--recipe", "--generator.kind", "--discriminator.kind")
    first = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if first is None and not options["--resume"] and not options["--config"]:
        if "-h" in arguments or "--help" in arguments:
            print(usage())
            return 0
        raise UsageError(f"which method? img2img train METHOD --data PATH, with one of {', '.join(method_names())}.")

    if "-h" not in arguments and "--help" not in arguments:
        from img2img.core.processes import ensure_processes

        ensure_processes(["train", *arguments])
    from img2img.config import read_config, run_type
    from img2img.training import train as room
    from img2img.training.recipes import apply_recipe
    from img2img.training.run_folder import load_run_config

    resume = options["--resume"]
    if resume and options["--config"]:
        raise UsageError("--resume goes on with the run's own config; leave --config out.")
    if resume:
        if _peek(arguments, "--output")["--output"]:
            raise UsageError("--resume goes on in the run's own folder; leave --output out.")
        base = load_run_config(Path(resume))
        if _peek(arguments, "--epochs")["--epochs"]:
            base = base.model_copy(update={"steps": None})  # else the run's own --steps would win
        if first not in (None, base.method.name):
            raise UsageError(f"--resume {resume}: that is a run of {base.method.name}, not {first}.")
    elif options["--config"]:
        base = read_config(Path(options["--config"]), first)
    else:
        assert first is not None
        base = run_type(first)(method={"name": first})
    rest = _without(arguments, "--resume", "--config")
    if resume and options["--recipe"]:
        raise UsageError("--resume goes on with the run's own settings; leave --recipe out.")
    shown = base
    if options["--recipe"] in ("paper", "small"):  # so that help shows its settings
        shown = apply_recipe(base.model_copy(update={"recipe": options["--recipe"]}))
    config = parse(_with_kinds(shown, options), rest, base.method.name)
    config = _keep_given(config, base, _name_options(rest))
    room.train(config, resume=resume)
    return 0


def parse(default: Any, arguments: list[str], method: str) -> Any:
    """A method's settings from `default` and options."""
    import tyro

    description = (
        f"Trains {method}. --config FILE gives a YAML file of settings, which these options override; "
        f"--resume RUN continues a run.{_describe_kinds(type(default.method))}"
    )
    flags = arguments[1:] if arguments and arguments[0] == method else arguments
    settings = (tyro.conf.AvoidSubcommands,)
    return tyro.cli(
        type(default),
        args=flags,
        default=default,
        config=settings,
        prog=f"img2img train {method}",
        description=description,
    )


def _keep_given(parsed: Any, base: Any, options: set[str], prefix: str = "--", is_given: bool = True) -> Any:
    """The settings of `base` with those that an option names; a recipe overrides all that neither has chosen.

    Args:
        base: what was there before the options, and before a recipe.
        options: the names of those on the command line.
        prefix: of the options of these settings.
        is_given: whether `base` was chosen itself.
    """
    parts: dict[str, Any] = {}
    same = type(base) is type(parsed)  # else a network of another kind was chosen
    given = set(base.model_fields_set) if is_given and same else set()
    for name in type(parsed).model_fields:
        value, before, own = getattr(parsed, name), getattr(base, name, None), prefix + name.replace("_", "-")
        if name in ("data", "finetune"):  # which no recipe changes
            continue
        if name == "method":
            parts[name] = _keep_given(value, before, options)
        elif hasattr(value, "model_fields_set"):
            if name in given or any(option.startswith(f"{own}.") for option in options):
                parts[name] = _keep_given(value, before, options, f"{own}.", name in given)
        elif name in given or own in options:
            parts[name] = value
    others = set(type(parsed).model_fields) - {*parts, "data", "finetune"} if same else set()
    copy = parsed.model_copy(update={**{name: getattr(base, name) for name in others}, **parts})
    copy.model_fields_set.intersection_update({*parts, "data", "finetune"})
    return copy


def _name_options(arguments: list[str]) -> set[str]:
    """The names of the options, as settings are called: with dashes, and without the no- of flags."""
    names = {argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")}
    flags = (re.fullmatch(r"--(.*\.)?no-([^.]+)", name) for name in names)
    return names | {f"--{flag[1] or ''}{flag[2]}" for flag in flags if flag}


def _describe_kinds(method: Any) -> str:
    """Which networks can be chosen, where there is a choice."""
    text = ""
    for role in ("generator", "discriminator"):
        field = method.model_fields.get(role)
        kinds = _list_kinds(field.annotation) if field else []
        text += f" --{role}.kind is {', '.join(kinds[:-1])} or {kinds[-1]}." if len(kinds) > 1 else ""
    return text


def _with_kinds(base: Any, options: dict[str, str | None]) -> Any:
    """Puts in the networks that --generator.kind and --discriminator.kind name, so that their options are parsed."""
    method = base.method
    for role in ("generator", "discriminator"):
        kind, default = options[f"--{role}.kind"], getattr(method, role, None)
        if kind is None or default is None or kind == default.kind:
            continue
        kinds = _list_kinds(type(method).model_fields[role].annotation)
        if kind not in kinds:
            alone = f"{method.name} works with {kinds[0]} only" if len(kinds) == 1 else f"there are {', '.join(kinds)}"
            raise UsageError(f"--{role}.kind {kind}: {alone}.")
        method = type(method).model_validate({**method.model_dump(), role: {"kind": kind}})
    return base.model_copy(update={"method": method})


def _list_kinds(annotation: Any) -> list[str]:
    """The kinds of networks that a setting may hold."""
    from typing import get_args

    return [get_args(each.model_fields["kind"].annotation)[0] for each in get_args(annotation) or (annotation,)]


def _peek(arguments: list[str], *names: str) -> dict[str, str | None]:
    """The values of options that decide how the others are parsed."""
    found: dict[str, str | None] = dict.fromkeys(names)
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            if not equals and (place + 1 == len(arguments) or arguments[place + 1].startswith("--")):
                raise UsageError(f"{name} needs a value.")
            found[name] = value if equals else arguments[place + 1]
    return found


def _without(arguments: list[str], *names: str) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
            continue
        name, equals, _ = argument.partition("=")
        if name in names:
            skip = not equals
            continue
        kept.append(argument)
    return kept
