"""Pairs in a few arrays, as `packed` has their paths."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from img2img.data.base import Pair
from img2img.data.packed import Packed, PackedPaths, PackedTexts, Places, pack_texts, pack_together


@dataclass(eq=False)
class PackedPairs(Packed[Pair]):
    """Pairs that differ in their name and files alone."""

    common: Pair
    """What else they are."""
    names: PackedTexts
    sources: PackedPaths
    targets: PackedPaths
    instances: PackedPaths | None = None

    def __len__(self) -> int:
        return len(self.names)

    def _make(self, place: int) -> Pair:
        common, instances = self.common, self.instances
        return Pair(
            self.names[place], self.sources[place], self.targets[place], common.half, common.derive, common.labels,
            None if instances is None else instances[place], common.ranges,
        )  # fmt: skip

    def take(self, places: Places) -> Self:
        """As of `Packed`; what was kept once still is."""
        texts: dict[int, PackedTexts] = {}

        def take(text: PackedTexts) -> PackedTexts:
            if id(text) not in texts:
                texts[id(text)] = text.take(places)
            return texts[id(text)]

        def pick(files: PackedPaths) -> PackedPaths:
            return replace(files, stems=take(files.stems), ending=files.ending[places])

        targets = pick(self.targets)
        return replace(
            self,
            names=take(self.names),
            sources=targets if self.sources is self.targets else pick(self.sources),
            targets=targets,
            instances=None if self.instances is None else pick(self.instances),
        )


def pack_pairs(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """The same pairs; packed, if they differ in their name and files alone."""

    def others(pair: Pair) -> tuple[object, ...]:
        kinds = type(pair.source), type(pair.target), type(pair.instances)
        return pair.half, pair.derive, pair.labels, pair.ranges, kinds

    if isinstance(pairs, PackedPairs) or len({others(pair) for pair in pairs}) != 1:
        return pairs
    sources = targets = pack_together([pair.target for pair in pairs])
    if any(pair.source != pair.target for pair in pairs):
        sources = pack_together([pair.source for pair in pairs])
    instances = [pair.instances for pair in pairs if pair.instances]
    return join_pairs(
        pairs[0],
        pack_texts(pair.name for pair in pairs),
        sources,
        targets,
        pack_together(instances) if instances else None,
    )


def join_pairs(
    common: Pair,
    names: PackedTexts,
    sources: PackedPaths,
    targets: PackedPaths,
    instances: PackedPaths | None = None,
) -> PackedPairs:
    """Pairs of names and files in the same order, whose texts are kept once if they are the same."""
    known: list[PackedTexts] = []

    def share(text: PackedTexts) -> PackedTexts:
        same = next((each for each in known if each.equals(text)), text)
        known.append(same)
        return same

    names, alone = share(names), sources is targets
    targets = replace(targets, stems=share(targets.stems))
    sources = targets if alone else replace(sources, stems=share(sources.stems))
    if instances is not None:
        instances = replace(instances, stems=share(instances.stems))
    return PackedPairs(common, names, sources, targets, instances)


def change_pairs(pairs: Sequence[Pair], **changes: Any) -> Sequence[Pair]:
    """The pairs with other values in what they have in common."""
    if isinstance(pairs, PackedPairs):
        return replace(pairs, common=replace(pairs.common, **changes))
    return [replace(pair, **changes) for pair in pairs]


def turn_pairs(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """The pairs the other way round."""
    if isinstance(pairs, PackedPairs):
        common = replace(pairs.common, half="BA" if pairs.common.half else "")
        return replace(pairs, common=common, sources=pairs.targets, targets=pairs.sources)
    return [replace(p, source=p.target, target=p.source, half="BA" if p.half else "") for p in pairs]


def list_sources(pairs: Sequence[Pair]) -> Sequence[Path]:
    """The source of each pair."""
    return pairs.sources if isinstance(pairs, PackedPairs) else [pair.source for pair in pairs]


def list_targets(pairs: Sequence[Pair]) -> Sequence[Path]:
    """The target of each pair."""
    return pairs.targets if isinstance(pairs, PackedPairs) else [pair.target for pair in pairs]


def count_files(pairs: Sequence[Pair]) -> int:
    """Of all pairs: two of each, unless it is in one."""
    if isinstance(pairs, PackedPairs):
        return len(pairs) * (1 if pairs.sources is pairs.targets else 2)
    return sum(1 if pair.source == pair.target else 2 for pair in pairs)
