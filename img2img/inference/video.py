"""Videos: their frames are translated in order, their sound and their timing are kept.

A video is converted in segments, each of which is written whole or not at all beside the target, and joined at the end. A conversion that
was stopped goes on after the last segment that is there.
"""

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from img2img.core.errors import UsageError, UserError
from img2img.core.files import make_temporary, move_into_place, write_whole
from img2img.core.stored import StoredPath
from img2img.images import Array, ImageError, Picture, Rules
from img2img.images.video import Look, explain_video_error, open_video, read_frames, read_look
from img2img.inference.batching import takes_bytes
from img2img.inference.engine import BATCH_PIXELS, Engine
from img2img.inference.plan import Job, Refuse
from img2img.inference.report import Outcome

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

CODECS = {".mp4": "libx264", ".mov": "libx264", ".m4v": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
FORMATS = {".mp4": "mp4", ".mov": "mov", ".m4v": "mp4", ".mkv": "matroska", ".webm": "webm"}
SHORT = 0.9  # of a video's duration; sound may be a little longer than the pictures
SEGMENT = 240  # frames
STILL = 2  # steps of 255 that a pixel may change between frames where a video stands still


@dataclass(frozen=True)
class Flicker:
    """How much pixels change from frame to frame where the video stands still, summed over them, in steps of 255."""

    video: float = 0.0
    translation: float = 0.0
    pixels: int = 0

    def __add__(self, other: "Flicker") -> "Flicker":
        return Flicker(self.video + other.video, self.translation + other.translation, self.pixels + other.pixels)

    def describe(self) -> str:
        """For a person; empty if the video never stands still."""
        if not self.pixels:
            return ""
        video, translation = self.video / self.pixels, self.translation / self.pixels
        return f"flicker where the video stands still: {translation:.2f} steps of 255 from frame to frame; of the video itself, {video:.2f}"


class VideoPlan:
    """A video and what it becomes; takes the place of `Plan`.

    Raises:
        UsageError: if the target can't be used.
    """

    def __init__(self, source: Path, target: Path, suffix: str | None) -> None:
        if isinstance(source, StoredPath) or isinstance(target, StoredPath):
            raise UsageError(f"{source}: videos are converted from and to files of this machine; copy it first.")
        if suffix and suffix not in CODECS:
            raise UsageError(
                f"--format {suffix[1:]}: {source} is a video; there are {', '.join(s[1:] for s in CODECS)}."
            )
        if target.is_dir():
            target = (target / source.name).with_suffix(suffix or source.suffix)
        if target.suffix.lower() not in CODECS or suffix not in (None, target.suffix.lower()):
            kinds = ", ".join(CODECS) if suffix is None else suffix
            raise UsageError(f"{target}: {source.name} is a video; give a file that ends with {kinds}.")
        if target.exists() and target.resolve() == source.resolve():
            raise UsageError(f"{target} is the source itself; give another target.")
        self.root, self.job = target.parent, Job(0, source, target)
        self.ignored: Counter[str] = Counter()

    def count(self) -> int:
        """About how many frames it has, by its header; 1 if that doesn't say."""
        with suppress(UserError), open_video(self.job.source) as container:
            return max(1, read_look(container.streams.video[0]).frames)
        return 1

    def divide(self, most: int, part: int, parts: int, refuse: Refuse) -> tuple[list[Job], Iterator[list[Job]]]:
        """The video is one job, of the first process."""
        return [self.job], iter([[self.job]] if part == 0 else [])

    def close(self) -> None:
        """Nothing is open."""


def convert_video(
    engine: Engine,
    source: Path,
    target: Path,
    rules: Rules,
    quality: int,
    seed: int,
    tile: int | None,
    batch_size: int | None,
    about: dict[str, Any],
    metadata: bool,
    advance: Callable[[int], None],
) -> Outcome:
    """Converts a video.

    Args:
        rules: of frames' size.
        about: what a segment depends on beside the video; segments of something else are made anew.
        metadata: whether title, place and the like are kept.
        advance: is told how many more frames are done.

    Returns:
        What became of it, with its number of frames.
    """
    folder = target.with_name(f".{target.name}.segments")
    names = str(source), str(target)
    last = 0

    def note_times(frames: Iterator[tuple[Array, int]]) -> Iterator[tuple[Array, int]]:
        nonlocal last
        for frame in frames:
            last = frame[1]
            yield frame

    try:
        with open_video(source) as container:
            look = read_look(container.streams.video[0])
            _refuse_streams(container, target)
            shown = read_frames(container, look, rules)
            start = next(shown, None)
            if start is None:
                raise ImageError(f"{source} has no frames.")
            shown = chain([start], shown)
            about = about | {"translator": _probe(engine, start[0].shape, seed, tile)}
            if not _goes_on(folder, about):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                write_whole(folder / "about.json", json.dumps(about).encode())
            flicker, size, count = Flicker(), (0, 0), 0
            shown = note_times(shown)
            number = 0
            while (first := next(shown, None)) is not None:
                segment, note = folder / f"{number:06}.nut", folder / f"{number:06}.json"
                frames = chain([first], islice(shown, SEGMENT - 1))
                size = first[0].shape[:2]
                if note.is_file() and segment.is_file():
                    done = sum(1 for _ in frames)
                    advance(done)
                else:
                    done, found = _write_segment(
                        engine,
                        frames,
                        segment,
                        CODECS[target.suffix.lower()],
                        look,
                        quality,
                        seed,
                        tile,
                        batch_size,
                        advance,
                    )
                    write_whole(note, json.dumps(asdict(found)).encode())
                flicker += Flicker(**json.loads(note.read_text()))
                count, number = count + done, number + 1
        _join(source, target, [folder / f"{place:06}.nut" for place in range(number)], metadata)
        shutil.rmtree(folder, ignore_errors=True)
    except Exception as error:  # of FFmpeg or the network; as for an image, it is the file's failure
        return Outcome(
            *names, "failed", str(error) if isinstance(error, UserError) else f"{source}: {explain_video_error(error)}"
        )
    deep = "more than 8 bits a channel became 8" if look.deep else ""
    end = float(last * look.time_base)
    short = (
        f"it ends after {end:.1f} of {look.seconds:.1f} seconds: it may be damaged"
        if end < SHORT * look.seconds - 0.5
        else ""
    )
    choice = engine.choose(8, *size, tile)
    return Outcome(
        *names, "done", "", "; ".join(filter(None, [flicker.describe(), deep, short])), size[1], size[0], count, 8, engine.mode,
        choice.dtype, choice.backend,
    )  # fmt: skip


def read_first_frame(source: Path, rules: Rules) -> Picture:
    """The first frame, as a picture.

    Raises:
        UsageError: if the video can't be read.
    """
    with open_video(source) as container:
        frame = next(read_frames(container, read_look(container.streams.video[0]), rules), None)
    if frame is None:
        raise UsageError(f"{source} has no frames.")
    return Picture([frame[0]])


def _goes_on(folder: Path, about: dict[str, Any]) -> bool:
    """Whether segments that were made of the same are there."""
    try:
        return bool(json.loads((folder / "about.json").read_text()) == json.loads(json.dumps(about)))
    except (OSError, ValueError):
        return False


def _write_segment(
    engine: Engine,
    frames: Iterable[tuple[Array, int]],
    path: Path,
    codec: str,
    look: Look,
    quality: int,
    seed: int,
    tile: int | None,
    batch_size: int | None,
    advance: Callable[[int], None],
) -> tuple[int, Flicker]:
    """Translates some frames and writes them as a video of their own: how many they were, and how they flicker.

    Decoding and encoding, in a thread each, run beside the network.
    """
    import av

    handle, temporary = make_temporary(path.parent)
    count, flicker = 0, Flicker()
    before: tuple[Array, Array] | None = None
    try:
        with (
            open(handle, "wb", closefd=True) as file,  # noqa: PTH123 (a handle)
            av.open(file, "w", format="nut") as container,
            ThreadPoolExecutor(1) as reading,
            ThreadPoolExecutor(1) as writing,
        ):
            stream: Any = None
            coming = iter(frames)
            first = next(coming)
            height, width = first[0].shape[:2]
            most = 1 if engine.mode == "paper" else batch_size or max(1, BATCH_PIXELS // (height * width))
            coming = chain([first], coming)
            ahead = reading.submit(lambda: list(islice(coming, most)))
            written: list[Any] = []
            while batch := ahead.result():
                ahead = reading.submit(lambda: list(islice(coming, most)))
                made = _translate(engine, [array for array, _ in batch], seed, tile)
                if stream is None:
                    stream = _add_stream(container, codec, look, made[0].shape[:2], quality)
                for work in written:
                    work.result()
                written = [
                    writing.submit(_encode, container, stream, look, array, time)
                    for array, (_, time) in zip(made, batch, strict=True)
                ]
                for (array, _), done in zip(batch, made, strict=True):
                    if before is not None:
                        flicker += _measure_flicker(before, (array, done))
                    before = array, done
                count += len(batch)
                advance(len(batch))
            for work in written:
                work.result()
            container.mux(stream.encode(None))
        move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count, flicker


def _probe(engine: Engine, shape: tuple[int, ...], seed: int, tile: int | None) -> str:
    """A digest of what the translator makes of noise, by which another one, or another style, is known."""
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return hashlib.blake2b(_translate(engine, [noise], seed, tile)[0].tobytes(), digest_size=16).hexdigest()


@torch.inference_mode()
def _translate(engine: Engine, frames: list[Array], seed: int, tile: int | None) -> list[Array]:
    """What frames of equal size become; if the memory is too small for all at once, one by one."""
    as_bytes = takes_bytes(engine.translator.device)
    prepared = [engine.translator.prepare(frame, as_bytes) for frame in frames]
    height, width = prepared[0][0].shape[1:]
    translator = engine.choose(8, height, width, tile).translator
    try:
        done = translator(torch.stack([image for image, _, _ in prepared]), mode=engine.mode, seed=seed, tile=tile)
    except ImageError:
        if len(frames) == 1:
            raise
        return [_translate(engine, [frame], seed, tile)[0] for frame in frames]
    made = [
        translator.finish(image, carried, np.dtype(np.uint8))
        for image, (_, carried, _) in zip(done, prepared, strict=True)
    ]
    return [np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3] for array in made]


def _add_stream(container: Any, codec: str, look: Look, size: tuple[int, int], quality: int) -> Any:
    crf = str(min(51, round(10 + 0.6 * (100 - quality))))
    options = (
        {"crf": crf, "bf": "0"}
        if codec == "libx264"
        else {"crf": crf, "b": "0", "row-mt": "1", "auto-alt-ref": "0", "lag-in-frames": "0"}
    )
    stream = container.add_stream(codec, rate=look.rate, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
    stream.time_base = stream.codec_context.time_base = look.time_base
    stream.codec_context.colorspace = {1: 1, 5: 6, 7: 7, 9: 9}[look.colours]
    stream.codec_context.color_range = 1
    return stream


def _encode(container: Any, stream: Any, look: Look, array: Array, time: int) -> None:
    import av

    frame: VideoFrame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
    frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=look.colours)
    frame.pts, frame.time_base = time, look.time_base
    container.mux(stream.encode(frame))


def _measure_flicker(before: tuple[Array, Array], after: tuple[Array, Array]) -> Flicker:
    change, made = (np.abs(b.astype(np.int16) - a).mean(2) for a, b in zip(before, after, strict=True))
    still = change <= STILL
    return Flicker(float(change[still].sum()), float(made[still].sum()), int(still.sum()))


def _join(source: Path, target: Path, segments: list[Path], metadata: bool) -> None:
    """Writes the segments one after the other, with the sound and all else of the source, without encoding anything again."""
    import av

    handle, temporary = make_temporary(target.parent)
    try:
        with (
            open(handle, "wb") as file,  # noqa: PTH123 (a handle)
            av.open(file, "w", format=FORMATS[target.suffix.lower()]) as joined,
            open_video(source) as container,
            closing(av.open(str(segments[0]))) as sample,
        ):
            if metadata:
                joined.metadata.update(container.metadata)
            pictures = joined.add_stream_from_template(sample.streams.video[0])
            pictures.time_base = sample.streams.video[0].time_base
            others = {}
            for stream in container.streams:
                if stream.type in ("audio", "subtitle"):
                    others[stream.index] = _copy_stream(joined, stream, target)
            rest = (packet for packet in container.demux() if packet.stream.index in others and packet.dts is not None)
            waiting: Any = next(rest, None)
            for segment in segments:
                with closing(av.open(str(segment))) as part:
                    packets: Iterator[Any] = (packet for packet in part.demux(video=0) if packet.dts is not None)
                    for packet in packets:
                        while waiting is not None and waiting.dts * waiting.time_base <= packet.dts * packet.time_base:
                            waiting.stream = others[waiting.stream.index]
                            joined.mux(waiting)
                            waiting = next(rest, None)
                        packet.stream = pictures
                        joined.mux(packet)
            for packet in chain([waiting] if waiting is not None else [], rest):
                packet.stream = others[packet.stream.index]
                joined.mux(packet)
        move_into_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_streams(container: Any, target: Path) -> None:
    """Says before the work what would go wrong after it."""
    import av

    with av.open(io.BytesIO(), "w", format=FORMATS[target.suffix.lower()]) as trial:
        for stream in container.streams:
            if stream.type in ("audio", "subtitle"):
                _copy_stream(trial, stream, target)


def _copy_stream(joined: Any, stream: Any, target: Path) -> Any:
    try:
        return joined.add_stream_from_template(stream)
    except (OSError, ValueError):
        name = stream.codec_context.name if stream.codec_context else stream.type
        raise ImageError(
            f"{target.suffix} can't hold the video's {stream.type} ({name}); give a target that ends with .mkv."
        ) from None
