"""Other projects' files: told by their keys, computed to float precision, written back as they were."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import plain_networks as plain
from helpers.families import image, made, saved
from helpers.plain_networks import Plain

import img2img
from img2img.core.errors import UsageError
from img2img.interop import ImportOptions, export_reference, import_file, read_network, save_discriminator
from img2img.interop.recognise import FAMILIES
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import Pix2PixHDConfig, ResNetConfig, UNetConfig, build_generator, initialise

CLOSE = 1e-5
LABELS = torch.nn.functional.one_hot(torch.arange(64 * 64).view(64, 64) // 300 % 6, 6).permute(2, 0, 1)[None].float()


GENERATORS: dict[str, tuple[Any, dict[str, Any], str]] = {
    **{
        f"resnet-{blocks}-{norm}-{dropout}": (plain.resnet, {"blocks": blocks, "dropout": dropout, "norm": norm}, "cyclegan-resnet")
        for blocks in (1, 6, 9)
        for norm in ("batch", "instance", "none")
        for dropout in (False, True)
    },
    "resnet-wide": (plain.resnet, {"width": 12, "out": 1, "norm": "instance"}, "cyclegan-resnet"),
    "resnet-0-blocks": (plain.resnet, {"blocks": 0, "norm": "batch"}, "cyclegan-resnet"),
    "resnet-zero": (plain.resnet, {"padding": "zero", "norm": "instance"}, "cyclegan-resnet"),
    "resnet-zero-dropout": (plain.resnet, {"padding": "zero", "dropout": True, "norm": "batch"}, "cyclegan-resnet"),
    **{
        f"unet-{depth}-{norm}": (plain.unet, {"depth": depth, "norm": norm}, "cyclegan-unet")
        for depth in (2, 5, 6)
        for norm in ("batch", "instance", "none")
    },
    "unet-wide": (plain.unet, {"width": 6, "out": 1, "depth": 5, "norm": "batch"}, "cyclegan-unet"),
    **{
        f"cut-{norm}-{dropout}": (plain.resnet, {"blur": True, "norm": norm, "dropout": dropout}, "cut-resnet")
        for norm in ("batch", "instance")
        for dropout in (False, True)
    },
    "cut-blurs-down-only": (plain.resnet, {"blur": True, "blur_up": False, "norm": "instance"}, "cut-resnet"),
    "cut-blurs-up-only": (plain.resnet, {"blur": False, "blur_up": True, "norm": "instance"}, "cut-resnet"),
    **{
        f"global-{downs}-{norm}": (plain.resnet, {"downs": downs, "norm": norm, "bias": True}, "pix2pixhd-global")
        for downs in (1, 3, 4)
        for norm in ("batch", "instance")
    },
    **{
        f"enhancer-{count}-{norm}": (plain.enhancer, {"count": count, "norm": norm, "bias": True}, "pix2pixhd-enhancer")
        for count in (1, 2)
        for norm in ("batch", "instance")
    },
}  # fmt: skip


def same(file: Path, network: Plain) -> bool:
    back = torch.load(file, weights_only=True)
    return back.keys() == network.state.keys() and all(torch.equal(back[name], network.state[name]) for name in back)


@pytest.mark.parametrize("name", GENERATORS)
def test_generators(name: str, tmp_path: Path) -> None:
    compute, options, family = GENERATORS[name]
    network, truth = made(compute, image(), **options)
    file = saved(network, tmp_path / "latest_net_G.pth")
    imported = import_file(file)
    assert imported.translator.config.imported == family
    random = (
        options["norm"] == "batch" or options.get("dropout") or (family == "cyclegan-unet" and options["depth"] > 5)
    )
    if family != "cyclegan-unet":
        assert imported.translator.config.mode == ("paper" if random else "eval")
    done = imported.translator(image(), mode="eval")
    assert (done - truth).abs().max() < CLOSE and truth.std() > 0.01
    imported.translator.save(tmp_path / "translator")
    export_reference(tmp_path / "translator", tmp_path / "back.pth")
    assert same(tmp_path / "back.pth", network)


@pytest.mark.parametrize("upsampling", ["normal", "most"])
@pytest.mark.parametrize("latent", [False, True])
@pytest.mark.parametrize(("norm", "spectral"), [("batch", True), ("instance", True), ("batch", False)])
def test_spade(upsampling: str, latent: bool, norm: str, spectral: bool, tmp_path: Path) -> None:
    labels = LABELS if upsampling == "normal" else torch.nn.functional.interpolate(LABELS, scale_factor=4)
    style = torch.randn(1, 5) if latent else None
    network, truth = made(plain.spade, labels, norm, None, style=style, upsampling=upsampling, spectral=spectral)
    file = saved(network, tmp_path / "latest_net_G.pth")
    imported = import_file(file, ImportOptions(edges=False))
    done = imported.translator(labels.argmax(1), style=None if style is None else style[0])
    exact = plain.spade(network.in_fp64(), labels.double(), None if style is None else style.double(), upsampling=upsampling, spectral=spectral)  # fmt: skip
    rounding = (truth - exact).abs().max()  # where labels are even, variances are small
    assert (done - truth).abs().max() < max(CLOSE, 2 * rounding) and truth.std() > 0.01
    imported.translator.save(tmp_path / "translator")
    export_reference(tmp_path / "translator", tmp_path / "back.pth")
    assert same(tmp_path / "back.pth", network)


def test_spade_with_six_doublings_has_to_be_said(tmp_path: Path) -> None:
    labels = torch.nn.functional.interpolate(LABELS, scale_factor=2)
    network, truth = made(plain.spade, labels, "batch", None, upsampling="more")
    file = saved(network, tmp_path / "G.pth")
    assert any("--upsampling more" in each for each in import_file(file, ImportOptions(edges=False)).assumed)
    imported = import_file(file, ImportOptions(edges=False, upsampling="more"))
    assert (imported.translator(labels.argmax(1)) - truth).abs().max() < CLOSE


DISCRIMINATORS: dict[str, tuple[Any, dict[str, Any], str]] = {
    **{
        f"patch-{layers}-{norm}": (plain.patch, {"layers": layers, "norm": norm}, "cyclegan-patch")
        for layers in (1, 3, 4)
        for norm in ("batch", "instance", "none")
    },
    "cut-1": (plain.patch, {"layers": 1, "blur": True, "norm": "instance"}, "cut-patch"),
    "cut-3": (plain.patch, {"layers": 3, "blur": True, "norm": "batch"}, "cut-patch"),
    **{f"pixel-{norm}": (plain.pixel, {"norm": norm}, "cyclegan-pixel") for norm in ("batch", "instance", "none")},
    **{
        f"scales-{count}-{features}-{norm}": (
            plain.scales, {"count": count, "features": features, "norm": norm, "bias": True},
            "pix2pixhd-scales" if features else "pix2pixhd-scales-plain",
        )
        for count in (1, 2, 3)
        for features in (True, False)
        for norm in ("batch", "instance")
    },
    "scales-512": (plain.scales, {"width": 80, "layers": 4, "norm": "instance", "bias": True}, "pix2pixhd-scales"),
}  # fmt: skip


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators(name: str, tmp_path: Path) -> None:
    compute, options, family = DISCRIMINATORS[name]
    seen = image(6, 96, 64)
    network, truth = made(compute, seen, **options)
    found = read_network(saved(network, tmp_path / "latest_net_D.pth"))
    assert found.family.name == family and found.guess.in_channels == 6
    with torch.no_grad():
        done = found.network(seen)
    for one, other in zip(*(each if isinstance(each, list) else [each] for each in (done, truth)), strict=True):
        assert one.shape == other.shape and (one - other).abs().max() < CLOSE
    save_discriminator(found, tmp_path / "discriminator")
    export_reference(tmp_path / "discriminator", tmp_path / "back.pth")
    assert same(tmp_path / "back.pth", network)


def test_spades_encoder(tmp_path: Path) -> None:
    seen = image(3, 256, 256)
    network, truth = made(plain.spade_encoder, seen, "instance")
    found = read_network(saved(network, tmp_path / "latest_net_E.pth"))
    assert found.family.name == "spade-encoder"
    with torch.no_grad():
        for one, other in zip(found.network(seen), truth, strict=True):
            assert (one - other).abs().max() < CLOSE


def test_the_encoder_of_pix2pixhd_averages_over_instances(tmp_path: Path) -> None:
    instances = torch.arange(64 * 64).view(1, 64, 64) // 1000
    network, features = made(plain.resnet, image(), "instance", True, downs=4, blocks=0)
    found = read_network(saved(network, tmp_path / "latest_net_E.pth"))
    assert found.family.name == "pix2pixhd-encoder"
    with torch.no_grad():
        done = found.network(image(), instances)
    for number in range(5):
        mask = instances[0] == number
        assert (done[0][:, mask] - features[0][:, mask].mean(1, keepdim=True)).abs().max() < CLOSE


def test_every_family_is_tested() -> None:
    tested = {family for *_, family in (*GENERATORS.values(), *DISCRIMINATORS.values())}
    assert FAMILIES.keys() == tested | {"spade", "spade-encoder", "pix2pixhd-encoder"}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_dropped(prefix: str, tmp_path: Path) -> None:
    network, truth = made(plain.unet, image(), "batch")
    imported = import_file(saved(network, tmp_path / "G.pth", prefix))
    assert (imported.translator(image(), mode="eval") - truth).abs().max() < CLOSE


def test_old_files_have_statistics_of_instance_norms_and_count_no_batches(tmp_path: Path) -> None:
    network, truth = made(plain.resnet, image(), "instance")
    old = {f"model.{n}.{each}": torch.ones(8) for n in (2, 5) for each in ("running_mean", "running_var")}
    torch.save(
        {**network.state, **old, "model.10.conv_block.2.num_batches_tracked": torch.tensor(3)}, tmp_path / "G.pth"
    )
    assert (import_file(tmp_path / "G.pth").translator(image()) - truth).abs().max() < CLOSE
    network, truth = made(plain.resnet, image(), "batch")
    counted = {name: tensor for name, tensor in network.state.items() if not name.endswith("num_batches_tracked")}
    torch.save(counted, tmp_path / "B.pth", _use_new_zipfile_serialization=False)  # as PyTorch wrote before 1.6
    assert (import_file(tmp_path / "B.pth").translator(image(), mode="eval") - truth).abs().max() < CLOSE


def test_the_papers_mode_draws_the_dropout_that_the_project_draws(tmp_path: Path) -> None:
    """Where dropout is, and that norms take the batch's statistics: a U-Net of 6 levels has it in one of them."""
    network, _ = made(plain.unet, image(), "batch")
    imported = import_file(saved(network, tmp_path / "G.pth"))
    assert imported.translator.config.mode == "paper"
    config: Any = imported.translator.config.generator
    assert config.dropout_levels == (4,)
    first, second = (imported.translator(image(), seed=seed) for seed in (1, 2))
    assert (first - second).abs().max() > 0.001
    assert torch.equal(first, imported.translator(image(), seed=1))


def test_half_precision_and_safetensors_load(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network, truth = made(plain.resnet, image(), "instance")
    torch.save({name: tensor.half() for name, tensor in network.state.items()}, tmp_path / "half.pth")
    assert (import_file(tmp_path / "half.pth").translator(image()) - truth).abs().max() < 0.05
    save_file(network.state, tmp_path / "G.safetensors")
    assert (import_file(tmp_path / "G.safetensors").translator(image()) - truth).abs().max() < CLOSE
    torch.save({"epoch": 3, "state_dict": network.state}, tmp_path / "checkpoint.pth")
    assert (import_file(tmp_path / "checkpoint.pth").translator(image()) - truth).abs().max() < CLOSE


def test_what_spectral_norm_held_goes_along(tmp_path: Path) -> None:
    network, _ = made(plain.spade, LABELS, "batch", None)
    imported = import_file(saved(network, tmp_path / "G.pth"), ImportOptions(edges=False))
    imported.translator.save(tmp_path / "one")
    again = img2img.load(tmp_path / "one")
    again.save(tmp_path / "two")
    again.save_pretrained(tmp_path / "shared")
    for model in ("one", "two", "shared"):
        export_reference(tmp_path / model, tmp_path / f"{model}.pth")
        assert same(tmp_path / f"{model}.pth", network)
    (tmp_path / "two" / "reference.safetensors").unlink()
    export_reference(tmp_path / "two", tmp_path / "found.pth")
    found = torch.load(tmp_path / "found.pth", weights_only=True)
    assert found.keys() == network.state.keys(), "computed anew, for weights that come out as they are"
    back = import_file(tmp_path / "found.pth", ImportOptions(edges=False)).translator
    assert (back(LABELS.argmax(1)) - again(LABELS.argmax(1))).abs().max() < CLOSE  # type: ignore[operator]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ResNetConfig(channels=4, blocks=1, norm="none"), "without norms but with biases"),
        (ResNetConfig(channels=4, blocks=1, norm="group"), "group norm"),
        (ResNetConfig(channels=4, blocks=1, upsampling="resize"), "resize"),
        (ResNetConfig(channels=4, blocks=1, attention=True), "self-attention"),
        (ResNetConfig(channels=4, blocks=1, residual=True), "adds to its source"),
        (UNetConfig(channels=4, depth=2, upsampling="blur"), "blurring"),
        (Pix2PixHDConfig(channels=4, downsampling=1, blocks=1, upsampling="blur"), "blurring"),
    ],
)
def test_what_no_project_has_is_not_written(config: Any, words: str, tmp_path: Path) -> None:
    resolved = config.resolve(3, 3, 16)
    about = TranslatorConfig(method="pix2pix", generator=resolved, size=16, training=Training(img2img="0"))
    Translator(about, build_generator(resolved)).save(tmp_path / "t")
    with pytest.raises(UsageError, match=words):
        export_reference(tmp_path / "t", tmp_path / "G.pth")
    assert not (tmp_path / "G.pth").exists()


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(channels=4, depth=3),
        UNetConfig(channels=4, depth=3, norm="instance"),
        ResNetConfig(channels=4, blocks=1, dropout=0.5),
        ResNetConfig(channels=4, blocks=1, downsampling="blur", upsampling="blur"),
        Pix2PixHDConfig(channels=8, downsampling=1, blocks=1, enhancers=1, norm="batch"),
    ],
)
def test_what_was_trained_here_comes_back(config: Any, tmp_path: Path) -> None:
    """Biases that a norm cancels are written as zeros."""
    resolved = config.resolve(3, 3, 16)
    about = TranslatorConfig(method="pix2pix", generator=resolved, size=16, training=Training(img2img="0"))
    translator = Translator(about, initialise(build_generator(resolved), "xavier", 1.0).eval())
    translator.save(tmp_path / "t")
    export_reference(tmp_path / "t", tmp_path / "G.pth")
    back = import_file(tmp_path / "G.pth", ImportOptions(mode="eval")).translator
    assert (back(image()) - translator(image())).abs().max() < CLOSE


def test_a_range_from_zero_to_one(tmp_path: Path) -> None:
    network, truth = made(plain.resnet, (image() + 1) / 2, "instance")
    imported = import_file(saved(network, tmp_path / "G.pth"), ImportOptions(value_range=(0, 1)))
    assert (imported.translator(image()) - (2 * truth - 1)).abs().max() < 2 * CLOSE


def test_an_encoder_of_instances_comes_along(tmp_path: Path) -> None:
    """A pix2pixHD with features: its classes are what is left of the channels."""
    encoder, _ = made(plain.resnet, image(), "instance", True, downs=4, blocks=0)
    network, _ = made(plain.resnet, torch.rand(1, 5 + 1 + 3, 64, 64), "instance", True, downs=3)
    found = import_file(saved(network, tmp_path / "G.pth"), encoder=saved(encoder, tmp_path / "E.pth"))
    config = found.translator.config
    assert config.classes is not None and config.classes.count == 5 and config.edges
    labels, instances = torch.arange(64 * 64).view(64, 64) // 900, torch.arange(64 * 64).view(64, 64) // 400
    plainly = found.translator(labels, instances)
    styled = found.translator(labels, instances, style=(image(), labels[None], instances[None]))
    assert plainly.shape == styled.shape == (3, 64, 64) and not torch.equal(plainly, styled)
    found.translator.save(tmp_path / "t")
    assert torch.equal(img2img.load(tmp_path / "t")(labels, instances), plainly)  # type: ignore[operator]
