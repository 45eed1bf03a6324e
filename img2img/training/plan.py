"""What of the networks is trained, how fast, and from when on: all of it at once, unless something was trained before."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from torch import nn

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
        """Frozen parameters take no gradients, and batch norms of such keep their statistics."""
        for name, frozen in self.frozen.items():
            self.thaw(name, networks[name])
            for layer, module in networks[name].named_modules():
                if isinstance(module, nn.BatchNorm2d) and f"{layer}.weight" in frozen:
                    module.eval()

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
