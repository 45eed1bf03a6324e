"""Label and instance maps as tensors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from img2img.networks.labels import (
    encode_label_maps,
    instance_edges,
    instance_means,
    mask_ignored,
    one_hot,
    paint_labels,
)


def test_one_hot_planes() -> None:
    labels = torch.tensor([[[0, 2], [255, 1]]])
    planes = one_hot(labels, 3)
    assert planes.shape == (1, 3, 2, 2) and planes.dtype == torch.float32
    assert planes[0, :, 0, 0].tolist() == [1, 0, 0] and planes[0, :, 0, 1].tolist() == [0, 0, 1]
    assert planes[0, :, 1, 0].tolist() == [0, 0, 0], "what is ignored is in no plane"
    assert torch.equal(one_hot(labels.to(torch.int32), 3), planes)


def plain_edges(instances: Tensor) -> Tensor:
    height, width = instances.shape
    found = torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < height and 0 <= u < width and instances[v, u] != instances[y, x]:
                    found[y, x] = 1
    return found


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_edges_stand_on_both_sides(height: int, width: int, seed: int) -> None:
    instances = torch.randint(0, 3, (2, height, width), generator=torch.Generator().manual_seed(seed)) * 10**6
    edges = instance_edges(instances)
    assert edges.shape == (2, 1, height, width)
    assert all(torch.equal(edges[n, 0], plain_edges(instances[n])) for n in range(2))


def plain_means(features: Tensor, instances: Tensor) -> Tensor:
    done = torch.zeros_like(features)
    for number, image in enumerate(instances):
        for identity in image.unique():
            mask = image == identity
            done[number][:, mask] = features[number][:, mask].mean(1, keepdim=True)
    return done


@pytest.mark.parametrize("scale", [1, 26001, 2**33], ids=["small", "cityscapes", "large"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (16, 12)])
def test_means_over_instances_are_those_of_a_plain_loop(scale: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 4, *shape, dtype=torch.float32, requires_grad=True)
    instances = torch.randint(-2, 5, (3, *shape)) * scale
    means = instance_means(features, instances)
    assert torch.allclose(means, plain_means(features.detach(), instances), atol=1e-6)
    means.square().sum().backward()
    assert features.grad is not None and features.grad.abs().sum() > 0
    half = instance_means(features.detach().bfloat16(), instances)
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), means.detach(), atol=0.05)


def test_instances_of_another_size_are_taken_by_nearest_neighbour() -> None:
    instances = torch.tensor([[[1, 1, 2, 2], [1, 1, 2, 2]]]) * 2**40  # beyond fp32
    features = torch.tensor([[[[1.0, 3.0]]]])
    assert torch.equal(instance_means(features, instances), features)
    assert torch.equal(instance_means(features, instances + 1), features)


def test_planes_of_label_maps() -> None:
    maps = torch.tensor([[[[0, 2], [255, 1]], [[5, 5], [5, 7]]]], dtype=torch.int32)
    assert encode_label_maps(maps, 3, edges=False).shape == (1, 3, 2, 2)
    whole = encode_label_maps(maps, 3, edges=True, dtype=torch.bfloat16)
    assert whole.shape == (1, 4, 2, 2) and whole.dtype == torch.bfloat16
    assert torch.equal(whole[:, :3].float(), one_hot(maps[:, 0], 3))
    assert whole[0, 3].tolist() == [[0, 1], [1, 1]]


def test_label_maps_are_painted_in_their_colours() -> None:
    colours = torch.tensor([[255, 0, 0], [0, 0, 255]], dtype=torch.uint8)
    shown = paint_labels(torch.tensor([[[0, 1, -1, 99]]]), colours)
    assert shown.shape == (1, 3, 1, 4)
    assert shown[0, :, 0].t().tolist() == [[1, -1, -1], [-1, -1, 1], [-1, -1, -1], [-1, -1, -1]]


def test_an_ignored_label_is_of_no_class_even_if_it_is_in_the_range() -> None:
    maps = torch.tensor([[[[0, 2]], [[0, 7]]]])
    assert mask_ignored(maps, 0).tolist() == [[[[-1, 2]], [[0, 7]]]], "instances stay"
    assert torch.equal(mask_ignored(maps, None), maps)
    assert encode_label_maps(mask_ignored(maps, 0), 3, edges=False).sum((0, 2, 3)).tolist() == [0, 0, 1]
