"""An exponential moving average of a network's weights."""

import torch
from torch import nn

from img2img.networks.weights import collect_plain_state, copy_without_spectral_norm


class EMA:
    """Keeps a second network whose weights are the moving average of the first's (Karras et al. 2018, §4).

    The decay warms up as min(decay, (1 + n) / (10 + n)) at the n-th update, so that the first weights, which are noise,
    are soon forgotten. What is averaged are the weights as they are used, without spectral norm. Running statistics are averaged alike, for they belong to the weights; counters are copied.

    Args:
        decay: share of the average that stays at each update, in (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.network = copy_without_spectral_norm(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Takes in the weights after an optimizer update."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        mine, theirs = self.network.state_dict(), collect_plain_state(network)
        names = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in names], [theirs[name] for name in names], 1 - decay)
        for name in mine.keys() - set(names):
            mine[name].copy_(theirs[name])
