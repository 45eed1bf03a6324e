"""Translating in several steps, as UNSB's networks do: with noise between them, which a seed decides."""

import torch
from torch import Tensor

from img2img.core.errors import UsageError
from img2img.networks import GeneratorConfig
from img2img.networks.conditioning import Place, begin
from img2img.networks.generators.resnet import ResNet, ResNetConfig
from img2img.networks.layers import ImageNetwork
from img2img.tiling.progress import report_part
from img2img.tiling.translate import translate


def count_steps(config: GeneratorConfig) -> int | None:
    """In how many steps a network translates at most; None if it isn't told which step is due."""
    return config.steps if isinstance(config, ResNetConfig) else None


def refuse_nfe(config: GeneratorConfig, nfe: int) -> None:
    """Refuses a number of steps that a network can't take.

    Raises:
        UsageError: saying which it can.
    """
    most = count_steps(config)
    if most is None:
        raise UsageError(
            f"--nfe {nfe}: this translator needs one step only; img2img train unsb trains such as take several."
        )
    if not 1 <= nfe <= most:
        raise UsageError(f"--nfe {nfe}: this translator was trained for 1 to {most} steps.")


def translate_in_steps(
    generator: ImageNetwork,
    config: GeneratorConfig,
    source: Tensor,
    nfe: int,
    seed: int,
    tile: int | None,
    memory_format: torch.memory_format,
) -> Tensor:
    """(B, C, H, W) in [-1, 1] → the same shape, float32: each step on images of any size, in strips if need be.

    The noise depends on the seed and the size of the images alone, so that batches change nothing.
    """
    assert isinstance(generator, ResNet) and isinstance(config, ResNetConfig) and config.steps
    random = torch.Generator().manual_seed(seed)
    told = torch.randn(config.steps, 4 * config.channels, generator=random)
    place, made = begin(source), source
    for step in range(nfe):
        if step:
            noise = torch.randn(1, *source.shape[1:], generator=random).to(made.device)
            place = Place(*(each.to(made) for each in place)).move_on(made, step - 1, config.steps, config.tau, noise)
        with report_part(step, nfe):
            made = translate(generator.at_step(step, told[step]), place.seen, tile, memory_format, config)
        if config.residual:
            made = (place.image.to(made) + made).clamp_(-1, 1)
    return made
