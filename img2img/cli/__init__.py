"""The command line."""

import os
import sys
from collections.abc import Callable, Sequence

from img2img.cli.check import check
from img2img.cli.commands import convert, demo, evaluate
from img2img.cli.interop import export, fetch, import_, push
from img2img.cli.sample import sample
from img2img.cli.train import train
from img2img.cli.usage import usage
from img2img.errors import UsageError, UserError


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


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "train": train,
    "convert": convert,
    "evaluate": evaluate,
    "sample": sample,
    "check": check,
    "import": import_,
    "export": export,
    "fetch": fetch,
    "push": push,
}
