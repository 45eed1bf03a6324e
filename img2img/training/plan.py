"""What of the networks is trained, how fast, and from when on: all of it at once, unless something was trained before."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from img2img.methods.base import Phase


@dataclass(frozen=True)
class Plan:
    """By network and parameter."""

    frozen: Mapping[str, Set[str]] = field(default_factory=dict)
    """What stays as it is."""
    factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of learning rates, where they aren't 1."""
    warmup: int = 0
    """Updates in which only what makes no images is trained."""

    def freeze(self, networks: Mapping[str, nn.Module]) -> None:
        """Frozen parameters take no gradients, and norms and spectral norms of such keep their statistics."""
        for name, frozen in self.frozen.items():
            self.thaw(name, networks[name])
            for layer, module in networks[name].named_modules():
                within = layer if isinstance(module, nn.BatchNorm2d) and module.affine else layer.rpartition(".")[0]
                if isinstance(module, nn.BatchNorm2d) and _all_in(frozen, networks[name], within):
                    module.eval()
                elif parametrize.is_parametrized(module) and f"{layer}.parametrizations.weight.original" in frozen:
                    module.get_submodule("parametrizations.weight").eval()  # the power iteration of spectral norm

    def thaw(self, name: str, network: nn.Module) -> None:
        """Lets a network's parameters take gradients, but those that are frozen."""
        frozen = self.frozen.get(name, ())
        for own, parameter in network.named_parameters():
            parameter.requires_grad_(own not in frozen)

    def groups(self, phase: Phase, networks: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
        """What a phase trains, as an optimizer takes it: together what learns equally fast."""
        found: dict[float, list[nn.Parameter]] = {}
        for name in phase.trains:
            frozen, factors = self.frozen.get(name, ()), self.factors.get(name, {})
            for own, parameter in networks[name].named_parameters():
                if own not in frozen:
                    found.setdefault(factors.get(own, 1.0), []).append(parameter)
        return [{"params": parameters, "factor": factor} for factor, parameters in found.items()]


def _all_in(frozen: Set[str], network: nn.Module, module: str) -> bool:
    """Whether all parameters of a module, of which there must be some, are frozen."""
    names = [f"{module}.{name}" for name, _ in network.get_submodule(module).named_parameters()]
    return bool(names) and all(name in frozen for name in names)
