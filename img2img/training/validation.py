"""Validation: models are built from a run's networks, looked at, scored, and kept as `best` and `latest`."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

import img2img
from img2img.config import RunConfig
from img2img.core.downloads import announce
from img2img.core.errors import UsageError, UserError
from img2img.core.files import digest_tensors
from img2img.core.processes import run_on_main
from img2img.data.base import DataModule, DataReport, Pair, ValidationSet
from img2img.data.class_folders import read_plain_images
from img2img.data.paired import read_validation_pair
from img2img.data.transforms import JointTransform
from img2img.images import Array, write_image
from img2img.images.bands import Range
from img2img.images.tensors import build_grid, build_sheet
from img2img.methods.base import Method
from img2img.metrics.distribution import FEATURE_NAMES, FEWEST, distances, features, find_weights, make_extractor
from img2img.metrics.domains import choose_other_domains, compare_domains
from img2img.metrics.paired import HIGHER_IS_BETTER, Scores, describe_scores, finite, mean, score
from img2img.metrics.perceptual import PerceptualDistance
from img2img.models import (
    Base,
    NoiseGenerator,
    NoiseGeneratorModelConfig,
    Training,
    Translator,
    TranslatorConfig,
    apply_adapter,
    build_empty,
    factor_difference,
)
from img2img.models.find_styles import find_styles
from img2img.models.hub import Shareable
from img2img.networks import EncoderConfig, InstanceEncoderConfig, build_encoder, build_generator, build_noise_generator
from img2img.networks.layers import ImageNetwork
from img2img.networks.weights import collect_plain_state
from img2img.training.checkpoint import Progress
from img2img.training.logging import RunLog
from img2img.training.run_folder import SAMPLES
from img2img.training.trainer import Networks

SHEET_ROWS, SHEET_COLUMNS = 8, 10  # of a picture of images from noise, at most
SHEET_STYLES = 3  # random ones, beside the mean
GRID_ROWS = 6  # of a picture of translations
MOST_SAMPLES = 1000  # images from noise that are compared at a validation
NEAR = 1.1  # times the lowest L1: models above it are no candidates for the perceptually best
OPPOSITE = {"AtoB": "BtoA", "BtoA": "AtoB"}
Found = dict[str, float | None]
Model = TypeVar("Model", Translator, NoiseGenerator)


class Evaluator(ABC, Generic[Model]):
    """How models of one kind are built, looked at and scored, on the set of each direction."""

    extractor: nn.Module | None = None
    """Whose features KID and FID compare; None: they aren't measured."""

    def __init__(
        self,
        config: RunConfig,
        method: Method,
        data: DataModule,
        report: DataReport,
        accelerator: Accelerator,
        sets: Mapping[str, ValidationSet],
    ) -> None:
        self.config, self.method, self.data, self.report = config, method, data, report
        self.accelerator, self.sets = accelerator, sets

    @abstractmethod
    def build(self, direction: str, generator: nn.Module, encoder: nn.Module | None, progress: Progress) -> Model:
        """A model with a copy, or the very tensors, of a network's weights, run in fp32 as users run it."""

    @abstractmethod
    def draw(self, models: Mapping[str, Model], direction: str) -> Array:
        """A picture (H, W, 3) of what a model makes, always of the same inputs."""

    @abstractmethod
    def score(self, model: Model, direction: str) -> Found:
        """The scores of a model; None where a score is not finite. Every process calls it.

        Raises:
            UserError: in every process, if an image can't be read.
        """

    @abstractmethod
    def count_images(self, images: ValidationSet) -> int:
        """Images of the smaller side that are compared as sets."""


class Validator:
    """Validates the models of a run, and keeps them.

    Raises:
        UsageError: if the scores that were asked for can't be computed.
    """

    def __init__(
        self, config: RunConfig, method: Method, data: DataModule, report: DataReport, accelerator: Accelerator
    ) -> None:
        assert config.output is not None
        self.config, self.folder, self.accelerator = config, config.output, accelerator
        self.sets = {direction: data.validation_set(direction) for direction in method.generators}
        self.validates = any(each.split for each in self.sets.values())
        self.evaluator = EVALUATORS[config.method.model](config, method, data, report, accelerator, self.sets)
        self.few = min(self.evaluator.count_images(each) for each in self.sets.values())
        self.features, self.evaluator.extractor = self._choose_features()
        self.best_by = self._choose_best_by()

    def _choose_features(self) -> tuple[str, nn.Module | None]:
        """Whose features KID and FID compare; none if they aren't wanted, or images are too few."""
        config, wanted = self.config, self.config.features
        if wanted == "auto":
            as_pairs = config.method.best_by == "perceptual" and config.best not in ("kid", "fid")
            wanted = "none" if as_pairs else "lite"
        if wanted == "none" or not self.validates or self.few < FEWEST:
            return "none", None
        weights = config.feature_weights
        run_on_main(self.accelerator, lambda: find_weights(wanted, weights, announce))  # one process downloads
        return wanted, make_extractor(wanted, find_weights(wanted, weights, announce))

    def _choose_best_by(self) -> str:
        """The score by which `best` is chosen; none if there will be no score."""
        chosen, as_sets = self.config.best, ("kid", "fid")
        known = all(any(each.has_target(pair) for pair in each.pairs) for each in self.sets.values())
        if chosen == "auto":
            compares_sets = self.features != "none" and self.config.method.best_by == "kid"
            return "kid" if compares_sets else "perceptual" if known else "none"
        if self.validates and chosen in as_sets and self.features == "none":
            raise UsageError(f"--best {chosen} needs {FEWEST} validation images a side, but there are {self.few}.")
        if self.validates and chosen not in as_sets and not known:
            raise UsageError(
                f"--best {chosen} compares pairs, and the validation images have no targets of the same names; use kid or fid."
            )
        return chosen

    def describe(self) -> str:
        """How models are validated, for a person."""
        if not self.validates:
            return "there is no val split, so nothing is validated; --data.holdout 0.1 holds out a tenth of the images"
        images = next(iter(self.sets.values()))
        pairs = sum(images.has_target(pair) for pair in images.pairs)
        text = f"validated on {len(images.pairs)} {'pairs' if images.paired else 'images'} of {images.split}"
        if pairs and not images.paired:
            text += f"; {pairs} have a target of the same name, and are scored as pairs, too"
        if self.few < FEWEST and self.config.features != "none" and self.config.method.best_by == "kid":
            text += f"; too few for KID and FID, which need {FEWEST} images a side"
        if self.features != "none":
            text += f"; KID and FID by features of {FEATURE_NAMES[self.features]}"
        return f"{text}; {'no best is kept' if self.best_by == 'none' else f'best is chosen by {self.best_by}'}"

    @property
    def measure(self) -> str:
        """What `best` is chosen by; only equal ones can be compared."""
        return f"{self.best_by} ({self.features})" if self.best_by in ("kid", "fid") else self.best_by

    def save_latest(self, generators: Networks, encoders: Networks, progress: Progress) -> None:
        """Saves all models as `latest`."""
        models = self._build(generators, encoders, progress)

        def save() -> None:
            for direction, model in models.items():
                model.save(self.folder / direction / "latest")

        run_on_main(self.accelerator, save)

    def validate(self, log: RunLog, generators: Networks, encoders: Networks, progress: Progress) -> Found:
        """Draws a picture for each model, scores it, keeps the best, and gives the scores."""
        if progress.best_by != self.measure:  # scores of another kind can't be compared
            progress.best, progress.best_l1, progress.lowest_l1, progress.best_by = {}, {}, {}, self.measure
        models = self._build(generators, encoders, progress)
        found: Found = {}
        for direction, model in models.items():
            run_on_main(self.accelerator, partial(self._show, log, models, direction, progress.update))
            if not self.sets[direction].split:
                continue
            scores = self.evaluator.score(model, direction)
            self._keep_if_best(log, direction, model, scores, progress)
            found |= {f"{direction}/{key}" if direction else key: value for key, value in scores.items()}
        return found

    def _build(self, generators: Networks, encoders: Networks, progress: Progress) -> dict[str, Shareable]:
        return {
            direction: self.evaluator.build(direction, generator, encoders.get(direction), progress)
            for direction, generator in generators.items()
        }

    def _show(self, log: RunLog, models: Mapping[str, Shareable], direction: str, update: int) -> None:
        picture = self.evaluator.draw(models, direction)
        write_image(self.folder / SAMPLES / f"{update:08d}{f'-{direction}' if direction else ''}.png", picture)
        log.picture(update, picture, direction)

    def _keep_if_best(self, log: RunLog, direction: str, model: Shareable, scores: Found, progress: Progress) -> None:
        value, better = scores.get(self.best_by), self._is_better(direction, scores, progress)
        if text := describe_scores(scores):
            best = " (best so far)" if better else ""
            log.say(f"update {progress.update}: validation {f'{direction} ' if direction else ''}{text}{best}")
        if better:
            assert value is not None
            progress.best[direction], progress.best_l1[direction] = value, scores.get("l1") or 0.0
            self._save(model, scores, direction, "best")
        l1 = scores.get("l1")
        if self.best_by == "perceptual" and l1 is not None and l1 < progress.lowest_l1.get(direction, math.inf):
            progress.lowest_l1[direction] = l1
            self._save(model, scores, direction, "best-l1")

    def _is_better(self, direction: str, scores: Found, progress: Progress) -> bool:
        """Whether a model is better than the best so far; by the perceptual distance only while its L1 is near the lowest."""
        value, l1 = scores.get(self.best_by), scores.get("l1")
        if value is None:
            return False
        if direction not in progress.best:
            return True
        if self.best_by == "perceptual" and l1 is not None:
            most = NEAR * min(l1, progress.lowest_l1.get(direction, l1))
            if l1 > most or progress.best_l1[direction] > most:
                return l1 <= most
        sign = -1.0 if self.best_by in HIGHER_IS_BETTER else 1.0
        return sign * value < sign * progress.best[direction]

    def _save(self, model: Shareable, scores: Found, direction: str, name: str) -> None:
        training = model.config.training.model_copy(update={"scores": scores})
        model.config = model.config.model_copy(update={"training": training})
        run_on_main(self.accelerator, lambda: model.save(self.folder / direction / name))


class TranslatorEvaluator(Evaluator[Translator]):
    """Builds translators, and scores the 8- or 16-bit images that users would get; processes share the images."""

    def __init__(self, config: RunConfig, *given: Any) -> None:
        super().__init__(config, *given)
        tuning = config.finetune
        self.base = Translator.load(tuning.init[0]).generator.state_dict() if tuning.save_adapter else None
        self.styles: tuple[int, Tensor] | None = None
        """The update at which styles were found, and they."""
        self.target_features: dict[str, list[tuple[int, Tensor]]] = {}
        knows_targets = any(each.has_target(pair) for each in self.sets.values() for pair in each.pairs)
        self.distance = PerceptualDistance().to(self.accelerator.device) if knows_targets else None

    def count_images(self, images: ValidationSet) -> int:
        """Of the smaller side; of domains, of the smallest one."""
        if not images.labels:
            return min(len(images.pairs), len(images.targets))
        made, real = Counter(choose_other_domains(images.labels)), Counter(images.labels)
        return min(min(made[label], real[label]) for label in real)

    def build(self, direction: str, generator: nn.Module, encoder: nn.Module | None, progress: Progress) -> Translator:
        """A translator, with its encoder and styles, or as the change of another."""
        config, architecture = self.config, self.method.generator_configs[direction]
        data, bare = config.data, build_empty(build_generator, architecture)
        state, adapter, base = collect_plain_state(generator), None, None
        ranges = self._ranges(direction)
        if self.base is not None:
            rank, before = config.finetune.lora, self.base
            adapter = factor_difference(before, state, rank)
            state = apply_adapter(before, adapter)  # what is validated is what is saved
            base = Base(model=str(config.finetune.init[0]), digest=digest_tensors(before), rank=rank)
        bare.load_state_dict({name: tensor.to(self.accelerator.device) for name, tensor in state.items()}, assign=True)
        reader, styles, encoder_config = None, None, None
        if encoder is not None:
            encoder_config = self.method.encoders[direction][1]
            reader = build_empty(build_encoder, encoder_config)
            reader.load_state_dict(encoder.state_dict(), assign=True)
            reader.eval()
            styles = self._find_styles(reader, encoder_config, progress.update)
        return Translator(
            TranslatorConfig(
                method=config.method.name,
                generator=architecture,
                size=data.size,
                width=data.width,
                resize=data.resize,
                direction=direction or data.direction,  # type: ignore[arg-type]
                in_range=ranges[0],
                out_range=ranges[1],
                axis=data.axis,
                derive=data.derive,
                classes=self.report.classes,
                domains=self.report.names,
                edges=self.report.edges,
                encoder=encoder_config,
                base=base,
                training=describe_training(config, direction, progress),
            ),
            bare.eval(),
            reader,
            styles,
            adapter,
        )

    def _find_styles(self, encoder: ImageNetwork, config: EncoderConfig, update: int) -> Tensor | None:
        """The styles of an encoder of instances; every process has the same."""
        classes, images, data = self.report.classes, self.data, self.config.data
        if not isinstance(config, InstanceEncoderConfig) or classes is None:
            return None
        if self.styles is None or self.styles[0] != update:
            images_of: Any = images
            pairs, count, channels = images_of.train, self.config.method.style_count, config.in_channels

            def read(pair: Pair) -> tuple[Array, Array]:
                return images_of.read(pair, data.size, data.resize, 0, channels, data.width)

            found = run_on_main(self.accelerator, lambda: find_styles(encoder, config, pairs, read, classes, count))
            self.styles = update, found
        return self.styles[1]

    def draw(self, models: Mapping[str, Translator], direction: str) -> Array:
        """A row for each of a few images: source, translation (to each domain; in the mean style and a few random ones), back to the source if a translator does that, target if it is known."""
        translator, images, data = models[direction], self.sets[direction], self.config.data
        chosen = list(images.pairs[:: max(1, len(images.pairs) // GRID_ROWS)][:GRID_ROWS])
        plain = JointTransform(data.size, width=data.width, resize=data.resize, jitter=1, flip=0)
        fixed = images.build_dataset(chosen, plain, translator.in_channels, translator.out_channels, 0)
        rows: list[dict[str, Tensor]] = [fixed[0, index] for index in range(len(chosen))]  # type: ignore[index]
        source = torch.stack([row["source"] for row in rows])
        ways = _each_domain(translator)[:SHEET_COLUMNS]
        ways += [translator.with_style(number) for number in range(SHEET_STYLES)] if translator.draws_styles else []
        columns = [translator.shown(source), *(each(source) for each in ways)]
        back = models.get(OPPOSITE.get(direction, ""))
        if back is not None and back is not translator:
            columns.append(back(columns[1]))
        if all(images.has_target(pair) for pair in chosen):
            columns.append(torch.stack([row["target"] for row in rows]))
        return build_grid(columns)

    def score(self, translator: Translator, direction: str) -> Found:
        """L1, PSNR, SSIM and perceptual distance over pairs whose target is known; KID and FID of all.

        Between domains, each image is translated to another one than its own, and KID and FID are those of each domain, averaged: a copy, or an
        image of the wrong domain, is far from the domain that was asked for.
        """
        images, ways = self.sets[direction], _each_domain(translator)
        wanted = choose_other_domains(images.labels) if translator.config.domains else (0,) * len(images.pairs)
        outcomes: list[tuple[Scores | None, int, Tensor | None] | UserError] = []
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        for pair, domain in list(zip(images.pairs, wanted, strict=True))[mine]:
            try:
                source, target = self._read(images, pair, translator.in_channels, translator.out_channels)
                done = ways[domain].translate_scaled(source)
                scores = score(done, target, self.distance) if images.has_target(pair) else None
                outcomes.append((scores, domain, self._features(done, translator.device)))
            except UserError as error:  # raised only when all processes have come so far
                outcomes.append(error)
        gathered = _raise_errors(gather_object(outcomes))
        paired = [scores for scores, _, _ in gathered if scores is not None]
        found: Found = {**finite(mean(paired))} if paired else {}
        if self.extractor is not None:
            made = [(domain, each) for _, domain, each in gathered]
            real, names = self._features_of_targets(translator, direction), translator.config.domains
            found |= finite(run_on_main(self.accelerator, lambda: compare_domains(made, real, names)))
        return found

    def _features_of_targets(self, translator: Translator, direction: str) -> list[tuple[int, Tensor]]:
        """Of each real image its domain, 0 if there are none, and its features."""
        if direction not in self.target_features:
            images, channels, data = self.sets[direction], translator.out_channels, self.config.data
            labels = images.labels if translator.config.domains else (0,) * len(images.targets)
            outcomes: list[tuple[int, Tensor | None] | UserError] = []
            mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
            for label, file in list(zip(labels, images.targets, strict=True))[mine]:
                try:
                    limits = self._ranges(direction)[1]
                    pair = Pair(file.stem, file, file, ranges=(limits, limits))
                    image = read_validation_pair(pair, data.size, data.resize, channels, channels, data.width)[1]
                    outcomes.append((label, self._features(image, translator.device)))
                except UserError as error:
                    outcomes.append(error)
            self.target_features[direction] = _raise_errors(gather_object(outcomes))
        return self.target_features[direction]

    def _read(self, images: ValidationSet, pair: Pair, in_channels: int, out_channels: int) -> tuple[Array, Array]:
        data = self.config.data
        return images.read(pair, data.size, data.resize, in_channels, out_channels, data.width)

    def _ranges(self, direction: str) -> tuple[Range | None, Range | None]:
        """Of the sources and targets of a direction."""
        ranges = self.config.data.ranges
        return ranges if direction != "BtoA" else ranges[::-1]

    def _features(self, image: Array, device: torch.device) -> Tensor | None:
        return None if self.extractor is None else features(self.extractor.to(device), [image], device)


class NoiseEvaluator(Evaluator[NoiseGenerator]):
    """Builds generators of images from noise, and compares samples with real images as sets; the main process does it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.architecture = self.method.generator_configs[""]
        self.real_features: Tensor | None = None

    def count_images(self, images: ValidationSet) -> int:
        """Real images; as many are drawn."""
        return min(len(images.targets), MOST_SAMPLES)

    def build(
        self, direction: str, generator: nn.Module, encoder: nn.Module | None, progress: Progress
    ) -> NoiseGenerator:
        """A generator whose batch norms have the statistics of many samples."""
        config, bare = self.config, build_empty(build_noise_generator, self.architecture)
        bare.load_state_dict(collect_plain_state(generator), assign=True)
        about = NoiseGeneratorModelConfig(
            method=config.method.name,
            generator=self.architecture,
            classes=self.report.names if self.architecture.classes else (),
            codes=config.method.noise_codes,
            resize=config.data.resize,
            range=config.data.ranges[1],
            axis=config.data.axis,
            training=describe_training(config, direction, progress),
        )
        return NoiseGenerator(about, bare).recalibrate()

    def draw(self, models: Mapping[str, NoiseGenerator], direction: str) -> Array:
        """See `draw_contact_sheet`."""
        return draw_contact_sheet(models[direction])

    def score(self, model: NoiseGenerator, direction: str) -> Found:
        """KID and FID."""
        return run_on_main(self.accelerator, lambda: self._score(model, self.sets[direction]))

    def _score(self, model: NoiseGenerator, images: ValidationSet) -> Found:
        if self.extractor is None:
            return {}
        device, count, data = model.device, self.count_images(images), self.config.data
        extractor = self.extractor.to(device)
        if self.real_features is None:
            channels, limits = self.architecture.out_channels, data.ranges[1]
            real = read_plain_images(images.targets, data.size, data.resize, channels, count, limits)
            self.real_features = features(extractor, real, device)
        made = features(extractor, list(model.show(model.sample(count))), device)
        return dict(finite(distances(made, self.real_features)))


EVALUATORS: dict[str, type[Evaluator[Any]]] = {"translator": TranslatorEvaluator, "noise_generator": NoiseEvaluator}


def _each_domain(translator: Translator) -> list[Translator]:
    """One for each domain that it translates to, or itself."""
    return [translator.with_style(name) for name in translator.config.domains] or [translator]


def draw_contact_sheet(model: NoiseGenerator) -> Array:
    """A picture (H, W, 3) of samples, always of the same seeds: a row for each; a column for each class, or each value of the first categorical code."""
    codes, classes = model.config.codes, model.config.classes
    if codes is not None and codes.categorical:
        return build_sheet(model.show(model.sweep(0, SHEET_ROWS)))
    if not classes:
        samples = model.show(model.sample(SHEET_ROWS * SHEET_ROWS))
        return build_sheet(np.stack(np.split(samples, SHEET_ROWS)))
    noise = model.noise(range(SHEET_ROWS))
    numbers = range(min(len(classes), SHEET_COLUMNS))
    columns = [model.images(noise, torch.full((SHEET_ROWS,), number)) for number in numbers]
    return build_sheet(model.show(np.stack(columns, axis=1)))


def describe_training(config: RunConfig, direction: str, progress: Progress) -> Training:
    """How a model came to be."""
    data, own = config.data, f"{direction}/" if direction else ""
    return Training(
        img2img=img2img.__version__,
        data=str(data.path or f"{data.source or data.labels} + {data.target}"),
        updates=progress.update,
        images=progress.samples,
        ema=config.ema,
        init=" + ".join(map(str, config.finetune.init)),
        teacher=config.method.imitates,
        scores={name.removeprefix(own): value for name, value in progress.scores.items() if name.startswith(own)},
    )


def _raise_errors(outcomes: Sequence[Any]) -> list[Any]:
    """The outcomes of all processes.

    Raises:
        UserError: the first of them.
    """
    for outcome in outcomes:
        if isinstance(outcome, UserError):
            raise outcome
    return list(outcomes)
