"""`img2img train`: from a config to a run's folder."""

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch.utils.data import DataLoader

from img2img.config import RunConfig, write_config
from img2img.data.check import DataReport
from img2img.data.dataset import collate
from img2img.data.sampler import BatchOrder
from img2img.data.transforms import JointTransform
from img2img.errors import UsageError
from img2img.machine import choose_device, choose_precision, tune_allocator
from img2img.networks.blocks import memory_format
from img2img.training.logs import RunLog
from img2img.training.material import Material, PairedMaterial, UnpairedMaterial
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
from img2img.training.state import checkpoints
from img2img.training.trainer import Hooks, Rhythm, Trainer


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
    return _Run(config, resume is not None, quiet).train()


class _Run:
    def __init__(self, config: RunConfig[Any], resuming: bool, quiet: bool) -> None:
        self.resuming, self.quiet = resuming, quiet
        self.config = config = resolved(config)
        device = choose_device(config.device)
        precision = choose_precision(config.mixed_precision, device)
        self.accelerator = make_accelerator(device, precision, config.accumulation)
        self.material: Material = (PairedMaterial if config.method.paired else UnpairedMaterial)(config.data)
        assert config.output is not None
        self.folder = config.output
        self._check(quiet)
        self.material.choose(config.data.holdout)

        torch.manual_seed(config.seed)
        size = config.data.size
        self.method = self.config.method.build(self.in_channels, self.out_channels, size)
        self.portfolio = Portfolio(config, self.method.generator_configs, self.material, self.accelerator)
        self.memory_format = memory_format(self.method.networks.values(), device, precision)
        if config.channels_last != "auto":
            self.memory_format = torch.channels_last if config.channels_last == "yes" else torch.contiguous_format
        self.trainer = Trainer(self.method, self.accelerator, config.ema, self.memory_format, config.compile)
        torch.manual_seed(config.seed + 1_000_003 * self.accelerator.process_index)  # dropout differs between processes

    def _check(self, quiet: bool) -> None:
        """The check of `img2img check`: one process does it, and every one learns the outcome."""

        def check() -> DataReport:
            with Progress(transient=True, disable=quiet or not sys.stderr.isatty()) as bar:
                return self.material.check(lambda files: partial(bar.advance, bar.add_task("checking", total=files)))

        report = on_main(self.accelerator, check)
        if report.errors:
            raise UsageError("this data set can't be trained on: " + " ".join(report.errors[:5]) + _more(report.errors))
        self.warnings, self.sizes = report.warnings, report.sizes
        self.in_channels = self.config.data.in_channels or report.in_channels
        self.out_channels = self.config.data.out_channels or report.out_channels
        if self.config.data.derive in ("gray", "edges") and self.in_channels != 1:
            raise UsageError(
                f"--data.in-channels {self.in_channels}: sources derived as {self.config.data.derive} have 1."
            )

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
        total = total_updates(config.steps, config.epochs, length, global_batch, progress.update, progress.samples)
        main = accelerator.is_main_process
        with RunLog(self.folder, progress.update, total, main, self.quiet) as log:
            if progress.update < total:  # else nothing is trained with these settings
                on_main(accelerator, lambda: write_config(self.folder / CONFIG, config))
            self._introduce(log, total, global_batch)
            if self.resuming:
                finished = progress.update >= total
                longer = f"{progress.update} updates are done already; --epochs or --steps with more trains longer."
                log.say(longer if finished else f"Going on from update {progress.update} of {total}.")
                if not same_processes:
                    log.say("The number of processes has changed, so random numbers go on differently.")
            hooks = Hooks(partial(self.portfolio.validate, log), self.portfolio.save_newest)
            if saved:
                self.portfolio.save_newest(trainer.generators, progress)  # a kill may have come before the translators
            loader = self._loader((total - progress.update) * config.accumulation)
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
        for warning in self.warnings:
            say(f"Warning: {warning}")
        precision = {"no": "fp32"}.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision)
        processes = self.accelerator.num_processes
        say(
            f"{config.method.name}: {self.material.described()} ({self.sizes}), {self.in_channels} → {self.out_channels} "
            f"channels at {config.data.size} pixels; {total} updates of {global_batch} images on "
            f"{self.accelerator.device.type} in {precision}{f', {processes} processes' if processes > 1 else ''}."
        )
        for name, network in self.trainer.bare.items():
            say(f"  {name}: {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters")
        say(f"  {self.portfolio.described()}")
        say(f"  everything goes to {self.folder}")

    def _conclude(self, log: RunLog, done: bool) -> None:
        say, scores = log.say, self.trainer.state.progress.scores
        if log.warnings:
            say("What the monitor found:\n" + "\n".join(f"  {sentence}" for sentence in log.warnings[-10:]))
        if not done:
            say(f"Stopped at update {self.trainer.state.progress.update}; all is saved. Go on with:\n"
                f"  img2img train --resume {self.folder}")  # fmt: skip
            return
        if scores:
            text = ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if value is not None)
            say(f"Done. Validation at the end: {text}.")
        else:
            say("Done.")
        for role in self.method.generators:
            direction = f" --direction {DIRECTIONS[role]}" if role else ""
            say(f"Convert a folder with it:\n  img2img convert SOURCE TARGET --model {self.folder}{direction}")

    def _loader(self, batches: int) -> DataLoader[Any]:
        data, config = self.config.data, self.config
        transform = JointTransform(
            data.size,
            resize=data.resize,
            jitter=data.jitter,
            flip=data.flip,
            vertical_flip=data.vertical_flip,
            rotate=data.rotate,
            quarter_turns=data.quarter_turns,
            colour_jitter=data.colour_jitter,
        )
        images = self.material.train_set(transform, self.in_channels, self.out_channels, config.seed)
        order = BatchOrder(
            self.material.length,
            config.batch_size,
            self.trainer.state.progress.samples,
            batches,
            config.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        on_gpu = self.accelerator.device.type != "cpu"
        workers = config.workers if config.workers is not None else min(8, os.cpu_count() or 1) if on_gpu else 0
        return DataLoader(
            images,
            batch_sampler=order,
            num_workers=workers,
            pin_memory=self.accelerator.device.type == "cuda",
            worker_init_fn=_leave_group,
            collate_fn=collate,
            generator=torch.Generator(),  # else each loader draws from the global random state, and a resume would differ
        )


def _leave_group(_worker: int) -> None:
    """Ctrl-C reaches the whole process group; the workers must live on until the main process has saved."""
    os.setsid()


def _more(items: list[str]) -> str:
    return f" (+{len(items) - 5} more)" if len(items) > 5 else ""
