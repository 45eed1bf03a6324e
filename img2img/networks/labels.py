"""Label and instance maps as networks take them: one-hot planes, the edges of instances, and means over instances."""

import torch
import torch.nn.functional as F
from torch import Tensor


def planes(maps: Tensor, classes: int, edges: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    """What a network sees of label maps: (B, 1 or 2, H, W) of integers → (B, classes [+ 1], H, W), 0 or 1.

    Args:
        maps: labels, and instances.
        classes: labels from 0 on; pixels of others are 0 in all planes.
        edges: whether the edges of instances are one more plane; there must be instances then.
        dtype: of the planes; half precision holds them exactly.
    """
    labels = one_hot(maps[:, 0], classes, dtype)
    return torch.cat([labels, instance_edges(maps[:, 1]).to(dtype)], dim=1) if edges else labels


def one_hot(labels: Tensor, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, H, W) of integers → (B, count, H, W): 1 in the plane of each pixel's label, 0 in the others.

    Pixels of any other value, such as the one that stands for "ignore", are 0 in all planes; nothing can assert on a GPU.
    """
    planes = torch.arange(count, device=labels.device).view(1, -1, 1, 1)
    return (labels[:, None] == planes).to(dtype)


def without(maps: Tensor, ignored: int | None) -> Tensor:
    """Maps (B, 1 or 2, H, W) of labels and instances, in which the label that is ignored is -1, and so of no class."""
    if ignored is None:
        return maps
    labels = maps[:, :1]
    return torch.cat([torch.where(labels == ignored, -1, labels), maps[:, 1:]], dim=1)


def painted(labels: Tensor, colours: Tensor) -> Tensor:
    """(B, H, W) of integers → pictures (B, 3, H, W) in [-1, 1]; black where there is no class.

    Args:
        labels: of the classes.
        colours: (classes, 3), uint8.
    """
    count = len(colours)
    table = F.pad(colours.to(labels.device).float() / 127.5 - 1, (0, 0, 0, 1), value=-1.0)
    known = (labels >= 0) & (labels < count)
    return table[torch.where(known, labels, count).long()].permute(0, 3, 1, 2)


def instance_edges(instances: Tensor) -> Tensor:
    """(B, H, W) of identities → (B, 1, H, W), float32: 1 where one of the 4 neighbours has another identity (Wang et al. 2018, §3.3)."""
    edges = torch.zeros_like(instances, dtype=torch.bool)
    across, down = instances[:, :, 1:] != instances[:, :, :-1], instances[:, 1:] != instances[:, :-1]
    edges[:, :, 1:] |= across
    edges[:, :, :-1] |= across
    edges[:, 1:] |= down
    edges[:, :-1] |= down
    return edges[:, None].float()


def instance_means(features: Tensor, instances: Tensor) -> Tensor:
    """Gives every pixel the mean of the features over its instance (Wang et al. 2018, §3.4: instance-wise average pooling).

    Args:
        features: (B, C, H, W).
        instances: (B, h, w) of any integers; resized by nearest neighbour if they are of another size.

    Returns:
        (B, C, H, W), in the features' type; the sums are in fp32.
    """
    batch, channels, height, width = features.shape
    if instances.shape[1:] != (height, width):
        rows, columns = (  # no floats, which would not hold large identities
            torch.arange(new, device=instances.device) * old // new
            for new, old in ((height, instances.shape[1]), (width, instances.shape[2]))
        )
        instances = instances[:, rows][:, :, columns]
    which, count = _numbered(instances.long())
    values = features.permute(0, 2, 3, 1).reshape(-1, channels).float()
    sums = values.new_zeros(count, channels).index_add_(0, which, values)
    sizes = torch.bincount(which, minlength=count).clamp(min=1)
    means = (sums / sizes[:, None]).t().contiguous().index_select(1, which)  # (C, B·H·W)
    return means.view(channels, batch, height, width).transpose(0, 1).to(features.dtype)


def _numbered(instances: Tensor) -> tuple[Tensor, int]:
    """For each pixel of a batch the number of its instance, those of two images being two; and how many numbers there are."""
    lowest = instances.min()
    span = int(instances.max() - lowest) + 1
    image = torch.arange(len(instances), device=instances.device).view(-1, 1, 1)
    which = (image * span + (instances - lowest)).flatten()
    if span * len(instances) <= which.numel():
        return which, span * len(instances)
    distinct, which = torch.unique(which, return_inverse=True)  # slower, but identities may be large
    return which, len(distinct)
