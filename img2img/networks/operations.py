"""How much a generator computes, and smaller generators of its family."""

from collections.abc import Iterator

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from img2img.networks import GeneratorConfig, build_generator

WIDTHS = (1, 2, 4, 8, 12)  # and multiples of 8 from 16 on, which processors compute fastest


def count_multiply_adds(config: GeneratorConfig, height: int, width: int) -> int:
    """Multiply-adds of convolutions, linear layers and attention, for one image of this size, of the generator that a resolved config describes; in all its steps.

    Nothing is computed or allocated for it.
    """
    assert config.in_channels
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = build_generator(config).eval()
        network(torch.empty(1, config.in_channels, height, width))
    return int(counter.get_total_flops()) // 2 * (getattr(config, "steps", None) or 1)


def list_narrower(config: GeneratorConfig) -> Iterator[GeneratorConfig]:
    """The same architecture with fewer channels, the widest first; without dropout, in one step, and without what only training needs.

    A SPADE generator also gets fewer channels between the label map and its γ and β, which take most of its multiply-adds.
    """
    plain = {"dropout": 0.0, "spectral_norm": "none", "steps": None}
    kept = {name: value for name, value in plain.items() if name in type(config).model_fields}
    for channels in (*range(config.channels // 8 * 8, 15, -8), *reversed(WIDTHS)):
        if channels < config.channels:
            hidden = getattr(config, "hidden", None)
            kept |= {"hidden": -(-hidden * channels // config.channels)} if hidden else {}
            yield config.model_copy(update={**kept, "channels": channels})
