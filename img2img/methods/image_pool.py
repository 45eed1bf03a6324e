"""A pool of earlier translations, which keeps a discriminator from forgetting them."""

import numpy as np
import torch
from torch import Tensor
from torch.distributed import all_gather, get_rank, get_world_size, is_initialized

from img2img.core.errors import UsageError


class ImagePool:
    """Gives the discriminator now a new translation, now one of the last (Shrivastava et al. 2017, §2.3; Zhu et al. 2017, §4).

    Each new image is returned with probability ½ (always until the pool is full); else a random older one is returned,
    and the new one takes its place. All processes hold the same pool and feed it the images of all, in the order
    of samples: so two processes with batch 1 do what one with batch 2 does.

    Args:
        size: images held; 0 for no pool.
        seed: of the choices, which are a function of it and of the number of images seen.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.count = size, seed, 0
        self.images: list[Tensor] = []

    def query(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape: new images, or older ones in their place. No gradient flows.

        Raises:
            UsageError: if those that are held are of another shape.
        """
        images = images.detach()
        if self.images and self.images[0].shape != images.shape[1:]:
            held, new = ("×".join(map(str, shape[:0:-1])) for shape in (self.images[0].shape, images.shape[1:]))
            raise UsageError(f"the run's image pool holds images of {held} pixels, not {new}; leave --size as it was.")
        if not self.size:
            return images
        chosen = [self._swap(image) for image in gather_images(images)]
        first = len(images) * (get_rank() if is_initialized() else 0)
        return torch.stack(chosen[first : first + len(images)])

    def _swap(self, image: Tensor) -> Tensor:
        self.count += 1
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        random = np.random.default_rng([self.seed, self.count])
        if random.random() < 0.5:
            return image
        place = int(random.integers(self.size))
        older, self.images[place] = self.images[place].to(image.device), image.clone()
        return older

    def state_dict(self) -> dict[str, Tensor]:
        """The images (n, C, H, W), how many were seen, and the seed."""
        images = torch.stack(self.images) if self.images else torch.empty(0)
        return {"images": images, "count": torch.tensor(self.count), "seed": torch.tensor(self.seed)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Undoes `state_dict`."""
        self.images = list(state["images"])[: self.size]
        self.count, self.seed = int(state["count"]), int(state["seed"])


def gather_images(images: Tensor) -> Tensor:
    """The images of all processes, in the order of samples: (B, …) → (processes × B, …)."""
    if not is_initialized() or get_world_size() == 1:
        return images
    everyones = [torch.empty_like(images, memory_format=torch.contiguous_format) for _ in range(get_world_size())]
    all_gather(everyones, images.contiguous())
    return torch.cat(everyones)
