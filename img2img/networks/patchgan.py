"""The PatchGAN discriminator: a fully convolutional classifier of overlapping patches."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from img2img.errors import Strict
from img2img.networks.blocks import BlurPool, Downsampling, Norm, has_bias, norm_layer


class PatchGANConfig(Strict):
    """What a PatchGAN is made of (Isola et al. 2017, §6.1.2)."""

    kind: Literal["patch"] = "patch"
    """The network: patch; or pixel (a 1×1 PatchGAN), where the method allows it."""
    layers: int = Field(3, ge=1, le=8)
    """Convolutions with stride 2: 3 see 70×70 pixels, 1 sees 16×16."""
    channels: int = Field(64, ge=1)
    """Channels of the first convolution; they double per convolution, up to 8 times this."""
    norm: Norm | None = None
    """Not applied to the first convolution; by default the method's: batch in pix2pix, instance in CycleGAN and CUT."""
    downsampling: Downsampling = "stride"
    """stride: strided convolutions; blur: anti-aliased (stride 1, then blur-pooling), as in CUT."""
    spectral_norm: bool = False
    """Divide each weight by its largest singular value (Miyato et al. 2018)."""

    @property
    def min_size(self) -> int:
        """Pixels a side that give one logit."""
        return 3 * 2**self.layers


class PixelGANConfig(Strict):
    """What a 1×1 PatchGAN ("PixelGAN") is made of (Isola et al. 2017, §6.1.2)."""

    kind: Literal["pixel"] = "pixel"
    """The network: pixel, or patch."""
    channels: int = Field(64, ge=1)
    """Channels of the first convolution; twice as many in the second."""
    norm: Norm | None = None
    """Normalisation after the second convolution; by default the method's."""
    spectral_norm: bool = False
    """Divide each weight by its largest singular value (Miyato et al. 2018)."""

    @property
    def min_size(self) -> int:
        """Pixels a side that give one logit."""
        return 1


class PatchGAN(nn.Module):
    """Maps (B, in_channels, H, W) to logits (B, 1, h, w), one for each patch; about H/2**layers - 2 high.

    Args:
        config: layers, width and norm, which must be filled in.
        in_channels: channels of the images; for a conditional discriminator those of source and target together.
    """

    def __init__(self, config: PatchGANConfig, in_channels: int) -> None:
        super().__init__()
        assert config.norm
        norm, width = config.norm, config.channels
        blur = config.downsampling == "blur"
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 4, 1 if blur else 2, 1), nn.LeakyReLU(0.2), *([BlurPool()] if blur else [])
        )
        blocks = []
        for layer in range(1, config.layers + 1):
            inward, width = width, config.channels * min(2**layer, 8)
            halves = layer < config.layers
            blocks.append(
                nn.Sequential(
                    nn.Conv2d(inward, width, 4, 2 if halves and not blur else 1, 1, bias=has_bias(norm)),
                    norm_layer(norm, width),
                    nn.LeakyReLU(0.2),
                    *([BlurPool()] if halves and blur else []),
                )
            )
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(width, 1, 4, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, 1, h, w) logits."""
        return self.head(self.blocks(self.stem(images)))


class PixelGAN(nn.Module):
    """Maps (B, in_channels, H, W) to logits (B, 1, H, W), one for each pixel.

    Args:
        config: width and norm, which must be filled in.
        in_channels: channels of the images.
    """

    def __init__(self, config: PixelGANConfig, in_channels: int) -> None:
        super().__init__()
        assert config.norm
        width = config.channels
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 1), nn.LeakyReLU(0.2))
        self.blocks = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1, bias=has_bias(config.norm)),
            norm_layer(config.norm, 2 * width),
            nn.LeakyReLU(0.2),
        )
        self.head = nn.Conv2d(2 * width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, 1, H, W) logits."""
        return self.head(self.blocks(self.stem(images)))
