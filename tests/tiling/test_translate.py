"""What is computed at once: by the memory that it needs, and by what happens if that is not enough."""

from typing import Any

import pytest
import torch
from helpers.memory import measure_activations
from torch import Tensor, nn

from img2img.core.device import convolve_exactly
from img2img.networks import Pix2PixHDConfig, ResNetConfig, SPADEConfig, UNetConfig
from img2img.networks.layers import ImageNetwork
from img2img.tiling import translate as room
from img2img.tiling.translate import fits, translate

CONFIGS: list[Any] = [
    ResNetConfig(),
    ResNetConfig(channels=32, upsampling="resize", residual=True),
    ResNetConfig(downsampling="blur", upsampling="blur"),
    UNetConfig(),
    UNetConfig(upsampling="resize"),
    Pix2PixHDConfig(),
    Pix2PixHDConfig(enhancers=1),
    SPADEConfig(),
]
CONFIG: Any = ResNetConfig(channels=4, blocks=1).resolve(3, 3, 32)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.kind}-{getattr(config, 'upsampling', '')}")
def test_the_guess_of_a_networks_activations_is_close(config: Any) -> None:
    """Not too low, or a GPU's memory overflows, and images are computed twice; not much too high, or strips are taken in vain."""
    resolved = config.resolve(20 if config.kind == "spade" else 3, 3, 256)
    needed = measure_activations(resolved, 1024)
    assert needed <= resolved.activations_per_pixel <= 2.5 * needed


class Narrow(ImageNetwork):
    """A network on a device with memory for so many pixels."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.seen = most, list[tuple[int, ...]]()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        if x.shape[0] * x.shape[2] * x.shape[3] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.layers(x)


def test_what_is_too_much_at_once_is_computed_one_by_one_and_then_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    images, large = torch.randn(3, 3, 16, 16), []
    monkeypatch.setattr(
        room, "_translate_large", lambda network, image, *rest: (large.append(image), network.layers(image))[1]
    )
    network = Narrow(300)
    done = translate(network, images, None, torch.contiguous_format, CONFIG)
    assert torch.allclose(done, network.layers(images), atol=1e-6) and not large
    assert [shape[0] for shape in network.seen] == [3, 1, 1, 1]
    network = Narrow(200)
    done = translate(network, images, None, torch.contiguous_format, CONFIG)
    assert torch.allclose(done, network.layers(images), atol=1e-6) and len(large) == 3
    with pytest.raises(torch.OutOfMemoryError):  # who says "never in strips" is told
        translate(network, images[:1], 0, torch.contiguous_format, CONFIG)
    network.only_whole = True
    with pytest.raises(torch.OutOfMemoryError):
        translate(network, images[:1], None, torch.contiguous_format, CONFIG)


def test_half_precision_needs_half_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGPU:
        device = torch.device("cuda", 0)

        def __init__(self, size: int) -> None:
            self.size = size

        def element_size(self) -> int:
            return self.size

    def computed_at_once(free: float, size: int, batch: int = 1) -> bool:
        monkeypatch.setattr(room, "free_memory", lambda device: int(free))
        network = Narrow(0)
        monkeypatch.setattr(network, "parameters", lambda: iter([OnGPU(size)]))
        return fits(network, CONFIG, 1000, 1000, None, batch)

    needed = CONFIG.activations_per_pixel * 1000 * 1000
    assert computed_at_once(1.3 * needed, 4) and not computed_at_once(1.2 * needed, 4)
    assert computed_at_once(0.65 * needed, 2) and not computed_at_once(0.6 * needed, 2)
    assert computed_at_once(2 * 1.3 * needed, 4, 2) and not computed_at_once(1.3 * needed, 4, 2)


def test_convolutions_are_exact_within_and_as_they_were_afterwards() -> None:
    def precision() -> str:
        new = getattr(torch.backends.cudnn, "conv", None)
        return new.fp32_precision if new else "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"

    gpu, before = torch.device("cuda"), precision()
    with convolve_exactly(gpu):
        assert precision() == "ieee"
        with convolve_exactly(gpu, False):
            assert precision() == "tf32"
        assert precision() == "ieee"
        with convolve_exactly(torch.device("cpu"), False):
            assert precision() == "ieee", "elsewhere it is nobody's business"
    assert precision() == before
    torch.randn(1)  # and nothing else is disturbed
    assert isinstance(torch.backends.cudnn.allow_tf32, bool)
