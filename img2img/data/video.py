"""Videos as data sets: some of their frames, as PNGs in the cache."""

import hashlib
import sys
from pathlib import Path

from filelock import FileLock

from img2img.core.downloads import cache_folder
from img2img.core.errors import UsageError, UserError
from img2img.core.files import whole_folder
from img2img.images import Rules, write_image
from img2img.images.video import open_video, read_frames, read_look

RATE = 2  # frames a second
MOST = 5000  # frames of a video


def extract_frames(video: Path) -> Path:
    """A folder of frames, at most two a second and 5000 in all, evenly spaced; kept until the video changes.

    Raises:
        UsageError: if the video can't be read.
        UserError: if the frames can't be written.
    """
    state = video.stat()
    about = f"{video.resolve()} {state.st_size} {state.st_mtime_ns} {RATE} {MOST}"
    folder = cache_folder() / "frames" / f"{video.stem}-{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # of several processes, one does it
        if not folder.is_dir():
            print(f"Taking frames out of {video}, into {folder}.", file=sys.stderr)
            try:
                _write_frames(video, folder)
            except OSError as error:
                raise UserError(
                    f"{folder} can't be written: {error.strerror}; XDG_CACHE_HOME says where caches are."
                ) from None
    return folder


def _write_frames(video: Path, folder: Path) -> None:
    with open_video(video) as container, whole_folder(folder) as new:
        look = read_look(container.streams.video[0])
        every = max(1, round(look.rate / RATE), -(-look.frames // MOST))
        written = 0
        for number, (frame, _) in enumerate(read_frames(container, look, Rules())):
            if number % every == 0 and written < MOST:
                write_image(new / f"{number:08}.png", frame)
                written += 1
        if not written:
            raise UsageError(f"{video} has no frames.")
