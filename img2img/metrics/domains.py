"""Scores of translations between domains: each is compared with real images of the domain that was asked for."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from img2img.metrics.distribution import distances


def choose_other_domains(labels: Sequence[int]) -> tuple[int, ...]:
    """For each image of a domain, another domain to translate it to: of a domain's images, the others in turn; its own if there is no other."""
    count, seen, found = max(labels) + 1, Counter[int](), list[int]()
    for label in labels:
        found.append((label + 1 + seen[label] % max(1, count - 1)) % count)
        seen[label] += 1
    return tuple(found)


def compare_domains(made: list[tuple[int, Tensor]], real: list[tuple[int, Tensor]]) -> dict[str, float]:
    """The mean over domains of KID and FID, of features (1, D) with their domains."""
    found: list[dict[str, float]] = []
    for domain in sorted({domain for domain, _ in real}):
        sides = [[each for other, each in side if other == domain] for side in (made, real)]
        found.append(distances(*(torch.cat(side) for side in sides)) if all(sides) else {})
    return {name: sum(each[name] for each in found) / len(found) for name in found[0]} if all(found) else {}
