import copy
import itertools
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from img2img.core.errors import UsageError
from img2img.networks import DISCRIMINATORS, GENERATORS, build_discriminator, build_generator, initialise
from img2img.networks.discriminators.patchgan import MultiScaleConfig, PatchGANConfig, PixelGANConfig
from img2img.networks.discriminators.projected import ProjectedConfig
from img2img.networks.generators.pix2pixhd import Pix2PixHDConfig
from img2img.networks.generators.resnet import ResNetConfig, encoder_depths
from img2img.networks.generators.spade import SPADEConfig, SPADENorm
from img2img.networks.generators.unet import UNetConfig
from img2img.networks.layers import (
    BlurPool,
    BlurUpsample,
    InstanceNorm,
    ReflectionPad,
    ResizeConv,
    ZeroConv2d,
    choose_memory_format,
    has_bias,
    norm_layer,
)
from img2img.networks.projection import Projection
from img2img.networks.weights import add_spectral_norm

NORMS = ["batch", "instance", "group", "none"]


def generators() -> list[Any]:
    """Every registered generator, with every norm and upsampling, small."""
    return (
        [
            config(channels=4, norm=norm, upsampling=upsampling, **({"depth": 4} if kind == "unet" else {"blocks": 2}))
            for kind, (config, _) in GENERATORS.items()
            if kind in ("unet", "resnet")
            for norm in NORMS
            for upsampling in ("transpose", "resize", "blur")
        ]
        + [
            Pix2PixHDConfig(
                channels=8, norm=norm, downsampling=2, blocks=1, enhancers=enhancers, enhancer_blocks=1, upsampling=up
            )
            for norm in NORMS
            for enhancers in (0, 2)
            for up in (("transpose", "resize", "blur") if norm == "instance" else ("transpose",))
        ]
        + [ResNetConfig(channels=4, blocks=2, norm=norm, downsampling="blur", upsampling="blur") for norm in NORMS]
        + [ResNetConfig(channels=4, blocks=2, norm=norm, separable=True) for norm in NORMS]
        + [SPADEConfig(channels=2, hidden=4, norm=norm) for norm in get_args(SPADENorm)]
    )  # type: ignore[arg-type]


def discriminators() -> list[Any]:
    single = [config for kind, (config, _) in DISCRIMINATORS.items() if kind not in ("multiscale", "projected")]
    plain = [config(channels=4, norm=norm) for config in single for norm in NORMS]
    return [*plain, PatchGANConfig(channels=4, norm="instance", downsampling="blur")]


@pytest.mark.parametrize(
    "config",
    generators(),
    ids=lambda c: (
        f"{c.kind}-{c.norm}-{getattr(c, 'upsampling', c)}-{getattr(c, 'downsampling', '')}{'-separable' * getattr(c, 'separable', False)}"
    ),
)
class TestGenerators:
    def test_shape_range_and_gradients(self, config: Any) -> None:
        torch.manual_seed(0)  # without norm, some draws leave no unit alive
        size = 64 if config.kind == "spade" else 32
        network = build_generator(config.resolve(2, 5, size))
        source = torch.randn(2, 2, size, size)
        output = network(source)
        assert output.shape == (2, 5, size, size)
        assert output.abs().max() <= 1
        output.square().sum().backward()
        without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not without

    def test_any_multiple_of_its_size_goes(self, config: Any) -> None:
        network = build_generator(config.resolve(1, 1, 64)).eval()
        m: Any = network.size_multiple
        for height, width in ((m * 2, m * 3), (max(m, network.min_size),) * 2):
            assert network(torch.randn(1, 1, height, width)).shape[2:] == (height, width)

    def test_memory_formats_agree(self, config: Any) -> None:
        torch.manual_seed(0)
        network = build_generator(config.resolve(3, 3, 64)).eval()
        source = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            plain = network(source)
            last = network.to(memory_format=torch.channels_last)(source.to(memory_format=torch.channels_last))
        # SPADE's first norms divide by the deviation of a few pixels
        assert torch.allclose(plain, last, atol=1e-3 if config.kind == "spade" else 1e-4)

    def test_its_config_rebuilds_it(self, config: Any) -> None:
        resolved = config.resolve(3, 3, 64)
        again = type(config).model_validate_json(resolved.model_dump_json())
        network, copy = build_generator(resolved).eval(), build_generator(again).eval()
        copy.load_state_dict(network.state_dict())
        source = torch.randn(1, 3, 32, 32)
        assert torch.equal(network(source), copy(source))


@pytest.mark.parametrize(
    "config", discriminators(), ids=lambda c: f"{c.kind}-{c.norm}-{getattr(c, 'downsampling', '')}"
)
def test_discriminators(config: Any) -> None:
    network = build_discriminator(config, 6)
    logits = network(torch.randn(2, 6, 33, 47))
    assert logits.shape[:2] == (2, 1)
    assert logits.shape[2:] == ((33, 47) if config.kind == "pixel" else (2, 3))
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert build_discriminator(config, 3)(torch.randn(2, 3, *[config.min_size] * 2)).numel() == 2


@pytest.mark.parametrize("scales", [1, 2, 3, 5])
@pytest.mark.parametrize("layers", [1, 3])
def test_several_scales(scales: int, layers: int) -> None:
    config = MultiScaleConfig(channels=4, norm="none", layers=layers, scales=scales)
    network: Any = build_discriminator(config, 3)
    images = torch.randn(2, 3, *[config.min_size] * 2)
    logits = network(images)
    assert len(logits) == scales and all(each.shape[:2] == (2, 1) for each in logits)
    assert logits[-1].numel() >= 2 and all(a.shape[2] > b.shape[2] for a, b in itertools.pairwise(logits))
    small = images
    for scale, expected in zip(network.scales, logits, strict=True):
        assert torch.equal(scale(small), expected), "each sees half of what the one before sees"
        small = F.avg_pool2d(small, 3, 2, 1, count_include_pad=False)
    sum(each.square().sum() for each in logits).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_discriminator_of_pix2pixhd_is_the_published_one() -> None:
    """2.8 M parameters a scale for 3 + 36 channels, and maps that are a little larger than pix2pix's, by padding of 2."""
    network: Any = build_discriminator(MultiScaleConfig(norm="instance", scales=2), 39)
    assert sum(p.numel() for p in network.scales[0].parameters()) == 2_800_705, (
        "without the biases that instance norm would cancel"
    )
    assert [tuple(each.shape[2:]) for each in network(torch.zeros(1, 39, 128, 128))] == [(19, 19), (11, 11)]


@pytest.mark.parametrize(
    "config", [PatchGANConfig(channels=4), PixelGANConfig(channels=4), MultiScaleConfig(channels=4)]
)
def test_levels_end_with_the_logits(config: Any) -> None:
    network = build_discriminator(config, 3, "instance").eval()
    images = torch.randn(1, 3, 64, 64)
    logits, levels = network(images), network(images, levels=True)
    if not isinstance(logits, list):
        logits, levels = [logits], [levels]
    assert all(torch.equal(one, several[-1]) for one, several in zip(logits, levels, strict=True))
    assert all(len(several) == (3 if config.kind == "pixel" else 5) for several in levels)


@pytest.mark.parametrize("mixing", ["none", "cross-channel", "cross-scale"])
@pytest.mark.parametrize("patch", [False, True])
def test_a_projected_discriminator(mixing: Any, patch: bool) -> None:
    config = ProjectedConfig(channels=4, mixing=mixing, patch=patch)
    network: Any = initialise(build_discriminator(config, 3, given_channels=2), "kaiming")
    images = torch.randn(2, 5, 48, 33).requires_grad_()
    logits, levels = network(images), network(images, levels=True)
    assert [tuple(each.shape) for each in logits][:5] == [
        (2, 1, 12, 8), (2, 1, 6, 4), (2, 1, 3, 2), (2, 1, 1, 1), (2, 1, 1, 1)
    ]  # fmt: skip
    assert len(logits) == 5 + patch
    assert all(torch.equal(one, several[-1]) for one, several in zip(logits, levels, strict=True))
    sum(each.square().sum() for each in logits).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    grad = images.grad
    assert grad is not None and (grad[:, :2].abs().sum() > 0) and (grad[:, 2:].abs().sum() > 0)
    named = network.layer_names()
    assert all(sum(name.startswith(layer) for layer in named) == 1 for name, _ in network.named_parameters())


def test_mixing_keeps_the_deviation_of_features_and_stays_as_it_is_drawn() -> None:
    torch.manual_seed(0)
    network: Any = build_discriminator(ProjectedConfig(channels=4, mixing="cross-scale"), 3)
    features = [torch.randn(4, channels, 16, 16) for channels in network.features.channels]
    mixed = network.mixing(features)
    # what is raised from coarser scales is smoothed, so a little less is left
    assert all(0.7 < each.std() < 1.3 for each in mixed)
    assert not torch.equal(mixed[0], network.mixing([features[0], *[torch.zeros_like(f) for f in features[1:]]])[0])
    before = {name: tensor.clone() for name, tensor in network.mixing.state_dict().items()}
    assert len(before) == 9 and not list(network.mixing.parameters())
    initialise(network, "normal")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.mixing.state_dict().items())


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_a_projected_discriminator_refuses_images_that_its_features_do_not_see(channels: int) -> None:
    with pytest.raises(UsageError, match=r"--discriminator\.kind patch"):
        build_discriminator(ProjectedConfig(), channels)
    assert len(build_discriminator(ProjectedConfig(channels=2), 1)(torch.zeros(1, 1, 32, 32))) == 5  # gray


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_a_patchgan_is_as_large_as_its_min_size_says(layers: int) -> None:
    config = PatchGANConfig(channels=2, layers=layers, norm="none")
    network = build_discriminator(config, 1)
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 1, *[config.min_size - 1] * 2))


@pytest.mark.parametrize(("layers", "field"), [(3, 70), (1, 16)])
def test_the_receptive_field_is_the_papers(layers: int, field: int) -> None:
    network = build_discriminator(PatchGANConfig(channels=2, layers=layers, norm="none"), 1).double()
    image = torch.randn(1, 1, 128, 128, dtype=torch.double, requires_grad=True)
    logits = network(image)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == field


def test_the_unet_is_the_papers() -> None:
    """54.414 M parameters at 256 pixels, as the published network."""
    network = build_generator(UNetConfig().resolve(3, 3, 256))
    assert sum(p.numel() for p in network.parameters()) == 54_413_955
    dropouts = [isinstance(layer, nn.Dropout) for up in network.up for layer in up]  # type: ignore[union-attr, operator]
    assert sum(dropouts) == 3


def test_the_resnet_is_the_papers() -> None:
    """11.378 M parameters in the published network, whose biases before instance norm (3520 of them) have no effect."""
    network = build_generator(ResNetConfig().resolve(3, 3, 256))
    assert sum(p.numel() for p in network.parameters()) == 11_378_179 - sum([64, 128, 256, *[256] * 18, 128, 64])


def test_the_patchgan_is_the_papers() -> None:
    assert sum(p.numel() for p in build_discriminator(PatchGANConfig(), 6).parameters()) == 2_768_705


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 9)])
def test_instance_norm_is_the_stock_one(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size) * 3 + 1
    expected = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    for given in (x, x.to(memory_format=torch.channels_last)):
        assert torch.allclose(InstanceNorm()(given), expected, atol=1e-5)
    if size == (5, 7):
        assert torch.allclose(InstanceNorm()(x), F.instance_norm(x), atol=1e-6)


def test_biases_stand_only_where_no_norm_cancels_them() -> None:
    for norm in NORMS:
        x = torch.randn(4, 64, 6, 6)
        layer = norm_layer(norm, 64)  # type: ignore[arg-type]
        shift = torch.arange(64.0)[:, None, None]
        cancelled = torch.allclose(layer(x), layer(x + shift), atol=1e-3)
        assert cancelled != has_bias(norm)  # type: ignore[arg-type]


def test_spectral_norm_goes_where_it_is_asked_for() -> None:
    network = add_spectral_norm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), lambda name: name == "1")
    assert [is_parametrized(layer) for layer in network] == [False, True]


@pytest.mark.parametrize("method", ["normal", "xavier", "kaiming", "orthogonal"])
def test_initialisation(method: Any) -> None:
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(64, 128, 3), nn.BatchNorm2d(512)
    gain = {"normal": 0.02, "xavier": 0.5}.get(method, 1.0)
    initialise(nn.Sequential(layer, norm), method, gain)
    weight = layer.weight.detach()
    expected = {"normal": 0.02, "xavier": 0.5 * (2 / (64 * 9 + 128 * 9)) ** 0.5, "kaiming": (2 / (64 * 9)) ** 0.5}
    if method == "orthogonal":
        flat = weight.flatten(1)
        assert torch.allclose(flat @ flat.T, torch.eye(128), atol=1e-4)
    else:
        assert weight.std().item() == pytest.approx(expected[method], rel=0.02)
    assert layer.bias is not None and not layer.bias.any()
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ("config", "size", "words"),
    [
        (UNetConfig(), 100, "use 96 or 112"),
        (UNetConfig(depth=8), 128, "use 256"),
        (ResNetConfig(), 30, "use 28"),
        (UNetConfig(), 8, "use 16"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_a_remedy(config: Any, size: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        config.resolve(3, 3, size)


@pytest.mark.parametrize(("size", "depth"), [(16, 4), (64, 6), (96, 5), (128, 7), (256, 8), (512, 8)])
def test_the_depth_follows_the_size(size: int, depth: int) -> None:
    assert UNetConfig().resolve(3, 3, size).depth == depth


def test_the_memory_format_avoids_what_is_slow() -> None:
    cpu = torch.device("cpu")
    batch, instance = nn.BatchNorm2d(2), InstanceNorm()
    assert choose_memory_format([batch], cpu, "bf16") is torch.channels_last
    assert choose_memory_format([batch], cpu, "no") is torch.contiguous_format
    assert choose_memory_format([batch, instance], cpu, "bf16") is torch.contiguous_format


def test_pixel_discriminators_judge_single_pixels() -> None:
    network = build_discriminator(PixelGANConfig(channels=4, norm="none"), 3)
    a, b = torch.randn(2, 1, 3, 4, 4)
    b[:, :, 1, 2] = a[:, :, 1, 2]
    assert torch.equal(network(a)[:, :, 1, 2], network(b)[:, :, 1, 2])


def test_blur_pooling_is_the_binomial_filter_at_every_second_pixel() -> None:
    x = torch.randn(2, 3, 7, 10)
    padded = F.pad(x, (1, 1, 1, 1), "reflect")
    rows = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    both = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    assert torch.allclose(BlurPool()(x), both[:, :, ::2, ::2], atol=1e-6)
    half = BlurPool()(x.bfloat16())
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), both[:, :, ::2, ::2], atol=0.02)


def test_blur_pooling_has_first_and_second_derivatives() -> None:
    x = torch.randn(1, 2, 5, 6, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: BlurPool()(x) ** 3, x, eps=1e-2, atol=2e-2, rtol=2e-2)  # in fp32
    assert torch.autograd.gradgradcheck(lambda x: BlurPool()(x) ** 3, x, eps=1e-2, atol=5e-2, rtol=5e-2)


def test_padding_by_reflection_stays_in_bf16() -> None:
    x = torch.randn(1, 2, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert ReflectionPad(2)(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(ReflectionPad(2)(x), F.pad(x, (2, 2, 2, 2), "reflect"))


def test_resizing_convolutions_keep_their_names_in_translators_saved_before() -> None:
    x, up = torch.randn(1, 2, 4, 4), ResizeConv(2, 3, True)
    assert set(up.state_dict()) == {"1.weight", "1.bias"}
    plain = nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")
    plain.load_state_dict({name[2:]: value for name, value in up.state_dict().items()})
    assert torch.allclose(up(x), plain(F.interpolate(x, scale_factor=2, mode="nearest")), atol=1e-6)


def test_blur_upsampling_is_the_binomial_filter_1331() -> None:
    x = torch.randn(1, 1, 4, 5)
    kernel = torch.tensor([1.0, 3, 3, 1]) / 4
    spread = F.conv_transpose2d(F.pad(x, (1, 1, 1, 1), "replicate"), (kernel[:, None] * kernel)[None, None], stride=2)
    assert torch.allclose(BlurUpsample()(x), spread[..., 3:-3, 3:-3], atol=1e-6)


def test_the_looks_into_the_encoder_are_what_forward_computes() -> None:
    for downsampling in ("stride", "blur"):
        config = ResNetConfig(channels=4, blocks=6, downsampling=downsampling).resolve(3, 3, 32)  # type: ignore[arg-type]
        network = build_generator(config).eval()
        source = torch.randn(2, 3, 32, 32)
        looks = encoder_depths(config)
        places = [torch.randperm((32 // pixels) ** 2)[:9] for _, pixels in looks]
        image, features = network(source, places)
        assert torch.equal(image, network(source))
        nothing, alone = network(source, places, decode=False)
        assert nothing is None and all(torch.equal(a, b) for a, b in zip(features, alone, strict=True))
        assert [each.shape for each in features] == [(2, 9, channels) for channels, _ in looks]
        down: Any = network.down
        first = down[0][0](network.stem(source))  # type: ignore[operator]
        assert torch.allclose(features[1], first.flatten(2)[:, :, places[1]].transpose(1, 2), atol=1e-6)
        assert torch.equal(features[0], source.flatten(2)[:, :, places[0]].transpose(1, 2))
    with pytest.raises(UsageError, match="at least 5"):
        encoder_depths(ResNetConfig(blocks=3).resolve(3, 3, 32))


def test_a_residual_resnet_begins_with_a_copy_and_computes_the_change() -> None:
    config = ResNetConfig(channels=4, blocks=5, residual=True).resolve(3, 3, 32)
    network = initialise(build_generator(config), "normal", 0.2)
    source = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(network(source), source)
    network(source).mean().backward()
    head: Any = network.head
    assert head[1].weight.grad.abs().max() > 0, "it can leave the copy"
    with torch.no_grad():
        head[1].bias.fill_(0.5)
    assert torch.equal(network(source), (source + 0.5).clamp(-1, 1))
    places = [torch.arange(4) for _ in encoder_depths(config)]
    assert torch.equal(network(source, places)[0], network(source))
    white = torch.ones(1, 3, 32, 32)
    for target, beyond, leaves in ((0.5, 0.0, True), (0.5, 0.2, True), (2.0, 0.0, False), (2.0, 0.2, False)):
        network = initialise(build_generator(config), "normal", 0.2)
        network.head[1].bias.data.fill_(beyond)  # type: ignore[index, union-attr]
        (network(white) - target).abs().mean().backward()
        gradient = next(layer for layer in network.modules() if isinstance(layer, ZeroConv2d)).bias.grad
        assert gradient is not None and bool(gradient.abs().max() > 0) == leaves, "white can become darker, not lighter"
    with pytest.raises(UsageError, match="need the same channels, not 1 and 3; leave it out"):
        ResNetConfig(residual=True).resolve(1, 3, 32)


@pytest.mark.parametrize("config", [PatchGANConfig(channels=4, layers=2), PixelGANConfig(channels=4)])
def test_spectral_norm_divides_by_the_largest_singular_value(config: Any) -> None:
    torch.manual_seed(0)
    network = add_spectral_norm(initialise(build_discriminator(config, 3), "normal", 0.5))
    for _ in range(200):
        network(torch.randn(1, 3, 16, 16))
    network.eval()
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert layers
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize(("size", "blocks"), [(64, 6), (128, 6), (256, 9), (512, 9)])
def test_the_blocks_follow_the_size(size: int, blocks: int) -> None:
    assert ResNetConfig().resolve(3, 3, size).blocks == blocks
    assert ResNetConfig(blocks=2).resolve(3, 3, size).blocks == 2


def test_a_norm_that_was_chosen_is_kept_and_else_the_methods_is_taken() -> None:
    assert ResNetConfig().resolve(3, 3, 64).norm == "instance"
    assert ResNetConfig(norm="group").resolve(3, 3, 64, "batch").norm == "group"
    assert UNetConfig().resolve(3, 3, 64, "instance").norm == "instance"
    assert UNetConfig().resolve(3, 3, 64).norm == "batch"


def test_projections_are_unit_vectors() -> None:
    features = [torch.randn(2, 5, 3), torch.randn(2, 4, 8)]
    projected = Projection([3, 8], 16)(features)
    assert [each.shape for each in projected] == [(2, 5, 16), (2, 4, 16)]
    assert all(torch.allclose(each.norm(dim=2), torch.ones(each.shape[:2])) for each in projected)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(3, 4, 3), nn.Linear(5, 4)], ids=lambda layer: type(layer).__name__
)
def test_spectral_norm_is_pytorchs_but_in_fp32(layer: Any) -> None:
    torch.manual_seed(0)
    own, stock = add_spectral_norm(copy.deepcopy(layer)), nn.utils.parametrizations.spectral_norm(copy.deepcopy(layer))
    stock.load_state_dict(own.state_dict())
    for _ in range(2):
        expected = stock.weight
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = own.weight
        assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=1e-5)
    for weight in (found, expected):
        (weight**3).sum().backward()
    gradients = [each.parametrizations.weight.original.grad for each in (own, stock)]
    assert torch.allclose(*gradients, atol=1e-4)
    own.eval()
    before = copy.deepcopy(own.state_dict())
    assert torch.equal(own.weight, own.weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
