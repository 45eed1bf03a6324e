"""`img2img serve`."""

import sys
from pathlib import Path

from tyro.conf import Positional

from img2img.cli.usage import run_command
from img2img.core.errors import UsageError


def command(
    models: Positional[tuple[Path, ...]],
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: str | None = None,
    open: bool = False,
    device: str = "auto",
    max_pixels: int = 200_000_000,
    timeout: float = 60.0,
    file_memory: float = 4.0,
) -> int:
    """Serves a page in the browser: translate images and folders, draw, paint label maps, explore a noise generator, watch runs. It is an API, too.

    Args:
        models: Translators, runs, files of weights, USER/NAME on the Hugging Face Hub, or a folder of runs.
        host: The address to listen on; any but this machine's own needs --auth.
        port: The port to listen on.
        auth: Ask for this user's name, and for the password in the environment variable IMG2IMG_PASSWORD.
        open: Open the page in the browser.
        device: auto, cpu, cuda, cuda:1 or mps.
        max_pixels: Refuse an image of more, all frames together, before it is decoded.
        timeout: Give up a file that takes more seconds to decode.
        file_memory: Give up a file that takes more GB to decode (on Linux).
    """
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise UsageError('the browser app needs Gradio: pip install "img2img[app]".')
    if not models:
        raise UsageError("give models, runs, or a folder of runs: img2img serve MODEL.")

    from img2img.app.limits import Limits
    from img2img.app.server import serve as room
    from img2img.core.device import tune_allocator

    tune_allocator()
    try:
        room(
            models, host=host, port=port, auth=auth, device=device, limits=Limits(max_pixels, timeout, file_memory),
            browser=open,
        )  # fmt: skip
    except KeyboardInterrupt:
        print("img2img: stopped.", file=sys.stderr)
    return 0


def serve(arguments: list[str]) -> int:
    """`img2img serve`."""
    return run_command(command, "serve", arguments)
