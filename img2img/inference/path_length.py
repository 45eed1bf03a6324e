"""Perceptual path length: how evenly images change with their styles."""

import torch

from img2img.core.device import convolve_exactly
from img2img.inference.invert import enlarge
from img2img.losses.features import perceptual_distance
from img2img.models import NoiseGenerator
from img2img.networks.features import EfficientNetLite

STEP = 1e-4  # of the way between two styles
OUTLIERS = 0.01  # of the lengths at either end, which don't count
AT_ONCE = 8


@torch.no_grad()
def perceptual_path_length(generator: NoiseGenerator, count: int = 200, seed: int = 0) -> float:
    """The mean perceptual distance of images a small step apart, divided by the square of the step (Karras et al. 2019, §4.1).

    Between styles, at the first of each two, without the shortest and the longest hundredth, as StyleGAN2's code has it; by features of EfficientNet-Lite0, so that values can't be
    compared with published ones, which are VGG's.

    Args:
        generator: one with styles.
        count: pairs of styles.
        seed: of the first.
    """
    network = generator.styled_network()
    features = EfficientNetLite().to(generator.device)
    found = []
    for start in range(0, count, AT_ONCE):
        seeds = range(seed + 2 * start, seed + 2 * min(count, start + AT_ONCE))
        labels = (
            None if not generator.config.classes else [(each // 2) % len(generator.config.classes) for each in seeds]
        )
        styles = generator.styles(generator.noise(seeds), generator.numbers(labels, seeds)).to(generator.device)
        first, second = styles[::2], styles[1::2]
        with convolve_exactly(generator.device):  # the images hardly differ
            near = network.synthesise(first), network.synthesise(torch.lerp(first, second, STEP))
            seen = [features(enlarge(each)) for each in near]
        found.append(perceptual_distance(*seen) / STEP**2)
    lengths = torch.cat(found).cpu()
    lowest, highest = torch.quantile(lengths, torch.tensor([OUTLIERS, 1 - OUTLIERS]))
    return lengths[(lengths >= lowest) & (lengths <= highest)].mean().item()
