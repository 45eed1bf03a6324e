"""python -m img2img, and what accelerate launch -m runs."""

from typing import NoReturn

from img2img.cli import main
from img2img.core.processes import exit_process


def run() -> NoReturn:
    """The console command."""
    exit_process(main())


if __name__ == "__main__":
    run()
