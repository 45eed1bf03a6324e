"""The translators of a run: made from its generators, validated, and kept as `best` and `newest`."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

import img2img
from img2img.config import RunConfig
from img2img.data.check import DataReport
from img2img.data.dataset import validation_pair
from img2img.data.folders import Direction
from img2img.downloads import announce
from img2img.errors import UsageError
from img2img.files import digest_of
from img2img.methods.base import Role
from img2img.metrics.distribution import FEATURE_NAMES, FEWEST, choose_features, make_extractor
from img2img.networks import AnyEncoder, GeneratorConfig, InstanceEncoderConfig, build_encoder
from img2img.networks.blocks import plain_state
from img2img.training.logs import RunLog
from img2img.training.material import Material, PairedMaterial
from img2img.training.setup import on_main
from img2img.training.state import Progress
from img2img.training.styles import find_styles
from img2img.training.trainer import Generators
from img2img.training.validation import Judge
from img2img.translator import Base, Training, Translator, TranslatorConfig, applied, difference, skeleton

DIRECTIONS: dict[Role, Direction] = {"A2B": "AtoB", "B2A": "BtoA"}
HIGHER_IS_BETTER = ("psnr", "ssim")
Scores = dict[str, float | None]


class Portfolio:
    """Makes translators of a run's generators, looks at them, and saves them.

    Args:
        config: of the run.
        architectures: of the generators.
        encoders: of the networks that read styles.
        material: the data, divided.
        accelerator: which processes there are.
        report: of the check, which knows the classes of label maps.

    Raises:
        UsageError: if what shall judge them can't be had.
    """

    def __init__(
        self,
        config: RunConfig[Any],
        architectures: Mapping[Role, GeneratorConfig],
        encoders: Mapping[Role, AnyEncoder],
        material: Material,
        accelerator: Accelerator,
        report: DataReport,
    ) -> None:
        self.classes, self.edges = report.classes, report.edges
        assert config.output is not None
        self.config, self.architectures, self.accelerator = config, architectures, accelerator
        self.folder = config.output
        self.encoders, self.material = encoders, material
        apart = config.tuning.lora_apart
        self.base = Translator.load(config.tuning.init[0]).generator.state_dict() if apart else None
        self.styles: tuple[int, Tensor] | None = None
        """The update that styles were found at, and they."""
        self.trials = {role: material.trial(role) for role in architectures}
        self.validates = any(trial.split for trial in self.trials.values())
        paired, self.judged_by, extractor = config.method.paired, "none", None
        self.few = min((len(side) for t in self.trials.values() for side in (t.pairs, t.targets)), default=0)
        wanted = config.features
        if wanted == "auto" and paired and config.best not in ("kid", "fid") and not config.feature_weights:
            wanted = "none"
        if wanted != "none" and self.validates and self.few >= FEWEST:
            weights = config.feature_weights
            self.judged_by = on_main(accelerator, lambda: choose_features(wanted, weights, announce)[0])
            extractor = make_extractor(*choose_features(self.judged_by, weights, announce))
        self.judge = Judge(config.data.size, config.data.width, config.data.resize, extractor, accelerator)
        self.best_by = self._best_by(extractor is not None)

    def _best_by(self, has_features: bool) -> str:
        """The score by which `best` is chosen; none if there will be no score."""
        chosen, sets = self.config.best, ("kid", "fid")
        known = all(any(trial.has_truth(pair) for pair in trial.pairs) for trial in self.trials.values())
        if chosen == "auto":
            return "kid" if has_features and not self.config.method.paired else "l1" if known else "none"
        if self.validates and chosen in sets and not has_features:
            raise UsageError(f"--best {chosen} needs {FEWEST} validation images a side, but there are {self.few}.")
        if self.validates and chosen not in sets and not known:
            raise UsageError(f"--best {chosen} needs pairs to validate on, of equal names; there are none, so use kid.")
        return chosen

    def described(self) -> str:
        """How translators are validated, for a person."""
        if not self.validates:
            return (
                "there is no val split, so nothing is validated; --data.holdout 0.1 keeps a tenth of the images aside"
            )
        trial = next(iter(self.trials.values()))
        pairs = sum(trial.has_truth(pair) for pair in trial.pairs)
        text = f"validated on {len(trial.pairs)} {'pairs' if trial.paired else 'sources'} of {trial.split}"
        if pairs and not trial.paired:
            text += f", {pairs} of which have a target of the same name and are scored as pairs, too"
        if self.few < FEWEST and self.config.features != "none" and not self.config.method.paired:
            text += f"; too few for KID and FID, which need {FEWEST} images a side"
        if self.judged_by != "none":
            text += f"; KID and FID by features of {FEATURE_NAMES[self.judged_by]}"
        return f"{text}; {'no best is kept' if self.best_by == 'none' else f'best is chosen by {self.best_by}'}"

    @property
    def measure(self) -> str:
        """What `best` is chosen by, in so many words that equal ones can be compared."""
        return f"{self.best_by} ({self.judged_by})" if self.best_by in ("kid", "fid") else self.best_by

    def save_newest(self, generators: Generators, encoders: Generators, progress: Progress) -> None:
        """Saves all translators as `newest`."""
        translators = self._translators(generators, encoders, progress)

        def save() -> None:
            for role, translator in translators.items():
                translator.save(self._place(role, "newest"))

        on_main(self.accelerator, save)

    def validate(self, log: RunLog, generators: Generators, encoders: Generators, progress: Progress) -> Scores:
        """Draws a picture for each translator, scores it, keeps the best, and gives the scores."""
        if progress.best_by != self.measure:  # scores of another kind can't be compared with
            progress.best, progress.best_by = {}, self.measure
        translators = self._translators(generators, encoders, progress)
        found: Scores = {}
        for role, translator in translators.items():
            name = f"{progress.update:08d}{f'-{role}' if role else ''}.png"
            file = self.folder / "samples" / name
            draw = partial(self.judge.draw, translators, self.trials[role], role, file)
            on_main(self.accelerator, lambda draw=draw, role=role: log.picture(progress.update, draw(), role))  # type: ignore[misc]
            if not self.trials[role].split:
                continue
            scores = self.judge.score(translator, self.trials[role], role)
            self._keep_if_best(log, role, translator, scores, progress)
            found |= {f"{role}/{key}" if role else key: value for key, value in scores.items()}
        return found

    def _keep_if_best(
        self, log: RunLog, role: Role, translator: Translator, scores: Scores, progress: Progress
    ) -> None:
        value = scores.get(self.best_by)
        sign = -1.0 if self.best_by in HIGHER_IS_BETTER else 1.0
        better = value is not None and (role not in progress.best or sign * value < sign * progress.best[role])
        text = ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if value is not None)
        if text:
            best = " (best so far)" if better else ""
            log.say(f"update {progress.update}: validation {f'{role} ' if role else ''}{text}{best}")
        if better:
            assert value is not None
            progress.best[role] = value
            training = translator.config.training.model_copy(update={"scores": scores})
            translator.config = translator.config.model_copy(update={"training": training})
            on_main(self.accelerator, lambda: translator.save(self._place(role, "best")))

    def _place(self, role: Role, name: Literal["best", "newest"]) -> Path:
        return self.folder / role / name

    def _translators(self, generators: Generators, encoders: Generators, progress: Progress) -> dict[Role, Translator]:
        return {
            role: self._translator(role, generator, encoders.get(role), progress)
            for role, generator in generators.items()
        }

    def _translator(
        self, role: Role, generator: nn.Module, encoder: nn.Module | None, progress: Progress
    ) -> Translator:
        """The weights in bare networks, run in fp32 as users run them, whatever the trained ones are wrapped in."""
        config, architecture = self.config, self.architectures[role]
        bare = skeleton(architecture)
        state, adapter, base = plain_state(generator), None, None
        if self.base is not None:
            rank, before = config.tuning.lora, self.base
            adapter = difference(before, state, rank)
            state = applied(before, adapter)  # what is validated is what is saved
            base = Base(model=str(config.tuning.init[0]), digest=digest_of(before), rank=rank)
        bare.load_state_dict({name: tensor.to(self.accelerator.device) for name, tensor in state.items()}, assign=True)
        reader, styles = None, None
        if encoder is not None:
            with torch.device("meta"):
                reader = build_encoder(self.encoders[role])
            reader.load_state_dict(encoder.state_dict(), assign=True)
            reader.eval()
            styles = self._styles(reader, self.encoders[role], progress.update)
        own = f"{role}/" if role else ""
        origin = Training(
            img2img=img2img.__version__,
            data=str(config.data.path or f"{config.data.source or config.data.labels} + {config.data.target}"),
            updates=progress.update,
            images=progress.samples,
            ema=config.ema,
            init=" + ".join(map(str, config.tuning.init)),
            scores={name.removeprefix(own): value for name, value in progress.scores.items() if name.startswith(own)},
        )
        return Translator(
            TranslatorConfig(
                method=config.method.name,
                generator=architecture,
                **_sizes(config),
                direction=DIRECTIONS.get(role, config.data.direction),
                derive=config.data.derive,
                classes=self.classes,
                edges=self.edges,
                encoder=self.encoders.get(role),
                base=base,
                training=origin,
            ),
            bare.eval(),
            reader,
            styles,
            adapter,
        )

    def _styles(self, encoder: nn.Module, config: AnyEncoder, update: int) -> Tensor | None:
        """The styles of an encoder of instances; every process has the same."""
        if not isinstance(config, InstanceEncoderConfig):
            return None
        assert self.classes is not None and isinstance(self.material, PairedMaterial) and config.in_channels
        if self.styles is None or self.styles[0] != update:
            read = partial(validation_pair, **_sizes(self.config), in_channels=0, out_channels=config.in_channels)
            pairs, counts = self.material.train, (self.classes, self.config.method.styles)
            self.styles = update, on_main(self.accelerator, lambda: find_styles(encoder, config, pairs, read, *counts))
        return self.styles[1]


def _sizes(config: RunConfig[Any]) -> dict[str, Any]:
    return {name: getattr(config.data, name) for name in ("size", "width", "resize")}
