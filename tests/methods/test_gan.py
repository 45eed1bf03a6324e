"""GAN and InfoGAN: the game, its losses and its options."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from img2img.core.errors import UsageError
from img2img.losses import regularisers
from img2img.losses.adversarial import Adversarial
from img2img.losses.information import clustering_loss, code_losses
from img2img.methods import infogan
from img2img.methods.gan import GAN, GANConfig
from img2img.methods.infogan import InfoGAN, InfoGANConfig

SMALL: dict[str, Any] = {
    "generator": {"kind": "dcgan", "channels": 2, "latent": 8},
    "discriminator": {"kind": "dcgan", "channels": 2},
}
RESIDUAL: dict[str, Any] = {
    "generator": {"kind": "biggan", "channels": 2, "latent": 8, "embedding": 4},
    "discriminator": {"kind": "resnet", "channels": 2},
}


def gan(classes: int = 0, **values: Any) -> GAN:
    torch.manual_seed(0)
    return GANConfig.model_validate({**SMALL, **values}).build(1, 1, 32, classes)


def batch(classes: int = 0, count: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"target": torch.rand(count, 1, 32, 32) * 2 - 1, "label": torch.arange(count) % max(1, classes)}


def enlarge(network: torch.nn.Module) -> None:
    """Fresh networks give logits of almost 0, by which one loss is as large as another."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(6)


KINDS: list[Adversarial] = [
    "vanilla", "nonsaturating", "lsgan", "hinge", "relativistic", "relativistic-average"
]  # fmt: skip


GROWING: dict[str, Any] = {
    "generator": {"kind": "progressive", "channels": 2, "latent": 8, "grow_updates": 10},
    "discriminator": {"kind": "progressive", "channels": 2},
}


def test_networks_grow_together_with_the_updates() -> None:
    method, data = gan(3, adversarial="wasserstein", gradient_penalty=10.0, **GROWING), batch(3)
    for update, side in ((0, 4), (12, 8), (25, 8), (33, 16), (80, 32)):
        outputs = method.forward(data, update)
        assert outputs.images["fake"].shape[2:] == outputs.images["real"].shape[2:] == (side, side)
        for losses in (method.discriminator_losses, method.generator_losses):
            sum(losses(data, outputs).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for network in method.networks.values() for p in network.parameters())
    seen: list[int] = []
    method.networks["discriminator"].last[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))  # type: ignore[index, union-attr]
    method.adversarial.config = method.config.model_copy(update={"gradient_penalty": 0.0})
    method.discriminator_losses(data, outputs)
    assert seen == [4, 4], "real and generated images are not compared with each other"
    with pytest.raises(UsageError, match="networks grow together: give both"):
        gan(generator=GROWING["generator"])


@pytest.mark.parametrize("networks", [SMALL, RESIDUAL], ids=["dcgan", "biggan"])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_game_gives_both_sides_a_gradient(kind: Adversarial, classes: int, networks: dict[str, Any]) -> None:
    method, data = gan(classes, adversarial=kind, **networks), batch(classes)
    outputs = method.forward(data)
    sum(method.discriminator_losses(data, outputs).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in method.networks["discriminator"].parameters())
    assert all(p.grad is None for p in method.networks["generator"].parameters())
    sum(method.generator_losses(data, outputs).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in method.networks["generator"].parameters())
    assert outputs.metrics["G/gradient"] > 0


def test_the_minimax_game_is_that_of_the_paper() -> None:
    """Goodfellow et al. 2014, eq. 1, by sigmoids; nothing is halved."""
    method, data = gan(adversarial="vanilla", discriminator={"kind": "dcgan", "channels": 2, "norm": "none"}), batch()
    outputs = method.forward(data)
    network, fake = method.networks["discriminator"], outputs.images["fake"]
    real_share, fake_share = network(data["target"]).sigmoid(), network(fake).sigmoid()
    losses = method.discriminator_losses(data, outputs)
    assert torch.allclose(losses["D/real"], -real_share.log().mean(), atol=1e-6)
    assert torch.allclose(losses["D/fake"], -(1 - fake_share).log().mean(), atol=1e-6)
    made = method.generator_losses(data, outputs)["G/adversarial"]
    assert torch.allclose(made, (1 - fake_share).log().mean(), atol=1e-6)


def test_the_generator_is_due_after_so_many_discriminator_updates() -> None:
    method = gan(discriminator_steps=3)
    assert [phase.every for phase in method.phases] == [1, 3]
    data = batch()
    wanted = [method.forward(data, update).images["fake"].requires_grad for update in range(6)]
    assert wanted == [False, False, True, False, False, True], "else nothing is held for its gradient"


def test_the_gradient_penalty_is_autograd_s() -> None:
    """Gulrajani et al. 2017, eq. 3, by hand, with the classes that belong to the images."""
    norm = {"kind": "dcgan", "channels": 2, "norm": "none"}
    method = gan(3, adversarial="wasserstein", gradient_penalty=10.0, discriminator=norm)
    data = batch(3)
    outputs = method.forward(data)
    torch.manual_seed(5)
    losses = method.discriminator_losses(data, outputs)
    torch.manual_seed(5)
    share = torch.rand(4).view(-1, 1, 1, 1)
    between = (share * data["target"] + (1 - share) * outputs.images["fake"].detach()).requires_grad_()
    lengths = []
    for place in range(4):  # one image at a time
        value = method.networks["discriminator"](between[place : place + 1], data["label"][place : place + 1])
        (gradient,) = torch.autograd.grad(value.sum(), between, retain_graph=True)
        lengths.append(gradient[place].square().sum().sqrt())
    wanted = 10 * (torch.stack(lengths) - 1).square().mean()
    assert torch.allclose(losses["D/penalty"], wanted, rtol=1e-4)


def test_weights_are_clipped_after_the_discriminator_s_step() -> None:
    method = gan(adversarial="wasserstein", weight_clip=0.01)
    discriminator, generator = method.phases
    assert generator.after is None and discriminator.after is not None
    discriminator.after()
    ends = [p.detach().aminmax() for p in method.networks["discriminator"].parameters()]
    assert (min(low for low, _ in ends), max(high for _, high in ends)) == (-0.01, torch.tensor(0.01))
    assert max(p.abs().max().item() for p in method.networks["generator"].parameters()) > 0.01


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "penalty", [{"r1": 1.0, "r1_every": 1}, {"r2": 1.0, "r1_every": 1}, {"gradient_penalty": 10.0}]
)
def test_penalties_go_through_attention(penalty: dict[str, Any], layout: torch.memory_format) -> None:
    """Which has a fused kernel that is differentiable only once."""
    method = gan(discriminator={"kind": "resnet", "channels": 16, "attention": 16}, **penalty)
    network = method.networks["discriminator"].to(memory_format=layout)
    torch.nn.init.constant_(next(iter(network.attention.values())).gamma, 1.0)  # type: ignore[operator, union-attr]
    data = {name: value.to(memory_format=layout) if value.ndim == 4 else value for name, value in batch().items()}
    sum(method.discriminator_losses(data, method.forward(data)).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_orthogonal_regularisation_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 2, 2, 2)
    rows = [weight[k].flatten() for k in range(3)]
    wanted = sum((rows[i] @ rows[j]) ** 2 for i in range(3) for j in range(3) if i != j)
    assert torch.allclose(regularisers.orthogonal([weight]), torch.as_tensor(wanted))
    assert regularisers.orthogonal([5 * torch.eye(4)]) == 0, "lengths are free"
    method, data = gan(3, orthogonal=1e-4, **RESIDUAL), batch(3)
    with torch.no_grad():
        method.networks["generator"].embedding.weight.mul_(1000)  # which would outweigh all others
    layers = [
        layer.weight
        for name, layer in method.networks["generator"].named_modules()
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) and name != "embedding"
    ]
    found = method.generator_losses(data, method.forward(data))["G/orthogonal"]
    assert found.item() == pytest.approx(1e-4 * regularisers.orthogonal(layers).item(), rel=1e-3)  # type: ignore[arg-type]


def test_labels_are_smoothed_on_one_side() -> None:
    plain = {"discriminator": {"kind": "dcgan", "channels": 2, "norm": "none"}}
    method, data = gan(label_smoothing=0.1, **plain), batch()
    enlarge(method.networks["discriminator"])
    outputs = method.forward(data)
    logits = method.networks["discriminator"](data["target"])
    wanted = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 0.9))
    losses = method.discriminator_losses(data, outputs)
    assert torch.allclose(losses["D/real"], wanted)
    assert torch.allclose(losses["D/fake"], F.softplus(method.networks["discriminator"](outputs.images["fake"])).mean())


def test_images_are_made_of_the_classes_of_the_real_ones_and_of_noise_before_codes() -> None:
    seen: list[Any] = []
    method, data = gan(3), batch(3)
    method.networks["generator"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    method.forward(data)
    assert torch.equal(seen[0][1], data["label"]) and seen[0][0].shape == (4, 8)
    config = InfoGANConfig.model_validate({**SMALL, "codes": {"categorical": (3,), "continuous": 2}})
    method = config.build(1, 1, 32)
    method.networks["generator"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    codes = method.forward(data).images["codes"]
    assert torch.equal(seen[1][0][:, 8:], codes) and (codes[:, :3].sum(1) == 1).all()


def test_instance_noise_fades() -> None:
    method = gan(instance_noise=0.5, instance_noise_updates=10)
    images = torch.zeros(50, 1, 32, 32)
    spread = [method.adversarial._prepare(images, None, update).std().item() for update in (0, 5, 10, 20)]
    assert spread == pytest.approx([0.5, 0.25, 0.0, 0.0], abs=0.01)


def test_an_auxiliary_classifier_learns_and_teaches_the_class() -> None:
    method = gan(
        3, auxiliary_weight=2.0, discriminator={"kind": "dcgan", "channels": 2, "conditioning": "none", "norm": "none"}
    )
    data = batch(3)
    outputs = method.forward(data)
    network, fake = method.networks["discriminator"], outputs.images["fake"]
    found = [network(images, data["label"], outputs=True)[1] for images in (data["target"], fake)]
    each = [F.cross_entropy(logits, data["label"]) for logits in found]
    assert torch.allclose(method.discriminator_losses(data, outputs)["D/classes"], 2 * (each[0] + each[1]))
    assert torch.allclose(method.generator_losses(data, outputs)["G/classes"], 2 * each[1])


def test_two_time_scales() -> None:
    assert [phase.lr for phase in gan(lr=1e-4, discriminator_lr=4e-4).phases] == [4e-4, 1e-4]


@pytest.mark.parametrize(
    ("values", "classes", "words"),
    [
        ({"adversarial": "wasserstein"}, 0, "--gradient-penalty 10, --weight-clip 0.01, or"),
        ({"gradient_penalty": 10.0, "discriminator": {"kind": "dcgan", "norm": "batch"}}, 0, "mixes them"),
        ({"label_smoothing": 0.1, "adversarial": "hinge"}, 0, "--label-smoothing is for vanilla, nonsaturating, lsgan"),
        ({"weight_clip": 0.1, "discriminator": {"kind": "resnet"}}, 0, "leave one out"),
        ({"auxiliary_weight": 1.0}, 0, "there are no classes"),
        ({"auxiliary_weight": 1.0}, 3, "needn't find it; add --discriminator.conditioning none"),
        ({"discriminator": {"kind": "dcgan", "conditioning": "none"}}, 3, "nothing ties an image to its class"),
        ({**GROWING, "orthogonal": 1e-4}, 0, "--orthogonal is for weights as they are used"),
        ({**GROWING, "weight_clip": 0.01}, 0, "--weight-clip is for weights as they are used"),
        (
            {"generator": {"kind": "resnet", "attention": 24}},
            0,
            "--generator.attention 24: here images are 8, 16, 32 pixels",
        ),
        (
            {"discriminator": {"kind": "resnet", "attention": 32}},
            0,
            "--discriminator.attention 32: here images are 4, 8, 16",
        ),
    ],
)
def test_what_excludes_each_other_is_refused(values: dict[str, Any], classes: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        gan(classes, **values)


@pytest.mark.parametrize("size", [16, 48, 512])
def test_sizes_that_are_no_power_of_two_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"--size {size}: these networks make images of 32, 64, 128 or 256 pixels"):
        GANConfig().build(0, 3, size)


def test_penalties_take_group_norm_instead_of_batch_norm() -> None:
    for method, kind in ((gan(r1=1.0), torch.nn.GroupNorm), (gan(), torch.nn.BatchNorm2d)):
        assert any(isinstance(layer, kind) for layer in method.networks["discriminator"].modules())


def test_code_losses_are_cross_entropy_and_gaussian_likelihood() -> None:
    torch.manual_seed(0)
    found, values = torch.randn(5, 3 + 2 + 2 * 2), torch.rand(5, 2) * 2 - 1
    which = torch.tensor([[0, 1], [2, 0], [1, 1], [1, 0], [2, 1]])
    codes = torch.cat([F.one_hot(which[:, 0], 3), F.one_hot(which[:, 1], 2), values], dim=1)
    losses = code_losses(found, codes, (3, 2), 2)
    wanted = -sum(
        found[b, :3].log_softmax(0)[which[b, 0]] + found[b, 3:5].log_softmax(0)[which[b, 1]] for b in range(5)
    )
    assert torch.allclose(losses["categorical"], torch.as_tensor(wanted) / 5)
    normal = torch.distributions.Normal(found[:, 5:7], (0.5 * found[:, 7:9]).exp())
    assert torch.allclose(losses["continuous"], -normal.log_prob(values).sum(1).mean(), atol=1e-5)
    sharp = torch.cat([torch.zeros(1, 1), torch.full((1, 1), -1e6)], dim=1)
    assert math.isfinite(code_losses(sharp, torch.ones(1, 1), (), 1)["continuous"].item())
    for beyond, most in ((-9.0, -6.0), (9.0, 6.0)):
        both = [code_losses(torch.tensor([[0.5, each]]), torch.ones(1, 1), (), 1) for each in (beyond, most)]
        assert both[0]["continuous"] == both[1]["continuous"], "a spread between 0.05 and 20"


def test_the_clustering_loss_has_three_terms() -> None:
    torch.manual_seed(0)
    found, first, second = torch.randn(3, 6, 4 + 2)
    told, others = found[:, :4].softmax(1), [each[:, :4] for each in (first, second)]
    agreement = sum(-(told * other.log_softmax(1)).sum(1).mean() for other in others) / 2
    everything = torch.cat([found[:, :4], *others]).softmax(1)
    unsure = -(everything * everything.log()).sum(1).mean()
    mean = everything.mean(0)
    wanted = agreement + unsure + 4 * (mean * mean.log()).sum()
    assert torch.allclose(clustering_loss(found, [first, second], (4,)), torch.as_tensor(wanted))
    found.requires_grad_(True)
    clustering_loss(found, [first], (4,)).backward()
    assert found.grad is not None and found.grad[:, :4].abs().max() > 0 and found.grad[:, 4:].abs().max() == 0
    start = found.detach().clone().requires_grad_(True)
    chosen, other = start[:, :4], first[:, :4]
    held = chosen.detach().softmax(1)  # what is told teaches the copies, and not the other way round
    both = torch.cat([chosen, other]).softmax(1)
    (
        -(held * other.log_softmax(1)).sum(1).mean()
        - (both * both.log()).sum(1).mean()
        + 4 * (both.mean(0) * both.mean(0).log()).sum()
    ).backward()
    assert torch.allclose(found.grad, start.grad, atol=1e-6)  # type: ignore[arg-type]
    best = 50 * torch.eye(4)
    assert clustering_loss(best, [best], (4,)) == pytest.approx(-4 * math.log(4), abs=1e-5)
    same, two = best[:1].expand(4, 4), torch.stack([best[0], best[0], best[1], best[1]])
    assert clustering_loss(best, [best], (4,)) < clustering_loss(two, [two], (4,)) < clustering_loss(same, [same], (4,))


def test_infogan_clusters_real_images_and_warped_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def spy(found: torch.Tensor, changed: list[torch.Tensor], categorical: tuple[int, ...]) -> torch.Tensor:
        asked.append((found, changed, categorical))
        return found.sum()

    monkeypatch.setattr(infogan, "clustering_loss", spy)
    monkeypatch.setattr(infogan, "warp", lambda images: -images)
    discriminator = {"kind": "dcgan", "channels": 2, "norm": "none"}
    settings = {**SMALL, "discriminator": discriminator, "clustering_weight": 2.0}
    method = InfoGANConfig.model_validate(settings).build(0, 1, 32)
    data = batch()
    losses = method.discriminator_losses(data, method.forward(data))
    ((found, changed, categorical),) = asked
    network = method.networks["discriminator"]
    assert torch.allclose(found, network(data["target"], None, outputs=True)[1], atol=1e-6) and categorical == (10,)
    assert len(changed) == 3
    assert all(torch.allclose(c, network(-data["target"], None, outputs=True)[1], atol=1e-6) for c in changed)
    assert losses["D/clustering"] == 2 * found.sum()
    plain = InfoGANConfig.model_validate({**settings, "clustering_weight": 0}).build(0, 1, 32)
    without = plain.discriminator_losses(data, plain.forward(data))
    assert "D/clustering" not in without and "D/categorical" in without
    assert "D/categorical" not in losses and "D/continuous" in losses, "real images alone teach Q the categories"
    assert "G/categorical" in method.generator_losses(data, method.forward(data))
    with pytest.raises(UsageError, match="about a categorical code"):
        InfoGANConfig.model_validate({**settings, "codes": {"categorical": (), "continuous": 1}}).build(0, 1, 32)


def test_infogan_without_a_code_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a code"):
        InfoGANConfig.model_validate({**SMALL, "codes": {"categorical": (), "continuous": 0}}).build(0, 1, 32)


def test_the_shared_embedding_has_no_spectral_norm() -> None:
    names = gan(3, **RESIDUAL).networks["generator"].state_dict().keys()
    assert "embedding.weight" in names and "stem.parametrizations.weight.original" in names


def test_infogan_gives_codes_to_the_generator_and_finds_them_in_the_discriminator() -> None:
    torch.manual_seed(0)
    config = InfoGANConfig.model_validate({**SMALL, "codes": {"categorical": (3,), "continuous": 2}})
    method: InfoGAN = config.build(1, 1, 32, 10)
    assert method.generator_configs[""].latent == 8 + 5 and method.generator_configs[""].classes == 0
    data = batch()
    outputs = method.forward(data)
    found = method.discriminator_losses(data, outputs)
    assert {"D/categorical", "D/continuous"} <= found.keys()
    sum(found.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in method.networks["discriminator"].parameters())
    made = method.generator_losses(data, outputs)
    made["G/categorical"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in method.networks["generator"].parameters())
    heavier = config.model_copy(update={"categorical_weight": 3.0})
    method.config = heavier
    torch.manual_seed(0)
    assert torch.allclose(
        method._information_losses(torch.zeros(4, 7), outputs, "D")["D/categorical"], torch.tensor(3 * math.log(3))
    )


def test_codes_are_looked_for_in_generated_images() -> None:
    torch.manual_seed(0)
    discriminator = {"kind": "dcgan", "channels": 2, "norm": "none"}
    drawn = {"initialisation": "orthogonal", "initialisation_gain": 2.0}  # so that it says something of each image
    method = InfoGANConfig.model_validate({**SMALL, "discriminator": discriminator, **drawn}).build(0, 1, 32)
    data = batch()
    outputs = method.forward(data)
    found = method.networks["discriminator"](outputs.images["fake"], None, outputs=True)[1]
    wanted = code_losses(found, outputs.images["codes"], (10,), 2)
    losses = method.discriminator_losses(data, outputs)
    assert torch.allclose(losses["D/categorical"], wanted["categorical"])
    assert torch.allclose(losses["D/continuous"], 0.1 * wanted["continuous"])
