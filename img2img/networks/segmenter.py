"""A network that finds the class of each pixel."""

from torch import Tensor, nn

from img2img.networks.generators.unet import UNet, UNetConfig

DEEPEST = 5  # halvings


class Segmenter(nn.Module):
    """Maps (B, in_channels, H, W) in [-1, 1] to logits (B, classes, H, W): a U-Net (Ronneberger et al. 2015).

    Args:
        size: of the shorter side of the images in pixels, which must be even.
        channels: of the first level.
    """

    def __init__(self, in_channels: int, classes: int, size: int, channels: int = 32) -> None:
        super().__init__()
        depth = min(DEEPEST, (size & -size).bit_length() - 1)
        config = UNetConfig(channels=channels, depth=depth, norm="instance", dropout=0.0, upsampling="resize")
        self.network = UNet(config.resolve(in_channels, classes, size))
        self.network.head[-1] = nn.Identity()  # logits have no bounds

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, classes, H, W)."""
        logits: Tensor = self.network(images)
        return logits
