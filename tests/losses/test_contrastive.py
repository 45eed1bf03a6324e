import math

import pytest
import torch
import torch.nn.functional as F

from img2img.losses.contrastive import patch_nce


def test_against_the_papers_equation_written_out() -> None:
    query, key = (F.normalize(torch.randn(2, 5, 7), dim=2) for _ in range(2))
    expected = []
    for q, k in zip(query, key, strict=True):
        for place in range(5):
            scores = [math.exp((q[place] @ k[other]).item() / 0.07) for other in range(5)]
            expected.append(-math.log(scores[place] / sum(scores)))
    assert patch_nce(query, key).item() == pytest.approx(sum(expected) / 10, rel=1e-4)


def test_equal_patches_cannot_be_told_apart_and_their_own_can() -> None:
    same = torch.ones(1, 8, 4) / 2
    assert patch_nce(same, same).item() == pytest.approx(math.log(8), rel=1e-5)
    distinct = torch.eye(8)[None]
    assert patch_nce(distinct, distinct).item() < 1e-4


def test_no_gradient_flows_into_the_keys() -> None:
    query, key = (torch.randn(1, 4, 3, requires_grad=True) for _ in range(2))
    patch_nce(query, key).backward()
    assert query.grad is not None and key.grad is None
