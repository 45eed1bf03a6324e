"""Diagnoses a run: who has won, mode collapse, copies of the input, fine grids, in a sentence each; NaN and infinity stop the run."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.core.errors import UserError
from img2img.methods.base import Translations

REMEDY = "What was saved before stays; resume with a lower learning rate (--lr) or --mixed-precision no."

PATIENCE = 200  # updates for which something must hold before it is said
ALWAYS_RIGHT = 0.97  # the discriminator's accuracy
NEVER_RIGHT = 0.52
ONCE_RIGHT = 0.6  # a discriminator that never was has only not begun
FADED = 0.1  # of the largest gradient that the generator ever got over PATIENCE updates
REMEMBERED = 32  # translations that are compared with each other
ENOUGH = 16
THUMBNAIL = 8  # pixels a side
COLLAPSED = (
    0.1  # the outputs' mean distance from each other, of that of the inputs, or of the targets if they vary less
)
COPIED = 0.01  # mean difference between output and input, of values in [0, 1]
COPIED_OF_TRUTH = 0.25  # the same, of the difference between target and input
GRID = 3.0  # power of a grid of 2 or 4 pixels over that of nearby frequencies; real images have 0.8 to 3
GRID_OF_TRUTH = 2.0  # the same, of the targets'
GRID_FROM = 1000  # updates; transposed convolutions begin with a grid, and most lose it
NEARBY = 3  # frequencies


class DivergedError(UserError):
    """A loss or a weight is NaN or infinite."""


@dataclass
class _History:
    """What was seen of one translator lately."""

    history: deque[tuple[int, float, float]] = field(default_factory=deque)
    """(update, the discriminator's accuracy, the gradient it gave the generator)."""
    strongest: float = 0.0
    """The largest mean gradient over PATIENCE updates."""
    most_right: float = 0.0
    """The discriminator's largest mean accuracy over PATIENCE updates."""
    thumbnails: deque[tuple[Tensor, Tensor, Tensor]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """Sources, translations, targets."""
    changes: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """How far translations were from their sources, and targets."""
    spectra: deque[Tensor] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """Of translations and targets, what `_measure_grids` gave."""
    said: set[str] = field(default_factory=set)
    """What holds, and was said."""


class Diagnostics:
    """Takes in what a run logs, and gives a sentence when something has gone wrong; never touches the training."""

    def __init__(self) -> None:
        self.watched: dict[str, _History] = {}

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """All that was seen, in types that load without a pickle."""
        return {
            direction: {
                "strongest": w.strongest,
                "most_right": w.most_right,
                "said": sorted(w.said),
                "history": list(w.history),
                "thumbnails": list(w.thumbnails),
                "changes": list(w.changes),
                "spectra": list(w.spectra),
            }
            for direction, w in self.watched.items()
        }

    def load_state_dict(self, state: Mapping[str, dict[str, Any]]) -> None:
        """Undoes `state_dict`."""
        self.watched = {}
        for direction, saved in state.items():
            watched = self.watched[direction] = _History(said=set(saved["said"]))
            watched.strongest, watched.most_right = saved["strongest"], saved["most_right"]
            for name in ("history", "thumbnails", "changes", "spectra"):
                getattr(watched, name).extend(saved[name])

    def observe(
        self, update: int, means: Mapping[str, float], translations: Translations
    ) -> tuple[list[str], dict[str, float]]:
        """Looks at one line of the log.

        Args:
            update: optimizer updates done.
            means: losses and metrics since the last line, by name.
            translations: the last batch's sources, translations and targets (B, C, H, W) in [-1, 1].

        Returns:
            What has begun to be wrong since the last call, a sentence each; and, once enough translations were seen,
            ``variety`` (the outputs' mean distance from each other, divided by that of the inputs or, if it is less, of the
            targets), ``change`` (the mean difference between output and input, of values in [0, 1]) and ``grid`` (the power of a
            grid of 2 or 4 pixels in the outputs, over that of nearby frequencies) for the log.
        """
        sentences: list[str] = []
        numbers: dict[str, float] = {}
        for direction, (source, fake, target) in translations.items():
            noise = source is target  # nothing that outputs could be tied to
            watched = self.watched.setdefault(direction, _History())
            found = self._check_balance(watched, update, direction, means, noise)
            _remember(watched, source, fake, target, update)
            if len(watched.thumbnails) >= ENOUGH:
                suffix = f"_{direction}" if direction else ""
                changes = watched.changes if len(watched.changes) >= ENOUGH else ()
                variety, change = _variety(watched), _mean(change for change, _ in changes)
                numbers[f"diagnostics/variety{suffix}"] = variety
                copied = min(COPIED, COPIED_OF_TRUTH * _mean(truth for _, truth in changes))
                if update >= PATIENCE:  # first all from noise are gray
                    found |= _check_outputs(variety, change, copied, noise)
                if changes:
                    numbers[f"diagnostics/change{suffix}"] = change
                if len(watched.spectra) >= ENOUGH:
                    grid, true_grid = _compare_grids(watched)
                    numbers[f"diagnostics/grid{suffix}"] = grid
                    if update >= GRID_FROM:
                        found |= _check_grid(grid, true_grid, noise)
            where = f" ({direction})" if direction else ""
            sentences += [
                f"by update {update}{where}, {text}" for name, text in found.items() if name not in watched.said
            ]
            watched.said = set(found)
        return sentences, numbers

    def _check_balance(
        self, watched: _History, update: int, direction: str, means: Mapping[str, float], noise: bool
    ) -> dict[str, str]:
        target = direction.partition("to")[2]  # the side whose discriminator judges
        accuracy = means.get(f"D/{f'{target}_' if target else ''}accuracy")
        gradient = means.get(f"G/{f'{direction}_' if direction else ''}gradient")
        if accuracy is None or gradient is None:
            return {}
        history = watched.history
        history.append((update, accuracy, gradient))
        if update - history[0][0] < PATIENCE:
            return {}
        while len(history) > 1 and update - history[1][0] >= PATIENCE:
            history.popleft()
        faint, right = _mean(g for _, _, g in history), _mean(a for _, a, _ in history)
        watched.strongest, watched.most_right = max(watched.strongest, faint), max(watched.most_right, right)
        if min(a for _, a, _ in history) > ALWAYS_RIGHT and faint < FADED * watched.strongest:
            return {
                "discriminator": f"the discriminator has won: it is right on {right:.0%} of what it sees, and the gradient that "
                f"it gives the generator has faded to {faint / watched.strongest:.0%} of what it was. Try --augment colour "
                f"translation cutout, --r1 1{'' if noise else ' (of a PatchGAN with --discriminator.norm instance)'}, fewer --discriminator.channels, or --adversarial "
                "lsgan or hinge."
            }
        if right < NEVER_RIGHT and watched.most_right > ONCE_RIGHT:
            return {
                "generator": f"the generator has won: the discriminator, once right on {watched.most_right:.0%}, is right on {right:.0%} of what it sees, as by tossing a "
                f"coin, and teaches nothing. Try more --discriminator.channels{'' if noise else ' or --discriminator.layers'}, or a weaker "
                "regularisation of it."
            }
        return {}


def _remember(watched: _History, source: Tensor, fake: Tensor, target: Tensor, update: int) -> None:
    small = [F.adaptive_avg_pool2d(each.detach().float(), THUMBNAIL).cpu() for each in (source, fake, target)]
    watched.thumbnails.extend(zip(*small, strict=True))
    has_begun = update >= PATIENCE  # a generator that computes the change of the source begins with copies
    if source.shape == fake.shape and source is not target and has_begun:
        changes = [(source.float() - other.float()).abs().mean().item() / 2 for other in (fake, target)]
        watched.changes.append((changes[0], changes[1]))
    sides = [*fake.shape[2:], *target.shape[2:]]
    if min(sides) > 8 * NEARBY and not any(side % 4 for side in sides):
        watched.spectra.append(torch.stack([_measure_grids(each) for each in (fake, target)]))


def _variety(watched: _History) -> float:
    distances: list[float] = []
    for side in zip(*watched.thumbnails, strict=True):
        flat = torch.stack(side).flatten(1)
        distances.append(torch.pdist(flat, p=1).mean().item() / flat.shape[1])
    expected = min(distances[0], distances[2])
    return distances[1] / expected if expected > 1e-3 else 1.0


def _check_outputs(variety: float, change: float, copied: float, noise: bool) -> dict[str, str]:
    found = {}
    if variety < COLLAPSED:
        others, tie = "the inputs or the targets do", "a larger weight of what ties the output to the input"
        if noise:
            others, tie = "the real images do", "--adversarial wasserstein --gradient-penalty 10"
        found["collapse"] = (
            f"the outputs hardly vary: they differ from each other {variety:.0%} as much as {others} "
            f"(mode collapse). Try a lower --lr, --r1 1, or {tie}."
        )
    if change < copied:
        found["copy"] = (
            f"the output copies the input: they differ by {change:.1%} on average. Train longer, or try a smaller weight of "
            "what ties the output to the input, or a larger --adversarial-weight."
        )
    return found


def _measure_grids(images: Tensor) -> Tensor:
    """The power of waves of 2 and of 4 pixels along both axes, and of waves a little longer or shorter: (2 axes, 2 waves, 2)."""
    gray, found = images.detach().float().mean(1).cpu(), []
    for axis in (1, 2):
        side = gray.shape[axis]
        power = torch.fft.rfft(gray, dim=axis).abs().square().mean((0, 3 - axis))
        for place in (side // 2, side // 4):
            near = torch.cat([power[place - NEARBY : place], power[place + 1 : place + 1 + NEARBY]])
            found.append(torch.stack([power[place], near.mean()]))
    return torch.stack(found).view(2, 2, 2)


def _compare_grids(watched: _History) -> tuple[float, float]:
    """The strongest grid of translations and of targets: its power over that of nearby frequencies."""
    both = torch.stack(list(watched.spectra)).sum(0)  # (2, axes, waves, 2)
    ratios = both[..., 0] / both[..., 1].clamp_min(1e-12)
    return ratios[0].max().item(), ratios[1].max().item()


def _check_grid(grid: float, true_grid: float, noise: bool) -> dict[str, str]:
    if grid < max(GRID, GRID_OF_TRUTH * true_grid):
        return {}
    return {
        "grid": f"the outputs have a fine grid of 2 or 4 pixels, {grid:.1f} times as strong as what is around it ({true_grid:.1f} "
        f"in the {'real images' if noise else 'targets'}). A generator that resizes before it convolves has none: --generator.{'kind resnet' if noise else 'upsampling resize'}."
    }


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else float("inf")


def assert_finite(losses: dict[str, Tensor], update: int) -> None:
    """Raises a sentence if a loss, or a sum or mean of losses, is NaN or infinite.

    Raises:
        DivergedError: naming the first such loss.
    """
    for name, value in losses.items():
        if not torch.isfinite(value).item():
            raise DivergedError(
                f"the loss {name} became {value.item()} by update {update}, so training was stopped. {REMEDY}"
            )


def assert_finite_weights(networks: Iterable[tuple[str, nn.Module]], update: int) -> None:
    """Raises a sentence if a network has a weight that is NaN or infinite: such a state must not become a checkpoint.

    Raises:
        DivergedError: naming the first such network.
    """
    for name, network in networks:
        norms = torch._foreach_norm([p.detach() for p in network.parameters()])
        if not torch.isfinite(torch.stack([norm.float() for norm in norms])).all().item():
            raise DivergedError(
                f"the {name} has weights that are NaN or infinite by update {update}, so training was stopped. {REMEDY}"
            )
