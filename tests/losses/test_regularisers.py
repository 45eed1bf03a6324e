import pytest
import torch
from torch import nn

from img2img.losses.regularisers import gradient_penalty, zero_centred_penalty


def test_the_penalty_of_a_linear_critic_is_known() -> None:
    """∇C is the weight everywhere, so the penalty is (‖w‖ - 1)² and R1 ½‖w‖²."""
    weight = torch.randn(3 * 4 * 4, requires_grad=True)

    def critic(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ weight

    real, fake = torch.randn(2, 5, 3, 4, 4)
    length = weight.norm()
    penalty = gradient_penalty(critic, real, fake, torch.rand(5))
    assert penalty.item() == pytest.approx(((length - 1) ** 2).item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert torch.allclose(gradient, 2 * (length - 1) * weight / length, atol=1e-5)
    assert zero_centred_penalty(critic, real).item() == pytest.approx(0.5 * length.item() ** 2, rel=1e-5)


def test_the_penalty_is_taken_between_real_and_fake() -> None:
    """C = ½‖x‖² has the gradient x, so the penalty tells where it was taken."""

    def critic(images: torch.Tensor) -> torch.Tensor:
        return 0.5 * images.flatten(1).square().sum(1)

    real, fake = torch.randn(2, 4, 3, 2, 2)
    share = torch.tensor([0.0, 1.0, 0.25, 0.5])
    between = share.view(-1, 1, 1, 1) * real + (1 - share).view(-1, 1, 1, 1) * fake
    expected = (between.flatten(1).norm(dim=1) - 1).square().mean()
    assert gradient_penalty(critic, real, fake, share).item() == pytest.approx(expected.item(), rel=1e-5)
    assert zero_centred_penalty(critic, real).item() == pytest.approx(
        0.5 * real.flatten(1).square().sum(1).mean().item(), rel=1e-5
    )


def test_many_logits_an_image_count_as_their_mean() -> None:
    def critic(images: torch.Tensor) -> torch.Tensor:
        return images.sum(1, keepdim=True)  # a logit per pixel

    real = torch.randn(2, 3, 4, 4)
    assert zero_centred_penalty(critic, real).item() == pytest.approx(0.5 * 3 * 16 / 16**2)


@pytest.mark.parametrize("norm", [nn.Identity(), nn.GroupNorm(2, 4)])
def test_second_derivatives_against_finite_differences(norm: nn.Module) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Tanh(), nn.Conv2d(4, 1, 3)).double()
    real = torch.randn(2, 1, 6, 6, dtype=torch.double)

    def penalty(weight: torch.Tensor) -> torch.Tensor:
        def critic(images: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(network, {"0.weight": weight}, (images.double(),))

        return zero_centred_penalty(critic, real)

    weight = network[0].weight.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(penalty(weight), weight)
    step = torch.zeros_like(weight)
    step[2, 0, 1, 1] = 1e-3
    difference = (penalty(weight + step) - penalty(weight - step)) / 2e-3
    assert gradient[2, 0, 1, 1].item() == pytest.approx(difference.item(), rel=1e-2)
