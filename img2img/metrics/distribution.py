"""How near a set of images is to another set, by the features that a network finds in them: KID and FID."""

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.core.downloads import Weights, read_tensors
from img2img.core.errors import UsageError
from img2img.images import Array
from img2img.metrics.classifiers import CLASSIFIERS, make_classifier
from img2img.metrics.perceptual import LiteFeatures, prepare_image

Features = Literal["lite", "inception", "random", "resnet18", "resnet50", "vgg16", "efficientnet_b0"]

INCEPTION = Weights(
    "Inception",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    96,
)
FEATURE_NAMES = {
    "lite": "EfficientNet-Lite0",
    "inception": "Inception",
    "random": "a network with random weights",
    **{name: f"the given {name}" for name in CLASSIFIERS},
}
SUBSETS = 50
SUBSET = 100  # images in a subset of KID, or as many as there are
FEWEST = 10  # images of a side, below which nothing is measured


def find_weights(kind: Features, weights: Path | None, say: Callable[[str], None]) -> Path | None:
    """Where the weights of the network are whose features are compared; None if they come with it. Downloads them if they are wanted and not there.

    Args:
        kind: ``lite`` is `metrics.perceptual.LiteFeatures`, always at hand; ``inception`` FID's own; ``random`` a VGG-16
            with random weights (Naeem et al. 2020, §5), which looks at images shrunk to 64 pixels and misses fine
            artefacts; the others are classifiers of torchvision, whose weights must be given. Numbers compare only with
            those of the same network.
        weights: a file of such a classifier's weights, or of Inception's (.pth or .safetensors); by default PyTorch's cache, else they are downloaded.

    Raises:
        UsageError: if the weights are not to be had.
    """
    if kind in ("lite", "random"):
        if weights is not None:
            raise UsageError(f"--feature-weights are for other features than --features {kind}; leave one out.")
        return None
    if weights is not None and not weights.is_file():
        raise UsageError(f"--feature-weights {weights}: there is no such file.")
    if kind in CLASSIFIERS:
        if weights is None:
            raise UsageError(f"--features {kind} needs a file of its weights: --feature-weights FILE.")
        return weights
    remedy = "give a file of them with --feature-weights, or take --features lite, which needs none."
    return weights or INCEPTION.fetch(say, remedy)


def make_extractor(kind: Features, weights: Path | None) -> nn.Module:
    """A module from uint8 images (B, 3, H, W) to features (B, D), with the weights that `find_weights` found.

    Raises:
        UsageError: if the file holds no such weights.
    """
    if kind == "lite":
        return LiteFeatures()
    if kind == "random":
        return RandomVGG()
    assert weights is not None
    if kind in CLASSIFIERS:
        return make_classifier(kind, weights)
    return _inception(weights)


class RandomVGG(nn.Module):
    """The convolutions of VGG-16 with He's random weights, the same ones everywhere, and the mean and deviation of its last two stages."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        layers: list[nn.Module] = []
        channels = 3
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3)):
            for _ in range(count):
                with torch.device("meta"):
                    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
                scale = (2 / (9 * channels)) ** 0.5
                drawn = torch.randn(convolution.weight.shape, generator=generator) * scale
                convolution.weight = nn.Parameter(drawn, requires_grad=False)
                layers += [convolution, nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers).eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 → (B, 1024)."""
        x = images.float() / 127.5 - 1
        x = F.interpolate(x, (64, 64), mode="bilinear", antialias=True, align_corners=False)
        x = self.layers(x)
        return torch.cat([x.mean((2, 3)), x.std((2, 3))], dim=1)


def features(extractor: nn.Module, images: Sequence[Array], device: torch.device) -> Tensor:
    """The features (N, D), fp32 on the CPU, of images (H, W, C), uint8 or uint16 of any size."""
    return features_and_logits(extractor, images, device)[0]


@torch.no_grad()
def features_and_logits(
    extractor: nn.Module, images: Sequence[Array], device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The features, as `features`; and logits (N, classes), if the network gives such beside them."""
    found: list[tuple[Tensor, ...]] = []
    for image in images:
        done = extractor(prepare_image(image)[None].to(device))
        found.append(tuple(each.float().cpu() for each in (done if isinstance(done, tuple) else (done,))))
    if not found:
        return torch.empty(0, 0), None
    columns = [torch.cat(column) for column in zip(*found, strict=True)]
    return columns[0], columns[1] if len(columns) > 1 else None


class _Precomputed(nn.Module):
    """Stands where torchmetrics wants a network: the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, found: Tensor) -> Tensor:
        return found


def distances(images: Tensor, truth: Tensor) -> dict[str, float]:
    """KID and FID of features (N, D) against features (M, D), as torchmetrics computes them.

    ``kid``: the unbiased kernel distance (Bińkowski et al. 2018, eq. 4), mean of subsets of up to 100 images, times 1; lower
    is nearer, and about 0, or slightly below, for sets of one kind. ``fid``: the Fréchet distance (Heusel et al. 2017, eq. 6),
    biased upwards on few images: compare it only between sets of one size.

    Draws no random numbers from the global generator. Empty for sets of less than 10 images.
    """
    few = min(len(images), len(truth))
    if few < FEWEST:
        return {}
    from torchmetrics.image.fid import FrechetInceptionDistance  # slow to import
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that features are kept in memory, which is meant
        given = _Precomputed(images.shape[1])
        alone: Any = {"sync_on_compute": False}  # the features are those of all processes already
        kid = KernelInceptionDistance(given, subsets=SUBSETS, subset_size=min(SUBSET, few), **alone)
    fid = FrechetInceptionDistance(given, **alone)
    for metric in (kid, fid):
        metric.update(truth, real=True)
        metric.update(images, real=False)
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)  # torch.manual_seed would reach GPUs, too
    mean, _ = kid.compute()
    torch.set_rng_state(state)
    return {"kid": mean.item(), "fid": fid.compute().item()}


def _inception(weights: Path) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = read_tensors(weights)
        with _write_temporary(state) as safe, torch.random.fork_rng([]):
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=safe
            )
    except Exception as error:  # whatever a damaged file, or one of another network, makes PyTorch say
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--feature-weights {weights}: these are no Inception weights ({reason}).") from None
    return network


@contextmanager
def _write_temporary(state: dict[str, Tensor]) -> Iterator[str]:
    """A file that we wrote ourselves, for torch-fidelity reads its file as a pickle."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "weights.pth")
        torch.save(state, file)
        yield str(file)
