"""`img2img train`: its options are made from the method's settings."""

from pathlib import Path
from typing import Any

from img2img.cli.usage import method_names, usage
from img2img.errors import UsageError


def train(arguments: list[str]) -> int:
    """Parses the options of the method that the first argument, --config or --resume names, and trains."""
    options = _peek(arguments, "--resume", "--config", "--generator.kind", "--discriminator.kind")
    first = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if first is None and not options["--resume"] and not options["--config"]:
        if "-h" in arguments or "--help" in arguments:
            print(usage())
            return 0
        raise UsageError(f"which method? img2img train METHOD --data PATH, with one of {', '.join(method_names())}.")

    if "-h" not in arguments and "--help" not in arguments:
        from img2img.launch import ensure_processes

        ensure_processes(["train", *arguments])
    from img2img.config import read_config, run_type
    from img2img.training import run
    from img2img.training.setup import resumed_config

    resume = options["--resume"]
    if resume and options["--config"]:
        raise UsageError("--resume goes on with the run's own config; leave --config out.")
    if resume:
        if _peek(arguments, "--output")["--output"]:
            raise UsageError("--resume goes on in the run's own folder; leave --output out.")
        base = resumed_config(Path(resume))
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
    config = parse(_with_kinds(base, options), rest, base.method.name)
    run.train(config, resume=resume)
    return 0


def parse(default: Any, arguments: list[str], method: str) -> Any:
    """A method's settings from `default` and options."""
    import tyro

    description = (
        f"Trains {method}. --config FILE gives a YAML file of settings, which these options override; "
        "--resume RUN goes on with a run."
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


def _with_kinds(base: Any, options: dict[str, str | None]) -> Any:
    """Puts in the networks that --generator.kind and --discriminator.kind name, so that their options are parsed."""
    from pydantic import ValidationError

    from img2img.networks import DISCRIMINATORS, GENERATORS, NOISE_DISCRIMINATORS, NOISE_GENERATORS

    method = base.method
    known: tuple[Any, Any] = (
        (NOISE_GENERATORS, NOISE_DISCRIMINATORS) if method.from_noise else (GENERATORS, DISCRIMINATORS)
    )
    for role, kinds in zip(("generator", "discriminator"), known, strict=True):
        kind = options[f"--{role}.kind"]
        if kind is None or kind == getattr(method, role).kind:
            continue
        if kind not in kinds:
            raise UsageError(f"--{role}.kind {kind}: there are {', '.join(kinds)}.")
        try:
            method = type(method).model_validate({**method.model_dump(), role: {"kind": kind}})
        except ValidationError:
            own = getattr(method, role).kind
            raise UsageError(f"--{role}.kind {kind}: {method.name} works with {own} only.") from None
    return base.model_copy(update={"method": method})


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
