"""Semantic consistency: objects stay in place, as label maps of the sources say where they are (Hoffman et al. 2018, CyCADA, §3)."""

import math

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.data.labelled_sources import LabelledSourcesData
from img2img.data.unpaired import UnpairedData
from img2img.methods.base import Batch, Losses, Outputs, Phase
from img2img.methods.gan_losses import TranslationConfig
from img2img.networks import initialise
from img2img.networks.segmenter import Segmenter

NO_CLASS = -1
READY = 0.5  # of the entropy of a guess


class SemanticTranslationConfig(TranslationConfig):
    """What methods for unpaired images can be told about label maps of the sources."""

    data_kinds = (LabelledSourcesData, UnpairedData)

    semantic_weight: float = Field(0.0, ge=0)
    """Weight of semantic consistency, with label maps of the sources (--data.labels): a network that learns to find these labels in the sources must find the same ones in translations. 1 in CyCADA; 0 leaves it out."""
    segmenter_channels: int = Field(32, ge=1)
    """Channels of that network's first level."""

    def build_semantic(self, in_channels: int, out_channels: int, size: int, classes: int) -> "Semantic | None":
        """The loss, with a fresh network; None if it isn't asked for.

        Raises:
            UsageError: if there are no label maps, or nothing is done with them.
        """
        if not (classes or self.semantic_weight):
            return None
        if not self.semantic_weight:
            raise UsageError(
                "--data.labels: nothing is done with label maps; add --semantic-weight 1, or leave them out."
            )
        if not classes:
            raise UsageError("--semantic-weight needs label maps of the sources: add --data.labels FOLDER.")
        if in_channels != out_channels:
            raise UsageError(
                f"--semantic-weight: one network looks at sources and translations, so both need the same channels, not {in_channels} "
                f"and {out_channels}: set --data.in-channels and --data.out-channels alike."
            )
        if size % 2:
            raise UsageError(f"--size {size}: --semantic-weight needs an even size.")
        return Semantic(self, in_channels, size, classes)


class Semantic:
    """A segmenter that learns from the sources, and what it makes the generator do.

    It learns from real images only: from translations it would learn to agree with them.
    """

    def __init__(self, config: SemanticTranslationConfig, channels: int, size: int, classes: int) -> None:
        self.config, self.ready = config, READY * math.log(max(2, classes))
        network = Segmenter(channels, classes, size, config.segmenter_channels)
        self.networks: dict[str, nn.Module] = {
            "segmenter": initialise(network, config.initialisation, config.initialisation_gain)
        }

    def build_phase(self, networks: dict[str, nn.Module]) -> Phase:
        """The phase that trains the segmenter; `networks` are those of the method."""
        self.networks = networks
        return self.config.build_phase("S", ("segmenter",), self.segmenter_losses)

    def segmenter_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Cross-entropy of the labels that it finds in sources."""
        labels = batch["labels"][:, 0].long()
        logits = self.networks["segmenter"](batch["source"])
        loss = cross_entropy(logits, labels)
        known = labels != NO_CLASS
        right = ((logits.argmax(1) == labels) & known).sum() / known.sum().clamp(min=1)
        outputs.metrics["S/accuracy"] = right.detach()
        outputs.images["semantic_ready"] = (loss.detach() < self.ready).float()
        return {"S/labels": loss}

    def losses(self, fake: Tensor, outputs: Outputs, batch: Batch, flip: bool = False) -> Losses:
        """Cross-entropy of the labels that the segmenter finds in translations, once it finds those of the sources.

        Args:
            flip: whether the translations are of mirrored sources.
        """
        labels = batch["labels"][:, 0].long()
        logits = self.networks["segmenter"](fake)
        loss = cross_entropy(logits, labels.flip(2) if flip else labels)
        return {"G/semantic": self.config.semantic_weight * outputs.images["semantic_ready"] * loss}


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, classes, H, W) and (B, H, W) of integers → the mean over pixels that have a class; 0 if none has."""
    total = F.cross_entropy(logits.float(), labels, ignore_index=NO_CLASS, reduction="sum")
    return total / (labels != NO_CLASS).sum().clamp(min=1)
