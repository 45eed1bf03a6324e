from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from img2img.core.errors import UsageError
from img2img.core.processes import build_accelerator
from img2img.losses.contrastive import patch_nce
from img2img.methods.contrastive import draw_places
from img2img.methods.cut import CUT, CUTConfig, FastCUTConfig
from img2img.networks import ResNetConfig
from img2img.networks.discriminators.patchgan import PatchGANConfig
from img2img.training.trainer import Trainer

SMALL: dict[str, Any] = {
    "generator": ResNetConfig(channels=4, blocks=5, downsampling="blur", upsampling="blur"),
    "discriminator": PatchGANConfig(channels=4, layers=1, downsampling="blur"),
    "projection_channels": 8,
}


def tiny(kind: type[CUTConfig] = CUTConfig, **settings: Any) -> CUT:
    torch.manual_seed(0)
    return kind(**{**SMALL, **settings}).build(3, 3, 16)


def batch(size: int = 2) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    return {name: torch.rand(size, 3, 16, 16, generator=random) * 2 - 1 for name in ("source", "target")}


def test_the_defaults_are_the_papers() -> None:
    cut, fast = CUTConfig(), FastCUTConfig()
    assert (cut.nce_weight, cut.identity_nce, cut.flip_equivariance) == (1, True, False)
    assert (fast.nce_weight, fast.identity_nce, fast.flip_equivariance) == (10, False, True)
    for config in (cut, fast):
        assert (config.patches, config.temperature, config.projection_channels) == (256, 0.07, 256)
        assert (config.adversarial, config.initialisation, config.lr) == ("lsgan", "xavier", 2e-4)
        assert config.generator.downsampling == config.generator.upsampling == "blur"
        assert config.discriminator.downsampling == "blur"
    method = cut.build(3, 3, 256)
    assert [phase.name for phase in method.phases] == ["D", "G"]
    assert method.depths == [(3, 1), (128, 1), (256, 2), (256, 4), (256, 4)]
    assert method.generator_configs[""].blocks == 9


def test_the_head_is_there_before_the_optimizer() -> None:
    method = tiny()
    driver = Trainer(method, build_accelerator(torch.device("cpu"), "no", 1))
    trained = {id(p) for group in driver.optimizers["G"].param_groups for p in group["params"]}
    assert {id(p) for name in ("generator", "projection") for p in driver.bare[name].parameters()} == trained
    before = [p.detach().clone() for p in driver.bare["projection"].parameters()]
    driver._backward(batch(), 1.0)
    assert any(not torch.equal(a, b) for a, b in zip(before, driver.bare["projection"].parameters(), strict=True))


def naive(method: CUT, data: dict[str, Tensor], outputs: Any, flip: bool) -> dict[str, Tensor]:
    """Eq. 5 with nothing shared: each image through the whole network, features found by hand."""
    g, d, h = (method.networks[name] for name in ("generator", "discriminator", "projection"))
    fixed = tiny().networks["generator"]
    fixed.load_state_dict(g.state_dict())
    columns = [16 // pixels for _, pixels in method.depths]
    places = [outputs.images[f"place_{n}"] for n in range(5)]
    unflipped = [p - p % w + (w - 1 - p % w) if flip else p for p, w in zip(places, columns, strict=True)]

    def features(network: Any, image: Tensor, at: list[Tensor]) -> list[Tensor]:
        found, x = [image], network.stem(image)
        for down in network.down:
            found.append(down[0](x))
            x = down(x)
        for number, block in enumerate(network.blocks):
            x = block(x)
            found += [x] if number in (0, 4) else []
        return [each.flatten(2)[:, :, p].transpose(1, 2) for each, p in zip(found, at, strict=True)]

    def nce(image: Tensor) -> Tensor:
        translated = g(image.flip(3) if flip else image)
        queries = h(features(g, translated, places))
        keys = h(features(fixed, image, unflipped))
        return torch.stack([patch_nce(q, k) for q, k in zip(queries, keys, strict=True)]).mean()

    source = data["source"]
    losses = {"G/adversarial": ((d(g(source.flip(3) if flip else source)) - 1) ** 2).mean()}
    if method.config.identity_nce:
        losses |= {"G/nce": 0.5 * nce(source), "G/nce_identity": 0.5 * nce(data["target"])}
    else:
        losses["G/nce"] = 10 * nce(source)
    return losses


@pytest.mark.parametrize("kind", [CUTConfig, FastCUTConfig])
def test_the_shared_step_has_the_losses_and_gradients_of_the_naive_one(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flips = set()
    for seed in range(4):
        method, data = tiny(kind), batch()
        drawn = draw_places(method.depths, torch.empty(1, 3, 16, 16), method.config.patches)
        monkeypatch.setattr(
            "img2img.methods.cut.draw_places", lambda *_, drawn=drawn: drawn
        )  # the same for both losses
        torch.manual_seed(seed)
        flip = bool(torch.rand(()) < 0.5) and kind is FastCUTConfig
        flips.add(flip)
        torch.manual_seed(seed)
        outputs = method.forward(data)
        method.networks["discriminator"].requires_grad_(False)
        losses = {}
        for part in method.phases[1].parts:
            losses |= (own := part(data, outputs))
            torch.stack(list(own.values())).sum().backward()
        trained = [p for name in ("generator", "projection") for p in method.networks[name].parameters()]
        shared = [p.grad.clone() for p in trained]  # type: ignore[union-attr]
        for p in trained:
            p.grad = None
        expected = naive(method, data, outputs, flip)
        torch.stack(list(expected.values())).sum().backward()
        assert losses.keys() == expected.keys()
        for name, value in expected.items():
            assert losses[name].item() == pytest.approx(value.item(), rel=1e-3), (name, flip)
        for mine, p in zip(shared, trained, strict=True):
            assert p.grad is not None and torch.allclose(
                mine, p.grad, rtol=1e-2, atol=1e-3 * p.grad.abs().max().item() + 1e-9
            )
    assert flips == ({True, False} if kind is FastCUTConfig else {False})


def test_mirrored_places_are_the_same_places_of_the_mirrored_image() -> None:
    method = tiny()
    for (_, pixels), at, mirrored in zip(
        method.depths, *draw_places(method.depths, torch.empty(1, 3, 16, 16), method.config.patches), strict=True
    ):
        image = torch.randn(1, 1, 16 // pixels, 16 // pixels)
        assert torch.equal(image.flatten(2)[..., at], image.flip(3).flatten(2)[..., mirrored])


def test_what_cut_cannot_do_is_refused() -> None:
    with pytest.raises(UsageError, match="same channels, not 3 and 1"):
        CUTConfig(**SMALL).build(3, 1, 16)
    with pytest.raises(UsageError, match="at least 5"):
        tiny(generator=ResNetConfig(channels=4, blocks=2))


def test_without_a_weight_a_loss_is_left_out() -> None:
    method, data = tiny(adversarial_weight=0.0), batch()
    assert set(method.generator_losses(data, method.forward(data))) == {"G/nce"}
    assert len(method.phases[1].parts) == 2 and len(tiny(identity_nce=False).phases[1].parts) == 1


def test_the_contrastive_loss_falls_when_it_is_trained() -> None:
    method, data = tiny(FastCUTConfig, lr=2e-3, adversarial_weight=0.0), batch()
    driver = Trainer(method, build_accelerator(torch.device("cpu"), "no", 1))
    history = [driver._backward(data, 1.0)[0]["G/nce"].item() for _ in range(40)]
    assert sum(history[-5:]) < 0.9 * sum(history[:5])


def test_cross_entropy_counts_places_of_the_same_image_only() -> None:
    query, key = (F.normalize(torch.randn(3, 4, 5), dim=2) for _ in range(2))
    each = [patch_nce(q[None], k[None]) for q, k in zip(query, key, strict=True)]
    assert patch_nce(query, key).item() == pytest.approx(sum(each).item() / 3, rel=1e-5)  # type: ignore[union-attr]
