"""What a family of networks is: how the files of a project name the layers of one of our networks."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

Shapes = Mapping[str, torch.Size]
Part = Literal["generator", "discriminator", "encoder"]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Guess:
    """An architecture that keys and shapes hint at."""

    config: Any
    """Of our network, with everything filled in."""
    in_channels: int
    """Of what it sees."""
    assumed: tuple[str, ...] = ()
    """What keys and shapes can't tell, in sentences."""


@dataclass(frozen=True)
class Family:
    """A kind of network of another project."""

    name: str
    """Recorded in what is imported."""
    described: str
    """For people."""
    part: Part
    guess: Callable[[Shapes], Guess | None]
    """From keys and shapes; None if the landmarks of this family are not there."""
    layers: Callable[[Any], dict[str, str]]
    """From a config: the project's name of each layer that has weights, and ours."""
    build: Callable[[Guess], nn.Module]
    constants: Callable[[Any], dict[str, Tensor]] = field(default=lambda config: {})
    """What the project's files hold beside weights, such as the filters of blurring layers."""

    def keys(self, guess: Guess) -> dict[str, str]:
        """The project's key of each tensor of ours."""
        with torch.device("meta"):
            own = self.build(guess).state_dict()
        layers = {ours: theirs for theirs, ours in self.layers(guess.config).items()}
        found = {}
        for key in own:
            layer, _, name = key.rpartition(".")
            if layer in layers:
                found[f"{layers[layer]}.{name}"] = key
        return found

    def misfits(self, guess: Guess, shapes: Shapes) -> list[str]:
        """What a file lacks, what has no place, and what has another shape, each in a few words."""
        with torch.device("meta"):
            own = self.build(guess).state_dict()
        keys, constants = self.keys(guess), self.constants(guess.config)
        missing = [f"{key} is missing" for key in keys if key not in shapes and not key.endswith(STATISTICS[2])]
        extra = [
            f"{key} has no place" for key in shapes if key not in keys and key not in constants and not _is_stray(key)
        ]
        other = [
            f"{key} is {_format_shape(shapes[key])}, not {_format_shape(own[ours].shape)}"
            for key, ours in keys.items()
            if key in shapes and shapes[key] != own[ours].shape
        ]
        return [each for group in itertools.zip_longest(missing, extra, other) for each in group if each]


def _is_stray(key: str) -> bool:
    """Whether it may be what old files hold of instance norms, which have no use for it."""
    return key.rpartition(".")[2] in STATISTICS


def _format_shape(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "a number"


def index_keys(shapes: Shapes, prefix: str) -> dict[int, str]:
    """Numbers that follow a prefix, with what stands after the first key of each: ``{0: "weight", 3: "conv_block.1.weight"}``."""
    found: dict[int, str] = {}
    for key in shapes:
        number, _, rest = key.removeprefix(prefix).partition(".")
        if key.startswith(prefix) and number.isdecimal():
            found.setdefault(int(number), rest)
    return dict(sorted(found.items()))


def convolutions(shapes: Shapes, prefix: str) -> list[int]:
    """The numbers after a prefix of layers whose weights have four dimensions, in their order."""
    return [n for n in index_keys(shapes, prefix) if len(shapes.get(f"{prefix}{n}.weight", ())) == 4]


def guess_norm(shapes: Shapes, convolution: str, norm: str) -> tuple[str, bool]:
    """Which norm follows a convolution, and whether that has a bias: batch norms have weights, and before instance norms there are biases."""
    bias = f"{convolution}.bias" in shapes
    if f"{norm}.weight" in shapes:
        return "batch", bias
    return ("instance" if bias else "none"), bias


def explain_norm(norm: str, bias: bool) -> tuple[str, ...]:
    """How sure that is."""
    if norm == "batch":
        return ()
    why = "convolutions have biases" if bias else "convolutions have no biases"
    return (f"norm: {norm}, as published where {why} and norms no weights (--norm)",)
