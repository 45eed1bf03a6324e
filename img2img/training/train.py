"""`img2img train`: from a config to a run's folder, in the order set up → main → fit."""

import gc
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.progress import Progress as ProgressBar
from torch.utils.data import DataLoader

from img2img.config import RunConfig, choose_data_kind, resolve_config, write_config
from img2img.core.device import choose_device, choose_precision, tune_allocator
from img2img.core.downloads import announce
from img2img.core.errors import UsageError, UserError
from img2img.core.processes import build_accelerator, count_cores, run_on_main
from img2img.data.base import DataModule, DataReport, collate
from img2img.data.sampler import BatchOrder
from img2img.methods.base import FreezesStage, Method, Staged
from img2img.metrics.paired import describe_scores
from img2img.networks.layers import choose_memory_format
from img2img.pages.run import write_run_page
from img2img.training.checkpoint import find_checkpoints
from img2img.training.curriculum import (
    begins_from_stage,
    earlier_config,
    frozen_updates,
    load_stage_weights,
    own_length,
    refuse_sides,
    try_stages,
)
from img2img.training.finetune import Start, load_start, plan_training, take_over
from img2img.training.logging import RunLog
from img2img.training.page import describe_run
from img2img.training.recipes import choose_recipe, describe_recipe, list_settings, name_option
from img2img.training.run_folder import CHECKPOINTS, CONFIG, claim_folder, load_run_config
from img2img.training.trackers import refuse_missing
from img2img.training.trainer import Callbacks, Schedule, Trainer, total_updates
from img2img.training.validation import Validator

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
MOST_WORKERS = 16  # that decode images, unless the user says otherwise
FEW_UPDATES = 500  # between checkpoints and validations, at least, unless the user says otherwise


def train(config: RunConfig | None = None, *, resume: Path | str | None = None, quiet: bool = False) -> Path:
    """Trains a method on a folder of images.

    Args:
        config: of a new run, or, with `resume`, settings that replace the run's own.
        resume: a run's folder, to be continued exactly from its latest checkpoint.
        quiet: no progress bar and no sentences.

    Returns:
        The run's folder: `best` and `latest` are models, `samples` pictures, `log.jsonl` the log.

    Raises:
        UserError: in a sentence, if something can't work; before any training if that can be known.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when all is saved for a resume.
    """
    tune_allocator()
    if resume is not None:
        config = config or load_run_config(Path(resume))
        config = config.model_copy(update={"output": Path(resume)})
    if config is None:
        raise UsageError("train needs a config, or a run to resume.")
    return _train_stages(resolve_config(config), resume is not None, quiet)


def _train_stages(
    config: RunConfig,
    resuming: bool,
    quiet: bool,
    whole: Path | None = None,
    report: DataReport | None = None,
    introduction: str = "",
) -> Path:
    """Trains the earlier stages, if the method has some and they aren't done, and then the run itself."""
    assert config.output is not None
    begun = bool(find_checkpoints(config.output / CHECKPOINTS))
    start = None if begun else load_start(config)
    config = start.config if start else config
    earlier = None if begun else earlier_config(config)
    if earlier is None:
        return main(set_up(config, resuming, quiet, whole, report, start), introduction)
    run = set_up(config, resuming, quiet, whole, report)
    config = run.config  # with its recipe's settings
    earlier, stage = earlier_config(config), config.method.earlier_stage()
    assert earlier is not None and earlier.output is not None and stage is not None
    try_stages(config, run.in_channels, run.out_channels)  # what can't work is said before anything is trained
    folder, accelerator, report = run.folder, run.accelerator, run.report
    del run
    with ExitStack() as claimed:
        run_on_main(accelerator, lambda: claimed.enter_context(claim_folder(folder, resuming)))
        run_on_main(accelerator, lambda: write_config(folder / CONFIG, config))  # from now on it can be resumed
        _free_memory()
        _train_stages(earlier, earlier.output.is_dir(), quiet, whole or config.output, report, stage.introduction)
    _free_memory()
    start = start if stage.updates else None  # else the stage began with it
    return main(set_up(config, True, quiet, whole, report, start), introduction or "Last stage.")


@dataclass
class Run:
    """A run that is set up, or a stage of one."""

    config: RunConfig
    resuming: bool
    """Whether its folder exists already."""
    quiet: bool
    whole: Path | None
    """The folder of the run that this is a stage of."""
    accelerator: Accelerator
    data: DataModule
    report: DataReport
    in_channels: int
    out_channels: int
    method: Method
    trainer: Trainer
    validator: Validator
    notes: list[str] = field(default_factory=list)
    """What it begins with, for a person."""

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        assert self.config.output is not None
        return self.config.output

    @property
    def global_batch(self) -> int:
        """Images an update."""
        return self.config.batch_size * self.accelerator.num_processes * self.config.accumulation


def set_up(
    config: RunConfig,
    resuming: bool,
    quiet: bool,
    whole: Path | None = None,
    report: DataReport | None = None,
    start: Start | None = None,
) -> Run:
    """Checks the data, and builds all that a run needs; writes nothing.

    Args:
        config: resolved.
        resuming: whether its folder exists already.
        whole: the folder of the run that this is a stage of.
        report: of the check, if the data were checked before.
        start: what the run begins with.

    Raises:
        UsageError: if something can't work.
    """
    refuse_missing(config.trackers)
    device = choose_device(config.device)
    precision = choose_precision(config.mixed_precision, device)
    accelerator = build_accelerator(device, precision, config.accumulation, config.method.freezes_parts)
    data = choose_data_kind(config)(config.data, config.method.uses_classes)
    report = check_data(data, accelerator, quiet, report)
    data.divide(config.data.holdout)
    in_channels = config.data.in_channels or report.in_channels
    out_channels = config.data.out_channels or report.out_channels
    if not resuming or config.recipe == "auto":  # else its settings are known, though later versions may have others
        config = choose_recipe(config, data.length, in_channels, out_channels)
    config.method.refuse_files()  # the recipe may not use them
    run_on_main(accelerator, lambda: config.method.download(announce))  # now that the data are known to be right

    torch.manual_seed(config.seed)
    classes = report.source_classes.count if report.source_classes else len(report.names)
    method = config.method.build(in_channels, out_channels, config.data.shorter_side, classes)
    refuse_sides(method, config.data)
    _refuse_encoders(method, report)
    if isinstance(method, Staged) and begins_from_stage(config):
        method.begin_from(load_stage_weights(config))
    if start:
        take_over(method, start)
        finetune = config.finetune.model_copy(update={"fresh": start.fresh})
        config = config.model_copy(update={"finetune": finetune})
    plan = plan_training(method, config)
    validator = Validator(config, method, data, report, accelerator)
    memory_format = choose_memory_format(method.networks.values(), device, precision)
    if config.channels_last != "auto":
        memory_format = torch.channels_last if config.channels_last == "yes" else torch.contiguous_format
    dtype = DTYPES.get(accelerator.mixed_precision, torch.float32)
    trainer = Trainer(
        method, accelerator, config.ema, memory_format, config.compile, config.gradient_checkpointing,
        lambda batch: data.encode(batch, dtype), plan,
    )  # fmt: skip
    torch.manual_seed(config.seed + 1_000_003 * accelerator.process_index)  # dropout differs between processes
    notes = start.notes if start else []
    return Run(
        config, resuming, quiet, whole, accelerator, data, report, in_channels, out_channels, method, trainer, validator, notes
    )  # fmt: skip


def check_data(data: DataModule, accelerator: Accelerator, quiet: bool, report: DataReport | None = None) -> DataReport:
    """The check of `img2img check`, which several processes share.

    Raises:
        UsageError: if the data can't be trained on.
    """

    def check() -> DataReport:
        with ProgressBar(
            transient=True, disable=quiet or not sys.stderr.isatty() or not accelerator.is_main_process
        ) as bar:
            return data.check(lambda files: partial(bar.advance, bar.add_task("checking", total=files)))

    report = report or check()
    data.learn(report)
    if report.errors:
        more = f" (+{len(report.errors) - 5} more)" if len(report.errors) > 5 else ""
        raise UsageError("this data set can't be trained on: " + " ".join(report.errors[:5]) + more)
    return report


def main(run: Run, introduction: str = "") -> Path:
    """Trains a run that is set up, from where it stands, and gives its folder.

    Raises:
        KeyboardInterrupt: if it was stopped; all is saved then.
    """
    with ExitStack() as claimed:  # the main process holds the folder's lock until the end
        run_on_main(run.accelerator, lambda: claimed.enter_context(claim_folder(run.folder, run.resuming)))
        done = fit(run, introduction)
    if not done:
        raise KeyboardInterrupt
    return run.folder


def fit(run: Run, introduction: str = "") -> bool:
    """Resumes from the latest checkpoint, if there is one, and trains to the end; whether the end was reached."""
    config, accelerator, trainer = run.config, run.accelerator, run.trainer
    saved = find_checkpoints(run.folder / CHECKPOINTS)
    same_processes = trainer.resume(saved[-1]) if saved else True
    progress = trainer.state.progress
    schedule = build_schedule(run)
    if progress.update < schedule.total:  # else nothing is trained with these settings
        run_on_main(accelerator, lambda: write_config(run.folder / CONFIG, config))  # first: now it can be resumed
    settings = {name_option(name): value for name, value in list_settings(config.model_dump())}
    about = (progress.update, schedule.total, accelerator.is_main_process, run.quiet, config.trackers, settings)
    with RunLog(run.folder, *about) as log:
        if run.whole is None or progress.update < schedule.total:
            introduce(run, log, schedule.total, introduction)
        if run.resuming and progress.update:
            finished = progress.update >= schedule.total
            longer = f"{progress.update} updates are done already; --epochs or --steps with more trains longer."
            log.say(longer if finished else f"Continuing from update {progress.update} of {schedule.total}.")
            if not same_processes:
                log.say("The number of processes has changed, so random numbers differ from here on.")
        warning = config.method.warn_of_length(schedule.total, config.data.shorter_side)
        if warning:
            log.say(f"Warning: {warning}")
        if saved:  # a kill may have come before the models were saved
            run.validator.save_latest(trainer.generators, trainer.encoders, progress)
        report = _PageWriter(run, log, schedule.total)
        report()
        callbacks = Callbacks(partial(run.validator.validate, log), run.validator.save_latest, report)
        loader = build_loader(run, schedule.total)
        done = trainer.run(loader, run.folder / CHECKPOINTS, schedule, log, callbacks)
        accelerator.wait_for_everyone()
        if not done:  # else it was made at the last validation
            report()
        conclude(run, log, done)
    return done


class _PageWriter:
    """Rewrites the run's page, in the main process; a run can do without, and says so once."""

    def __init__(self, run: Run, log: RunLog, total: int) -> None:
        self.run, self.log, self.total, self.failed = run, log, total, False

    def __call__(self) -> None:
        run = self.run
        if self.failed or not run.accelerator.is_main_process:
            return
        try:
            update, directions = run.trainer.state.progress.update, list(run.method.generators)
            page = describe_run(
                run.config, describe_data(run), update, self.total, directions, run.report.names, run.whole
            )
            write_run_page(run.folder, page)
        except Exception as error:  # nothing that is wrong with a page may stop a training
            self.failed = True
            reason = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self.log.say(f"Warning: the run's page can't be written: {reason}")


def describe_data(run: Run) -> list[tuple[str, str]]:
    """What is trained on what, by name."""
    data = run.config.data
    networks = ", ".join(
        f"{name} {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M"
        for name, network in run.trainer.bare.items()
    )
    processes = f" in {run.accelerator.num_processes} processes" if run.accelerator.num_processes > 1 else ""
    return [
        ("data", f"{data.path or data.target or ''}: {run.data.describe()}; {run.report.sizes}"),
        (
            "training",
            f"{data.size_text} pixels, {run.global_batch} images an update, on {run.accelerator.device.type}{processes}",
        ),
        ("networks", f"{networks} parameters"),
        ("validation", run.validator.describe()),
    ]


def build_schedule(run: Run) -> Schedule:
    """How long the run is, and how often what is done.

    Raises:
        UsageError: if the discriminator's warm-up takes all of it.
    """
    config, progress = run.config, run.trainer.state.progress
    length = run.data.length
    total = total_updates(*own_length(config, length), length, run.global_batch, progress.update, progress.samples)
    if isinstance(run.method, FreezesStage):
        if progress.frozen_until is None:
            progress.frozen_until = frozen_updates(config, total)
        run.method.freeze_until(progress.frozen_until)
    warmup = config.finetune.warmup_discriminator
    if warmup >= total:
        raise UsageError(
            f"--warmup-discriminator {warmup}: this run has only {total} updates, so nothing else would be trained."
        )
    epoch = max(FEW_UPDATES, round(length / run.global_batch))
    checkpoints, validations = config.checkpoint_every or epoch, config.validate_every or epoch
    stop = config.diagnostics == "stop"
    return Schedule(total, config.log_every, checkpoints, validations, config.keep_checkpoints, config.decay, stop)


def build_loader(run: Run, total: int) -> DataLoader[Any]:
    """This process' batches, from where the run stands to its end."""
    config, accelerator, progress = run.config, run.accelerator, run.trainer.state.progress
    order = BatchOrder(
        run.data.length, config.batch_size, progress.samples, (total - progress.update) * config.accumulation, config.seed,
        accelerator.process_index, accelerator.num_processes,
    )  # fmt: skip
    on_gpu = accelerator.device.type != "cpu"
    workers = config.workers if config.workers is not None else min(MOST_WORKERS, count_cores()) if on_gpu else 0
    return DataLoader(
        run.data.build_training_set(config.data.build_transform(), run.in_channels, run.out_channels, config.seed),
        batch_sampler=order,
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=_leave_group,
        collate_fn=collate,
        generator=torch.Generator(),  # else each loader draws from the global random state, and a resume would differ
    )


def introduce(run: Run, log: RunLog, total: int, introduction: str) -> None:
    """Tells what is trained on what, and where it goes."""
    config, say, data = run.config, log.say, run.config.data
    for warning in run.report.warnings if earlier_config(config) is None else ():  # by the stage that is trained first
        say(f"Warning: {warning}")
    if introduction:
        say(introduction)
    precision = {"no": "fp32"}.get(run.accelerator.mixed_precision, run.accelerator.mixed_precision)
    processes = run.accelerator.num_processes
    channels = f"{run.in_channels} → {run.out_channels}" if config.method.model == "translator" else run.out_channels
    say(
        f"{config.method.name}: {run.data.describe()} ({run.report.sizes}), {channels} channels at {data.size_text} pixels; {total} updates of "
        f"{run.global_batch} images on {run.accelerator.device.type} in {precision}"
        f"{f', {processes} processes' if processes > 1 else ''}."
    )
    for name, network in run.trainer.bare.items():
        count = sum(p.numel() for p in network.parameters())
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        part = "" if trained == count else f", {trained / 1e6:.2f} M of them trained"
        say(f"  {name}: {count / 1e6:.{1 if count > 5e4 else 3}f} M parameters{part}")
    recipe = describe_recipe(config)
    for note in [recipe, *run.notes] if recipe else run.notes:
        say(f"  {note}")
    say(f"  {run.validator.describe()}")
    if run.accelerator.device.type == "cuda" and config.batch_size == 1:
        say("  batches of 1 leave most of a GPU idle: --batch-size 16 trains many more images a second")
    say(f"  everything goes to {run.folder}; its index.html is a page to look at")


def conclude(run: Run, log: RunLog, done: bool) -> None:
    """Tells how it went, and what to do next."""
    say, progress, names = log.say, run.trainer.state.progress, run.report.names
    if log.warnings:
        say("What the diagnostics found:\n" + "\n".join(f"  {sentence}" for sentence in log.warnings[-10:]))
    if not done:
        command = "compress" if run.config.method.imitates else "train"
        say(f"Stopped at update {progress.update}; everything is saved. Continue with:\n"
            f"  img2img {command} --resume {run.whole or run.folder}")  # fmt: skip
        return
    text = describe_scores(progress.scores)
    say(f"Done. Validation at the end: {text}." if text else "Done.")
    if run.config.method.model == "noise_generator":
        say(f"Make images with it:\n  img2img sample --model {run.folder} --count 64 --output SAMPLES")
        return
    for direction in run.method.generators if run.whole is None else ():
        option = f" --direction {direction}" if direction else f" --style {names[0]}" if names else ""
        say(f"Convert a folder with it:\n  img2img convert SOURCE TARGET --model {run.folder}{option}")


def _refuse_encoders(method: Method, report: DataReport) -> None:
    if report.classes is None and any(each.needs_label_maps for _, each in method.encoders.values()):
        raise UsageError(
            "--encoder learns the styles of labelled instances, but these are images; leave it out, or use spade."
        )


def _free_memory() -> None:
    """Frees the networks of a stage before those of the next are built."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _leave_group(_worker: int) -> None:
    """Ctrl-C reaches the whole process group; the workers must live on until the main process has saved."""
    os.setsid()
