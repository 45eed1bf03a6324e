"""The SPADE generator (Park et al. 2019): a label map modulates every normalisation, and nothing is lost by normalising it."""

import itertools
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from tyro.conf import Suppress

from img2img.core.errors import UsageError
from img2img.networks.generators.base import BYTES_PER_PLANE, GeneratorBaseConfig
from img2img.networks.layers import Block, ImageNetwork, InstanceNorm, Norm, SyncBatchNorm, resize_nearest

SPADENorm = Literal["sync-batch", "batch", "instance"]
DOUBLINGS = {"normal": 5, "more": 6, "most": 7}


class SPADEConfig(GeneratorBaseConfig):
    """What a SPADE generator is made of (Park et al. 2019, appendix A)."""

    tiling: ClassVar[Literal["exact", "blended"]] = "blended"

    kind: Literal["spade"] = "spade"
    """The network (`--generator.kind KIND --help` lists the options of another)."""
    channels: int = Field(64, ge=1)
    """Channels of the last block; 16 times as many in the first."""
    upsampling: Literal["normal", "more", "most"] = "normal"
    """How often the resolution is doubled: normal 5 times, more 6, most 7 (with one block more); the training size must be a multiple of 32, 64, 128."""
    norm: SPADENorm | None = None
    """What is modulated: sync-batch (over all processes, as in the paper), batch, or instance."""
    hidden: int = Field(128, ge=1)
    """Channels between the label map and its γ and β."""
    latent: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Numbers that describe a style; filled in if there is an encoder. Without, the first features come from the label map."""
    latent_size: Annotated[int | None, Suppress] = Field(None, ge=1)
    """Pixels a side of the first features, for training images; filled in if there is an encoder."""
    bias: Annotated[bool, Suppress] = False
    """Whether the first convolution of each block has a bias, as in weights that others trained, though the norm after it cancels it."""
    spectral_norm: Literal["blocks", "all", "none"] = "blocks"
    """Which weights are divided by their largest singular value while it is trained (Miyato et al. 2018): those of the blocks' convolutions, as in the published code; all, as in the paper's text; or none."""

    @property
    def bytes_per_pixel(self) -> int:
        """Memory for a pixel: label planes, features, and what modulates them."""
        return BYTES_PER_PLANE * (self.in_channels or 3) + 53 * self.channels + 7 * self.hidden

    @property
    def activations_per_pixel(self) -> int:
        """As much."""
        return self.bytes_per_pixel

    @property
    def has_spectral_norm(self) -> bool:
        """As it was chosen."""
        return self.spectral_norm != "none"

    def has_spectral_norm_at(self, layer: str) -> bool:
        """As it was chosen."""
        return self.spectral_norm == "all" or ".conv_" in layer

    @property
    def multiple(self) -> int:
        """Pixels of the output for one of the first features."""
        return int(2 ** DOUBLINGS[self.upsampling])

    def resolve(self, in_channels: int, out_channels: int, size: int, norm: Norm | None = None) -> Self:
        """Fills in what was left to the data: channels; and the norm, whatever the method's is elsewhere.

        Raises:
            UsageError: if images of `size` pixels don't fit.
        """
        least = 2 * self.multiple
        if size % self.multiple or size < least:
            below, above = size // self.multiple * self.multiple, (size // self.multiple + 1) * self.multiple
            raise UsageError(
                f"--size {size}: a SPADE generator with {DOUBLINGS[self.upsampling]} doublings needs a multiple of {self.multiple}, at least "
                f"{least}; use {f'{below} or ' if below >= least else ''}{max(least, above)}."
            )
        filled = {
            "in_channels": self.in_channels or in_channels,
            "out_channels": self.out_channels or out_channels,
            "norm": self.norm or "sync-batch",
        }
        return self.model_copy(update=filled)


class SPADE(nn.Module):
    """Spatially-adaptive normalisation (eqs. 1 and 3): γ(m) · norm(x) + β(m), with γ counted from 1.

    Args:
        channels: of what is normalised.
        in_channels: of the source, m.
        hidden: channels between.
        norm: without parameters of its own.
    """

    def __init__(self, channels: int, in_channels: int, hidden: int, norm: SPADENorm) -> None:
        super().__init__()
        kinds = {"batch": nn.BatchNorm2d, "sync-batch": SyncBatchNorm}
        self.norm = kinds[norm](channels, affine=False) if norm != "instance" else InstanceNorm()
        self.shared = nn.Sequential(nn.Conv2d(in_channels, hidden, 3, 1, 1), nn.ReLU())
        self.scale = nn.Conv2d(hidden, channels, 3, 1, 1)
        self.shift = nn.Conv2d(hidden, channels, 3, 1, 1)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(B, channels, H, W) and the source of the same size → (B, channels, H, W)."""
        between = self.shared(source)
        return self.norm(x) * (1 + self.scale(between)) + self.shift(between)


class SPADEBlock(Block):
    """A residual block of two modulated convolutions; the shortcut has one if the channels change (figure 4)."""

    def __init__(self, config: SPADEConfig, inward: int, outward: int) -> None:
        super().__init__()
        assert config.in_channels and config.norm
        middle = min(inward, outward)

        def build_norm(channels: int) -> SPADE:
            assert config.in_channels and config.norm
            return SPADE(channels, config.in_channels, config.hidden, config.norm)

        # the norm after conv_0 would cancel a bias
        self.norm_0, self.conv_0 = build_norm(inward), nn.Conv2d(inward, middle, 3, 1, 1, bias=config.bias)
        self.norm_1, self.conv_1 = build_norm(middle), nn.Conv2d(middle, outward, 3, 1, 1)
        self.has_shortcut = inward != outward
        if self.has_shortcut:
            self.norm_s, self.conv_s = build_norm(inward), nn.Conv2d(inward, outward, 1, bias=False)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(B, inward, H, W) and the source of any size → (B, outward, H, W)."""
        seen = resize_nearest(source, *x.shape[2:])
        done = self.conv_0(F.leaky_relu(self.norm_0(x, seen), 0.2))
        done = self.conv_1(F.leaky_relu(self.norm_1(done, seen), 0.2))
        return done + (self.conv_s(self.norm_s(x, seen)) if self.has_shortcut else x)


class SPADEGenerator(ImageNetwork):
    """Maps (B, in_channels, H, W), and perhaps a style, to (B, out_channels, H, W) in [-1, 1]; H and W are multiples of `size_multiple`.

    The size of the output is the source's: with a style, too, whose first features are made for the training size and scaled
    to the one that is asked for.
    """

    def __init__(self, config: SPADEConfig) -> None:
        super().__init__()
        assert config.in_channels and config.out_channels
        self.size_multiple = config.multiple
        self.min_size = 2 * config.multiple  # the statistics of a single pixel say nothing
        width = config.channels
        self.latent, self.latent_size = config.latent, config.latent_size
        if config.latent:
            assert config.latent_size
            self.stem: nn.Module = nn.Linear(config.latent, 16 * width * config.latent_size**2)
        else:
            self.stem = nn.Conv2d(config.in_channels, 16 * width, 3, 1, 1)
        widths = [16 * width] * 3 + [16 * width // 2**level for level in range(5)]
        if config.upsampling == "most":
            widths.append(max(1, width // 2))
        self.blocks = nn.ModuleList(SPADEBlock(config, *around) for around in itertools.pairwise(widths))
        # the resolution is doubled before a block; between the two in the middle only if there are more than 5 doublings
        self.doubled = [False, True, config.upsampling != "normal"] + [True] * (len(self.blocks) - 3)
        self.head = nn.Conv2d(widths[-1], config.out_channels, 3, 1, 1)

    def forward(self, source: Tensor, style: Tensor | None = None) -> Tensor:
        """(B, in_channels, H, W), and with an encoder the style (B, latent), or (1, latent) for all → (B, out_channels, H, W) in [-1, 1]."""
        height, width = (side // self.size_multiple for side in source.shape[2:])
        if self.latent and self.latent_size:
            style = source.new_zeros(source.shape[0], self.latent) if style is None else style
            x = self.stem(style).unflatten(1, (-1, self.latent_size, self.latent_size))
            if x.shape[2:] != (height, width):
                x = F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
        else:
            x = self.stem(resize_nearest(source, height, width))
        for block, doubled in zip(self.blocks, self.doubled, strict=True):
            x = block(resize_nearest(x, 2 * x.shape[2], 2 * x.shape[3]) if doubled else x, source)
        return torch.tanh(self.head(F.leaky_relu(x, 0.2)))
