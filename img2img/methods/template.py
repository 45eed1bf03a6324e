"""A method to copy: one generator, trained by the L1 distance to the target. See docs/add-a-paper.md.

To make it trainable, give METHODS in `img2img/methods/__init__.py` a line: ``"template": "template.TemplateConfig"``.
"""

from typing import Annotated, Literal

import torch.nn.functional as F
import tyro
from torch import nn

from img2img.data.paired import PairedData
from img2img.methods.base import Batch, Losses, Method, MethodConfig, Outputs
from img2img.networks import GeneratorConfig, UNetConfig


class TemplateConfig(MethodConfig):
    """The paper's numbers; each field is an option of the command line."""

    data_kinds = (PairedData,)

    name: Annotated[Literal["template"], tyro.conf.Suppress] = "template"
    generator: GeneratorConfig = UNetConfig()
    """The network that translates."""

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "Template":
        """The method with fresh networks."""
        return Template(self, in_channels, out_channels, size)


class Template(Method):
    """The networks, and the phases in the paper's order of updates."""

    def __init__(self, config: TemplateConfig, in_channels: int, out_channels: int, size: int) -> None:
        resolved, generator = config.build_generator(config.generator, in_channels, out_channels, size)
        self.generator_configs = {"": resolved}
        self.networks: dict[str, nn.Module] = {"generator": generator}
        self.phases = (config.build_phase("G", ("generator",), self.generator_losses),)

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """What several phases share."""
        fake = self.networks["generator"](batch["source"])
        translations = {"": (batch["source"], fake.detach(), batch["target"])}
        return Outputs(update, {"fake": fake}, translations=translations)

    def generator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Weighted losses by name; the trainer sums and logs them."""
        return {"G/l1": F.l1_loss(outputs.images["fake"].float(), batch["target"])}
