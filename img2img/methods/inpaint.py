"""Restoring masked images: the pretraining of UVCGAN (Torbunov et al. 2023), by which a generator learns shapes and edges without labels."""

import math
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.data.unpaired import UnpairedData
from img2img.methods.base import Batch, Losses, Method, MethodConfig, Outputs, Stage
from img2img.networks import GeneratorBaseConfig, GeneratorConfig, ResNetConfig
from img2img.networks.weights import Initialisation

CELLS = 8  # squares along the shorter side, each of which is masked or not: of 32 pixels at 256, as in the paper


class InpaintConfig(MethodConfig):
    """The paper's numbers."""

    data_kinds = (UnpairedData,)
    best_by: ClassVar[Literal["perceptual", "kid"]] = "kid"
    paper = "2203.02557"

    name: Annotated[Literal["inpaint"], tyro.conf.Suppress] = "inpaint"
    generator: GeneratorConfig = ResNetConfig()
    """The network that restores images."""
    masked: float = Field(0.4, gt=0, lt=1)
    """Share of the image that is masked, in squares."""

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "Inpaint":
        """The method with a fresh network."""
        return Inpaint(self, in_channels, out_channels, size)


class Inpaint(Method):
    """One generator, which restores images of both sides."""

    def __init__(self, config: InpaintConfig, in_channels: int, out_channels: int, size: int) -> None:
        if in_channels != out_channels:
            raise UsageError(
                f"one generator can't restore images of both sides, which have {in_channels} and {out_channels} channels: "
                "set --data.in-channels and --data.out-channels alike, or leave --pretrain out."
            )
        self.config = config
        resolved, generator = config.build_generator(config.generator, in_channels, out_channels, size, "instance")
        self.generator_configs = {"": resolved}
        self.networks: dict[str, nn.Module] = {"generator": generator}
        self.phases = (config.build_phase("G", ("generator",), self.generator_losses),)

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """Images of both sides, masked, and restored."""
        images = torch.cat([batch["source"], batch["target"]])
        masked = mask_squares(images, self.config.masked)
        restored = self.networks["generator"](masked)
        return Outputs(
            update, {"restored": restored, "images": images}, translations={"": (masked, restored.detach(), images)}
        )

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """The L1 distance to the whole image."""
        return {"G/l1": F.l1_loss(outputs.images["restored"].float(), outputs.images["images"])}


def mask_squares(images: Tensor, share: float) -> Tensor:
    """(B, C, H, W) → the same, of which about that share is 0, in squares (see `CELLS`) drawn for each image."""
    height, width = images.shape[2:]
    side = max(1, min(height, width) // CELLS)
    cells = torch.rand(len(images), 1, math.ceil(height / side), math.ceil(width / side), device=images.device) >= share
    kept = cells.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width]
    return images * kept


def pretraining_stage(
    updates: int, generator: GeneratorBaseConfig, lr: float, initialisation: Initialisation, gain: float
) -> Stage | None:
    """The stage in which a method's generators learn to restore images; None for no updates."""
    if not updates:
        return None
    method = InpaintConfig(generator=generator, lr=lr, initialisation=initialisation, initialisation_gain=gain)
    text = f"First stage: the generator learns to restore masked images, for {updates} updates."
    return Stage("pretrained", method, 0.0, 1, text, updates)
