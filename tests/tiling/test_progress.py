"""How much of a large image is done."""

import threading

import pytest
import torch

from img2img.networks import ResNetConfig, UNetConfig, build_generator
from img2img.tiling.progress import report_share, watch_large_images
from img2img.tiling.strips import Budget, run_in_strips
from img2img.tiling.translate import blend_tiles, translate

CONFIGS = [
    UNetConfig(channels=4, depth=3).resolve(3, 3, 64),
    UNetConfig(channels=4, depth=2, norm="instance").resolve(3, 3, 64),
    ResNetConfig(channels=4, blocks=2).resolve(3, 3, 64),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.kind}-{config.norm}")
def test_strips_count_up_to_the_whole(config: UNetConfig | ResNetConfig) -> None:
    network, shares = build_generator(config).eval(), []
    with watch_large_images(shares.append):
        run_in_strips(network, torch.randn(1, 3, 96, 64), Budget(elements=3_000, in_memory=10**8))
    assert len(shares) > 5 and shares == sorted(shares) and 0 < shares[0] < 0.5 and shares[-1] == 1
    report_share(0.5)  # nobody watches any more
    assert shares[-1] == 1


def test_tiles_count_too() -> None:
    shares: list[float] = []
    with watch_large_images(shares.append):
        blend_tiles(build_generator(CONFIGS[2]).eval(), torch.randn(1, 3, 80, 40), 32)
    assert shares[-1] == 1 and len(shares) == len(set(shares)) > 2


def test_what_a_watcher_raises_ends_it() -> None:
    config = CONFIGS[2]

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watch_large_images(stop):
        translate(build_generator(config).eval(), torch.randn(1, 3, 64, 64), 32, torch.contiguous_format, config)


def test_each_thread_watches_its_own() -> None:
    shares: list[float] = []
    with watch_large_images(shares.append):
        thread = threading.Thread(target=report_share, args=(0.5,))
        thread.start()
        thread.join()
    assert not shares
