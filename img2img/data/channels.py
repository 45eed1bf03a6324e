"""Channels of the images of a side, and the range of their values: what they have in common, and what can't work."""

from collections import Counter
from collections.abc import Sequence

from img2img.core.errors import UsageError
from img2img.data.base import DataConfig, DataReport
from img2img.data.facts import ImageFacts
from img2img.images.bands import Range

CHANNEL_NAMES = {1: "gray", 2: "gray with alpha", 3: "RGB", 4: "RGB with alpha"}
WIDE = 20  # times the extent of the values, from which on a range is too wide


def refuse_jitter_of_bands(config: DataConfig) -> None:
    """Raises a `UsageError` if colours are to be changed of what has none."""
    if config.colour_jitter and config.ranges[0]:
        raise UsageError(
            "--data.colour-jitter changes colours, and --data.range says that the sources have none; leave it out."
        )


def check_band_counts(config: DataConfig, report: DataReport) -> None:
    """Notes numbers of channels that were asked for and that bands don't have: they can't be converted."""
    asked = ("in", config.in_channels, report.in_channels), ("out", config.out_channels, report.out_channels)
    for (side, wanted, there), limits in zip(asked, config.ranges, strict=True):
        if limits is not None and wanted not in (None, there):
            report.add("error", f"--data.{side}-channels {wanted}: the files have {there} bands; leave it out.")


def name_channels(channels: int) -> str:
    """What so many channels are, for a person."""
    return CHANNEL_NAMES.get(channels, f"{channels} bands")


def common_channels(side: str, facts: Sequence[ImageFacts], report: DataReport, limits: Range | None = None) -> int:
    """The most frequent number of channels; warns where it, or the depth, is mixed.

    Args:
        limits: of measurements, the range.
    """
    counts = Counter(each.channels for each in facts)
    common = counts.most_common(1)[0][0]
    kinds = ", ".join(f"{number} of {name_channels(channels)}" for channels, number in counts.most_common())
    if limits is None and max(counts) > max(CHANNEL_NAMES):
        report.add(
            "error",
            f"{side}: colours have at most 4 channels, but these are {kinds}; say with --data.range what their values mean.",
        )
    elif limits is not None:
        _check_range(side, facts, report, limits)
    if limits is not None and len(counts) > 1:
        report.add(
            "error",
            f"{side}: the numbers of bands differ: {', '.join(f'{number} files have {bands}' for bands, number in counts.most_common())}.",
        )
    elif len(counts) > 1:
        report.add("warning", f"{side}: channels are mixed ({kinds}); all are used as {name_channels(common)}.")
    bits = Counter(each.bits for each in facts)
    if len(bits) > 1:
        report.add("warning", f"{side}: {bits[16]} images have 16 bits a channel, {bits[8]} have 8.")
    return common


def _check_range(side: str, facts: Sequence[ImageFacts], report: DataReport, limits: Range) -> None:
    """Warns of values that are clipped, and of a range that is much too wide."""
    found = [each.extent for each in facts if each.extent is not None]
    if not found:
        report.add("error", f"{side}: there is no value in any file, only NaN or what stands for no data.")
        return
    low, high = min(each[0] for each in found), max(each[1] for each in found)
    given = f"{limits[0]:g} {limits[1]:g}"
    if high <= limits[0] or low >= limits[1]:
        report.add("error", f"{side}: values go from {low:g} to {high:g}, so none is in the range {given}.")
    elif low < limits[0] or high > limits[1]:
        report.add(
            "warning", f"{side}: values go from {low:g} to {high:g}; those beyond the range {given} are clipped."
        )
    if high - low < (limits[1] - limits[0]) / WIDE:
        report.add(
            "warning",
            f"{side}: values go from {low:g} to {high:g}, a small part of the range {given}: a network sees hardly any contrast.",
        )
