"""The losses of a student, with and without a discriminator."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from img2img.core.errors import UsageError
from img2img.data.base import DataConfig
from img2img.data.distilled import DistilledData
from img2img.methods.base import Outputs
from img2img.methods.distill import Distill, DistillConfig
from img2img.methods.perceptual import PerceptualConfig
from img2img.networks import PatchGANConfig, ResNetConfig


def tiny(**settings: object) -> Distill:
    config = DistillConfig(
        generator=ResNetConfig(channels=4, blocks=1),
        discriminator=PatchGANConfig(channels=4, layers=1, norm="none"),
        perceptual=PerceptualConfig(weight=0),
        **settings,
    )
    return config.build(3, 3, 32)


def batch(**more: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"source": torch.rand(2, 3, 32, 32) * 2 - 1, "target": torch.rand(2, 3, 32, 32) * 2 - 1, **more}


def test_without_an_adversary_there_is_one_network_and_the_distance_to_the_teacher() -> None:
    method, given = tiny(l1_weight=7.0), batch()
    assert list(method.networks) == ["generator"] and [phase.name for phase in method.phases] == ["G"]
    outputs = method.forward(given)
    losses = method.generator_losses(given, outputs)
    assert losses.keys() == {"G/l1"}
    assert torch.allclose(losses["G/l1"], 7 * F.l1_loss(outputs.images["fake"], given["target"]))


def test_features_count_as_well() -> None:
    method = DistillConfig(generator=ResNetConfig(channels=4, blocks=1)).build(3, 3, 32)
    given = batch()
    assert method.generator_losses(given, method.forward(given)).keys() == {"G/l1", "G/perceptual"}


@pytest.mark.parametrize("has_real", [True, False])
def test_the_discriminator_sees_real_images_if_there_are_some(has_real: bool) -> None:
    method = tiny(adversarial_weight=0.5)
    assert [phase.trains for phase in method.phases] == [("discriminator",), ("generator",)]
    real = torch.ones(2, 3, 32, 32) * 0.5
    given = batch(**({"real": real} if has_real else {}))
    seen: list[Tensor] = []
    method.networks["discriminator"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    outputs: Outputs = method.forward(given)
    losses = method.discriminator_losses(given, outputs)
    wanted = real if has_real else given["target"]
    assert any(torch.equal(part, wanted) for images in seen for part in images.split(2))
    losses["D/fake"].backward()
    assert all(parameter.grad is None for parameter in method.networks["generator"].parameters())
    losses = method.generator_losses(given, outputs)
    assert losses.keys() >= {"G/l1", "G/adversarial"}
    losses["G/adversarial"].backward()
    assert all(parameter.grad is not None for parameter in method.networks["generator"].parameters())


def test_its_data_are_photos_and_translations_of_them(tmp_path: object) -> None:
    with pytest.raises(UsageError, match="img2img compress makes these"):
        DistilledData(DataConfig(path=tmp_path))
    with pytest.raises(UsageError, match=r"--data\.derive"):
        DistilledData.refuse_options(DataConfig(path=tmp_path, target=tmp_path, derive="gray"), "distill")
