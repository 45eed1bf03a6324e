"""`img2img check`: what is wrong with a data set."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from img2img.cli.usage import run_command
from img2img.core.errors import UsageError

if TYPE_CHECKING:
    from img2img.data.base import DataConfig, DataModule

OWN = "(range|source-range|target-range|source|target|labels|instances|derive|classes|ignore-label|axis)"
"""Options of `check` that `train` has, too, with ``data.`` before them."""


def command(
    path: Annotated[Path | None, Positional] = None,
    source: Path | None = None,
    target: Path | None = None,
    labels: Path | None = None,
    instances: Path | None = None,
    derive: Literal["gray", "edges", "lowres"] | None = None,
    kind: Literal["auto", "paired", "unpaired", "labels", "images"] = "auto",
    classes: int | Path | None = None,
    ignore_label: int | None = None,
    range: tuple[float, float] | None = None,
    source_range: tuple[float, float] | None = None,
    target_range: tuple[float, float] | None = None,
    axis: Literal["axial", "coronal", "sagittal"] = "axial",
) -> int:
    """Reads every image of a data set and says what can't work and what may surprise.

    Args:
        path: The data set's folder.
        source: A folder of sources, with --target instead of a path.
        target: A folder of targets.
        labels: A folder of label maps, with --target, their images, instead of a path; or with the path of unpaired images: label maps of the sources.
        instances: A folder of the instance maps that belong to --labels.
        derive: Check a folder of images from which the sources will be derived: gray, edges or lowres.
        kind: paired, for pix2pix; unpaired, for cyclegan, cut, fastcut and unsb; labels, for spade and pix2pixhd; images, of one kind, for gan, stylegan2, lapgan, vae, infogan and stargan; auto goes by the names of folders and files.
        classes: Of label maps: the number of labels, or a YAML table of their names; by default classes.yaml in the folder, else a guess from the labels that occur.
        ignore_label: Of label maps: the label of pixels that have no class.
        range: Of measurements: the values that become -1 and 1 in the network, as of img2img train's --data.range.
        source_range: The same of the sources alone.
        target_range: The same of the targets alone.
        axis: How volumes are cut into slices.
    """
    from rich.progress import Progress

    from img2img.data.base import DataConfig

    if path is None and source is None and target is None and labels is None:
        raise UsageError("which data? Give the data set's folder, or --source (or --labels) and --target.")
    config = DataConfig(
        path=path, source=source, target=target, labels=labels, instances=instances, derive=derive, classes=classes,
        ignore_label=ignore_label, range=range, source_range=source_range, target_range=target_range, axis=axis,
    )  # fmt: skip
    try:
        data = open_data(config, kind)
    except UsageError as error:
        raise UsageError(_name_options(str(error))) from None
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:

        def start(files: int) -> Callable[[], None]:
            task = bar.add_task("reading", total=files)
            return lambda: bar.advance(task)

        report = data.check(start)
    for line in (*data.describe_splits(), *filter(None, [report.summary])):
        print(line)
    for problem in report.problems:
        text = _name_options(problem.text)
        print(f"{problem.level}: {text}")
    if not report.problems:
        print("No problems were found.")
    return 1 if report.errors else 0


def _name_options(text: str) -> str:
    """A sentence with the names that this command has for `train`'s options."""
    return re.sub(rf"--data\.(?={OWN}\b)", "--", text)


def check(arguments: list[str]) -> int:
    """`img2img check`."""
    same = [re.sub(r"^--data\.", "--", argument) for argument in arguments]  # the names that train has for them
    return run_command(command, "check", same)


def open_data(config: "DataConfig", kind: str) -> "DataModule":
    """The data as what the user says they are, or as what they look like."""
    from img2img.data.class_folders import ClassFolderData
    from img2img.data.labelled import LabelledData
    from img2img.data.labelled_sources import LabelledSourcesData
    from img2img.data.paired import PairedData
    from img2img.data.unpaired import UnpairedData
    from img2img.data.volumes import VolumeError

    kinds: dict[str, type[DataModule]] = {
        "labels": LabelledData, "images": ClassFolderData, "unpaired": UnpairedData, "paired": PairedData
    }  # fmt: skip
    if kind != "auto":
        return kinds[kind](config)
    if config.labels and (config.path or config.source):
        return LabelledSourcesData(config)
    if LabelledData.recognises(config):
        return LabelledData(config)
    try:
        pairs = PairedData(config)
    except UsageError as error:
        if config.path is None or config.derive or isinstance(error, VolumeError):
            raise
        try:
            images = ClassFolderData(config)
        except UsageError:
            raise error from None
        print(
            "(No pairs in a known layout, so these are taken as images of one kind, or of several classes with a folder for each, for gan, "
            "stargan and the like; --kind paired lists the layouts.)"
        )
        return images
    train = pairs.splits.get("train") or next(iter(pairs.splits.values()))
    if config.derive is None and 2 * len(train.pairs) < len(train.unmatched):
        print("(Most files have no partner of the same name, so this is taken as unpaired; --kind paired lists them.)")
        return UnpairedData(config)
    if config.derive is None:
        print(
            "(Taken as pairs. As unpaired images, for cyclegan, cut and fastcut: --kind unpaired; as images of one kind or of "
            "several classes, for gan, stargan and the like: --kind images.)"
        )
    return pairs
