"""Strips give the whole image's result."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from img2img.core.errors import UserError
from img2img.networks import ResNetConfig, build_generator, initialise
from img2img.networks.generators.pix2pixhd import Pix2PixHDConfig
from img2img.networks.generators.unet import UNetConfig
from img2img.networks.layers import ZeroConv2d
from img2img.tiling import store as room
from img2img.tiling.rows import PointwiseRows
from img2img.tiling.strips import Budget, NotInStripsError, run_in_strips

SMALL = {"channels": 4, "blocks": 2}
CONFIGS = [
    ResNetConfig(**SMALL),
    ResNetConfig(**SMALL, downsampling="blur", upsampling="blur"),
    ResNetConfig(**SMALL, upsampling="resize", norm="batch", dropout=0.5),
    ResNetConfig(**SMALL, norm="group"),
    ResNetConfig(**SMALL, padding="replicate"),
    ResNetConfig(**SMALL, padding="zero", bias=True),
    ResNetConfig(**SMALL, residual=True, out_channels=3),
    Pix2PixHDConfig(channels=8, downsampling=2, blocks=1),
    Pix2PixHDConfig(channels=8, downsampling=1, blocks=1, enhancers=2, enhancer_blocks=1),
    UNetConfig(channels=4, depth=3),
    UNetConfig(channels=4, depth=2, upsampling="resize", norm="instance"),
    UNetConfig(channels=4, depth=2, upsampling="blur", norm="group"),
]


def network_of(config: Any) -> nn.Module:
    torch.manual_seed(0)
    network = initialise(build_generator(config.resolve(3, 2, 32)), "xavier", 1.0).eval()
    for layer in network.modules():
        if isinstance(layer, ZeroConv2d):
            layer.weight.data.normal_(0, 0.1)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize(
    "config",
    CONFIGS,
    ids=lambda config: "-".join(
        str(getattr(config, name, "")) for name in ("kind", "upsampling", "norm", "padding", "residual")
    ),
)
@pytest.mark.parametrize("elements", [1, 700, 10**9])
def test_strips_give_the_result_of_the_whole_image(config: Any, elements: int) -> None:
    network, image = network_of(config), torch.randn(1, 3, 40, 24).tanh()
    image[:, :, 20:] *= 0.1  # the norms' statistics differ from strip to strip
    done = run_in_strips(network, image, Budget(elements, 0 if elements == 1 else 10**9))
    with torch.no_grad():
        assert torch.allclose(done, network(image), atol=1e-4)


@pytest.mark.parametrize("config", [ResNetConfig(**SMALL, norm="batch"), UNetConfig(channels=4, depth=3)])
def test_the_batchs_own_statistics_are_the_whole_images(config: Any) -> None:
    network, image = network_of(config), torch.randn(1, 3, 40, 24)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.training, layer.track_running_stats = True, False
    with torch.no_grad():
        assert torch.allclose(run_in_strips(network, image, Budget(500, 10**9)), network(image), atol=1e-4)


def test_dropout_draws_each_value_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.near, self.far = nn.Dropout(0.5), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 5, padding=2)
            for layer in (self.near, self.far):
                nn.init.dirac_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            x = self.drop(x)
            return self.near(x) + self.far(x)

    done = run_in_strips(Twice().train(), torch.ones(1, 1, 30, 8), Budget(16, 10**9))
    assert set(done.unique().tolist()) == {0.0, 4.0}, "both branches see the same drops, also across strips"


def test_bf16_stays_bf16() -> None:
    network = network_of(CONFIGS[0]).bfloat16()
    image = torch.randn(1, 3, 40, 24).tanh()
    done = run_in_strips(network, image, Budget(700, 10**9))
    assert done.dtype == torch.bfloat16
    with torch.no_grad():
        assert (done - network(image.bfloat16())).abs().mean() < 0.02


def test_what_needs_the_whole_image_is_named() -> None:
    class Global(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    class Undecided(Global):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.mean() > 0 else -x

    class Product(Global):
        def forward(self, x: Tensor) -> Tensor:
            return self.layers[0](x) * x

    image = torch.randn(1, 3, 8, 8)
    with pytest.raises(NotInStripsError, match="mul"):
        run_in_strips(Product(), image, Budget(10, 10))
    with pytest.raises(NotInStripsError, match="AdaptiveAvgPool2d"):
        run_in_strips(Global(), image, Budget(10, 10))
    with pytest.raises(NotInStripsError, match="traced"):
        run_in_strips(Undecided(), image, Budget(10, 10))


def test_the_store_goes_to_a_file_beyond_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = room.Store(100)
    small, large = store.lend(80), store.lend(24)
    assert isinstance(large, np.memmap) and not isinstance(small, np.memmap)
    assert room.tensor_in(large, (1, 2, 3, 2), torch.bfloat16).fill_(2).shape == (1, 2, 3, 2)
    assert not any(tmp_path.iterdir()), "nothing is left behind, however the process ends"
    store.give_back(small)
    assert store.lend(41) is small, "what was given back is lent again"
    store.give_back(small)
    assert not isinstance(store.lend(30), np.memmap), "what is much too large makes space"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="set TMPDIR"):
        store.lend(100)


def test_few_tensors_are_stored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lent: list[int] = []
    lend = room.Store.lend

    def counting(self: room.Store, size: int) -> Any:
        if not any(size <= buffer.nbytes <= 2 * size for buffer in self.free):
            lent.append(size)
        return lend(self, size)

    monkeypatch.setattr(room.Store, "lend", counting)
    run_in_strips(network_of(ResNetConfig(channels=4, blocks=6)), torch.randn(1, 3, 32, 32), Budget(10**6, 10**9))
    of_blocks = [size for size in lent if size == 16 * 8 * 8 * 4]
    assert len(of_blocks) <= 4, "six blocks share their buffers"


def test_strips_are_low_where_what_they_are_computed_from_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[int] = []
    rows = PointwiseRows.rows

    def watching(self: PointwiseRows, first: int, last: int) -> Tensor:
        done = rows(self, first, last)
        most.append(done.numel())
        return done

    monkeypatch.setattr(PointwiseRows, "rows", watching)
    network, limit = network_of(ResNetConfig(channels=8, blocks=1)), 8 * 64 * 4
    run_in_strips(network, torch.randn(1, 3, 64, 64), Budget(limit, 10**9))
    assert max(most) <= limit + 8 * 64 * 8, "the last layer has 3 channels of 8, but reads 6 rows more than it makes"
