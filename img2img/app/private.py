"""The folder of a server's files."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import psutil

from img2img.core.files import HOST

PREFIX = "img2img-serve-"


def make_private_folder() -> Path:
    """A folder for uploads and results that only this user can read; removes what servers left that were killed."""
    above = Path(tempfile.gettempdir())
    for folder in above.glob(f"{PREFIX}{HOST}-*"):
        number = re.fullmatch(rf"{re.escape(PREFIX + HOST)}-(\d+)-\w+", folder.name)
        if number and not psutil.pid_exists(int(number[1])) and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{HOST}-{os.getpid()}-"))
