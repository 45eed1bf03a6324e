"""The filter [1 3 3 1]² by which StyleGAN2 resamples (Karras et al. 2019, §4.2; Zhang 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = (1.0, 3.0, 3.0, 1.0)


class Smooth(nn.Module):
    """Convolves each channel with [1 3 3 1]²; twice differentiable.

    Args:
        padding: zeros on each side, in pixels.
        stride: 2 halves the resolution.
        gain: the sum of the filter.
    """

    kernel: Tensor

    def __init__(self, padding: int, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.padding, self.stride = padding, stride
        taps = torch.tensor(TAPS)
        self.register_buffer("kernel", gain * torch.outer(taps, taps)[None, None] / taps.sum() ** 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, (H + 2 padding - 4) // stride + 1, …)."""
        with torch.autocast(x.device.type, enabled=False):
            kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)
            return F.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=x.shape[1])


class Enlarge(nn.Module):
    """Doubles the resolution by [1 3 3 1]², zeros being beyond the border; twice differentiable."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(TAPS)
        self.register_buffer("kernel", 4 * torch.outer(taps, taps)[None, None] / taps.sum() ** 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, 2 H, 2 W)."""
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])
