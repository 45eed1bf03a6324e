"""Folder to folder, or file to file: every image translated once, none lost, each accounted for."""

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from pathlib import Path

import torch
from torch import Tensor

from img2img.core.device import tune_allocator
from img2img.core.errors import UsageError, UserError
from img2img.core.files import ExistsError
from img2img.core.processes import ProcessRank, join_processes
from img2img.core.stored import StoreError, is_remote, resolve_path
from img2img.data.base import Direction
from img2img.images import Picture, Rules, composite_over_white, encode_picture, refuse_frames, write_picture
from img2img.images.bands import Bands, Range
from img2img.images.decoder import Decoders
from img2img.images.formats import find_suffix
from img2img.images.video import is_video
from img2img.inference.batching import Item, Pipeline, count_threads
from img2img.inference.engine import SMALL, Backend, DType, Engine
from img2img.inference.label_maps import LabelMapReader
from img2img.inference.origin import digest_origin
from img2img.inference.plan import Existing, Job, Plan, make_folder
from img2img.inference.progress import ConversionProgress, Watch
from img2img.inference.refusals import (
    FIRST,
    NEIGHBOURS,
    Frames,
    Part,
    explain_format,
    refuse_engine,
    refuse_numbers,
    refuse_ranges,
    refuse_words,
)
from img2img.inference.report import EXISTS, Outcome, OutcomeFile, Report, Stopped
from img2img.inference.shards import ShardPlan, choose_part, list_source_shards
from img2img.inference.video import VideoPlan, convert_video, read_first_frame
from img2img.interop import load_translator
from img2img.models import BlendedWarning, Mode, Style, Translator
from img2img.tiling.progress import watch_large_images

LABELS = re.compile(r"(^|_)labels?$")
GUESS = 2**20  # pixels of an image behind a URL, whose header would be a request of its own


def convert(
    translator: Translator | Path | str,
    source: Path | str,
    target: Path | str,
    *,
    instances: Path | str | None = None,
    style: Style | None = None,
    direction: Direction | None = None,
    format: str | None = None,
    existing: Existing = "fail",
    mode: Mode | None = None,
    seed: int = 0,
    size: int | None = None,
    max_side: int | None = None,
    render_factor: int | None = None,
    nfe: int | None = None,
    frames: Frames = "all",
    metadata: bool = True,
    alpha: bool = True,
    quality: int = 95,
    durable: bool = True,
    dtype: DType = "auto",
    batch_size: int | None = None,
    tile: int | None = None,
    compile: bool = False,
    device: str = "auto",
    engine: Backend = "auto",
    max_pixels: int = 200_000_000,
    timeout: float = 60.0,
    file_memory: float = 4.0,
    accept_truncated: bool = False,
    listed: Sequence[str] | None = None,
    shard: Part = (1, 1),
    record: Path | str | None = None,
    progress: bool | Watch = False,
) -> Report:
    """Translates a file or a folder of images, with its sub-folders; the outputs have the inputs' sizes and names.

    Decoding, in processes of its own, and encoding run beside the network, and images of equal size share a batch. A folder is
    listed while its first images are converted. Under `accelerate launch` the processes share the files, and each gets the report of all.

    Args:
        translator: one that is loaded, or the folder of one, or of a run.
        source: a file or a folder.
        target: a file if the source is one, else a folder, which is made if need be.
        instances: of a translator of label maps that knows instances: the folder (or file) of the instance maps, of the same names; by
            default the one beside, such as ``val_inst`` for ``val_label``. The label maps' own folder takes each label for one instance.
        style: of a translator with domains or styles, as of `Translator.with_style`.
        direction: which translator of a run that learned both ways; by default AtoB.
        format: suffix of the outputs, such as ``png``; by default that of each input.
        existing: what to do with an input whose target exists: report it as failed, skip it, or overwrite the target.
        mode: ``eval`` or ``paper``; by default the translator's own.
        seed: of mode ``paper``, and of the noise of a translator that takes several steps.
        size: scale the shorter side to so many pixels first; the output has that size.
        max_side: scale images whose longer side has more pixels down to it.
        render_factor: of a translator that keeps the luminance of gray images, as of `Translator.with_render_factor`.
        nfe: of a translator that takes several steps: how many, as of `Translator.with_nfe`.
        frames: all frames of an animation and pages of a TIFF, or the first.
        metadata: whether EXIF, XMP and DPI are kept.
        alpha: whether alpha is carried to the outputs; else they are what the network makes of the images over white.
        quality: of JPEG, WebP, AVIF, HEIC and JPEG XL, 1–100.
        durable: whether to wait until the disk has each file. Without, a power failure may leave empty files, which a later ``skip`` takes for done. Shards and videos always wait.
        dtype: of weights and activations; ``tf32``: fp32, whose convolutions on NVIDIA GPUs keep 10 bits; ``auto`` is bf16 where the device computes in it, if the first image comes out
            within 40 dB of fp32's, else fp32; ``int8``: OpenVINO's, for as many convolutions as keep the first images within 40 dB.
        batch_size: images of equal size that the network gets at once, at most 64; by default as many as pay.
        tile: images of more than so many pixels squared are computed in strips, with the same result; 0 for never. By
            default such as don't fit into the memory at hand.
        compile: whether to torch.compile the network, which pays for thousands of images.
        device: where to run; ``auto`` is the fastest there is. A translator that is loaded stays where it is.
        engine: what computes: ``torch``; ``openvino``, on a CPU; ``onnx``, which is onnxruntime, for a file that `img2img export` wrote. ``auto``
            goes by the model, and with dtype ``auto`` in one process on a CPU it takes OpenVINO for hundreds of images, if that is installed and measured to be faster.
        max_pixels: an image of more, all frames together, is refused before it is decoded.
        timeout: seconds that a file may take to be decoded.
        file_memory: GB that a file may take while it is decoded (on Linux).
        accept_truncated: whether files that end early are converted; what is missing is gray or black.
        listed: paths below the source folder: the inputs, instead of all images in the folder.
        shard: ``(number, count)``, the first being 1: of all inputs, convert one of so many parts, for conversions that run side by side and know nothing of each other.
        record: a file for the report, one JSON line an input. Until all is done, each process writes its outcomes to a file of its own beside it, such as
            ``report.jsonl.0``, which stays if the process is killed.
        progress: whether to show a progress bar; or a function that is told how many of how many images are done, such as 1.5 of 2. A KeyboardInterrupt
            that it raises stops the conversion.

    Returns:
        What became of each input. A bad file is reported, and the others are translated.

    Raises:
        UsageError: if source, target, translator or options can't be used at all.
        Stopped: by Ctrl-C; a KeyboardInterrupt that has the report of what was done.
    """
    tune_allocator()
    source, target = resolve_path(source), resolve_path(target)
    suffix = f".{format.lower().lstrip('.')}" if format else None
    refuse_words(
        None if is_video(source) else suffix,
        {"existing": existing, "frames": frames, "mode": mode or "eval", "dtype": dtype},
    )
    refuse_numbers({"batch-size": batch_size, "size": size, "max-side": max_side, "max-pixels": max_pixels})
    refuse_ranges(quality, tile, timeout, file_memory, shard)
    by_onnx = refuse_engine(translator, engine)
    if by_onnx and (compile or tile is not None or device not in ("auto", "cpu")):
        raise UsageError("--compile, --tile and other devices than the CPU are not for ONNX files; leave them out.")
    if isinstance(translator, Translator) and direction not in (None, translator.config.direction):
        raise UsageError(f"direction {direction}: this translator is for {translator.config.direction}.")
    plan = _find_plan(source, target, suffix, existing, listed)
    video, in_shards = isinstance(plan, VideoPlan), isinstance(plan, ShardPlan)
    if video and (frames == "first" or instances is not None):
        raise UsageError(f"{source} is a video, for which --frames and --instances have no meaning; leave them out.")
    report = Report(ignored=plan.ignored)
    rank, place = join_processes("cpu" if by_onnx else device)
    report.process = rank.index
    part, parts = (shard[0] - 1) * rank.count + rank.index, shard[1] * rank.count
    rules = Rules(max_pixels, frames == "first", accept_truncated, size, max_side)
    decoders = _start_decoders(place, rules, file_memory, timeout)  # they start while others load
    files = _Files(decoders, metadata, alpha, quality, existing, durable)
    outcomes: OutcomeFile | None = None
    try:
        if not isinstance(translator, Translator):
            translator = load_translator(translator, place, direction=direction)
        translator = translator if style is None else translator.with_style(style)
        translator = translator if render_factor is None else translator.with_render_factor(render_factor)
        translator = translator if nfe is None else translator.with_nfe(nfe)
        translator.chosen_domain()
        config = translator.config
        if config.in_range is not None:
            if video:
                raise UsageError(f"{source} is a video, and this translator takes measurements.")
            decoders.close()
            decoders = _start_decoders(
                place, replace(rules, range=config.in_range, axis=config.axis), file_memory, timeout
            )
            files.decoders = decoders
        if config.out_range is not None and video:
            raise UsageError(f"{source} is a video, and this translator makes measurements, which a video can't hold.")
        files.out_range = config.out_range
        if config.out_range is not None:
            files.maker = digest_origin(translator, (style, mode, seed, size, max_side, nfe, frames, dtype))
        report.classes = translator.config.classes
        files.maps = LabelMapReader.of(
            translator.config, source, None if instances is None else Path(instances), in_shards=in_shards
        )
        if isinstance(plan, ShardPlan):
            plan.part_of_samples = choose_part(translator.config)
        if video and translator.config.classes is not None:
            raise UsageError(f"{source} is a video, and this translator takes label maps.")
        files.video = rules if video else None
        outcomes = OutcomeFile(_name_record(record, rank))
        first, lists = plan.divide(NEIGHBOURS, part, parts, outcomes.add if part == 0 or in_shards else _ignore)
        if config.out_range is not None:
            new = [job for job in first[:FIRST] if job.shard is not None or not _handle_existing(job, existing)]
            if refused := rank.share(explain_format([job.target for job in new], translator, target)):
                raise UsageError(refused)
        samples = rank.share(
            files.sample(translator, first[:FIRST], every=dtype == "int8") if dtype in ("auto", "int8") else []
        )
        count = plan.count() if video else len(first)
        work = count * samples[0][0, 0].numel() if samples else 0
        backend: Backend = (
            "torch" if engine == "auto" and rank.count > 1 else engine
        )  # of several, none may choose alone
        computing = Engine(translator, mode or translator.config.mode, dtype, compile, samples, backend, work)
        report.notes += computing.notes
        if translator.config.classes is None and LABELS.search(source.name):
            report.notes.append(f"{source} is called as folders of label maps are; this translator takes images.")
        pipeline = Pipeline(
            computing, files.read, files.write, files.pixels, lambda job: job.skipped, seed, tile, batch_size
        )
        with ConversionProgress(plan.count, parts, progress, rank.index == 0) as bar:
            prepared = _prepare(lists, plan.root, existing, outcomes, bar)
            try:
                if video:
                    _run_video(pipeline, rules, quality, metadata, prepared, outcomes, report, bar)
                else:
                    _run(pipeline, files, prepared, outcomes, report, bar)
            except KeyboardInterrupt:
                for item in pipeline.list_finished():
                    _record(item, pipeline, files, outcomes)
                report.outcomes = outcomes
                if record is not None and rank.index == 0:
                    report.write(Path(record))
                    outcomes.remove()
                raise Stopped(report) from None
    except UsageError:
        if outcomes is not None:
            outcomes.remove()
        raise
    finally:
        decoders.close()
        plan.close()
    report.outcomes = outcomes.gather(rank)
    report.times = pipeline.times
    if record is not None:
        if rank.index == 0:
            report.write(Path(record))
        rank.share(None)  # until it is there
        outcomes.remove()
    return report


def _start_decoders(device: torch.device, rules: Rules, gigabytes: float, timeout: float) -> Decoders:
    return Decoders(count_threads(device) + 1, rules, int(gigabytes * 2**30), timeout)


def _find_plan(
    source: Path, target: Path, suffix: str | None, existing: Existing, listed: Sequence[str] | None
) -> Plan | ShardPlan | VideoPlan:
    """What is converted, by what the source is."""
    shards = list_source_shards(source)
    video = is_video(source) and source.is_file()
    if (video or shards is not None) and listed is not None:
        raise UsageError(f"--list names files of a folder, which {source} is not.")
    if video:
        return VideoPlan(source, target, suffix)
    if shards is not None:
        return ShardPlan(source, shards, target, suffix, existing)
    return Plan(source, target, suffix, None if listed is None else list(listed))


def _ignore(number: int, outcome: Outcome) -> None:
    """What another process writes down."""


def _name_record(record: Path | str | None, rank: ProcessRank) -> Path | None:
    """The file of a process' outcomes."""
    return None if record is None else Path(f"{record}.{rank.index}")


def _prepare(
    lists: Iterable[list[Job]], root: Path, existing: Existing, outcomes: OutcomeFile, bar: ConversionProgress
) -> Iterator[list[Job]]:
    """Lists of jobs, whose folders are made and whose targets that exist are accounted for."""
    made = {root}
    try:
        make_folder(root)
    except OSError as error:
        raise UsageError(f"{root} can't be made: {error.strerror}.") from None
    for jobs in lists:
        for job in jobs:
            if job.shard is None and (outcome := _handle_existing(job, existing)):
                job.skipped = True
                outcomes.add(job.number, outcome)
                bar.advance(1)
            elif job.shard is None and job.target.parent not in made:
                made.add(job.target.parent)
                with suppress(OSError):  # its images' outcomes will say what is wrong
                    make_folder(job.target.parent)
        yield jobs


class _Files:
    """How a run reads and writes files.

    Args:
        decoders: read them.
        metadata: as of `convert`, as are the others.
    """

    def __init__(
        self, decoders: Decoders, metadata: bool, alpha: bool, quality: int, existing: Existing, durable: bool
    ) -> None:
        self.decoders, self.metadata, self.quality, self.existing = decoders, metadata, quality, existing
        self.alpha, self.durable = alpha, durable
        self.bad: dict[Path, UserError] = {}
        """What is wrong with inputs that were tried before."""
        self.truncated: set[Job] = set()
        self.maps: LabelMapReader | None = None
        """How label maps are read, if they are what is read."""
        self.maker = ""
        """As of `Bands`."""
        self.out_range: Range | None = None
        """Of measurements, if such are made: the values that 0 and 1 stand for."""
        self.video: Rules | None = None
        """How a video's frames are read, if that is what is read."""

    def pixels(self, job: Job) -> int:
        try:
            if job.source in self.bad:
                return 0
            return GUESS if is_remote(job.source) else self.decoders.pixels(job.source)
        except UserError as error:
            self.bad[job.source] = error
            return 0

    def read(self, job: Job) -> Picture:
        if job.source in self.bad:
            raise self.bad[job.source]
        picture = self._picture(job)
        refuse_frames(find_suffix(job.target), picture)
        if picture.truncated:
            self.truncated.add(job)
        if not self.alpha and picture.bands is None and self.maps is None:
            picture = replace(picture, frames=[composite_over_white(frame) for frame in picture.frames])
        return picture if self.metadata else replace(picture, exif=b"", xmp=b"", dpi=None)

    def _picture(self, job: Job) -> Picture:
        if self.video:
            return read_first_frame(job.source, self.video)
        return self.maps.read(self.decoders, job.source) if self.maps else self.decoders.picture(job.source)

    def write(self, job: Job, picture: Picture) -> None:
        limits = self.out_range
        bands = picture.bands or Bands((0, 1), "uint8")
        picture = replace(picture, bands=replace(bands, range=limits, maker=self.maker) if limits else None)
        if job.shard is None:
            write_picture(job.target, picture, self.quality, self.existing == "overwrite", self.durable)
        else:
            job.shard.put(job, encode_picture(job.target, picture, self.quality))

    def note(self, job: Job) -> str:
        """What should be known of an output."""
        ends = "it ends early; what is missing is gray or black" if job in self.truncated else ""
        return "; ".join(filter(None, [job.note, ends]))

    def sample(self, translator: Translator, jobs: list[Job], every: bool = False) -> list[Tensor]:
        """The first image that is neither tiny nor of one colour, at most 512 pixels of it, else the first that can be read; or all of the first ones.

        Whatever is skipped, so that a second run decides alike.
        """
        found: list[Tensor] = []
        for job in jobs[:FIRST]:
            try:
                image = translator.prepare(self._picture(job).frames[0])[0][None, :, :512, :512]
            except UserError as error:
                self.bad[job.source] = error
                continue
            shows_much = min(image.shape[2:]) >= SMALL and image.float().std() > 0.05
            found = [image, *found] if shows_much else [*found, image]
            if shows_much and not every:
                break
        return found if every else found[:1]


def _run(
    pipeline: Pipeline[Job],
    files: _Files,
    lists: Iterable[list[Job]],
    outcomes: OutcomeFile,
    report: Report,
    bar: ConversionProgress,
) -> None:
    """Sends this process' share of the jobs through the pipeline, and writes down what becomes of them."""
    with _note_blending(report), torch.inference_mode(), watch_large_images(bar.tell):
        for item in pipeline.run(lists, bar.advance):
            _record(item, pipeline, files, outcomes)


def _run_video(
    pipeline: Pipeline[Job],
    rules: Rules,
    quality: int,
    metadata: bool,
    lists: Iterable[list[Job]],
    outcomes: OutcomeFile,
    report: Report,
    bar: ConversionProgress,
) -> None:
    """The same of a video."""
    engine, seed, batch_size = pipeline.engine, pipeline.seed, pipeline.batch_size
    for job in (job for jobs in lists for job in jobs if not job.skipped):
        state = job.source.stat()
        of = str(job.source.resolve()), state.st_size, state.st_mtime_ns
        how = engine.dtype, engine.backend, engine.mode, seed, batch_size, quality, *astuple(rules)
        with _note_blending(report):
            outcome = convert_video(
                engine, job.source, job.target, rules, quality, seed, pipeline.tile, batch_size,
                {"video": of, "how": how}, metadata, bar.advance,
            )  # fmt: skip
        outcomes.add(job.number, outcome)


def _record(item: Item[Job], pipeline: Pipeline[Job], files: _Files, outcomes: OutcomeFile) -> None:
    """Writes down what has become of an input; of those of a shard, when the shard is there."""
    job, outcome = item.key, _outcome(item, pipeline, files)
    if job.shard is None:
        outcomes.add(job.number, outcome)
    elif job.shard.account(job, outcome):
        for number, each in job.shard.finish():
            outcomes.add(number, each)


@contextmanager
def _note_blending(report: Report) -> Iterator[None]:
    """Puts what a translator says of tiles that it had to blend into the report."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("once", BlendedWarning)
        yield
    for warning in said:
        if issubclass(warning.category, BlendedWarning):
            report.notes.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _handle_existing(job: Job, existing: Existing) -> Outcome | None:
    """What becomes of an input whose target is there already."""
    names = str(job.source), str(job.target)
    try:
        there = existing != "overwrite" and (job.target.is_file if is_remote(job.target) else job.target.exists)()
        if not there:
            return None
    except (OSError, StoreError) as error:  # a name that is too long, or a store that can't be reached
        return Outcome(*names, "failed", f"{job.target} can't be written: {getattr(error, 'strerror', None) or error}")
    if existing == "skip":
        return Outcome(*names, "skipped", "the target exists")
    return Outcome(*names, "failed", EXISTS)


def _outcome(item: Item[Job], pipeline: Pipeline[Job], files: _Files) -> Outcome:
    names, engine, tile = (str(item.key.source), str(item.key.target)), pipeline.engine, pipeline.tile
    if item.error is None:
        return Outcome(
            *names, "done", "", files.note(item.key), item.width, item.height, item.frames, item.bits, engine.mode,
            *engine.choose(item.bits, item.height, item.width, tile)[1:], round(item.decode + item.network + item.encode, 4),
        )  # fmt: skip
    if isinstance(item.error, ExistsError) and files.existing == "skip":
        return Outcome(*names, "skipped", "the target exists")
    if isinstance(item.error, UserError):
        return Outcome(*names, "failed", str(item.error))
    if isinstance(item.error, MemoryError):
        return Outcome(*names, "failed", "not enough memory for this image")
    return Outcome(*names, "failed", f"{type(item.error).__name__}: {item.error}")
