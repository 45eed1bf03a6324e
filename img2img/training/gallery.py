"""The samplers of a run from noise: made from its generator, looked at, scored, and kept as `best` and `newest`."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

import img2img
from img2img.config import RunConfig
from img2img.data.check import DataReport
from img2img.data.single import plain_images
from img2img.downloads import announce
from img2img.errors import UsageError
from img2img.images import Array, write_image
from img2img.images.tensors import sheet
from img2img.methods.base import Role
from img2img.metrics.distribution import (
    FEATURE_NAMES,
    FEWEST,
    Judge,
    choose_features,
    distances,
    features,
    make_extractor,
)
from img2img.metrics.paired import finite
from img2img.networks import AnyEncoder, AnyNoiseGenerator
from img2img.networks.blocks import plain_state
from img2img.training.logs import RunLog
from img2img.training.material import SingleMaterial
from img2img.training.setup import on_main
from img2img.training.state import Progress
from img2img.training.trainer import Generators
from img2img.translator import Sampler, SamplerConfig, Training, skeleton

ROWS, COLUMNS = 8, 10  # of a picture, at most
MOST = 1000  # images that are compared at a validation
Scores = dict[str, float | None]


class Gallery:
    """Makes samplers of a run's generator, looks at them, and saves them.

    Args:
        config: of the run.
        architectures: of the generator.
        encoders: there are none.
        material: the data, divided.
        accelerator: which processes there are.
        report: of the check, which knows the classes.

    Raises:
        UsageError: if what shall judge them can't be had.
    """

    def __init__(
        self,
        config: RunConfig[Any],
        architectures: Mapping[Role, AnyNoiseGenerator],
        encoders: Mapping[Role, AnyEncoder],
        material: SingleMaterial,
        accelerator: Accelerator,
        report: DataReport,
    ) -> None:
        assert config.output is not None
        self.config, self.architecture, self.accelerator = config, architectures[""], accelerator
        self.folder, self.material = config.output, material
        self.classes = report.names if self.architecture.classes else ()
        self.validates = bool(material.name)
        files = len(material.validation.files)
        self.few = min(files, MOST)
        self.judged_by: Literal["none"] | Judge = "none"
        self.truth: Tensor | None = None
        if config.best not in ("auto", "kid", "fid"):
            raise UsageError(
                f"--best {config.best} compares pairs, and {config.method.name} knows none; use kid or fid."
            )
        if config.features != "none" and self.validates and self.few >= FEWEST:
            wanted, weights = config.features, config.feature_weights
            judge = on_main(accelerator, lambda: choose_features(wanted, weights, announce)[0])
            self.judged_by, self.extractor = judge, make_extractor(*choose_features(judge, weights, announce))
        if self.validates and config.best != "auto" and self.judged_by == "none":
            raise UsageError(f"--best {config.best} needs {FEWEST} validation images, but there are {self.few}.")
        self.best_by = "none" if self.judged_by == "none" else "kid" if config.best == "auto" else config.best

    def described(self) -> str:
        """How samplers are validated, for a person."""
        if not self.validates:
            return (
                "there is no val split, so nothing is validated; --data.holdout 0.1 keeps a tenth of the images aside"
            )
        if self.judged_by == "none":
            return (
                f"not scored: KID and FID need {FEWEST} validation images"
                if self.config.features != "none"
                else "not scored"
            )
        by = FEATURE_NAMES[self.judged_by]
        return (
            f"{self.few} samples are compared with {self.few} images of {self.material.name}: KID and FID by features of {by}; "
            f"best is chosen by {self.best_by}"
        )

    @property
    def measure(self) -> str:
        """What `best` is chosen by, in so many words that equal ones can be compared."""
        return f"{self.best_by} ({self.judged_by})"

    def save_newest(self, generators: Generators, encoders: Generators, progress: Progress) -> None:
        """Saves the sampler as `newest`."""
        on_main(self.accelerator, lambda: self._sampler(generators, progress).save(self.folder / "newest"))

    def validate(self, log: RunLog, generators: Generators, encoders: Generators, progress: Progress) -> Scores:
        """Draws a picture, scores the sampler, keeps the best, and gives the scores; the main process does it."""
        if progress.best_by != self.measure:  # scores of another kind can't be compared with
            progress.best, progress.best_by = {}, self.measure

        def look() -> Scores:
            sampler = self._sampler(generators, progress)
            picture = contact_sheet(sampler)
            write_image(self.folder / "samples" / f"{progress.update:08d}.png", picture)
            log.picture(progress.update, picture)
            scores = self._score(sampler)
            value = scores.get(self.best_by)
            better = value is not None and ("" not in progress.best or value < progress.best[""])
            text = ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if value is not None)
            if text:
                log.say(f"update {progress.update}: validation {text}{' (best so far)' if better else ''}")
            if better:
                training = sampler.config.training.model_copy(update={"scores": scores})
                sampler.config = sampler.config.model_copy(update={"training": training})
                sampler.save(self.folder / "best")
            return scores

        scores = on_main(self.accelerator, look)
        value = scores.get(self.best_by)
        if value is not None:
            progress.best[""] = min(value, progress.best.get("", value))
        return scores

    def _sampler(self, generators: Generators, progress: Progress) -> Sampler:
        """The weights in a bare network, with standing statistics, run in fp32 as users run it."""
        config, bare = self.config, skeleton(self.architecture)
        bare.load_state_dict(plain_state(generators[""]), assign=True)
        origin = Training(
            img2img=img2img.__version__,
            data=str(config.data.path),
            updates=progress.update,
            images=progress.samples,
            ema=config.ema,
            scores=progress.scores,
        )
        about = SamplerConfig(
            method=config.method.name,
            generator=self.architecture,
            classes=self.classes,
            codes=getattr(config.method, "codes", None),
            resize=config.data.resize,
            training=origin,
        )
        return Sampler(about, bare).stand()

    def _score(self, sampler: Sampler) -> Scores:
        if self.judged_by == "none":
            return {}
        device = sampler.device
        extractor = self.extractor.to(device)
        if self.truth is None:
            data, channels = self.config.data, self.architecture.out_channels
            assert channels
            real = plain_images(self.material.validation, data.size, data.resize, channels, self.few)
            self.truth = features(extractor, real, device)
        made = features(extractor, list(sampler.sample(self.few)), device)
        return dict(finite(distances(made, self.truth)))


def contact_sheet(sampler: Sampler) -> Array:
    """A picture (H, W, 3) of samples, always of the same seeds: a row for each; a column for each class, or each value of the first categorical code."""
    codes, classes = sampler.config.codes, sampler.config.classes
    if codes is not None and codes.categorical:
        return sheet(sampler.sweep(0, ROWS))
    if not classes:
        return sheet(np.stack(np.split(sampler.sample(ROWS * ROWS), ROWS)))
    noise = sampler.noise(range(ROWS))
    columns = [sampler.images(noise, torch.full((ROWS,), number)) for number in range(min(len(classes), COLUMNS))]
    return sheet(np.stack(columns, axis=1))
