"""`img2img demo`."""

from img2img.cli.usage import run_command


def demo(arguments: list[str]) -> int:
    """`img2img demo`."""
    from img2img import demo as room

    return run_command(room.demo, "demo", arguments)
