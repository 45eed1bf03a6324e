"""CycleGAN: unpaired translation by cycle-consistent adversarial networks (Zhu et al. 2017)."""

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from img2img.errors import UsageError
from img2img.losses.adversarial import Adversarial
from img2img.methods.adversary import AdversarialConfig, Adversary
from img2img.methods.base import Batch, Losses, Memory, Outputs, Phase, Role, merged
from img2img.methods.generators import fitting, made
from img2img.methods.pool import ImagePool
from img2img.networks import AnyEncoder, GeneratorConfig, ResNetConfig

Side = Literal["A", "B"]
BATCH_KEY = {"A": "source", "B": "target"}


class CycleGANConfig(AdversarialConfig):
    """The paper's numbers."""

    paired: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {}

    name: Annotated[Literal["cyclegan"], tyro.conf.Suppress] = "cyclegan"
    generator: GeneratorConfig = ResNetConfig()
    """Both networks that translate."""
    adversarial: Adversarial = "lsgan"
    """lsgan: least squares, as in the paper; vanilla: the minimax game, whose gradient fades when D wins; nonsaturating: cross-entropy as it is used; hinge; wasserstein; relativistic; relativistic-average. wasserstein needs a gradient penalty or spectral norm."""
    cycle_weight: float = Field(10.0, ge=0)
    """λ of eq. 3: weight of the L1 distance to the source after there and back."""
    identity_weight: float = Field(0.5, ge=0)
    """Weight, times the cycle's, of leaving alone what is of the target domain already (§5.2); 0 leaves it out."""
    pool: int = Field(50, ge=0)
    """Earlier translations of each domain that the discriminators are shown, too; 0 for none."""

    def build(self, in_channels: int, out_channels: int, size: int) -> "CycleGAN":
        """The method with fresh networks for square training images of `size` pixels."""
        return CycleGAN(self, in_channels, out_channels, size)


class CycleGAN:
    """Two generators, A2B and B2A, and a discriminator of each domain; both generators are updated first (§4, §7.1).

    The losses of the way A → B → A and of B → A → B share no activations: they are backpropagated one after the other,
    which needs half the memory and gives the same gradients.

    Args:
        config: the settings.
        in_channels: channels of A, which is ``source`` in a batch.
        out_channels: channels of B, ``target``.
        size: height and width of the training images in pixels.

    Raises:
        UsageError: if the networks can't take such images, or an identity is wanted between different channels.
    """

    generators: ClassVar[dict[Role, str]] = {"A2B": "generator_A2B", "B2A": "generator_B2A"}
    encoders: ClassVar[dict[Role, tuple[str, AnyEncoder]]] = {}

    def __init__(self, config: CycleGANConfig, in_channels: int, out_channels: int, size: int) -> None:
        self.config = config
        if config.identity_weight and in_channels != out_channels:
            raise UsageError(
                f"A has {in_channels} channels and B {out_channels}, so neither generator can be asked to leave the other "
                "side's images as they are; add --identity-weight 0."
            )
        channels = {"A": in_channels, "B": out_channels}
        fit = partial(fitting, config.generator, size=size, norm="instance")
        self.generator_configs: dict[Role, GeneratorConfig] = {
            "A2B": fit(in_channels=channels["A"], out_channels=channels["B"]),
            "B2A": fit(in_channels=channels["B"], out_channels=channels["A"]),
        }
        self.networks: dict[str, nn.Module] = {}
        for role, name in self.generators.items():
            how = (config.initialisation, config.initialisation_gain)
            self.networks[name] = made(self.generator_configs[role], *how)
        self.adversaries = {side: Adversary(config, count, size, "instance") for side, count in channels.items()}
        for side, adversary in self.adversaries.items():
            self.networks[f"discriminator_{side}"] = adversary.build()
        seeds = torch.randint(2**31, (2,)).tolist()
        self.pools = {
            side: ImagePool(config.pool, seed) for (side, count), seed in zip(channels.items(), seeds, strict=True)
        }
        self.memories: dict[str, Memory] = {f"pool_{side}": pool for side, pool in self.pools.items()}
        there_and_back = partial(self.generator_losses, side="A"), partial(self.generator_losses, side="B")
        both = "discriminator_A", "discriminator_B"
        self.phases = (
            Phase("G", tuple(self.generators.values()), there_and_back, config.lr, config.betas),
            Phase("D", both, (self.discriminator_losses,), config.discriminator_lr or config.lr, config.betas),
        )

    def forward(self, batch: Batch, update: int = 0) -> Outputs:
        """Nothing yet: the generators' phase makes the translations, which the discriminators' uses again."""
        return Outputs(update)

    def generator_losses(self, batch: Batch, outputs: Outputs, side: Side) -> Losses:
        """One way of eq. 3 and, of §5.2, the identity of the same generator: A → B → A and B → B for side A."""
        other, role = _other(side)
        there, back = (self.networks[self.generators[each]] for each in (role, _other(other)[1]))
        source, target = batch[BATCH_KEY[side]], batch[BATCH_KEY[other]]
        identity = self.config.identity_weight
        norm = self.generator_configs[role].norm
        fake, *same = merged(there, [source, target] if identity else [source], norm)
        outputs.images[f"fake_{other}"] = fake.detach()
        outputs.translations[role] = source, fake.detach(), target
        cycle = self.config.cycle_weight
        losses = {f"G/{side}_cycle": cycle * _l1(back(fake), source)}
        losses |= self.adversaries[other].generator_losses(
            self.networks[f"discriminator_{other}"], target, fake, outputs, f"{role}_"
        )
        if same:
            losses[f"G/{other}_identity"] = cycle * identity * _l1(same[0], target)
        return losses

    def discriminator_losses(self, batch: Batch, outputs: Outputs) -> Losses:
        """Eq. 1 with least squares, for both domains, on real images and a pool of translations."""
        losses: Losses = {}
        for side, adversary in self.adversaries.items():
            fake = self.pools[side].query(outputs.images[f"fake_{side}"])
            network, real = self.networks[f"discriminator_{side}"], batch[BATCH_KEY[side]]
            losses |= adversary.discriminator_losses(network, real, fake, outputs, f"{side}_")
        return losses


def _other(side: Side) -> tuple[Side, Role]:
    return ("B", "A2B") if side == "A" else ("A", "B2A")


def _l1(image: Tensor, truth: Tensor) -> Tensor:
    return F.l1_loss(image.float(), truth)
