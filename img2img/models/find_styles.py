"""The styles of each class: the features that an encoder finds in the instances of the training images, clustered."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from img2img.data.base import Pair
from img2img.data.classes import Classes
from img2img.images import Array
from img2img.images.tensors import to_tensor
from img2img.models.styles import encode_instances
from img2img.networks import InstanceEncoderConfig
from img2img.networks.layers import ImageNetwork

MOST = 200  # training images that are used
SEED = 0


@torch.no_grad()
def find_styles(
    encoder: ImageNetwork,
    config: InstanceEncoderConfig,
    pairs: Sequence[Pair],
    read: Callable[[Pair], tuple[Array, Array]],
    classes: Classes,
    count: int,
) -> Tensor:
    """Clusters the features of instances, class by class, by k-means (Wang et al. 2018, §3.4).

    Args:
        encoder: as `config` describes it.
        pairs: label maps, with their instances and images; of more than 200, as many at even distances.
        read: gives a pair's maps (H, W, 1 or 2) and its image.
        count: clusters of each class, at most.

    Returns:
        Their centres, (classes, count, F), float32, each class' largest cluster first. What has fewer clusters repeats them; a class that
        no image shows has the mean of all.
    """
    device = next(encoder.parameters()).device
    found: list[list[Array]] = [[] for _ in range(classes.count)]
    for pair in pairs[:: max(1, -(-len(pairs) // MOST))]:
        maps, image = read(pair)
        labels = classes.known(maps[..., 0])
        identities = torch.from_numpy(maps[..., -1].astype(np.int64))[None].to(device)
        features = encode_instances(encoder, to_tensor(image)[None].to(device), identities)[0].flatten(1).cpu().numpy()
        instances = maps[..., 0].astype(np.int64) * (int(maps[..., -1].max()) + 1) + maps[..., -1]
        _, first = np.unique(instances, return_index=True)  # an instance that has two labels counts for both
        for place in first:
            label = int(labels.flat[place])
            if label >= 0:
                found[label].append(features[:, place])
    everything = [each for of_class in found for each in of_class]
    mean = np.mean(everything, axis=0) if everything else np.zeros(config.features)
    return torch.from_numpy(np.stack([_cluster(each or [mean], count) for each in found])).float()


def _cluster(features: list[Array], count: int) -> Array:
    """(count, F), the largest cluster first."""
    points = np.stack(features).astype(np.float64)
    wanted = min(count, len(np.unique(points.round(6), axis=0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a cluster is empty: it is dropped below
        centres, of_point = kmeans2(points, wanted, minit="++", seed=SEED)
    sizes = np.bincount(of_point, minlength=wanted)
    order = [k for k in np.argsort(-sizes, kind="stable") if sizes[k]]
    return np.stack([centres[order[k % len(order)]] for k in range(count)])
