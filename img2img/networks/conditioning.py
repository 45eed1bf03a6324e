"""What a generator that translates in several steps is told: which step is due, and noise (Kim et al. 2024, UNSB)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS = 4  # of the mapping from noise, as in the published code


def list_times(steps: int) -> list[float]:
    """When each step begins, from 0 on, and the end, 1: the first step takes half of the time, and the others less and less (harmonic)."""
    sums = [sum(1 / number for number in range(1, step + 1)) for step in range(steps)]
    return [0.0, *(0.5 + 0.5 * (each / sums[-1] if steps > 1 else 1.0) for each in sums)]


class Place(NamedTuple):
    """Where a step begins: the image, and noise on it. They are kept apart, as the noise is no part of what a network changes."""

    image: Tensor
    """(B, C, H, W)."""
    noise: Tensor
    """The same, or (1, C, H, W)."""

    @property
    def seen(self) -> Tensor:
        """What the network sees."""
        return self.image + self.noise

    def move_on(self, made: Tensor, step: int, steps: int, tau: float, noise: Tensor) -> "Place":
        """Where the next step begins: between where this one began and what it made, with more noise (§4).

        Args:
            made: (B, C, H, W), the network's translation.
            step: this one's number, from 0.
            steps: how many there are.
            tau: the variance of the whole process.
            noise: (B or 1, C, H, W), normally distributed.
        """
        times = list_times(steps)
        left = 1 - times[step]
        share = (times[step + 1] - times[step]) / left
        added = (share * (1 - share) * tau * left) ** 0.5 * noise
        return Place(torch.lerp(self.image, made, share), (1 - share) * self.noise + added)


def begin(image: Tensor) -> Place:
    """Where the first step begins."""
    return Place(image, torch.zeros_like(image[:1]))


class StepAndNoise(nn.Module):
    """Maps a step's number and normally distributed noise to a vector, by which blocks are modulated.

    Args:
        steps: how many there are.
        width: numbers of the noise, and of the vector.
    """

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.step = nn.Embedding(steps, width)
        self.noise = nn.Sequential(
            *(layer for _ in range(LAYERS) for layer in (nn.Linear(width, width), nn.LeakyReLU(0.2)))
        )

    def draw(self) -> None:
        """Draws weights by which steps and noise matter from the beginning: each layer keeps the deviation of what it gets."""
        nn.init.normal_(self.step.weight)
        for layer in self.noise:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, 0.2)
                nn.init.zeros_(layer.bias)

    def forward(self, step: int, noise: Tensor) -> Tensor:
        """(B, width) of noise → (B, width)."""
        number = torch.full((len(noise),), step, device=noise.device)
        same_length = F.normalize(noise, dim=1) * self.width**0.5  # on a sphere, as StyleGAN's
        return self.noise(same_length) + self.step(number)


class Modulate(nn.Module):
    """Multiplies each channel by a number and adds another, both constant.

    Args:
        numbers: (2 C,): how much more than 1 the factors are, and what is added.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        scale, shift = numbers[:, None, None].chunk(2)
        self.register_buffer("scale", 1 + scale)
        self.register_buffer("shift", shift.clone())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return x * self.scale + self.shift
