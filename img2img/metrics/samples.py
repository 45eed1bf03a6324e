"""How good and how varied samples are, by the features of a network: precision and recall, and the Inception Score."""

import torch
from torch import Tensor

from img2img.metrics.distribution import FEWEST

NEIGHBOURS = 3


def precision_recall(images: Tensor, truth: Tensor) -> dict[str, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1–2), as torch-fidelity computes them.

    ``precision`` is the share of images that lie within the manifold of the truth, balls around each up to its third nearest
    neighbour: how good they are. ``recall`` is the share of the truth within that of the images: how varied they are.

    Args:
        images: features (N, D).
        truth: features (M, D); both of at least 10.
    """
    if min(len(images), len(truth)) < FEWEST:
        return {}
    from torch_fidelity.metric_prc import prc_features_to_metric  # slow to import

    found = prc_features_to_metric(
        images, truth, prc_neighborhood=NEIGHBOURS, prc_batch_size=10000, save_cpu_ram=True, verbose=False
    )
    return {"precision": found["precision"], "recall": found["recall"]}


def inception_score(logits: Tensor) -> float:
    """exp E KL(p(y|x) ‖ p(y)) (Salimans et al. 2016, §4), over all images at once, as torch-fidelity computes it.

    Args:
        logits: (N, classes) of a classifier: Inception's, or one of the data's own classes, where it is at most their number.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric

    found = isc_features_to_metric(torch.as_tensor(logits), splits=1)
    return float(found["inception_score_mean"])
