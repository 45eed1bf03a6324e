"""CycleGAN: unpaired translation by cycle-consistent adversarial networks (Zhu et al. 2017)."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.losses.adversarial import Adversarial
from img2img.methods.base import Batch, Losses, Method, Outputs, Stage, is_independent
from img2img.methods.gan_losses import SMALL_UNPAIRED
from img2img.methods.image_pool import ImagePool
from img2img.methods.inpaint import pretraining_stage
from img2img.methods.semantic import SemanticTranslationConfig
from img2img.networks import GeneratorConfig, ResNetConfig
from img2img.networks.weights import load_plain_state

Side = Literal["A", "B"]
BATCH_KEY: dict[Side, str] = {"A": "source", "B": "target"}


class CycleGANConfig(SemanticTranslationConfig):
    """The paper's numbers."""

    directions: ClassVar[tuple[str, ...]] = ("AtoB", "BtoA")
    discriminators: ClassVar[tuple[str, ...]] = ("discriminator_A", "discriminator_B")
    best_by: ClassVar[Literal["perceptual", "kid"]] = "kid"
    paper = "1703.10593"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": SMALL_UNPAIRED}

    name: Annotated[Literal["cyclegan"], tyro.conf.Suppress] = "cyclegan"
    generator: GeneratorConfig = ResNetConfig()
    """Both networks that translate."""
    adversarial: Adversarial = "lsgan"
    """lsgan: least squares, as in the paper; vanilla: the minimax loss, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; hinge; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    cycle_weight: float = Field(10.0, ge=0)
    """λ of eq. 3: weight of the L1 distance to the source after there and back."""
    identity_weight: float = Field(0.5, ge=0)
    """Weight, times the cycle's, of leaving alone what is of the target domain already (§5.2); 0 leaves it out."""
    pool: int = Field(50, ge=0)
    """Earlier translations of each domain that the discriminators are shown, too; 0 for none."""
    pretrain: int = Field(0, ge=0)
    """Updates before all others in which the generator learns to restore masked images of both sides (Torbunov et al. 2023); 0 for none."""

    def earlier_stage(self) -> Stage | None:
        """Restoring masked images, if it is asked for."""
        return pretraining_stage(self.pretrain, self.generator, self.lr, self.initialisation, self.initialisation_gain)

    def without_stages(self) -> Self:
        """Without pretraining."""
        return self.model_copy(update={"pretrain": 0})

    def build(self, in_channels: int, out_channels: int, size: int, classes: int = 0) -> "CycleGAN":
        """The method with fresh networks."""
        return CycleGAN(self, in_channels, out_channels, size, classes)


class CycleGAN(Method):
    """Two generators, AtoB and BtoA, and a discriminator of each domain; both generators are updated first (§4, §7.1).

    The losses of the way A → B → A and of B → A → B share no activations: they are backpropagated one after the other,
    which needs half the memory and gives the same gradients.
    """

    generators: Mapping[str, str] = {"AtoB": "generator_AtoB", "BtoA": "generator_BtoA"}

    def __init__(
        self, config: CycleGANConfig, in_channels: int, out_channels: int, size: int, classes: int = 0
    ) -> None:
        self.config = config
        if config.identity_weight and in_channels != out_channels:
            raise UsageError(
                f"A has {in_channels} channels and B {out_channels}, so neither generator can be asked to leave the other "
                "side's images as they are; add --identity-weight 0."
            )
        channels = {"A": in_channels, "B": out_channels}
        self.generator_configs: dict[str, Any] = {}
        self.networks: dict[str, nn.Module] = {}
        for direction, name in self.generators.items():
            source, _, target = direction.partition("to")
            self.generator_configs[direction], self.networks[name] = config.build_generator(
                config.generator, channels[source], channels[target], size, "instance"
            )
        for side, count in channels.items():
            self.networks[f"discriminator_{side}"] = config.build_discriminator(count, size)
        self.semantic = config.build_semantic(in_channels, out_channels, size, classes)
        self.networks |= self.semantic.networks if self.semantic else {}
        self.adversarial = config.build_adversarial_loss()
        seeds = torch.randint(2**31, (2,)).tolist()
        self.pools = {side: ImagePool(config.pool, seed) for side, seed in zip(BATCH_KEY, seeds, strict=True)}
        self.memories = {f"pool_{side}": pool for side, pool in self.pools.items()} | self.adversarial.memories
        there_and_back = partial(self.generator_losses, side="A"), partial(self.generator_losses, side="B")
        self.phases = (
            *([self.semantic.build_phase(self.networks)] if self.semantic else []),
            config.build_phase("G", tuple(self.generators.values()), *there_and_back),
            config.build_discriminator_phase(self.discriminator_losses, config.discriminators),
        )

    def begin_from(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Both generators begin with what one has learned in pretraining."""
        for name in self.generators.values():
            load_plain_state(self.networks[name], weights["generator"])

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """Nothing yet: the generators' phase makes the translations, which the discriminators' uses again."""
        return Outputs(update)

    def generator_losses(self, batch: Batch, outputs: Outputs, side: Side) -> Losses:
        """One way of eq. 3 and, of §5.2, the identity of the same generator: A → B → A and B → B for side A."""
        other, direction = _other(side)
        there, back = (self.networks[self.generators[each]] for each in (direction, _other(other)[1]))
        source, target = batch[BATCH_KEY[side]], batch[BATCH_KEY[other]]
        identity = self.config.identity_weight
        norm = self.generator_configs[direction].norm
        fake, *same = _translate(there, [source, target] if identity else [source], norm)
        outputs.images[f"fake_{other}"] = fake.detach()
        outputs.translations[direction] = source, fake.detach(), target
        cycle = self.config.cycle_weight
        losses = {f"G/{side}_cycle": cycle * _l1(back(fake), source)}
        losses |= self.adversarial.generator_losses(
            self.networks[f"discriminator_{other}"], target, fake, outputs, f"{direction}_"
        )
        if self.semantic and side == "A":
            losses |= self.semantic.losses(fake, outputs, batch)
        if same:
            losses[f"G/{other}_identity"] = cycle * identity * _l1(same[0], target)
        return losses

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 1 with least squares, for both domains, on real images and a pool of translations."""
        losses: Losses = {}
        for side in self.pools:
            fake = self.pools[side].query(outputs.images[f"fake_{side}"])
            network, real = self.networks[f"discriminator_{side}"], batch[BATCH_KEY[side]]
            losses |= self.adversarial.discriminator_losses(network, real, fake, outputs, f"{side}_")
        return losses


def _other(side: Side) -> tuple[Side, str]:
    return ("B", "AtoB") if side == "A" else ("A", "BtoA")


def _translate(network: nn.Module, batches: list[Tensor], norm: str | None) -> list[Tensor]:
    """Translates several batches: at once if the norm permits it, else one after the other."""
    if not is_independent(norm) or len(batches) == 1:
        return [network(batch) for batch in batches]
    return list(network(torch.cat(batches)).split([len(batch) for batch in batches]))


def _l1(image: Tensor, truth: Tensor) -> Tensor:
    return F.l1_loss(image.float(), truth)
