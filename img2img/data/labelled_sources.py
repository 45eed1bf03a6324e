"""Unpaired images of which the sources have label maps."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from img2img.core.errors import UsageError, list_some
from img2img.data.base import DataConfig, DataReport, Pair, Progress, Samples
from img2img.data.classes import Classes, resolve_classes
from img2img.data.label_maps import ENDINGS, list_labels
from img2img.data.labelled import check_labelled, read_labelled_pair
from img2img.data.layouts import SPLITS, check_folder
from img2img.data.paired import PairedFolder
from img2img.data.transforms import JointTransform
from img2img.data.unpaired import UnpairedData, UnpairedImages
from img2img.images.tensors import to_tensor
from img2img.networks.labels import mask_ignored


class LabelledSources(UnpairedImages):
    """As `UnpairedImages`, with the label map of each source, which is cropped and mirrored with it."""

    labels: dict[Path, Path]

    def read(self, side: int, file: Path, seed: int) -> dict[str, Tensor]:
        """As of `UnpairedImages`; of a source, also ``labels``: (1, H, W), int32."""
        if side == 1:
            return super().read(side, file, seed)
        pair = Pair(file.stem, self.labels[file], file, labels=True)
        maps, image = read_labelled_pair(pair, self.channels[0], self.transform.enough)
        maps, image = self.transform.apply_to_labels(maps, image, seed)
        labels = torch.from_numpy(np.ascontiguousarray(maps.transpose(2, 0, 1)))
        return {"source": to_tensor(np.ascontiguousarray(image)), "labels": labels}


class LabelledSourcesData(UnpairedData):
    """Two kinds of images, and a folder of label maps of the sources (`--data.labels`), matched by name."""

    classes: Classes | None = None

    def __init__(self, config: DataConfig, with_classes: bool = True) -> None:
        super().__init__(config, with_classes)
        assert config.labels is not None
        folder, self.labels = check_folder(config.labels), dict[Path, Path]()
        side = "B" if config.direction == "BtoA" else "A"
        for split, images in self.splits.items():
            below = (folder / split, folder / f"{split}{side}")
            found = list_labels(next((each for each in below if each.is_dir()), folder))
            by_stem = found.rename(lambda name: name.rpartition("/")[2])
            for file in images.sources:
                name = ENDINGS.sub("", file.relative_to(images.roots[0]).with_suffix("").as_posix())
                maps = found.find(name) or by_stem.find(Path(name).name)
                if len(maps) > 1:
                    raise UsageError(f"--data.labels: {maps[0]} and {maps[1]} are both of {file}; leave one.")
                if maps:
                    self.labels[file] = maps[0]
        self.without = (
            [file for file in self.splits["train"].sources if file not in self.labels] if "train" in self.splits else []
        )

    @classmethod
    def recognises(cls, config: DataConfig) -> bool:
        """By the label maps beside images that have no pairs."""
        return config.labels is not None

    @classmethod
    def refuse_options(cls, config: DataConfig, method: str) -> None:
        """As of `UnpairedData`, but for what is about the label maps."""
        if config.ranges != (None, None):
            raise UsageError("--data.labels is for images; leave out ranges of measurements.")
        plain = {"labels": None, "classes": None, "ignore_label": None}
        super().refuse_options(config.model_copy(update=plain), method)

    def check(self, progress: Progress | None = None) -> DataReport:
        """Of the images, and of the label maps."""
        config, report = self.config, super().check(progress)
        if self.without:
            report.add(
                "error",
                f"--data.labels {config.labels} has no label map for {len(self.without)} of the training sources: "
                f"{list_some([file.name for file in self.without], 3)}. Their names must be the same but for their endings; add the "
                "label maps, or take these sources away.",
            )
            return report
        pairs = {
            split: PairedFolder(
                split,
                [
                    Pair(file.stem, self.labels[file], file, labels=True)
                    for file in folder.sources
                    if file in self.labels
                ],
                str(config.labels),
            )
            for split, folder in self.splits.items()
            if split in SPLITS
        }
        classes = resolve_classes(config.classes, config.labels, config.ignore_label)
        found = check_labelled(pairs, classes, config.ignore_label, progress, config.most_checked)
        known = {problem.text for problem in report.problems}
        report.problems += [problem for problem in found.problems if problem.text not in known]
        report.source_classes = found.classes
        if found.classes:
            report.summary += f"; sources with label maps of {found.classes.count} classes"
        return report

    def learn(self, report: DataReport) -> None:
        """Takes over the classes, which `encode` needs."""
        super().learn(report)
        self.classes = report.source_classes

    def build_training_set(self, transform: JointTransform, in_channels: int, out_channels: int, seed: int) -> Samples:
        """Images of both sides with random partners, and label maps."""
        samples = LabelledSources(
            self.train.sources, self.train.targets, transform, in_channels, out_channels, seed, self.config.ranges
        )
        samples.labels = self.labels
        return samples

    def encode(self, batch: Any, dtype: torch.dtype) -> Any:
        """Pixels of no class get -1."""
        assert self.classes is not None
        maps = mask_ignored(batch["labels"], self.classes.ignore)
        beyond = (maps < 0) | (maps >= self.classes.count)
        return {**batch, "labels": maps.masked_fill(beyond, -1)}
