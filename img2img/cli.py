"""The commands. Each parses its options, calls one function, and prints; what it needs is imported inside it."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from img2img.errors import UsageError, UserError

USAGE = """img2img: image-to-image translation

usage: img2img COMMAND [OPTIONS]

  demo                      draw a data set, train on it, convert the rest, write a page to look at
  train METHOD --data PATH  train a translator on a folder of images; METHOD: {methods}
  train --resume RUN        go on with a run that was stopped
  convert SOURCE TARGET --model MODEL
                            translate a folder or a file
  evaluate --model MODEL --data PATH
                            PSNR, SSIM and L1 of a translator, or of two folders of images
  check PATH                what is wrong with a data set

img2img COMMAND --help says more; for training, img2img train METHOD --help. MODEL is a translator's or a run's folder.
Several processes: accelerate launch -m img2img train METHOD ..., with the same options.
Exit codes: 0 all done, 1 something failed, 2 wrong usage or data, 130 stopped by Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit code: 0 all done, 1 something failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(methods=" ".join(_method_names())))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from img2img import __version__

        print(__version__)
        return 0
    try:
        command = COMMANDS.get(arguments[0])
        if command is None:
            raise UsageError(f"there is no command {arguments[0]!r}; there are: {', '.join(COMMANDS)}.")
        return command(arguments[1:])
    except UserError as error:
        print(f"img2img: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("img2img: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _method_names() -> list[str]:
    from img2img.methods import METHODS

    return list(METHODS)


def _train(arguments: list[str]) -> int:
    options = _peek(arguments, "--resume", "--config", "--generator.kind", "--discriminator.kind")
    first = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if first is None and not options["--resume"] and not options["--config"]:
        if "-h" in arguments or "--help" in arguments:
            print(USAGE.format(methods=" ".join(_method_names())))
            return 0
        raise UsageError(f"which method? img2img train METHOD --data PATH, with one of {', '.join(_method_names())}.")

    if "-h" not in arguments and "--help" not in arguments:
        from img2img.training.launch import ensure_processes

        ensure_processes(["train", *arguments])
    from img2img.config import read_config, run_type
    from img2img.training.run import train
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
    config = _parse(_with_kinds(base, options), rest, base.method.name)
    if resume:
        train(config, resume=resume)
    else:
        train(config)
    return 0


def _parse(default: Any, arguments: list[str], method: str) -> Any:
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
    from img2img.networks import DISCRIMINATORS, GENERATORS

    method = base.method
    for role, kinds in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
        kind = options[f"--{role}.kind"]
        if kind is None or kind == getattr(method, role).kind:
            continue
        if kind not in kinds:
            raise UsageError(f"--{role}.kind {kind}: there are {', '.join(kinds)}.")
        method = method.model_copy(update={role: kinds[kind][0]()})
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


def _run(function: Callable[..., int], name: str, arguments: list[str]) -> int:
    import tyro

    return tyro.cli(function, args=arguments, prog=f"img2img {name}", config=(tyro.conf.FlagCreatePairsOff,))


def _convert(arguments: list[str]) -> int:
    from tyro.conf import Positional

    from img2img.inference.convert import convert

    def command(
        source: Positional[Path],
        target: Positional[Path],
        model: Path,
        format: str | None = None,
        overwrite: bool = False,
        skip_existing: bool = False,
        mode: Literal["eval", "paper"] | None = None,
        seed: int = 0,
        quality: int = 95,
        device: str = "auto",
        report: Path | None = None,
    ) -> int:
        """Translates a folder of images, with its sub-folders, or one file. Sizes, names, depth and alpha are kept.

        Args:
            source: A folder or a file.
            target: A folder, or a file if the source is one.
            model: A translator's or a run's folder.
            format: Write all outputs as png, jpg, webp, tif or bmp; by default as the input.
            overwrite: Replace targets that exist.
            skip_existing: Leave targets that exist, to go on with a conversion that was stopped.
            mode: eval (running statistics, no dropout) or paper (batch statistics and dropout); by default the translator's.
            seed: Of mode paper.
            quality: Of JPEG and WebP, 1-100.
            device: auto, cpu, cuda, cuda:1 or mps.
            report: Write a JSON line per input to this file.
        """
        if overwrite and skip_existing:
            raise UsageError("--overwrite and --skip-existing exclude each other.")
        existing: Any = "overwrite" if overwrite else "skip" if skip_existing else "fail"
        outcome = convert(
            model, source, target, format=format, existing=existing, mode=mode, seed=seed, quality=quality,
            device=device, progress=sys.stderr.isatty(),
        )  # fmt: skip
        if report:
            outcome.write(report)
        for line in outcome.complaints():
            print(line, file=sys.stderr)
        print(outcome.summary())
        return 1 if outcome.failures else 0

    return _run(command, "convert", arguments)


def _evaluate(arguments: list[str]) -> int:
    from tyro.conf import Positional

    from img2img.inference.evaluate import compare, evaluate

    def command(
        folders: Annotated[tuple[Path, ...], Positional] = (),
        model: Path | None = None,
        data: Path | None = None,
        split: Literal["train", "val", "test"] | None = None,
        direction: Literal["AtoB", "BtoA"] | None = None,
        size: int | None = None,
        mode: Literal["eval", "paper"] | None = None,
        seed: int = 0,
        device: str = "auto",
        json: Path | None = None,
    ) -> int:
        """Scores a translator on a paired data set (--model, --data), or one folder of images against another.

        L1 is of values in [0, 1], PSNR in dB; PSNR and SSIM are scikit-image's.

        Args:
            folders: Instead of --model and --data: a folder of images and a folder of the truth, matched by stem.
            model: A translator's or a run's folder.
            data: The folder of a paired data set, in any layout that training takes.
            split: By default val if there is one, else test, else train.
            direction: By default the one that the translator was trained in.
            size: Scale the shorter side to so many pixels; by default images are taken at their own size.
            mode: eval or paper; by default the translator's.
            seed: Of mode paper.
            device: auto, cpu, cuda, cuda:1 or mps.
            json: Write all scores to this file.
        """
        progress = sys.stderr.isatty()
        if folders:
            if len(folders) != 2 or model or data:
                raise UsageError("give two folders, or --model and --data.")
            result = compare(*folders, progress=progress)
        elif model is None or data is None:
            raise UsageError("give --model and --data, or two folders of images.")
        else:
            result = evaluate(
                model, data, split=split, direction=direction, size=size, mode=mode, seed=seed, device=device,
                progress=progress,
            )  # fmt: skip
        if json:
            result.write(json)
        _print_scores(result)
        for name, reason in list(result.failed.items())[:20]:
            print(f"not scored: {name}: {reason}", file=sys.stderr)
        return 1 if result.failed else 0

    return _run(command, "evaluate", arguments)


def _print_scores(result: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    size = result.about.get("size")
    table = Table(title=f"{len(result.images)} images at {f'{size} pixels' if size else 'their own size'}")
    for heading in ("", "L1 in [0, 1] ↓", "PSNR in dB ↑", "SSIM ↑"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {"translation" if result.copy_input else "images": result.metrics, "copy of the input": result.copy_input}
    for name, scores in rows.items():
        if scores:
            table.add_row(name, f"{scores['l1']:.4f}", f"{scores['psnr']:.2f}", f"{scores['ssim']:.4f}")
    Console().print(table)


def _check(arguments: list[str]) -> int:
    from rich.progress import Progress
    from tyro.conf import Positional

    from img2img.data.check import check_pairs
    from img2img.data.folders import find_pairs

    def command(
        path: Annotated[Path | None, Positional] = None,
        source: Path | None = None,
        target: Path | None = None,
        derive: Literal["gray", "edges", "lowres"] | None = None,
    ) -> int:
        """Reads every image of a paired data set and says what can't work and what may surprise.

        Args:
            path: The data set's folder.
            source: A folder of sources, with --target instead of a path.
            target: A folder of targets of the same names.
            derive: The sources would be derived from any folder of images: gray, edges or lowres.
        """
        splits = find_pairs(path, source=source, target=target, derive=derive)
        with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:

            def started(files: int) -> Callable[[], None]:
                task = bar.add_task("reading", total=files)
                return lambda: bar.advance(task)

            report = check_pairs(splits, started)
        for split, folder in splits.items():
            print(f"{split}: {len(folder.pairs)} pairs from {folder.where}")
        if report.sizes:
            print(f"{report.in_channels} → {report.out_channels} channels; sizes {report.sizes}")
        for problem in report.problems:
            print(f"{problem.level}: {problem.text}")
        if not report.problems:
            print("No problems were found.")
        return 1 if report.errors else 0

    return _run(command, "check", arguments)


def _demo(arguments: list[str]) -> int:
    from img2img.demo import demo

    return _run(demo, "demo", arguments)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": _demo,
    "train": _train,
    "convert": _convert,
    "evaluate": _evaluate,
    "check": _check,
}
