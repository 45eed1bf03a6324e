"""python -m img2img, and what accelerate launch -m runs."""

import sys

from img2img.cli import main


def run() -> None:
    """The console command."""
    sys.exit(main())


if __name__ == "__main__":
    run()
