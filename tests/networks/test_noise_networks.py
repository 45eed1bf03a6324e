"""Networks that make images from noise, and those that judge them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.core.errors import UsageError
from img2img.methods.gan import judge_samples
from img2img.models import BlendedWarning, Training, Translator, TranslatorConfig
from img2img.networks import NOISE_DISCRIMINATORS, NOISE_GENERATORS, build_generator, build_noise_generator, initialise
from img2img.networks.discriminators.base import Head
from img2img.networks.discriminators.dcgan import DCGANDiscriminator, DCGANDiscriminatorConfig
from img2img.networks.discriminators.projected import ProjectedNoise, ProjectedNoiseConfig
from img2img.networks.discriminators.sngan import NoiseResNetDiscriminator, NoiseResNetDiscriminatorConfig
from img2img.networks.generators.base import Codes, ConditionalBatchNorm
from img2img.networks.generators.resnet import ResNetConfig
from img2img.networks.generators.sngan import BigGANConfig, NoiseResNet, NoiseResNetConfig
from img2img.networks.generators.unet import UNetConfig
from img2img.networks.layers import SelfAttention
from img2img.networks.weights import add_spectral_norm

UNBOUNDED = ("progressive", "style", "laplacian")
WITH_ATTENTION = ("resnet", "biggan")


def count_numbers(kind: str, size: int) -> int:
    return NOISE_GENERATORS[kind][0]().count_numbers(size)


def generator(kind: str, size: int, **values: Any) -> nn.Module:
    config = NOISE_GENERATORS[kind][0](
        channels=2, out_channels=3, size=size, latent=count_numbers(kind, size), **values
    )
    return build_noise_generator(config)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("kind", list(NOISE_GENERATORS))
def test_generators_make_images_of_every_size(kind: str, classes: int, size: int) -> None:
    if size not in NOISE_GENERATORS[kind][0].sizes:
        pytest.skip("it makes no images of this size")
    network = generator(kind, classes=classes, size=size, **({"attention": 8} if kind in WITH_ATTENTION else {}))
    latent = count_numbers(kind, size)
    labels = torch.tensor([0, 2]) if classes else None
    images = network(torch.randn(2, latent), labels)
    assert images.shape == (2, 3, size, size) and (kind in UNBOUNDED or images.abs().max() <= 1)
    images.square().sum().backward()
    idle = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is None}
    assert idle == ({"heads"} if kind == "progressive" else set()), "of one that grows, the heads of smaller images"


@pytest.mark.parametrize("kind", list(NOISE_GENERATORS))
def test_the_class_that_is_asked_for_changes_the_image(kind: str) -> None:
    network = initialise(generator(kind, classes=3, size=32), "orthogonal", 1.0).eval()
    noise = torch.randn(1, count_numbers(kind, 32)).expand(3, -1)
    images = network(noise, torch.arange(3))
    assert all((images[a] - images[b]).abs().max() > 1e-4 for a, b in ((0, 1), (1, 2), (0, 2)))


@pytest.mark.parametrize(
    ("kind", "conditioning"),
    [
        (kind, conditioning)
        for kind in NOISE_DISCRIMINATORS
        for conditioning in ("concat", "projection", "none")
        if (kind, conditioning) not in (("progressive", "projection"), ("style", "concat")) and kind != "projected"
    ],
)
def test_discriminators_give_a_logit_an_image(kind: str, conditioning: Any) -> None:
    config: Any = NOISE_DISCRIMINATORS[kind][0](channels=4, conditioning=conditioning)
    config = config.model_copy(update={"dcgan": {"norm": "batch"}, "resnet": {"attention": 8}}.get(kind, {}))
    network: Any = NOISE_DISCRIMINATORS[kind][1]
    images = torch.randn(1, 3, 32, 32).expand(3, -1, -1, -1)
    bare = initialise(network(config, 3, 32, 3), "orthogonal", 1.0).eval()
    logits = bare(images, torch.arange(3))
    assert logits.shape == (3,)
    assert (logits.std() < 1e-5) == (conditioning == "none"), "the class is seen unless it shall not be"
    both = network(config, 3, 32, 3, outputs=5)
    judged, second = both(images, torch.arange(3), outputs=True)
    assert judged.shape == (3,) and second.shape == (3, 5)
    (judged.sum() + second.square().sum()).backward()
    idle = {name.split(".")[0] for name, p in both.named_parameters() if p.grad is None}
    assert idle == ({"stems"} if kind == "progressive" else set())


@pytest.mark.parametrize("conditioning", ["concat", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_projected_discriminator_gives_logits_at_five_scales(conditioning: Any, channels: int) -> None:
    config = ProjectedNoiseConfig(channels=4, conditioning=conditioning)
    network = initialise(ProjectedNoise(config, channels, 32, 3), "orthogonal", 1.0)
    images = torch.randn(1, channels, 32, 32).expand(3, -1, -1, -1)
    logits = network(images, torch.arange(3))
    assert [tuple(each.shape) for each in logits] == [(3, 1, n, n) for n in (16, 8, 4, 2, 2)], "of images of 64 pixels"
    assert all((each.std(0).max() < 1e-5) == (conditioning == "none") for each in logits)
    judged = judge_samples(network, images, torch.arange(3), levels=False, second_head=False)
    assert len(judged.scales) == 5 and all(torch.equal(a, b) for (a,), b in zip(judged.scales, logits, strict=True))
    with pytest.raises(UsageError, match=r"another --discriminator\.kind"):
        ProjectedNoise(config, channels, 32, 3, outputs=4)


def test_projection_is_that_of_the_paper() -> None:
    """Miyato & Koyama 2018, eq. 3: yᵀ V φ(x) + ψ(φ(x)), where φ sums over positions."""
    torch.manual_seed(0)
    network = NoiseResNetDiscriminator(NoiseResNetDiscriminatorConfig(channels=4), 1, 32, classes=5)
    images, labels = torch.randn(4, 1, 32, 32), torch.tensor([0, 3, 3, 4])
    features = F.relu(network.blocks(images)).sum((2, 3))  # φ
    head: Head = network.head
    assert head.projection is not None
    matrix, psi = head.projection.weight, head.judge.linear  # type: ignore[union-attr]
    wanted = torch.stack(
        [
            sum(matrix[c, label] * phi[c] for c in range(len(phi))) + psi(phi).squeeze()
            for phi, label in zip(features, labels, strict=True)
        ]
    )
    assert torch.allclose(network(images, labels), wanted, atol=1e-4)


def plain_attention(layer: SelfAttention, x: Tensor) -> Tensor:
    """Zhang et al. 2019, eq. 1–3, position by position."""
    done = torch.empty_like(x)
    for number, image in enumerate(x):
        flat = image.flatten(1)  # (C, N)
        f, g, h = (
            each.weight[:, :, 0, 0] @ flat + each.bias[:, None]  # type: ignore[index]
            for each in (layer.key, layer.query, layer.value)
        )
        out = torch.empty_like(flat)
        for j in range(flat.shape[1]):
            scores = torch.stack([f[:, i] @ g[:, j] for i in range(flat.shape[1])]).exp()
            mixed = (scores / scores.sum() * h).sum(1)
            assert layer.out.bias is not None
            out[:, j] = layer.out.weight[:, :, 0, 0] @ mixed + layer.out.bias
        done[number] = image + layer.gamma * out.view_as(image)
    return done


@pytest.mark.parametrize("channels", [3, 16])
def test_self_attention_is_that_of_the_paper(channels: int) -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(channels), torch.randn(2, channels, 4, 3)
    assert torch.equal(layer(x), x), "a fresh one changes nothing"
    nn.init.constant_(layer.gamma, 0.7)
    assert torch.allclose(layer(x), plain_attention(layer, x), atol=1e-5)


def test_spectral_norm_divides_by_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    network = add_spectral_norm(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Linear(4, 6))).train()
    bare = [layer.parametrizations.weight.original for layer in network]  # type: ignore[union-attr]
    for _ in range(200):  # power iterations
        weights = [layer.weight for layer in network]
    for weight, original in zip(weights, bare, strict=True):
        largest = torch.linalg.svdvals(original.flatten(1))[0]
        assert torch.allclose(weight.flatten(1), original.flatten(1) / largest, atol=1e-3)  # type: ignore[operator]


def test_conditional_batch_norm_is_batch_norm_with_the_condition_s_scale_and_shift() -> None:
    torch.manual_seed(0)
    layer, x, condition = ConditionalBatchNorm(3, 2), torch.randn(4, 3, 5, 5), torch.randn(4, 2)
    done = layer(x, condition)
    normal = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    scale, shift = condition @ layer.scale.weight.t(), condition @ layer.shift.weight.t()
    assert torch.allclose(done, normal * (1 + scale[:, :, None, None]) + shift[:, :, None, None], atol=1e-5)


def test_biggan_gives_every_block_a_part_of_the_noise_and_shares_the_embedding() -> None:
    network = NoiseResNet(BigGANConfig(channels=2, classes=3, out_channels=3, size=32, latent=10))
    assert network.parts == [3, 3, 2, 2] and sum(network.parts) == 10
    assert network.embedding is not None and network.embedding.weight.shape == (128, 3)
    assert [block.first.scale.in_features for block in network.blocks] == [131, 130, 130]  # type: ignore[union-attr]
    own = NoiseResNet(NoiseResNetConfig(channels=2, classes=3, out_channels=3, size=32))
    assert own.embedding is None and [block.first.scale.in_features for block in own.blocks] == [3, 3, 3]  # type: ignore[union-attr]


def test_attention_stands_where_it_was_asked_for() -> None:
    made = NoiseResNet(NoiseResNetConfig(channels=2, out_channels=3, size=64, attention=32))
    seen: list[Tensor] = []
    next(iter(made.attention.values())).register_forward_hook(lambda _, __, out: seen.append(out))
    made(torch.randn(2, 128))
    assert [each.shape[2] for each in seen] == [32]
    judge = NoiseResNetDiscriminator(NoiseResNetDiscriminatorConfig(channels=2, attention=16), 3, 64)
    next(iter(judge.attention.values())).register_forward_hook(lambda _, __, out: seen.append(out))
    judge(torch.randn(2, 3, 64, 64))
    assert seen[1].shape[2] == 16


def test_concatenated_labels_are_planes_beside_the_image() -> None:
    config = DCGANDiscriminatorConfig(channels=2, norm="none")
    network = DCGANDiscriminator(config, 1, 32, classes=2)
    seen: list[Tensor] = []
    network.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 1, 32, 32)
    network(images, torch.tensor([1, 0]))
    assert torch.equal(seen[0][:, :1], images)
    assert seen[0][:, 1:, 0, 0].tolist() == [[0, 1], [1, 0]] and seen[0].shape == (2, 3, 32, 32)


def test_codes_are_one_hot_and_uniform() -> None:
    codes = Codes(categorical=(3, 2), continuous=2)
    drawn = codes.draw(500, torch.device("cpu"))
    assert drawn.shape == (500, codes.width) == (500, 7) and codes.outputs == 9
    assert (drawn[:, :3].sum(1) == 1).all() and (drawn[:, 3:5].sum(1) == 1).all()
    assert drawn[:, :3].mean(0).sub(1 / 3).abs().max() < 0.1
    assert drawn[:, 5:].abs().max() <= 1 and drawn[:, 5:].std() > 0.5


@pytest.mark.parametrize(
    "config",
    [UNetConfig(channels=2, depth=4, attention=2), ResNetConfig(channels=2, blocks=1, attention=True)],
    ids=["unet", "resnet"],
)
def test_translators_attend_where_they_were_asked_to(config: UNetConfig | ResNetConfig) -> None:
    torch.manual_seed(0)
    network = build_generator(config.resolve(3, 3, 32)).eval()
    (layer,) = [each for each in network.modules() if isinstance(each, SelfAttention)]
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda _, __, out: seen.append(out))
    image = torch.randn(1, 3, 32, 48)
    before = network(image)
    assert seen[0].shape[2:] == (8, 12), "a quarter of the resolution"
    nn.init.constant_(layer.gamma, 3.0)
    assert (network(image) - before).abs().max() > 1e-4
    if isinstance(config, UNetConfig):
        with pytest.raises(UsageError, match="halves 4 times, so give 1 to 3"):
            config.model_copy(update={"attention": 4}).resolve(3, 3, 32)


def test_an_image_that_is_too_large_for_attention_is_blended_from_tiles() -> None:
    config = ResNetConfig(channels=2, blocks=1, attention=True).resolve(3, 3, 32)
    about = TranslatorConfig(method="pix2pix", generator=config, size=32, training=Training(img2img="1"))
    translator = Translator(about, build_generator(config).eval())
    with pytest.warns(BlendedWarning, match="overlapping tiles"):
        assert translator(torch.randn(1, 3, 96, 96), tile=32).shape == (1, 3, 96, 96)
