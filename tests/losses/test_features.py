import pytest
import torch
import torch.nn.functional as F

from img2img.losses.features import VGG_WEIGHTS, feature_matching, kl_divergence, perceptual, perceptual_distance


def levels(seed: int) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 4, 8, 8), (2, 8, 4, 4), (2, 1, 3, 3)]
    return [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2)]


def test_feature_matching_is_equation_4_without_the_logits() -> None:
    fake, real = levels(0), levels(1)
    for scale in real:
        for level in scale:
            level.requires_grad_()
    expected = sum(
        (a - b).abs().sum() / a.numel()
        for x, y in zip(fake, real, strict=True)
        for a, b in zip(x[:2], y[:2], strict=True)
    )
    loss = feature_matching([[t.requires_grad_() for t in scale] for scale in fake], real)
    assert loss.item() == pytest.approx(float(expected) / 2, rel=1e-5)  # of two scales
    loss.backward()
    assert fake[0][0].grad is not None and fake[0][2].grad is None and real[0][0].grad is None


def test_perceptual_weighs_depths() -> None:
    fake, real = [torch.randn(1, 2, 3, 3) for _ in range(5)], [torch.randn(1, 2, 3, 3) for _ in range(5)]
    expected = sum(w * F.l1_loss(a, b) for w, a, b in zip(VGG_WEIGHTS, fake, real, strict=True))
    assert perceptual(fake, real).item() == pytest.approx(float(expected), rel=1e-5)
    assert perceptual(real, real).item() == 0


def test_perceptual_distance_is_equation_1_of_lpips() -> None:
    torch.manual_seed(0)
    fake, real = ([torch.randn(2, c, 5, 4).requires_grad_() for c in (16, 24)] for _ in range(2))
    length = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2))
        for a, b in zip(fake, real, strict=True)
    ]
    found = perceptual_distance(fake, real)
    assert found.shape == (2,) and torch.allclose(found, torch.stack(length).mean(0), rtol=1e-2)
    assert perceptual_distance(fake, fake).abs().max() == 0
    found.sum().backward()
    assert fake[0].grad is not None and real[0].grad is None


def test_kl_divergence_against_torchs() -> None:
    mean, logvar = torch.randn(4, 7), torch.randn(4, 7)
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    truth = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert kl_divergence(mean, logvar).item() == pytest.approx(truth.item(), rel=1e-4)
    assert kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0
