"""Label maps and what a teacher made of them: the pairs from which a smaller translator of label maps learns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from img2img.core.errors import UsageError
from img2img.data.base import DataConfig, Pair
from img2img.data.distilled import DistilledImages, SourceFolder, explain_no_translations, list_real
from img2img.data.label_maps import ENDINGS, instance_folder, label_folders, list_labels
from img2img.data.labelled import LabelledData, LabelledImages
from img2img.data.layouts import SPLITS, Split, check_folder, list_image_kinds
from img2img.data.listing import list_images
from img2img.data.packed_pairs import change_pairs
from img2img.data.paired import PairedFolder, match
from img2img.images.bands import Range


def find_label_maps(path: Path) -> dict[Split, SourceFolder]:
    """Finds what a teacher is to translate: the label maps of a data set, or any folder of them.

    Args:
        path: a folder in a layout of label maps, such as train_label val_label, whose images may be missing; with sub-folders train, val or
            test; or a folder of label maps. Instance maps lie beside, such as in train_inst.

    Raises:
        UsageError: if there is no such folder, or it holds none.
    """
    path = check_folder(path)
    found = {
        split: SourceFolder(labels, real if real.is_dir() else None, instances)
        for split, (labels, instances, real) in label_folders(path).items()
    }
    if not found:
        below: dict[Split, Path] = {split: path / split for split in SPLITS if (path / split).is_dir()}
        folders: dict[Split, Path] = below if "train" in below else {"train": path}
        found = {split: SourceFolder(folder, None, instance_folder(folder)) for split, folder in folders.items()}
    found = {split: maps for split, maps in found.items() if list_images(maps.source).names}
    if "train" not in found:
        raise UsageError(f"{path} holds no label maps to learn from (image files: {list_image_kinds()}).")
    return found


def match_translations(
    split: Split, labels: Path, instances: Path | None, made: Path, limits: Range | None = None
) -> PairedFolder:
    """Pairs label maps and their translations, which have the same names, and instance maps, whose endings may differ."""
    found = match(labels, made, split)
    found = replace(found, pairs=change_pairs(found.pairs, labels=True, ranges=(None, limits)))
    if instances is None:
        return found
    beside, pairs, without = list_labels(instances), list[Pair](), list[Path]()
    for pair in found.pairs:
        files = beside.find(ENDINGS.sub("", pair.name))
        if len(files) == 1:
            pairs.append(replace(pair, instances=files[0]))
        else:
            without.append(pair.source)
    return replace(found, pairs=pairs, unmatched=found.unmatched + without)


class DistilledLabels(LabelledData):
    """Label maps (``--data.labels``, in any layout) and the teacher's translations of the same names (``--data.target``), which has a sub-folder for each split.

    Args:
        with_classes: whether real images of the kind that the teacher makes are wanted, too.
    """

    def __init__(self, config: DataConfig, with_classes: bool = True) -> None:
        self.config = config
        if config.instances:
            raise UsageError("--data.instances: distill finds instance maps beside the label maps; leave it out.")
        if config.labels is None or config.target is None or config.path:
            raise UsageError(
                "distill learns from label maps, --data.labels FOLDER, and a teacher's translations of them, --data.target FOLDER; img2img compress makes these."
            )
        maps = find_label_maps(config.labels)
        if not config.target.is_dir():
            raise UsageError(explain_no_translations(config.target))
        self.splits: dict[Split, PairedFolder] = {
            split: match_translations(
                split,
                found.source,
                found.instances if config.use_instances else None,
                config.target / split,
                config.ranges[1],
            )
            for split, found in maps.items()
            if (config.target / split).is_dir()
        }
        self.real: Mapping[Split, Sequence[Path]] = list_real(maps) if with_classes else {}
        self.build_dataset = partial(DistilledImages, LabelledImages, self.real.get("train", ()), config.ranges[1])

    @classmethod
    def recognises(cls, config: DataConfig) -> bool:
        """By the option."""
        return config.labels is not None
