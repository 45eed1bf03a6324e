"""Self-attention over all positions of an image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """y = γ·v(Σᵢ βⱼᵢ h(xᵢ)) + x, where β is the softmax of f(xᵢ)ᵀg(xⱼ) over i (Zhang et al. 2019, eq. 1–3).

    f, g and h have an eighth of the channels, v all of them. γ begins at 0, so that a fresh one changes nothing. Its cost
    grows with the square of the number of pixels; the matrix β itself is not held, but for gradient penalties.

    Args:
        channels: of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.key, self.query, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))  # f, g, h
        self.out = nn.Conv2d(inner, channels, 1)  # v
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2).contiguous() for layer in (self.query, self.key, self.value)
        )  # (B, H·W, C')
        seen = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]
        seen = seen.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])
        return x + self.gamma * self.out(seen)
