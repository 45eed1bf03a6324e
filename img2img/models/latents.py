"""The noise of a seed, the way between two, and what batch norms need to know about it."""

import copy
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.networks.generators.base import Codes
from img2img.networks.generators.style import StyleGenerator

SEEDS = 2**32  # more can't be told apart: PyTorch's generator takes 32 bits
NARROWEST = 0.001
BATCHES, IMAGES = 16, 64  # that standing statistics are of
MEAN_OF = 4096  # styles
Walk = Literal["spherical", "linear", "style"]
DrawLatents = Callable[[Sequence[int]], tuple[Tensor, Tensor | None]]


def draw_noise(latent: int, seed: int, truncation: float | None = None) -> Tensor:
    """(latent,), normally distributed: a function of the seed. With a truncation, what lies beyond it is drawn again.

    Raises:
        UsageError: for a truncation that leaves next to nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latent, generator=generator)
    if truncation is None:
        return noise
    if not truncation >= NARROWEST:
        raise UsageError(f"truncation {truncation}: give a value above 0, such as 0.7, of at least {NARROWEST}.")
    while (beyond := noise.abs() > truncation).any():
        many = max(latent, math.ceil(1 / truncation))
        drawn = torch.randn(many, generator=generator)
        within = drawn[drawn.abs() <= truncation][: int(beyond.sum())]
        places = beyond.nonzero().flatten()[: len(within)]
        noise[places] = within
    return noise


def draw_codes(codes: Codes, seed: int, chosen: Mapping[int, float]) -> Tensor:
    """(width,): a function of the seed but for those that are chosen.

    Raises:
        UsageError: for a code that there isn't, or a value that it can't have.
    """
    generator = torch.Generator().manual_seed(
        zlib.crc32(f"codes/{seed}".encode())
    )  # another row of numbers than the noise's
    count = len(codes.categorical) + codes.continuous
    for code in chosen:
        if not 0 <= code < count:
            raise UsageError(f"there is no code {code}: there are {count}, from 0 to {count - 1}.")
    drawn = []
    for number, size in enumerate(codes.categorical):
        value = int(torch.randint(size, (), generator=generator))
        value = int(chosen.get(number, value))
        if not 0 <= value < size:
            raise UsageError(f"code {number} has no value {value}: there are 0 to {size - 1}.")
        drawn.append(F.one_hot(torch.tensor(value), size).float())
    values = 2 * torch.rand(codes.continuous, generator=generator) - 1
    for number in range(codes.continuous):
        values[number] = chosen.get(len(codes.categorical) + number, float(values[number]))
    return torch.cat([*drawn, values])


def slerp(a: Tensor, b: Tensor, share: Tensor | float) -> Tensor:
    """The point at `share` of the way from a to b on the great circle through them, lengths being interpolated (Shoemake 1985; White 2016)."""
    cosine = F.cosine_similarity(a, b, dim=0).clamp(-1, 1)
    angle = torch.acos(cosine)
    if torch.sin(angle) < 1e-4:  # they lie on one line
        return torch.lerp(a, b, torch.as_tensor(share, dtype=a.dtype))
    sine = torch.sin(angle)
    return torch.sin((1 - share) * angle) / sine * a + torch.sin(share * angle) / sine * b  # exact at both ends


def mix_noise(a: Tensor, b: Tensor, share: Tensor | float, latent: int, how: Walk = "spherical") -> Tensor:
    """Noise (latent + codes,) at `share` of the way from a to b: on the great circle or straight; codes go straight.

    (A mixture of two values of a categorical code is none.)
    """
    near = slerp(a[:latent], b[:latent], share) if how == "spherical" else torch.lerp(a[:latent], b[:latent], share)
    return torch.cat([near, torch.lerp(a[latent:], b[latent:], share)])


@torch.no_grad()
def find_mean_style(generator: StyleGenerator, drawn: DrawLatents) -> StyleGenerator:
    """A copy that knows the mean of its styles, towards which they are truncated (Karras et al. 2019, appendix B).

    Args:
        drawn: gives the noise, and the labels if there are classes, of seeds.
    """
    network = copy.deepcopy(generator).eval()
    noise, labels = drawn(range(MEAN_OF))
    device = network.mean_style.device
    styles = network.mapping(noise.to(device), None if labels is None else labels.to(device))
    network.mean_style.copy_(styles.mean(0))
    return network


@torch.no_grad()
def recalibrate_batch_norm(generator: nn.Module, drawn: DrawLatents) -> nn.Module:
    """A copy whose batch norms have the mean statistics of 16 batches of 64 images (Brock et al. 2019, appendix D).

    Args:
        generator: the network; the same comes back if it has no batch norm.
        drawn: gives the noise, and the labels if there are classes, of seeds.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in generator.modules()):
        return generator
    network = copy.deepcopy(generator).eval()
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    device = next(network.parameters()).device
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for batch in range(BATCHES):
        noise, labels = drawn(range(batch * IMAGES, (batch + 1) * IMAGES))
        network(noise.to(device)) if labels is None else network(noise.to(device), labels.to(device))
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()
    return network
