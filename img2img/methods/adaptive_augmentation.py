"""Adaptive augmentation: how often the discriminator's images are changed follows how sure it is of real ones (Karras et al. 2020, ADA, §3)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import all_reduce, is_initialized

TARGET = 0.6  # of the mean sign of the logits on real images (§3.1)
EVERY = 4  # updates between adjustments
IMAGES = 100_000  # real images in which the probability can rise from 0 to 1: the published code's for short runs


class AdaptiveAugmentation:
    """A probability that rises while the discriminator is surer of real images than it should be, and falls otherwise.

    The same in every process; part of a checkpoint.
    """

    def __init__(self) -> None:
        self.probability, self.signs, self.images = torch.zeros(()), torch.zeros(()), torch.zeros(())
        self.adjusted = torch.zeros((), dtype=torch.int64)

    def observe(
        self,
        real: Sequence[Tensor],
        fake: Sequence[Tensor],
        threshold: float | None,
        update: int,
        share: float = 1.0,
    ) -> None:
        """Takes in one discriminator's logits, and adjusts the probability if it is time. Every process must call it.

        Args:
            real: logits on real images, (B, …) for each scale.
            fake: the same on generated ones.
            threshold: above which logits say that an image is real; None: above the mean of those on generated ones.
            update: optimizer updates done.
            share: of this discriminator among all that the probability follows.
        """
        self._to(real[0].device)
        if update % EVERY == 0 and update > int(self.adjusted):
            self._adjust(update)
        signs = []
        for on_real, on_fake in zip(real, fake, strict=True):
            border = on_fake.detach().float().mean() if threshold is None else threshold
            signs.append(torch.sign(on_real.detach().float() - border).mean())
        images = share * len(real[0])
        seen = torch.stack([torch.stack(signs).mean() * images, torch.full_like(signs[0], images)])
        if is_initialized():
            all_reduce(seen)  # at once, so that a checkpoint of one process is that of all
        self.signs, self.images = self.signs + seen[0], self.images + seen[1]

    def _adjust(self, update: int) -> None:
        step = torch.sign(self.signs - TARGET * self.images) * self.images / IMAGES
        self.probability = (self.probability + step).clamp(0, 1)
        self.signs, self.images = torch.zeros_like(self.signs), torch.zeros_like(self.images)
        self.adjusted.fill_(update)

    def _to(self, device: torch.device) -> None:
        if self.probability.device != device:
            self.probability, self.signs, self.images = (
                each.to(device) for each in (self.probability, self.signs, self.images)
            )

    def state_dict(self) -> dict[str, Tensor]:
        """All of it."""
        return {
            "probability": self.probability, "signs": self.signs, "images": self.images, "adjusted": self.adjusted
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Undoes `state_dict`."""
        self.probability, self.signs, self.images = (state[name] for name in ("probability", "signs", "images"))
        self.adjusted = state["adjusted"].clone()
