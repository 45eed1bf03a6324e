"""Which network of which project a file holds, told by its keys and shapes alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from img2img.core.errors import UsageError, list_some
from img2img.interop import cut, cyclegan, pix2pixhd, spade
from img2img.interop.family import STATISTICS, Family, Guess, Part
from img2img.interop.reading import Triples, divide_spectral_norm, read_weights, refuse_non_finite
from img2img.networks import SPADEConfig
from img2img.networks.layers import BlurPool

FAMILIES: dict[str, Family] = {
    family.name: family for project in (cyclegan, cut, pix2pixhd, spade) for family in project.FAMILIES
}
PARTS: tuple[Part, ...] = ("generator", "discriminator", "encoder")


@dataclass(frozen=True)
class Found:
    """A network of another project, as one of ours."""

    file: Path
    family: Family
    guess: Guess
    network: nn.Module
    """With its weights; in evaluation mode."""
    triples: Triples
    """What its spectral norm held, by the file's keys."""

    @property
    def described(self) -> str:
        """For a person, in a line."""
        size = sum(weight.numel() for weight in self.network.parameters()) / 1e6
        outward = getattr(self.guess.config, "out_channels", None)
        channels = f"{self.guess.in_channels}{f' → {outward}' if outward else ''} channels"
        return f"{self.family.described}, {channels}, {size:.1f} M parameters"


def read_network(file: Path, parts: Sequence[Part] = PARTS, changes: Mapping[str, Any] | None = None) -> Found:
    """Reads a file of another project's weights.

    Args:
        file: a .pth or .safetensors file of a state dict.
        parts: what it may be; where keys fit several, the first.
        changes: fields of the network's config that are known better than the keys can tell.

    Raises:
        UsageError: if it can't be read, or fits no known network.
    """
    weights, triples = divide_spectral_norm(read_weights(file))
    refuse_non_finite(file, weights)
    family, guess = _recognise(file, weights, parts)
    if isinstance(guess.config, SPADEConfig):
        guess = replace(
            guess, config=guess.config.model_copy(update={"spectral_norm": "blocks" if triples else "none"})
        )
    if changes:
        guess = _apply_changes(file, family, guess, weights, changes)
    return Found(file, family, guess, _fill(file, family, guess, weights), triples)


def _recognise(file: Path, weights: Mapping[str, Tensor], parts: Sequence[Part]) -> tuple[Family, Guess]:
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    nearest: tuple[int, Family, list[str]] | None = None
    for part in parts:
        for family in FAMILIES.values():
            if family.part != part:
                continue
            try:
                guess = family.guess(shapes)
                misfits = [] if guess is None else family.misfits(guess, shapes)
            except (KeyError, IndexError, ValueError, RuntimeError):  # landmarks that stand where nothing fits them
                continue
            if guess is not None and not misfits:
                return family, guess
            if guess is not None and (nearest is None or len(misfits) < nearest[0]):
                nearest = len(misfits), family, misfits
    if nearest is not None:
        _, family, misfits = nearest
        raise UsageError(
            f"{file} fits no known network; it is nearest to {family.described}, but {list_some(misfits, 3)}. It may be damaged, or "
            "of changed code."
        )
    known = ", ".join(dict.fromkeys(project.PROJECT for project in (cyclegan, cut, pix2pixhd, spade)))
    raise UsageError(
        f"{file} fits no known network: {list_some(list(weights), 3)} are keys of none. Known are {' and '.join(parts)}s of {known}."
    )


def _apply_changes(
    file: Path, family: Family, guess: Guess, weights: Mapping[str, Tensor], changes: Mapping[str, Any]
) -> Guess:
    """The same guess with what a user knows better, if the file's keys allow it."""
    before = guess.config
    for name, value in changes.items():
        if name not in type(before).model_fields:
            raise UsageError(f"--{name}: {family.described} has no {name}; leave it out.")
        if name == "dropout" and bool(value) != bool(getattr(before, name)) and "resnet" in family.name:
            has = "has" if before.dropout else "has no"
            raise UsageError(
                f"--dropout {value}: the keys of {file} tell that it {has} dropout; --mode eval runs it without."
            )
    try:
        config = type(before)(**{**before.model_dump(), **changes})
    except UsageError as error:
        raise UsageError(f"{family.described}: --{error}.") from None
    changed = Guess(
        config, guess.in_channels, tuple(each for each in guess.assumed if each.split(":")[0] not in changes)
    )
    misfits = family.misfits(changed, {name: tensor.shape for name, tensor in weights.items()})
    if misfits:
        given = " ".join(f"--{name} {value}" for name, value in changes.items())
        raise UsageError(f"{given}: that can't be {family.described} of {file}, where {list_some(misfits, 2)}.")
    return changed


def _fill(file: Path, family: Family, guess: Guess, weights: Mapping[str, Tensor]) -> nn.Module:
    keys = family.keys(guess)
    for key, constant in family.constants(guess.config).items():
        if key in weights and not torch.allclose(weights[key], constant, atol=1e-5):
            raise UsageError(
                f"{file}: {key} is no binomial filter, as {family.described} has it; other filters aren't known."
            )
    with torch.device("meta"):
        network = family.build(guess)
    state = {ours: weights[theirs].clone() for theirs, ours in keys.items() if theirs in weights}
    for ours in network.state_dict().keys() - state.keys():
        if ours.endswith(STATISTICS[2]):  # old files don't count batches
            state[ours] = torch.tensor(0)
        elif ours.endswith(".kernel"):
            state[ours] = BlurPool().kernel
    network.load_state_dict(state, assign=True)
    return network.eval()


def to_layout(family: Family, guess: Guess, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's state in the layout of its family, spectral norm aside; biases that the norms cancel are 0 where there are none.

    Raises:
        UsageError: if the family has no place for some of it.
    """
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in family.build(guess).state_dict().items()}
    keys = family.keys(guess)
    placed = set(keys.values())
    lost = [name for name in state if name not in placed and not name.endswith(".kernel")]
    lost += [name for name in keys.values() if name not in state and not name.endswith(".bias")]
    if lost:
        raise UsageError(
            f"{family.described} has no place for {list_some(lost, 3)}, so it can't be written in that layout."
        )
    found = {
        theirs: state[ours].detach().cpu().clone() if ours in state else torch.zeros(shapes[ours])
        for theirs, ours in keys.items()
    }
    return found | family.constants(guess.config)
