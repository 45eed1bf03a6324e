"""Penalties of gradients and of weights."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Critic = Callable[[Tensor], Tensor]


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """E (‖∇C(x̂)‖₂ - 1)² on x̂ between real and generated images (Gulrajani et al. 2017, eq. 3), without its weight λ.

    A critic with many logits an image, a PatchGAN, has their mean as its value: it is what the Wasserstein loss averages.

    Args:
        critic: must compute in fp32 and be twice differentiable.
        real: (B, C, H, W).
        fake: (B, C, H, W); no gradient flows into it.
        share: (B,) in [0, 1], how real each x̂ is: uniformly drawn in the paper.
    """
    weight = share.view(-1, 1, 1, 1)
    between = torch.lerp(fake.detach().float(), real.detach().float(), weight)
    return (_gradient(critic, between).flatten(1).norm(dim=1) - 1).square().mean()


def zero_centred_penalty(critic: Critic, images: Tensor) -> Tensor:
    """½ E ‖∇C(x)‖₂², without its weight γ: R1 on real images, R2 on generated ones (Mescheder et al. 2018, eqs. 9 and 10).

    A critic with many logits an image has their mean as its value.

    Args:
        critic: must compute in fp32 and be twice differentiable.
        images: (B, C, H, W).
    """
    return 0.5 * _gradient(critic, images.detach().float()).flatten(1).square().sum(1).mean()


def orthogonal(weights: Iterable[Tensor]) -> Tensor:
    """Σ ‖WᵀW ⊙ (1 - I)‖_F² over all weights as matrices (out, in × kernel) (Brock et al. 2019, eq. 3), without its weight β.

    The products are those of filters with each other, as in the published code; their lengths are left free.
    """
    total = []
    for weight in weights:
        filters = weight.flatten(1).float()
        products = filters @ filters.t()
        total.append((products - torch.diag(products.diag())).square().sum())
    return torch.stack(total).sum()


def _gradient(critic: Critic, images: Tensor) -> Tensor:
    """The gradient (B, C, H, W) of each image's value, itself differentiable."""
    images = images.requires_grad_(True)
    alone = (
        torch.autocast(images.device.type, enabled=False),
        sdpa_kernel(SDPBackend.MATH),
    )  # the fused attention has one derivative
    with alone[0], alone[1], torch.enable_grad():
        values = critic(images).reshape(len(images), -1).mean(1)
        (gradient,) = torch.autograd.grad(values.sum(), images, create_graph=True)
    return gradient
