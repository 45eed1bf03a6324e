"""How much a server takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What an image may take, as of `convert`."""

    max_pixels: int = 200_000_000
    timeout: float = 60.0
    file_memory: float = 4.0


WAITING = 32  # jobs that may wait; who comes then is told to try again
SESSIONS = 32  # of which Gradio keeps what was sent last
LARGEST_UPLOAD = "2gb"
LARGEST_REQUEST = 2**25  # bytes of anything else that is sent
ROOM = 2**30  # bytes that stay free on the disk
