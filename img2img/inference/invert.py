"""Finding the style of a photo: what a generator with styles has to be told to make it (Karras et al. 2020, §5 and appendix D)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from img2img.core.errors import UsageError
from img2img.images import Array, convert_channels, resize, to_8_bit
from img2img.images.tensors import to_tensor
from img2img.losses.features import perceptual_distance
from img2img.models import NoiseGenerator
from img2img.networks.features import EfficientNetLite, to_rgb

RATE = 0.1  # Adam's, at its height
RISE, FALL = 0.05, 0.25  # the shares of the steps in which it rises, and falls
NOISE = 0.05  # on the style at first, as a share of the styles' deviation
QUIET = 0.75  # the share of the steps after which there is none
SEEN = 128  # pixels to which smaller images are enlarged before they are compared
PIXELS = 0.1  # weight of the mean square error of pixels


class Inverted(NamedTuple):
    """What was found."""

    styles: Tensor
    """(1, latent), or (layers, latent)."""
    distance: float
    """The perceptual distance of its image to the photo."""


def invert(
    generator: NoiseGenerator,
    photo: Array,
    *,
    steps: int = 500,
    per_layer: bool = False,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Inverted:
    """The style whose image looks most like a photo, by gradient descent from the mean style.

    Args:
        generator: one with styles, such as stylegan2 trains.
        photo: (H, W, C), uint8 or uint16; its middle square is taken, as large as the generator's images.
        steps: of the optimisation.
        per_layer: whether each layer has a style of its own (W+), which comes nearer to the photo, and further from what can be changed well.
        seed: of the noise that is added to the style in the first three quarters.
        advance: is called after each step.

    Raises:
        UsageError: if the generator has no styles.
    """
    network = generator.styled_network()
    refuse_measurements(generator)
    if steps < 1:
        raise UsageError(f"--steps {steps}: take at least 1.")
    truth = to_tensor(crop_square(photo, generator))[None].to(generator.device)
    features = EfficientNetLite().to(generator.device)
    random = torch.Generator().manual_seed(seed)
    drawn = generator.styles(generator.noise(range(256)), generator.numbers(None, range(256)))[:, 0]
    deviation = (drawn.std(0).square().mean().sqrt()).to(generator.device)
    with torch.no_grad():
        wanted = features(enlarge(truth))
    style = network.mean_style.repeat(network.layers if per_layer else 1, 1).requires_grad_(True)
    optimiser = torch.optim.Adam([style], betas=(0.9, 0.999))
    best, lowest, nearest = style.detach().clone(), math.inf, math.inf
    parameters = [each for each in network.parameters() if each.requires_grad]
    try:
        network.requires_grad_(False)
        for step in range(steps + 1):  # after the last one, only to look
            done = step / steps
            optimiser.param_groups[0]["lr"] = RATE * plan_rate(done)
            strength = NOISE * max(0.0, 1 - done / QUIET) ** 2
            noise = torch.randn(style.shape, generator=random).to(style.device) * deviation * strength
            image = network.synthesise((style + noise).expand(network.layers, -1)[None])
            distance = perceptual_distance(features(enlarge(image)), wanted).sum()
            loss = distance + PIXELS * F.mse_loss(image, truth)
            if loss.item() < lowest:
                best, lowest, nearest = (style + noise).detach().clone(), loss.item(), distance.item()
            if step == steps:
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            advance()
    finally:
        for each in parameters:
            each.requires_grad_(True)
    return Inverted(best.cpu(), nearest)


def refuse_measurements(generator: NoiseGenerator) -> None:
    """Refuses a generator that makes measurements.

    Raises:
        UsageError: then.
    """
    if generator.config.range is not None:
        raise UsageError("this generator makes measurements, of which img2img invert finds no styles; it takes photos.")


def plan_rate(done: float) -> float:
    """The share of the learning rate when so much is done: it rises in a line, and falls as a cosine."""
    falling = min(1.0, (1 - done) / FALL)
    return (0.5 - 0.5 * math.cos(falling * math.pi)) * min(1.0, (done + 1e-3) / RISE)


def enlarge(images: Tensor) -> Tensor:
    """As the network of features sees them: (B, C, H, W) → (B, 3, H', W')."""
    share = SEEN / images.shape[2]
    if share > 1:
        images = F.interpolate(images, scale_factor=share, mode="bilinear", align_corners=False)
    return to_rgb(images)


def crop_square(photo: Array, generator: NoiseGenerator) -> Array:
    """The middle square of a photo, 8 bits, as large and with as many channels as a generator's images."""
    network = generator.config.generator
    assert network.size and network.out_channels
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = convert_channels(photo[top : top + side, left : left + side], network.out_channels)
    return to_8_bit(resize(square, network.size, network.size))
