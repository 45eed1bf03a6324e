"""The command line: one file a command, imported when it is called."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from img2img.cli.usage import usage
from img2img.core.errors import UsageError, UserError
from img2img.core.processes import is_lost_process

COMMANDS = {
    "demo": "demo.demo",
    "train": "train.train",
    "convert": "convert.convert",
    "evaluate": "evaluate.evaluate",
    "compress": "compress.compress",
    "sample": "sample.sample",
    "invert": "invert.invert",
    "check": "check.check",
    "index": "index.index",
    "shard": "shard.shard",
    "import": "import_.import_",
    "export": "export.export",
    "fetch": "fetch.fetch",
    "push": "push.push",
    "serve": "serve.serve",
}

LOST_PROCESS = (
    "another process of this run has ended, so this one ends, too. Its own message stands above; if it has none, the "
    "system has killed it, often because memory ran out (try a smaller --batch-size). What was saved is complete: train "
    "with --resume RUN, or the same convert command, goes on from there."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit code: 0 all done, 1 something failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from img2img import __version__

        print(__version__)
        return 0
    try:
        if arguments[0] not in COMMANDS:
            raise UsageError(f"there is no command {arguments[0]!r}; there are: {', '.join(COMMANDS)}.")
        return load_command(arguments[0])(arguments[1:])
    except UserError as error:
        print(f"img2img: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("img2img: stopped.", file=sys.stderr)
        return 130
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        print(f"img2img: {LOST_PROCESS} ({str(error).splitlines()[0][:200]})", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def load_command(name: str) -> Callable[[list[str]], int]:
    """The function of a command."""
    module, _, function = COMMANDS[name].partition(".")
    found: Callable[[list[str]], int] = getattr(import_module(f"img2img.cli.{module}"), function)
    return found
