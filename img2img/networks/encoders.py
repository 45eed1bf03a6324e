"""Encoders that read the style of an image: of every instance (pix2pixHD), or of the whole (SPADE)."""

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.core.errors import UsageError
from img2img.core.settings import Strict
from img2img.networks.labels import instance_means
from img2img.networks.layers import ImageNetwork, InstanceNorm, Norm, ReflectionPad, has_bias, norm_layer

MOST_LATENT_PIXELS = 4  # a side, of what the whole image is reduced to


class InstanceEncoderConfig(Strict):
    """What the encoder of instances is made of (Wang et al. 2018, §3.4)."""

    needs_label_maps: ClassVar[bool] = True
    """Whether it is trained on label maps and images only."""
    needs_size_multiple: ClassVar[bool] = True
    """Whether it takes images of multiples of some size only."""

    kind: Annotated[Literal["instances"], Suppress] = "instances"
    in_channels: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Channels of the images; filled in from the data."""
    channels: int = Field(16, ge=1)
    """Channels of its stem; they double per downsampling."""
    downsampling: int = Field(4, ge=1, le=6)
    """Convolutions with stride 2."""
    features: int = Field(3, ge=1, le=64)
    """Numbers that describe the style of an instance."""
    bias: Annotated[bool, Suppress] = False
    """Whether convolutions before norms have biases, as in weights that others trained, though the norms cancel them."""


class ImageEncoderConfig(Strict):
    """What the encoder of whole images is made of (Park et al. 2019, appendix A, figure 14)."""

    needs_label_maps: ClassVar[bool] = False
    needs_size_multiple: ClassVar[bool] = False

    kind: Annotated[Literal["image"], Suppress] = "image"
    in_channels: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Channels of the images; filled in from the data."""
    channels: int = Field(64, ge=1)
    """Channels of its first convolution; they double per convolution, up to 8 times this."""
    size: int | None = Field(None, ge=8, le=1024)
    """Pixels a side to which every image is scaled, a power of two; by default the paper's 256, or less if the training images are smaller."""
    latent: int = Field(256, ge=1)
    """Numbers that describe the style of an image."""
    norm: Norm = "instance"
    """Normalisation after every convolution."""

    def resolve(self, in_channels: int, size: int) -> "ImageEncoderConfig":
        """Fills in what was left to the data: channels, and the size for training images of `size` pixels.

        Raises:
            UsageError: if the size is no power of two.
        """
        chosen = self.size or min(256, 1 << (max(8, size).bit_length() - 1))
        if chosen & (chosen - 1):
            raise UsageError(f"--image-encoder.size {chosen}: give a power of two, such as 256.")
        return self.model_copy(update={"in_channels": in_channels, "size": chosen})


def draw_code(mean: Tensor, logvar: Tensor) -> Tensor:
    """A code that is normally distributed, (B, latent) in fp32, with gradients for both (Kingma & Welling 2014, §2.4)."""
    mean, logvar = mean.float(), logvar.float()
    return mean + torch.randn_like(mean) * (0.5 * logvar).exp()


class InstanceEncoder(ImageNetwork):
    """Maps an image to features that are the same at all pixels of an instance; H and W are multiples of `size_multiple`."""

    def __init__(self, config: InstanceEncoderConfig) -> None:
        super().__init__()
        assert config.in_channels
        self.size_multiple, width = 2**config.downsampling, config.channels
        self.min_size = max(8, self.size_multiple)  # reflection padding by 3 needs 4 pixels
        bias = config.bias
        widths = [width * 2**level for level in range(config.downsampling + 1)]
        self.stem = nn.Sequential(
            ReflectionPad(3), nn.Conv2d(config.in_channels, width, 7, bias=bias), InstanceNorm(), nn.ReLU()
        )
        self.down = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(c, 2 * c, 3, 2, 1, bias=bias), InstanceNorm(), nn.ReLU()) for c in widths[:-1])
        )
        self.up = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ConvTranspose2d(c, c // 2, 3, 2, 1, output_padding=1, bias=bias), InstanceNorm(), nn.ReLU()
                )
                for c in widths[:0:-1]
            )
        )
        self.head = nn.Sequential(ReflectionPad(3), nn.Conv2d(width, config.features, 7), nn.Tanh())

    def forward(self, images: Tensor, instances: Tensor) -> Tensor:
        """(B, in_channels, H, W) in [-1, 1] and (B, H, W) of identities → (B, features, H, W) in [-1, 1]."""
        return instance_means(self.head(self.up(self.down(self.stem(images)))), instances)


class ImageEncoder(ImageNetwork):
    """Maps an image to the mean and the logarithm of the variance of its style: the encoder of a VAE."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        assert config.in_channels and config.size
        self.size, side, layers = config.size, config.size, []
        channels, width = config.in_channels, config.channels
        while side > MOST_LATENT_PIXELS:
            layers.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, 3, 2, 1, bias=has_bias(config.norm, None)),
                    norm_layer(config.norm, width),
                    nn.LeakyReLU(0.2),
                )
            )
            channels, width, side = width, min(2 * width, 8 * config.channels), side // 2
        self.down = nn.Sequential(*layers)
        self.mean = nn.Linear(channels * side * side, config.latent)
        self.logvar = nn.Linear(channels * side * side, config.latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_channels, H, W) in [-1, 1], of any size → mean and log-variance, (B, latent) each."""
        if images.shape[2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        x = self.down(images).flatten(1)
        return self.mean(x), self.logvar(x)
