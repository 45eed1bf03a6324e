"""`img2img convert`."""

import os
import re
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from img2img.cli.usage import refuse_file, run_command
from img2img.core.errors import UsageError


def command(
    source: Positional[Path],
    target: Positional[Path],
    model: Path,
    instances: Path | None = None,
    style: tuple[str, ...] = (),
    style_image: Path | None = None,
    style_labels: Path | None = None,
    style_instances: Path | None = None,
    direction: Literal["AtoB", "BtoA"] | None = None,
    format: str | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    mode: Literal["eval", "paper"] | None = None,
    seed: int = 0,
    size: int | None = None,
    max_side: int | None = None,
    render_factor: int | None = None,
    nfe: int | None = None,
    frames: Literal["all", "first"] = "all",
    no_metadata: bool = False,
    quality: int = 95,
    no_durable: bool = False,
    dtype: Literal["auto", "fp32", "tf32", "bf16", "fp16", "int8"] = "auto",
    batch_size: int | None = None,
    tile: int | None = None,
    compile: bool = False,
    device: str = "auto",
    engine: Literal["auto", "torch", "onnx", "openvino"] = "auto",
    max_pixels: int = 200_000_000,
    timeout: float = 60.0,
    file_memory: float = 4.0,
    accept_truncated: bool = False,
    list: str | None = None,
    shard: str | None = None,
    engine_cluster: Literal["ray"] | None = None,
    report: Path | None = None,
    page: Path | None = None,
) -> int:
    """Translates a folder of images or label maps, with its sub-folders, one file, a video, or shards. Sizes, names, depth and alpha are kept.

    Args:
        source: A folder, a file, a video, tar files (shards), or a URL such as s3://bucket/photos.
        target: A folder or URL, or a file if the source is one.
        model: A translator's or a run's folder, another project's file of weights, a FILE.onnx, or USER/NAME on the Hugging Face Hub.
        instances: Of label maps: the folder of their instance maps, of the same names; by default the one beside, such as val_inst for val_label.
        style: Of a translator between domains: the name of one. Of one trained by bicyclegan or with --encoder: a number, or CLASS=NUMBER for some classes; a range such as 0..5 makes each image in each of these styles, into TARGET/0 to TARGET/5, or of a file into NAME-0.png and so on; so are reports and pages named.
        style_image: Take the style from this image instead.
        style_labels: Where styles are of classes: the label map of that image.
        style_instances: The instance map of that image, if there is one.
        direction: Which translator of a run that learned both ways; by default AtoB.
        format: Write all outputs as png, jpg, webp, avif, heic, jxl, tif, bmp, gif, ppm, tga or npy; by default as the input.
        overwrite: Replace targets that exist.
        skip_existing: Leave targets that exist, to go on with a conversion that was stopped.
        mode: eval (running statistics, no dropout) or paper (batch statistics and dropout); by default the translator's.
        seed: Of mode paper, and of the noise of a translator trained by unsb.
        size: Scale the shorter side to so many pixels first; the output has that size. By default images keep theirs.
        max_side: Scale images whose longer side has more pixels down to it.
        render_factor: Of a translator that keeps the luminance of gray images: compute colours where the shorter side has 16 times so many pixels, if the image is larger; by default, as many as the training images. The output keeps the image's size.
        nfe: Of a translator trained by unsb: how many steps it takes; by default as many as it was trained for. Fewer are faster, and change the image less.
        frames: Of animations (GIF, APNG, WebP) and TIFFs of several pages: all or first.
        no_metadata: Drop EXIF, XMP and DPI; the orientation is applied anyway.
        quality: Of JPEG, WebP, AVIF, HEIC and JPEG XL, 1-100.
        no_durable: Don't wait until the disk has each file: faster where a disk is slow. A power failure may then leave empty files, which --skip-existing takes for done. Shards and videos always wait.
        dtype: Of weights and activations; auto is bf16 where the device computes in it and it is exact enough (40 dB), else fp32; tf32: fp32 with convolutions of 10 bits, on NVIDIA GPUs; int8: OpenVINO's, on CPUs, for as many layers as keep 40 dB.
        batch_size: Images of equal size that the network gets at once, at most 64; by default as many as pay.
        tile: Compute images of more than so many pixels squared in strips, with the same result; by default such as don't fit into the memory; 0: never.
        compile: torch.compile the network, which pays for thousands of images.
        device: auto, cpu, cuda, cuda:1 or mps.
        engine: What computes: torch; openvino, on CPUs (needs the extra openvino); onnx, for a FILE.onnx of img2img export; auto goes by the model, and takes openvino for hundreds of images if it is there and faster.
        max_pixels: Refuse an image of more, all frames together, before it is decoded.
        timeout: Give up a file that takes more seconds to decode.
        file_memory: Give up a file that takes more GB to decode (on Linux).
        accept_truncated: Convert files that end early; what is missing is gray or black.
        list: Convert only the files that FILE names, a path below SOURCE on each line; - reads the names from the standard input.
        shard: Convert one part of the inputs, such as 3/128: run all parts anywhere, at the same time or not. Reports and pages get the part's number in their names.
        engine_cluster: ray: let all machines of a Ray cluster convert (needs the extra cluster), which RAY_ADDRESS names; auto is the one that was started on this machine. Parts that are lost with a machine are converted again.
        report: Write a JSON line per input to this file. Until all is done, they stand in FILE.0, as they come.
        page: Write a page to look at: inputs beside outputs.
    """

    if styles := _list_styles(style):
        return _convert_styles(dict(locals()), styles)
    from img2img.core.stored import is_remote, resolve_path
    from img2img.data.base import choose_sample
    from img2img.inference import convert as room
    from img2img.inference.plan import STREAM, read_list
    from img2img.inference.report import Stopped
    from img2img.models import has_both_directions
    from img2img.pages.contact_sheet import PICTURES, write_contact_sheet

    number, count = parse_shard(shard)
    if list == STREAM and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--list -: several processes can't share the standard input; give a file.")
    if engine_cluster and (shard or int(os.environ.get("WORLD_SIZE", "1")) > 1):
        raise UsageError("--engine-cluster ray divides the inputs itself; leave out --shard, and accelerate launch.")
    listed = read_list(list) if list is not None else None
    report, page = (file and name_part(file, number, count) for file in (report, page))
    if overwrite and skip_existing:
        raise UsageError("--overwrite and --skip-existing exclude each other.")
    for file, option in ((report, "--report"), (page, "--page")):
        if file and is_remote(resolve_path(file)):
            raise UsageError(f"{option} {file}: give a file of this machine.")
    if report:
        refuse_file(report, "--report", b'{"source":')
        refuse_file(report.with_name(f"{report.name}.0"), "--report", b'{"source":')
    if page:
        refuse_file(page, "--page", b"<!doctype ")
    if report and page and report.absolute() == page.absolute():
        raise UsageError("--report and --page are the same file; give another one.")
    if direction is None and has_both_directions(model) and os.environ.get("RANK", "0") == "0":
        print("Translating AtoB; --direction BtoA is the other way.", file=sys.stderr)
    existing: Any = "overwrite" if overwrite else "skip" if skip_existing else "fail"
    stopped = False
    try:
        run: Any = partial(room.convert, shard=(number, count))
        if engine_cluster:
            from img2img.inference.cluster import convert_on_ray as run
        outcome = run(
            model, source, target, instances=instances,
            style=_parse_style(style, style_image, style_labels, style_instances), direction=direction, format=format, existing=existing, mode=mode, seed=seed,
            size=size, max_side=max_side, render_factor=render_factor, nfe=nfe, frames=frames, metadata=not no_metadata, quality=quality, durable=not no_durable, dtype=dtype,
            batch_size=batch_size, tile=tile, compile=compile, device=device, engine=engine, max_pixels=max_pixels, timeout=timeout,
            file_memory=file_memory, accept_truncated=accept_truncated, listed=listed, record=report, progress=sys.stderr.isatty(),
        )  # fmt: skip
    except Stopped as stop:
        outcome, stopped = stop.report, True
    if outcome.process:
        return 0  # the first of several processes speaks for all; a launcher would end it if another failed
    for line in outcome.remarks():
        print(line, file=sys.stderr)
    print(outcome.summary())
    if page:
        there = [place for place, each in enumerate(outcome.outcomes) if each.status != "failed"]
        shown = [outcome.outcomes[place] for place in choose_sample(there, PICTURES)]
        pairs = [(resolve_path(each.source), resolve_path(each.target)) for each in shown]
        pairs = [(before, after) for before, after in pairs if after.is_file()]
        write_contact_sheet(page, pairs, len(there), source, outcome.summary(), outcome.remarks(), outcome.classes)
    if stopped:
        print("img2img: stopped; the same command with --skip-existing goes on.", file=sys.stderr)
        return 130
    return 1 if outcome.count("failed") else 0


def _list_styles(words: tuple[str, ...]) -> range:
    """The numbers of a range such as ``0..5``; none of anything else.

    Raises:
        UsageError: if the last one is less than the first.
    """
    found = re.fullmatch(r"(\d+)\.\.(\d+)", words[0]) if len(words) == 1 else None
    if found is None:
        return range(0)
    if int(found[1]) > int(found[2]):
        raise UsageError(f"--style {words[0]}: give the smaller number first.")
    return range(int(found[1]), int(found[2]) + 1)


def _convert_styles(given: dict[str, Any], styles: range) -> int:
    """One conversion a style, each into a folder of its own, or a file; the worst of their exit codes."""
    from img2img.core.stored import resolve_path
    from img2img.images.formats import split_ending
    from img2img.inference.plan import make_folder

    def name(path: Path | None, style: int) -> Path | None:
        stem, suffix = split_ending(path.name) if path else ("", "")
        return path and path.with_name(f"{stem}-{style}{suffix}")

    given.pop("styles")
    if given["list"] == "-":
        raise UsageError("--list -: the standard input can't be read for each style; give a file.")
    if given["style_image"]:
        raise UsageError("--style and --style-image exclude each other.")
    worst, target = 0, given["target"]
    one = resolve_path(given["source"]).is_file()
    beside = one and not resolve_path(target).is_dir()
    for style in styles:
        own = {"report": name(given["report"], style), "page": name(given["page"], style)}
        own["target"] = name(target, style) if beside else target / str(style)
        if one and not beside:
            with suppress(OSError):  # the conversion will say what is wrong
                make_folder(resolve_path(target / str(style)))
        code = command(**{**given, **own, "style": (str(style),)})
        if os.environ.get("RANK", "0") == "0":
            print(f"style {style}: {own['target']}", file=sys.stderr)
        if code == 130:
            return code
        worst = max(worst, code)
    return worst


def convert(arguments: list[str]) -> int:
    """`img2img convert`."""
    if "-h" not in arguments and "--help" not in arguments:
        from img2img.core.processes import ensure_processes

        ensure_processes(["convert", *arguments])
    return run_command(command, "convert", arguments)


def parse_shard(text: str | None) -> tuple[int, int]:
    """The number of a part, from 1, and of how many, of ``3/128``.

    Raises:
        UsageError: if it is none.
    """
    if text is None:
        return 1, 1
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {text}: give the number of a part and of how many there are, from 1/N to N/N.")
    return int(found[1]), int(found[2])


def name_part(file: Path, number: int, count: int) -> Path:
    """``report-00003-of-00128.jsonl`` of ``report.jsonl``."""
    return file if count == 1 else file.with_name(f"{file.stem}-{number:05}-of-{count:05}{file.suffix}")


def _parse_style(words: tuple[str, ...], image: Path | None, labels: Path | None, instances: Path | None) -> Any:
    """What `--style` and its kin ask for."""
    from img2img.models.styles import parse_style

    if instances and not labels:
        raise UsageError("--style-instances belongs to --style-labels.")
    if image is None and labels:
        raise UsageError("--style-labels belongs to --style-image.")
    if image is not None and words:
        raise UsageError("--style and --style-image exclude each other.")
    if image is not None:
        from img2img.images import ImageError, read_image
        from img2img.images.labels import read_indices

        try:
            maps = [read_indices(path) for path in (labels, instances) if path]
            return (read_image(image), *maps) if maps else read_image(image)
        except ImageError as error:
            raise UsageError(f"the style can't be read: {error}") from None
    return parse_style(words)
