"""What EfficientNet-Lite0 sees: how unlike two images look, and features by which sets of images are compared."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.images import Array, convert_channels, to_8_bit
from img2img.losses.features import perceptual_distance
from img2img.networks.features import EfficientNetLite

LONGEST = 1024  # pixels; larger images are scaled down to it


class PerceptualDistance(nn.Module):
    """How unlike two images look: `losses.features.perceptual_distance` by EfficientNet-Lite0, at the images' own size (see `LONGEST`)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNetLite()

    @torch.no_grad()
    def forward(self, image: Array, truth: Array) -> float:
        """Images (H, W, C) of one size, as of `prepare_image`: 0 for equal ones, at most 4. Of more than 4 channels the first 3 are seen."""
        device = self.network.get_buffer("mean_0").device
        seen = torch.stack([prepare_image(each) for each in (image, truth)]).to(device)
        features = self.network(scale_down(seen.float() / 127.5 - 1))
        return perceptual_distance([each[:1] for each in features], [each[1:] for each in features]).item()


class LiteFeatures(nn.Module):
    """Of each of EfficientNet-Lite0's stages the mean and the deviation over positions, at the images' own size (see `LONGEST`) and at half of it.

    Scores of these features see dots, checkerboards and blur, which features of shrunk images miss. Each is standardised
    by what the network saw of ImageNet, so that none outweighs the others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNetLite()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 → (B, 1088)."""
        x = scale_down(images.float() / 127.5 - 1)
        half = [max(1, side // 2) for side in x.shape[2:]]
        smaller = F.interpolate(x, half, mode="bilinear", antialias=True, align_corners=False)
        stages = [*self.network(x), *self.network(smaller)]
        return torch.cat([part for each in stages for part in (each.mean((2, 3)), each.std((2, 3), correction=0))], 1)


def prepare_image(image: Array) -> Tensor:
    """(H, W, C) → (3, H, W) uint8.

    Of uint8 or uint16, alpha goes over white, and gray is repeated. Of measurements, float32 in [0, 1], and of more than 4 channels,
    the first 3 count, or the first alone.
    """
    if image.shape[2] > 4 or np.issubdtype(image.dtype, np.floating):
        image = image[..., : 3 if image.shape[2] >= 3 else 1]
    colours = convert_channels(image, 3)
    return torch.from_numpy(np.ascontiguousarray(to_8_bit(colours).transpose(2, 0, 1)))


def scale_down(images: Tensor) -> Tensor:
    """(B, 3, H, W) → the same, no side longer than `LONGEST`."""
    height, width = images.shape[2:]
    if max(height, width) <= LONGEST:
        return images
    size = [max(1, round(side * LONGEST / max(height, width))) for side in (height, width)]
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
