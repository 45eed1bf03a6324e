"""Videos → frames: upright, in the order in which they are shown, each with its time. They are decoded in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2img.core.errors import UsageError, UserError
from img2img.images.arrays import Array, ImageError, resize_with_alpha
from img2img.images.reading import Rules, fit_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".ts")
HD = 720  # rows from which on colours are those of ITU-R BT.709, if a video doesn't say so


@dataclass(frozen=True)
class Look:
    """How a video's frames are shown and stored."""

    time_base: Fraction
    rate: Fraction
    colours: int
    """Of FFmpeg's colour spaces."""
    frames: int
    """About; 0 if unknown."""
    seconds: float
    """By its header; 0 if unknown."""
    deep: bool
    """Whether it has more than 8 bits a channel, of which 8 are kept."""


def is_video(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in VIDEOS


@contextmanager
def open_video(source: Path) -> Iterator["InputContainer"]:
    """A video. What FFmpeg says while it is open becomes a sentence.

    Raises:
        UsageError: if it can't be opened or decoded, or the package is missing.
    """
    if not find_spec("av"):
        raise UsageError(f"{source.name} is a video, which needs the package av: pip install av, or 'img2img[video]'.")
    import av

    try:
        opened = av.open(str(source))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UsageError(f"{source}: {explain_video_error(error)}.") from None
    try:
        with opened as container:
            if not container.streams.video:
                raise UsageError(f"{source} has no video stream.")
            if container.streams.video[0].codec_context is None:
                raise UsageError(f"{source}: FFmpeg doesn't know how its video is encoded.")
            container.streams.video[0].thread_type = "AUTO"
            yield container
    except UserError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise UsageError(f"{source}: {explain_video_error(error)}.") from None


def read_look(stream: "VideoStream") -> Look:
    """How the frames of a stream are shown."""
    context = stream.codec_context
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    seconds = seconds or (getattr(stream.container, "duration", None) or 0) / 1e6  # in microseconds
    spaces = {1: 1, 5: 5, 6: 5, 7: 7, 9: 9}  # of frames, to those of the scaler
    colours = spaces.get(int(context.colorspace or 0), 1 if context.height >= HD else 5)
    return Look(
        stream.time_base or 1 / rate, Fraction(rate), colours, stream.frames or round(seconds * rate), seconds,
        any(component.bits > 8 for component in context.format.components) if context.format else False,
    )  # fmt: skip


def read_frames(container: "InputContainer", look: Look, rules: Rules) -> Iterator[tuple[Array, int]]:
    """All frames in the order in which they are shown, upright, (H, W, 3), uint8, each with its time."""
    height, width = container.streams.video[0].codec_context.height, container.streams.video[0].codec_context.width
    goal = fit_size(height, width, rules)
    if max(height * width, goal[0] * goal[1]) > rules.max_pixels:
        raise ImageError(
            f"{container.name}: a frame has {height * width / 1e6:.4g} million pixels, more than {rules.max_pixels / 1e6:.4g} million; --max-pixels allows more."
        )
    for number, frame in enumerate(container.decode(video=0)):
        time = round(number / (look.rate * look.time_base)) if frame.pts is None else frame.pts
        shown = frame.reformat(width, height, "rgb24", src_colorspace=look.colours)  # few videos change their size
        array = np.rot90(shown.to_ndarray().copy(), round(frame.rotation / 90) % 4)
        fitted = fit_size(array.shape[0], array.shape[1], rules)
        yield resize_with_alpha(np.ascontiguousarray(array), *fitted), time


def explain_video_error(error: Exception) -> str:
    """What FFmpeg says, without its number."""
    return (str(getattr(error, "strerror", None) or error) or type(error).__name__).rstrip(".")
