"""`img2img train`: from a config to a run's folder."""

import gc
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from img2img.config import RunConfig, write_config
from img2img.data.check import DataReport
from img2img.downloads import announce
from img2img.errors import UsageError
from img2img.machine import choose_device, choose_precision, tune_allocator
from img2img.methods.base import CoarseToFine, Method
from img2img.methods.perceptual import PerceptualConfig
from img2img.networks.blocks import memory_format
from img2img.networks.labels import painted, planes, without
from img2img.networks.progressive import never_grown
from img2img.training.gallery import Gallery
from img2img.training.loading import make_loader
from img2img.training.logs import RunLog
from img2img.training.material import Material, PairedMaterial, SingleMaterial, UnpairedMaterial
from img2img.training.portfolio import DIRECTIONS, Portfolio
from img2img.training.schedule import total_updates
from img2img.training.setup import (
    CHECKPOINTS,
    CONFIG,
    make_accelerator,
    on_main,
    prepare_folder,
    resolved,
    resumed_config,
)
from img2img.training.stages import (
    COARSE,
    coarse_config,
    coarse_weights,
    frozen_updates,
    own_length,
    refuse_sides,
    shorter,
    try_stages,
)
from img2img.training.state import checkpoints
from img2img.training.trainer import Hooks, Rhythm, Trainer
from img2img.training.tuning import Start, planned, refuse_tuning, started, take_over


def train(config: RunConfig[Any] | None = None, *, resume: Path | str | None = None, quiet: bool = False) -> Path:
    """Trains a method on a folder of images.

    Args:
        config: of a new run, or, with `resume`, settings that replace the run's own.
        resume: a run's folder to go on with; from its newest checkpoint, exactly.
        quiet: no progress bar and no sentences.

    Returns:
        The run's folder: `best` and `newest` are translators, `samples` pictures, `log.jsonl` the log.

    Raises:
        UserError: in a sentence, if something can't work; before any training if that can be known.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when all is saved for a resume.
    """
    tune_allocator()
    if resume is not None:
        config = config or resumed_config(Path(resume))
        config = config.model_copy(update={"output": Path(resume)})
    if config is None:
        raise UsageError("train needs a config, or a run to resume.")
    return _train(config, resume is not None, quiet)


def _train(
    config: RunConfig[Any], resuming: bool, quiet: bool, whole: Path | None = None, report: DataReport | None = None
) -> Path:
    """Trains what comes before, if there is something and it isn't done, and then the run itself."""
    config = resolved(config)
    assert config.output is not None
    begun, start = bool(checkpoints(config.output / CHECKPOINTS)), None
    if not begun:
        refuse_tuning(config)
    if (config.tuning.init or config.tuning.init_discriminator) and not begun:
        start = started(config)
        config = start.config
    coarse = coarse_config(config)
    if coarse is None or begun:
        return _Run(config, resuming, quiet, whole, report, start).train()
    assert coarse.output is not None
    first = _Run(config, resuming, quiet, whole, report)
    try_stages(config, first.in_channels, first.out_channels)  # what can't work is said before anything is trained
    with ExitStack() as stack:
        first.claim(stack)
        report = first.report
        del first
        _let_go()
        _train(coarse, coarse.output.is_dir(), quiet, whole or config.output, report)
    _let_go()
    return _Run(config, True, quiet, whole, report).train()


def _let_go() -> None:
    """Frees the networks of a stage before those of the next are made."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Run:
    """A run, or a stage of one.

    Args:
        config: resolved.
        resuming: whether its folder is there already.
        quiet: as of `train`.
        whole: the folder of the run that this is a stage of.
        report: of the check, if the data were checked before.
        start: what was trained before.
    """

    def __init__(
        self,
        config: RunConfig[Any],
        resuming: bool,
        quiet: bool,
        whole: Path | None = None,
        report: DataReport | None = None,
        start: Start | None = None,
    ) -> None:
        self.notes = start.notes if start else []
        self.resuming, self.quiet, self.whole = resuming, quiet, whole
        self.config = config
        device = choose_device(config.device)
        precision = choose_precision(config.mixed_precision, device)
        grows = config.method.generator.kind == "progressive"
        partly = bool(grows or config.method.coarser() or getattr(config.method, "coarse_run", None))
        self.accelerator = make_accelerator(device, precision, config.accumulation, partly)
        noise = config.method.from_noise
        kinds: Any = PairedMaterial if config.method.paired else UnpairedMaterial
        self.material: Material = (
            SingleMaterial(config.data, config.method.takes_classes) if noise else kinds(config.data)
        )
        assert config.output is not None
        self.folder = config.output
        self._check(quiet, report)
        self._fetch()
        self.material.choose(config.data.holdout)

        torch.manual_seed(config.seed)
        self.method: Method = config.method.build(self.in_channels, self.out_channels, shorter(config.data))
        if not noise:
            refuse_sides(self.method, config.data)
        if self.report.classes is None and any(each.kind == "instances" for _, each in self.method.encoders.values()):
            raise UsageError(
                "--encoder learns the styles of labelled instances, but these are images; leave it out, or use spade."
            )
        if isinstance(self.method, CoarseToFine) and self._begins_from_coarse():
            self.method.begin_from(coarse_weights(config))
        if start:
            take_over(self.method, start)
            config = config.model_copy(update={"tuning": config.tuning.model_copy(update={"fresh": start.fresh})})
            self.config = config
        plan = planned(self.method, config)
        encoders = {role: encoder for role, (_, encoder) in self.method.encoders.items()}
        architectures = self.method.generator_configs, encoders
        keeper: Any = Gallery if noise else Portfolio
        self.portfolio = keeper(config, *architectures, self.material, self.accelerator, self.report)
        self.memory_format = memory_format(self.method.networks.values(), device, precision)
        if config.channels_last != "auto":
            self.memory_format = torch.channels_last if config.channels_last == "yes" else torch.contiguous_format
        how = (self.memory_format, config.compile, config.memory == "low", self._encode, plan)
        self.trainer = Trainer(self.method, self.accelerator, config.ema, *how)
        torch.manual_seed(config.seed + 1_000_003 * self.accelerator.process_index)  # dropout differs between processes

    def _fetch(self) -> None:
        """Downloads what is needed, in one process, now that the data are known to be right."""
        perceptual: PerceptualConfig | None = getattr(self.config.method, "perceptual", None)
        if perceptual:
            on_main(self.accelerator, lambda: perceptual.fetched(announce))

    def _begins_from_coarse(self) -> bool:
        """Whether the stage before is done, and this one has not begun."""
        before = getattr(self.config.method, "coarse_run", None) or (self.folder / COARSE / "newest").is_dir()
        return bool(before) and not checkpoints(self.folder / CHECKPOINTS)

    def _check(self, quiet: bool, report: DataReport | None) -> None:
        """The check of `img2img check`: one process does it, and every one learns the outcome."""

        def check() -> DataReport:
            with Progress(transient=True, disable=quiet or not sys.stderr.isatty()) as bar:
                return self.material.check(lambda files: partial(bar.advance, bar.add_task("checking", total=files)))

        report = report or on_main(self.accelerator, check)
        if report.errors:
            raise UsageError("this data set can't be trained on: " + " ".join(report.errors[:5]) + _more(report.errors))
        self.report = report
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(
            self.accelerator.mixed_precision, torch.float32
        )
        self.colours = torch.from_numpy(report.classes.colours()) if report.classes else torch.empty(0, 3)
        self.in_channels = self.config.data.in_channels or report.in_channels
        self.out_channels = self.config.data.out_channels or report.out_channels
        if self.config.data.derive in ("gray", "edges") and self.in_channels != 1:
            raise UsageError(
                f"--data.in-channels {self.in_channels}: sources derived as {self.config.data.derive} have 1."
            )

    def _encode(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Label maps as planes, and as pictures for the eye; made on the device. Images stay."""
        classes = self.report.classes
        if classes is None:
            return batch
        maps = without(batch["source"], classes.ignore)
        return {
            **batch,
            "maps": maps,
            "source": planes(maps, classes.count, self.report.edges, self.dtype),
            "shown": painted(maps[:, 0], self.colours),
        }

    def claim(self, stack: ExitStack) -> None:
        """Makes the folder, holds its lock until the stack ends, and writes the config: from now on the run can be resumed."""
        on_main(self.accelerator, lambda: self._prepare(stack))
        on_main(self.accelerator, lambda: write_config(self.folder / CONFIG, self.config))

    def train(self) -> Path:
        with ExitStack() as stack:  # the main process holds the folder's lock until the end
            on_main(self.accelerator, lambda: self._prepare(stack))
            done = self._train()
        if not done:
            raise KeyboardInterrupt
        return self.folder

    def _prepare(self, stack: ExitStack) -> None:
        stack.callback(prepare_folder(self.folder, self.resuming).release)

    def _train(self) -> bool:
        config, accelerator, trainer = self.config, self.accelerator, self.trainer
        saved = checkpoints(self.folder / CHECKPOINTS)
        same_processes = trainer.resume(saved[-1]) if saved else True
        progress = trainer.state.progress
        global_batch = config.batch_size * accelerator.num_processes * config.accumulation
        length = self.material.length
        steps, epochs = own_length(config, length)
        total = total_updates(steps, epochs, length, global_batch, progress.update, progress.samples)
        if isinstance(self.method, CoarseToFine):
            if progress.frozen_until is None:
                progress.frozen_until = frozen_updates(config, total)
            self.method.freeze_until(progress.frozen_until)
        warmup = config.tuning.warmup_discriminator
        if warmup >= total:
            raise UsageError(
                f"--warmup-discriminator {warmup}: this run has only {total} updates, so nothing else would be trained."
            )
        main = accelerator.is_main_process
        with RunLog(self.folder, progress.update, total, main, self.quiet) as log:
            if progress.update < total:  # else nothing is trained with these settings
                on_main(accelerator, lambda: write_config(self.folder / CONFIG, config))
            if self.whole is None or progress.update < total:
                self._introduce(log, total, global_batch)
            if self.resuming and progress.update:
                finished = progress.update >= total
                longer = f"{progress.update} updates are done already; --epochs or --steps with more trains longer."
                log.say(longer if finished else f"Going on from update {progress.update} of {total}.")
                if not same_processes:
                    log.say("The number of processes has changed, so random numbers go on differently.")
            too_short = never_grown(self.method.generator_configs.get(""), total)
            if too_short:
                log.say(f"Warning: {too_short}")
            hooks = Hooks(partial(self.portfolio.validate, log), self.portfolio.save_newest)
            if saved:
                self.portfolio.save_newest(
                    trainer.generators, trainer.encoders, progress
                )  # a kill may have come before the translators
            batches = (total - progress.update) * config.accumulation
            channels = self.in_channels, self.out_channels
            loader = make_loader(config, self.material, channels, progress.samples, batches, accelerator)
            done = trainer.run(loader, self.folder / CHECKPOINTS, self._rhythm(total, global_batch), log, hooks)
            accelerator.wait_for_everyone()
            self._conclude(log, done)
        return done

    def _rhythm(self, total: int, global_batch: int) -> Rhythm:
        config = self.config
        seldom = max(500, round(self.material.length / global_batch))
        return Rhythm(
            total,
            config.log_every,
            config.checkpoint_every or seldom,
            config.validate_every or seldom,
            config.keep_checkpoints,
            config.decay,
            config.monitor == "stop",
        )

    def _introduce(self, log: RunLog, total: int, global_batch: int) -> None:
        config, say = self.config, log.say
        for warning in self.report.warnings if coarse_config(config) is None else ():  # what is trained first
            say(f"Warning: {warning}")
        if self.whole is not None:
            say("First, at half the size, the generator with an enhancer less:")
        precision = {"no": "fp32"}.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision)
        processes = self.accelerator.num_processes
        channels = f"{'' if config.method.from_noise else f'{self.in_channels} → '}{self.out_channels}"
        sides = f"{config.data.width}×{config.data.size}" if config.data.width else str(config.data.size)
        say(
            f"{config.method.name}: {self.material.described()} ({self.report.sizes}), {channels} channels at {sides} pixels; {total} updates of {global_batch} images on "
            f"{self.accelerator.device.type} in {precision}{f', {processes} processes' if processes > 1 else ''}."
        )
        for name, network in self.trainer.bare.items():
            size = sum(p.numel() for p in network.parameters())
            trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
            of_it = "" if trained == size else f", {trained / 1e6:.2f} M of them trained"
            say(f"  {name}: {size / 1e6:.1f} M parameters{of_it}")
        for note in self.notes:
            say(f"  {note}")
        say(f"  {self.portfolio.described()}")
        say(f"  everything goes to {self.folder}")

    def _conclude(self, log: RunLog, done: bool) -> None:
        config, say, scores = self.config, log.say, self.trainer.state.progress.scores
        if log.warnings:
            say("What the monitor found:\n" + "\n".join(f"  {sentence}" for sentence in log.warnings[-10:]))
        if not done:
            say(f"Stopped at update {self.trainer.state.progress.update}; all is saved. Go on with:\n"
                f"  img2img train --resume {self.whole or self.folder}")  # fmt: skip
            return
        if scores:
            text = ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if value is not None)
            say(f"Done. Validation at the end: {text}.")
        else:
            say("Done.")
        if config.method.from_noise:
            say(f"Make images with it:\n  img2img sample --model {self.folder} --count 64 --output SAMPLES")
            return
        for role in self.method.generators if self.whole is None else ():
            direction = f" --direction {DIRECTIONS[role]}" if role else ""
            say(f"Convert a folder with it:\n  img2img convert SOURCE TARGET --model {self.folder}{direction}")


def _more(items: list[str]) -> str:
    return f" (+{len(items) - 5} more)" if len(items) > 5 else ""
