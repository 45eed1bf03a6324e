from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.core.processes import build_accelerator
from img2img.methods.cyclegan import CycleGAN, CycleGANConfig
from img2img.methods.image_pool import ImagePool
from img2img.networks import ResNetConfig, UNetConfig
from img2img.networks.discriminators.patchgan import PatchGANConfig
from img2img.networks.layers import InstanceNorm
from img2img.training.trainer import Trainer


def tiny(in_channels: int = 3, out_channels: int = 3, **settings: Any) -> CycleGAN:
    settings = {
        "generator": ResNetConfig(channels=4, blocks=1),
        "discriminator": PatchGANConfig(channels=4, layers=1),
        **settings,
    }
    torch.manual_seed(0)
    return CycleGANConfig(**settings).build(in_channels, out_channels, 16)


def batch(seed: int = 0, in_channels: int = 3, out_channels: int = 3) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = {"source": (1, in_channels, 16, 16), "target": (1, out_channels, 16, 16)}
    return {name: torch.rand(shape, generator=random) * 2 - 1 for name, shape in shapes.items()}


def trainer(method: Any) -> Trainer:
    return Trainer(method, build_accelerator(torch.device("cpu"), "no", 1))


def test_the_defaults_are_the_papers() -> None:
    config = CycleGANConfig()
    assert (config.cycle_weight, config.identity_weight, config.pool) == (10, 0.5, 50)
    assert (config.lr, config.betas, config.adversarial) == (2e-4, (0.5, 0.999), "lsgan")
    method = config.build(3, 3, 256)
    assert [phase.name for phase in method.phases] == ["G", "D"], "generators first"
    assert [len(phase.trains) for phase in method.phases] == [2, 2], "one Adam for both"
    assert {each.norm for each in method.generator_configs.values()} == {"instance"}
    assert {each.blocks for each in method.generator_configs.values()} == {9}  # type: ignore[union-attr]
    built = {type(layer) for layer in method.networks["discriminator_A"].modules()}
    assert InstanceNorm in built and nn.BatchNorm2d not in built


class Paper:
    """One step of the paper's equations, with stock layers' autograd and nothing shared: the naive way."""

    def __init__(self, method: CycleGAN, pools: dict[str, list[Tensor]]) -> None:
        self.g, self.f, self.d_a, self.d_b = (
            method.networks[name] for name in ("generator_AtoB", "generator_BtoA", "discriminator_A", "discriminator_B")
        )
        self.optimizers = [
            torch.optim.Adam([*one.parameters(), *two.parameters()], lr=2e-4, betas=(0.5, 0.999))
            for one, two in ((self.g, self.f), (self.d_a, self.d_b))
        ]
        self.pools = pools

    def step(self, data: dict[str, Tensor]) -> dict[str, float]:
        a, b = data["source"], data["target"]
        losses = {
            "G/AtoB_adversarial": ((self.d_b(self.g(a)) - 1) ** 2).mean(),
            "G/BtoA_adversarial": ((self.d_a(self.f(b)) - 1) ** 2).mean(),
            "G/A_cycle": 10 * (self.f(self.g(a)) - a).abs().mean(),
            "G/B_cycle": 10 * (self.g(self.f(b)) - b).abs().mean(),
            "G/B_identity": 5 * (self.g(b) - b).abs().mean(),
            "G/A_identity": 5 * (self.f(a) - a).abs().mean(),
        }
        fakes = {"A": self.f(b).detach(), "B": self.g(a).detach()}  # before the generators' update
        self._update(0, losses)
        judged = {side: self.pools[side].pop(0) if self.pools[side] else fake for side, fake in fakes.items()}
        critics = {
            "D/A_real": ((self.d_a(a) - 1) ** 2).mean() / 2,
            "D/A_fake": (self.d_a(judged["A"]) ** 2).mean() / 2,
            "D/B_real": ((self.d_b(b) - 1) ** 2).mean() / 2,
            "D/B_fake": (self.d_b(judged["B"]) ** 2).mean() / 2,
        }
        self._update(1, critics)
        return {name: value.item() for name, value in (losses | critics).items()}

    def _update(self, which: int, losses: dict[str, Tensor]) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optimizers[which].step()


def test_three_steps_against_the_papers_equations() -> None:
    ours, paper = tiny(), Paper(tiny(), {"A": [], "B": []})
    driver = trainer(ours)
    for number in range(3):
        data = batch(number)
        losses, _ = driver._backward(data, 1.0)
        expected = paper.step(data)
        assert {
            name for name in losses if name.startswith(("G/", "D/")) and "grad" not in name and "acc" not in name
        } == set(expected)
        for name, value in expected.items():
            assert losses[name].item() == pytest.approx(value, rel=2e-4, abs=1e-6), (number, name)
    names = {
        "generator_AtoB": paper.g,
        "generator_BtoA": paper.f,
        "discriminator_A": paper.d_a,
        "discriminator_B": paper.d_b,
    }
    before = tiny().networks
    for name, network in names.items():
        moved = 0.0
        pairs = zip(driver.bare[name].parameters(), network.parameters(), before[name].parameters(), strict=True)
        for mine, theirs, first in pairs:
            assert torch.allclose(mine, theirs, atol=1e-5), name
            moved = max(moved, (theirs - first).abs().max().item())
        assert moved > 3e-4, "three steps of Adam move weights by up to 6e-4"


@pytest.mark.parametrize("generator", [ResNetConfig(channels=4, blocks=1), UNetConfig(channels=4, depth=2, dropout=0)])
def test_the_shared_step_has_the_gradients_of_the_naive_one(generator: Any) -> None:
    """Also with a norm that permits no merging of batches."""
    for norm in ("instance", "batch"):
        method = tiny(generator=generator.model_copy(update={"norm": norm}))
        data, driver = batch(), trainer(method)
        g, f = (driver.bare[name] for name in ("generator_AtoB", "generator_BtoA"))
        d = driver.bare["discriminator_B"].requires_grad_(False)
        outputs = method.forward(data)
        with driver.train_only(method.phases[0].trains):
            for part in method.phases[0].parts:
                torch.stack(list(part(data, outputs).values())).sum().backward()
        shared = [p.grad.clone() for network in (g, f) for p in network.parameters()]  # type: ignore[union-attr]
        assert all(p.grad is None for name in ("A", "B") for p in driver.bare[f"discriminator_{name}"].parameters())
        g.zero_grad(), f.zero_grad()
        a, b = data["source"], data["target"]
        total = ((d(g(a)) - 1) ** 2).mean() + ((driver.bare["discriminator_A"](f(b)) - 1) ** 2).mean()
        total = (
            total + 10 * (F.l1_loss(f(g(a)), a) + F.l1_loss(g(f(b)), b)) + 5 * (F.l1_loss(g(b), b) + F.l1_loss(f(a), a))
        )
        total.backward()
        naive = [p.grad for network in (g, f) for p in network.parameters()]
        for mine, theirs in zip(shared, naive, strict=True):
            assert theirs is not None and torch.allclose(
                mine, theirs, rtol=1e-3, atol=2e-5 * theirs.abs().max().item() + 1e-7
            )


def test_sides_of_different_channels() -> None:
    with pytest.raises(UsageError, match="--identity-weight 0"):
        tiny(3, 1)
    method = tiny(3, 1, identity_weight=0.0)
    losses, translations = trainer(method)._backward(batch(0, 3, 1), 1.0)
    assert not any("identity" in name for name in losses)
    assert {role: (a.shape[1], b.shape[1]) for role, (a, b, _) in translations.items()} == {
        "AtoB": (3, 1),
        "BtoA": (1, 3),
    }


def test_only_one_way_is_held_in_memory_at_a_time() -> None:
    """The first part's activations are gone before the second's are made."""
    method = tiny()
    alive: list[int] = []
    counted = 0

    def pack(tensor: Tensor) -> Any:
        nonlocal counted
        counted += 1
        return _Saved(tensor, lambda: None)

    class _Saved:
        def __init__(self, tensor: Tensor, _: Any) -> None:
            self.tensor = tensor

        def __del__(self) -> None:
            nonlocal counted
            counted -= 1

    data, outputs = batch(), method.forward(batch())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        for part in method.phases[0].parts:
            alive.append(counted)
            torch.stack(list(part(data, outputs).values())).sum().backward()
    assert alive == [0, 0] and counted == 0


class TestPool:
    def test_without_size_images_pass(self) -> None:
        images = torch.randn(2, 1, 2, 2, requires_grad=True)
        assert torch.equal(ImagePool(0, 1).query(images), images)
        assert not ImagePool(0, 1).query(images).requires_grad

    def test_it_fills_then_gives_older_ones_half_of_the_time(self) -> None:
        pool, older = ImagePool(5, 3), 0
        for number in range(1005):
            image = torch.full((1, 1, 1, 1), float(number))
            given = pool.query(image).item()
            assert given <= number
            if number < 5:
                assert given == number
            older += given != number
            assert len(pool.images) == min(5, number + 1)
        assert 450 < older < 550
        assert all(image.item() > 500 for image in pool.images), "the new one takes the older one's place"

    def test_its_state_goes_on_where_it_was(self) -> None:
        stream = [torch.randn(2, 1, 2, 2) for _ in range(40)]
        pool = ImagePool(6, 9)
        for images in stream[:20]:
            pool.query(images)
        other = ImagePool(6, 1234)
        other.load_state_dict(pool.state_dict())
        for images in stream[20:]:
            assert torch.equal(pool.query(images), other.query(images))

    def test_two_batches_of_one_are_a_batch_of_two(self) -> None:
        stream = torch.randn(30, 1, 2, 2)
        one, two = ImagePool(4, 5), ImagePool(4, 5)
        for pair in stream.split(2):
            assert torch.equal(one.query(pair), torch.cat([two.query(each) for each in pair.split(1)]))


def test_each_domain_s_pool_draws_for_itself() -> None:
    pools = tiny(pool=3).pools
    assert pools["A"].seed != pools["B"].seed


def test_the_pool_is_what_the_discriminators_see() -> None:
    method = tiny(pool=1)
    driver = trainer(method)
    first, second = batch(0), batch(1)
    driver._backward(first, 1.0)
    (held,) = method.pools["B"].images
    with torch.no_grad():
        expected = tiny().networks["generator_AtoB"](first["source"])
    assert torch.allclose(held, expected[0], atol=1e-5)
    seen: list[Tensor] = []
    network: nn.Module = driver.bare["discriminator_B"]
    network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    method.pools["B"].count = next(n for n in range(1, 99) if _swaps(method.pools["B"].seed, n + 1))
    driver._backward(second, 1.0)
    assert torch.allclose(seen[-1][0], held, atol=1e-6), "an older translation, then the real image"
    assert torch.equal(seen[-1][1], second["target"][0])


def _swaps(seed: int, count: int) -> bool:
    import numpy as np

    return bool(np.random.default_rng([seed, count]).random() >= 0.5)
