"""Scores of translations between domains: each is compared with real images of the domain that was asked for."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from img2img.metrics.distribution import distances
from img2img.metrics.paired import OF


def choose_other_domains(labels: Sequence[int]) -> tuple[int, ...]:
    """For each image of a domain, another domain to translate it to: of a domain's images, the others in turn; its own if there is no other."""
    count, seen, found = max(labels) + 1, Counter[int](), list[int]()
    for label in labels:
        found.append((label + 1 + seen[label] % max(1, count - 1)) % count)
        seen[label] += 1
    return tuple(found)


def compare_domains(
    made: list[tuple[int, Tensor]], real: list[tuple[int, Tensor]], names: Sequence[str] = ()
) -> dict[str, float]:
    """The mean over domains of KID and FID, of features (1, D) with their domains; and, as ``kid of NAME``, those of each, if they have names.

    Nothing is measured if a domain has too few images.
    """
    found: dict[int, dict[str, float]] = {}
    for domain in sorted({domain for domain, _ in real}):
        sides = [[each for other, each in side if other == domain] for side in (made, real)]
        found[domain] = distances(*(torch.cat(side) for side in sides)) if all(sides) else {}
    if not all(found.values()):
        return {}
    means = {name: sum(each[name] for each in found.values()) / len(found) for name in next(iter(found.values()))}
    return means | {
        f"{measure}{OF}{names[domain]}": value
        for domain, each in (found.items() if names else ())
        for measure, value in each.items()
    }
