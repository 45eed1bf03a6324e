"""Label and instance maps as networks take them: one-hot planes, the edges of instances, and means over instances."""

import torch
import torch.nn.functional as F
from torch import Tensor


def encode_label_maps(maps: Tensor, classes: int, edges: bool, dtype: torch.dtype = torch.float32) -> Tensor:
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
    """(B, ...) of integers → (B, count, ...): 1 at each label's own number, 0 at the others.

    Any other value, such as the one that stands for "ignore", is 0 everywhere; nothing can assert on a GPU.
    """
    numbers = torch.arange(count, device=labels.device).view(1, -1, *[1] * (labels.ndim - 1))
    return (labels[:, None] == numbers).to(dtype)


def class_shares(labels: Tensor, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Classes by number, (B,), or mixtures of them, (B, count) of shares in [0, 1], → (B, count) of shares."""
    return labels.to(dtype) if labels.ndim == 2 else one_hot(labels, count, dtype)


def append_domain(images: Tensor, shares: Tensor) -> Tensor:
    """Images with a copy for each domain beside them, multiplied by its share: black but for the domain that is wanted.

    StarGAN has planes of 0 and 1 instead (Choi et al. 2018, §3.1), which instance norm after a convolution would cancel.

    Args:
        images: (B, C, H, W).
        shares: (B, domains), mostly one-hot.

    Returns:
        (B, C · (1 + domains), H, W).
    """
    copies = shares.to(images)[:, :, None, None, None] * images[:, None]  # (B, domains, C, H, W)
    return torch.cat([images, copies.flatten(1, 2)], dim=1)


def mask_ignored(maps: Tensor, ignored: int | None) -> Tensor:
    """Maps (B, 1 or 2, H, W) of labels and instances, in which the label that is ignored is -1, and so of no class."""
    if ignored is None:
        return maps
    labels = maps[:, :1]
    return torch.cat([torch.where(labels == ignored, -1, labels), maps[:, 1:]], dim=1)


def paint_labels(labels: Tensor, colours: Tensor) -> Tensor:
    """(B, H, W) of integers and colours (classes, 3), uint8 → pictures (B, 3, H, W) in [-1, 1]; black where there is no class."""
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
    which, count = _number_instances(instances.long().flatten(1))
    halves = 2 if height * width % 2 == 0 else 1  # PyTorch sums rows of a tensor side by side, and one image has few
    parts = which.view(batch, 1, halves, -1)
    values = features.float().reshape(batch, channels, halves, -1)
    sums = values.new_zeros(batch, channels, halves, count).scatter_add_(3, parts.expand_as(values), values).sum(2)
    sizes = parts.new_zeros(batch, 1, halves, count).scatter_add_(3, parts, parts.new_ones(1).expand_as(parts)).sum(2)
    means = (sums / sizes.clamp(min=1)).transpose(1, 2).contiguous().view(batch * count, channels)
    rows = which if batch == 1 else which + torch.arange(0, batch * count, count, device=which.device)[:, None]
    pooled = means.index_select(0, rows.flatten()).view(batch, height, width, channels)
    return pooled.permute(0, 3, 1, 2).to(features.dtype)


def _number_instances(instances: Tensor) -> tuple[Tensor, int]:
    """(B, pixels) of identities → numbers from 0 on, for each image its own; and more than the largest of them."""
    lowest, highest = torch.stack(torch.aminmax(instances)).tolist()  # at once: a GPU is waited for
    span = highest - lowest + 1
    if span <= instances.shape[1]:
        return instances - lowest if lowest else instances, span
    image = torch.arange(len(instances), device=instances.device)[:, None]
    _, which = torch.unique(
        (instances - lowest) + image * span, return_inverse=True
    )  # slower, but identities may be large
    which -= which.amin(1, keepdim=True)
    return which, int(which.max()) + 1
