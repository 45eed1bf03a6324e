"""The loop. Knows Accelerate, and no method."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, reduce
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader

from img2img.methods.base import Method, Phase, Translations
from img2img.networks.gradient_checkpointing import checkpoint_gradients
from img2img.training.checkpoint import Progress, RunState, load_checkpoint, save_checkpoint
from img2img.training.diagnostics import Diagnostics, assert_finite, assert_finite_weights
from img2img.training.ema import EMA
from img2img.training.finetune import TrainingPlan
from img2img.training.logging import Meter, RunLog

Networks = Mapping[str, nn.Module]
"""By direction."""

ASK_EVERY = 5  # updates between two questions whether another process was interrupted
AT_LEAST_EVERY = 15 * 60  # seconds between checkpoints, if an epoch takes longer


@dataclass(frozen=True)
class Schedule:
    """How long a run is, its learning rate, and how often what is done; in optimizer updates."""

    total: int
    log_every: int
    checkpoint_every: int
    validate_every: int
    keep_checkpoints: int
    decay: float
    """Share of the run, at its end, over which the learning rate falls to 0."""
    stop_on_warning: bool = False
    """Whether to stop, with everything saved, when the diagnostics say that something has gone wrong."""

    def learning_rate_factor(self, update: int) -> float:
        """1, then falling linearly to 0 over the last `decay` share of the run (Zhu et al. 2017, §4), by updates done so far."""
        return min(1.0, (self.total - update) / (self.decay * self.total)) if self.decay else 1.0


def total_updates(steps: int | None, epochs: float, length: int, batch: int, update: int = 0, samples: int = 0) -> int:
    """Optimizer updates of a whole run: `steps`, or as many as see `length` images `epochs` times.

    Args:
        steps: if given, `epochs` doesn't count.
        epochs: of the whole run.
        batch: images an update, from now on.
        update: updates done so far.
        samples: images seen so far, perhaps with another `batch`.
    """
    if steps is not None:
        return steps
    return max(1, update + math.ceil(max(0, round(epochs * length) - samples) / batch))


@dataclass(frozen=True)
class Callbacks:
    """What the trainer calls and doesn't know; every process calls them."""

    validate: Callable[[Networks, Networks, Progress], dict[str, float | None]]
    """Validates the generators, with their encoders, keeps the best, and gives their scores."""
    save_latest: Callable[[Networks, Networks, Progress], None]
    """Saves the generators as models."""
    report: Callable[[], None] = lambda: None
    """Makes what can be looked at of a validation that is logged."""


class Trainer:
    """Drives a method.

    Args:
        method: its networks are moved to the accelerator's device, and wrapped.
        accelerator: device, precision, processes, accumulation.
        ema_decay: of the generator's moving average; 0 for none.
        memory_format: of networks and images.
        compile: whether to torch.compile the networks.
        gradient_checkpointing: whether generators and encoders compute most activations twice instead of holding them.
        encode: is given each batch on the device, and gives what the method sees.
    """

    def __init__(
        self,
        method: Method,
        accelerator: Accelerator,
        ema_decay: float = 0.0,
        memory_format: torch.memory_format = torch.contiguous_format,
        compile: bool = False,
        gradient_checkpointing: bool = False,
        encode: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda batch: batch,
        plan: TrainingPlan | None = None,
    ) -> None:
        self.compiles = compile
        self.encode, self.plan = encode, plan or TrainingPlan()
        self.method, self.accelerator, self.memory_format = method, accelerator, memory_format
        self.bare: dict[str, nn.Module] = {}
        for name, network in method.networks.items():
            self.bare[name] = network.to(memory_format=memory_format).to(accelerator.device).train()
        self.plan.freeze(self.bare)
        followed = (*method.generators.values(), *(name for name, _ in method.encoders.values()))
        emas = {name: EMA(self.bare[name], ema_decay) for name in followed} if ema_decay else {}
        for name, network in self.bare.items():
            if gradient_checkpointing and name in followed:
                checkpoint_gradients(network)
            method.networks[name] = accelerator.prepare(network)
            if compile:
                network.compile()
        self.wrapped = dict(method.networks)
        self.optimizers = {phase.name: accelerator.prepare(self._adam(phase)) for phase in method.phases}
        self.state = RunState(self.bare, self.optimizers, emas, method.memories, Diagnostics(), Meter(), Progress())

    def _adam(self, phase: Phase) -> torch.optim.Optimizer:
        fused = self.accelerator.device.type in ("cpu", "cuda")
        return torch.optim.Adam(self.plan.group_parameters(phase, self.bare), phase.lr, phase.betas, fused=fused)

    @property
    def generators(self) -> Networks:
        """What is saved and looked at: the moving averages if there are any."""
        emas = {name: ema.network for name, ema in self.state.emas.items()}
        return {direction: emas.get(name, self.bare[name]) for direction, name in self.method.generators.items()}

    @property
    def encoders(self) -> Networks:
        """The same of the networks that read styles."""
        emas = {name: ema.network for name, ema in self.state.emas.items()}
        return {direction: emas.get(name, self.bare[name]) for direction, (name, _) in self.method.encoders.items()}

    def resume(self, checkpoint: Path) -> bool:
        """Goes on from a checkpoint; says whether the random states fit the number of processes."""
        return load_checkpoint(checkpoint, self.state, self.accelerator)

    def run(self, loader: DataLoader[Any], folder: Path, schedule: Schedule, log: RunLog, callbacks: Callbacks) -> bool:
        """Trains up to `schedule.total` updates, or until Ctrl-C, on batches from `state.progress.samples` on.

        Returns whether the end was reached; if not, everything is saved for a resume.

        Raises:
            DivergedError: if a loss or a weight is NaN or infinite; the last checkpoint stays.
        """
        progress, meter, wrong = self.state.progress, self.state.meter, False
        saved = time.monotonic()
        meter.start()
        batches: Iterator[Mapping[str, Tensor]] = iter(loader)
        with _interruptible() as interrupted:
            while progress.update < schedule.total:
                factor = schedule.learning_rate_factor(progress.update)
                self._update(batches, factor, meter)
                log.advance(progress.update)
                last = progress.update == schedule.total
                late = time.monotonic() - saved > AT_LEAST_EVERY
                stop, late = self._any(interrupted() or (wrong and schedule.stop_on_warning), late, progress.update)

                def due(every: int, also: bool = last) -> bool:
                    return progress.update % every == 0 or also

                if due(schedule.log_every):
                    epoch = progress.samples / len(loader.dataset)  # type: ignore[arg-type]  # ours has a length
                    wrong |= self._report(meter, log, epoch, factor)
                    meter.reset()
                with meter.paused():
                    if due(schedule.validate_every) or due(schedule.checkpoint_every, last or stop or late):
                        assert_finite(_without_gradients(self._means(meter)), progress.update)
                        assert_finite_weights(self.bare.items(), progress.update)
                    if due(schedule.validate_every):
                        self._share_buffers()
                        progress.scores = callbacks.validate(self.generators, self.encoders, progress)
                        log.scores(progress.update, progress.scores)
                    if due(schedule.checkpoint_every, last or stop or late):
                        save_checkpoint(folder, self.state, self.accelerator, schedule.keep_checkpoints)
                        saved = time.monotonic()
                        callbacks.save_latest(self.generators, self.encoders, progress)
                    if due(schedule.validate_every):
                        callbacks.report()
                if stop and not last:
                    return False
        return True

    def _update(self, batches: Iterator[Mapping[str, Tensor]], factor: float, meter: Meter) -> None:
        """One optimizer update: as many batches as are accumulated for it."""
        progress = self.state.progress
        synced = False
        while not synced:
            batch = next(batches)
            if isinstance(batch, Exception):  # an image went bad since the check
                raise batch
            batch = self.encode(self._to_device(batch))
            losses, meter.translations = self._backward(batch, factor)
            synced = self.accelerator.sync_gradients
            images = len(next(iter(batch.values()))) * self.accelerator.num_processes
            progress.samples += images
            meter.add(losses, images)
        due = [
            phase for phase in self.method.phases if phase.is_due(progress.update) and not self._is_warming_up(phase)
        ]
        trained = {name for phase in due for name in phase.trains}
        progress.update += 1
        for name in self.state.emas.keys() & trained:
            self.state.emas[name].update(self.bare[name])

    def _backward(self, batch: Mapping[str, Tensor], factor: float) -> tuple[dict[str, Tensor], Translations]:
        """Forward, and each phase that is due: backward, and at the end of an accumulation its optimizer's step.

        Returns:
            Losses and metrics; sources with what they were translated to.
        """
        update, logged = self.state.progress.update, {}
        with self.accelerator.accumulate(*self.wrapped.values()):
            with torch.no_grad() if update < self.plan.warmup else nullcontext(), self._reuse_weights():
                outputs = self.method.forward(batch, update)
            for phase in self.method.phases:
                if not phase.is_due(update):
                    continue
                if self._is_warming_up(phase):
                    with torch.no_grad():  # others need what it makes
                        logged.update({name: value for part in phase.parts for name, value in part(batch, outputs).items()})  # fmt: skip
                    continue
                optimizer = self.optimizers[phase.name]
                for group in optimizer.param_groups:
                    group["lr"] = phase.lr * factor * group.get("factor", 1.0)
                with self.train_only(phase.trains):
                    for part in phase.parts:
                        with ExitStack() as within:  # gradients are averaged over processes with the last part's
                            if part is not phase.parts[-1]:
                                for name in phase.trains:
                                    within.enter_context(self.accelerator.no_sync(self.wrapped[name]))
                            within.enter_context(self._reuse_weights())
                            losses = part(batch, outputs)
                            before = set(outputs.metrics)
                            self.accelerator.backward(torch.stack(list(losses.values())).sum())
                        for name in outputs.metrics.keys() - before:  # those that are noted on the way back
                            outputs.metrics[name] = outputs.metrics[name] / self._gradient_scale()
                        logged.update({name: value.detach() for name, value in losses.items()})
                        del losses
                optimizer.step()
                optimizer.zero_grad()
                if phase.after and self.accelerator.sync_gradients:
                    phase.after()
        return logged | outputs.metrics, outputs.translations

    def _reuse_weights(self) -> AbstractContextManager[None]:
        """Within it, a weight that is computed from another, such as one with spectral norm, is computed once."""
        return nullcontext() if self.compiles else parametrize.cached()

    def _is_warming_up(self, phase: Phase) -> bool:
        """Whether a phase is not trained yet, while the discriminators warm up."""
        makes = {*self.method.generators.values(), *(name for name, _ in self.method.encoders.values())}
        return self.state.progress.update < self.plan.warmup and not makes.isdisjoint(phase.trains)

    def _gradient_scale(self) -> float:
        """By how much gradients are larger on the way back than those of the losses: for fp16, and for accumulation."""
        scaler = self.accelerator.scaler
        return (scaler.get_scale() if scaler else 1.0) / self.accelerator.gradient_accumulation_steps

    @contextmanager
    def train_only(self, names: tuple[str, ...]) -> Iterator[None]:
        """Freezes all other networks, so that they collect no gradients, and calls them unwrapped, so that none is waited for."""
        others = [name for name in self.bare if name not in names]
        try:
            for name in others:
                self.bare[name].requires_grad_(False)
                self.method.networks[name] = self.bare[name]
            yield
        finally:
            for name in others:
                self.plan.unfreeze(name, self.bare[name])
                self.method.networks[name] = self.wrapped[name]

    def _to_device(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        move = partial(torch.Tensor.to, device=self.accelerator.device, non_blocking=True)
        return {
            name: move(value, memory_format=self.memory_format) if value.ndim == 4 else move(value)
            for name, value in batch.items()
        }

    def _share_buffers(self) -> None:
        """Running statistics differ between processes; all are judged by those of the first, which are saved."""
        if self.accelerator.num_processes > 1:
            for network in (*self.generators.values(), *self.encoders.values()):
                for buffer in network.buffers():
                    broadcast(buffer)

    def _any(self, stop: bool, late: bool, update: int) -> tuple[bool, bool]:
        """Whether these hold in any process; several ask each other only now and then, for that makes them wait."""
        if self.accelerator.num_processes == 1:
            return stop, late
        if update % ASK_EVERY:
            return False, False
        asked = torch.tensor([float(stop), float(late)], device=self.accelerator.device)
        stopped, overdue = reduce(asked, "sum").tolist()
        return bool(stopped), bool(overdue)

    def _report(self, meter: Meter, log: RunLog, epoch: float, factor: float) -> bool:
        """Logs the mean losses since the last report, over all processes; stops if one of them is NaN or infinite.

        Returns:
            Whether the diagnostics have found something wrong; it looks in the main process.
        """
        update, means = self.state.progress.update, self._means(meter)
        assert_finite(_without_gradients(means), update)
        speed = meter.images / max(meter.seconds(), 1e-9)
        values = {name: number for name, value in means.items() if math.isfinite(number := value.item())}
        extra = {"epoch": epoch, "lr": self.method.phases[0].lr * factor, "images_per_second": speed}
        if not self.accelerator.is_main_process:
            return False
        sentences, numbers = self.state.diagnostics.observe(update, values, meter.translations)
        log.losses(update, values, extra | numbers)
        for sentence in sentences:
            log.warn(update, sentence)
        return bool(sentences)

    def _means(self, meter: Meter) -> dict[str, Tensor]:
        """The mean losses since the last report, over all processes: what is NaN in one is NaN in all."""
        means = meter.means()
        if self.accelerator.num_processes == 1 or not means:
            return means
        values = reduce(torch.stack([means[name].float() for name in sorted(means)]), "mean")
        return dict(zip(sorted(means), values, strict=True))


def _without_gradients(means: dict[str, Tensor]) -> dict[str, Tensor]:
    """A gradient may overflow in fp16 without harm: the scaler skips that step."""
    return {name: value for name, value in means.items() if not name.endswith("gradient")}


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Notes the first Ctrl-C or SIGTERM, so that the update is finished and saved; a second one stops at once."""
    caught: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    with suppress(ValueError):  # not in the main thread: signals stay as they are
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
