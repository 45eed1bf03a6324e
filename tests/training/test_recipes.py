"""Recipes give the settings that nobody chose."""

from pathlib import Path
from typing import Any

import pytest
from helpers.data import write_pairs

from img2img.cli import main
from img2img.config import RunConfig, read_config, run_type
from img2img.core.errors import UsageError
from img2img.methods import METHODS, load_method
from img2img.methods.cyclegan import CycleGANConfig
from img2img.methods.inpaint import InpaintConfig
from img2img.methods.pix2pix import Pix2PixConfig
from img2img.networks import PatchGANConfig, ResNetConfig, UNetConfig
from img2img.training.curriculum import earlier_config
from img2img.training.recipes import FEW, apply_recipe, choose_recipe, describe_recipe, list_settings
from img2img.training.run_folder import load_run_config

SMALL = Pix2PixConfig.recipes["small"]


def config(**values: Any) -> RunConfig[Pix2PixConfig]:
    return RunConfig[Pix2PixConfig](**{"method": Pix2PixConfig(), **values})


def test_few_images_and_a_run_from_scratch_choose_the_small_one() -> None:
    few = choose_recipe(config(), FEW - 1, 3, 3)
    assert few.recipe == "small" and few.method.discriminator.kind == "projected"
    assert few.batch_size == SMALL["batch_size"] and few.ema == SMALL["ema"]
    assert few.method.perceptual.weight == SMALL["method"]["perceptual"]["weight"]
    many = choose_recipe(config(), FEW, 3, 3)
    assert many == config(recipe="paper"), "the paper's settings, all of them"
    assert choose_recipe(config(recipe="small"), FEW, 3, 3).method == few.method
    assert choose_recipe(config(recipe="paper"), 5, 3, 3) == config(recipe="paper")
    tuned = config(finetune={"init": (Path("model"),)})
    assert choose_recipe(tuned, 5, 3, 3).recipe == "paper"


def test_what_was_chosen_stays_even_if_it_is_the_papers() -> None:
    method = Pix2PixConfig(adversarial="nonsaturating", perceptual={"file": Path("x")})  # type: ignore[arg-type]
    chosen = config(method=method, ema=0.0)
    small = choose_recipe(chosen, 5, 3, 3)
    assert small.method.adversarial == "nonsaturating" and small.ema == 0.0 and small.batch_size == 4
    assert small.method.perceptual.file == Path("x") and small.method.perceptual.weight > 0


def test_of_another_network_nothing_is_taken() -> None:
    chosen = config(method=Pix2PixConfig(generator=ResNetConfig(blocks=2), discriminator=PatchGANConfig(layers=2)))
    small = choose_recipe(chosen, 5, 3, 3)
    assert small.method.generator == ResNetConfig(blocks=2) and small.method.discriminator == PatchGANConfig(layers=2)
    same = choose_recipe(config(method=Pix2PixConfig(generator=UNetConfig(channels=8))), 5, 3, 3)
    assert same.method.generator == UNetConfig(**{**SMALL["method"]["generator"], "channels": 8})


@pytest.mark.parametrize(("channels", "size"), [(4, 128), (3, 16)])
def test_a_discriminator_that_does_not_fit_the_images_is_left_as_it_is(channels: int, size: int) -> None:
    small = choose_recipe(config(data={"size": size}), 5, channels, channels)
    assert small.recipe == "small" and small.method.discriminator == PatchGANConfig()
    assert small.method.perceptual.weight > 0
    assert choose_recipe(config(data={"size": 16}, recipe="paper"), 5, 3, 3).method == Pix2PixConfig()


def test_what_a_method_sets_of_a_network_by_default_stays() -> None:
    spade = choose_recipe(run_type("spade")(method={"name": "spade"}), 5, 3, 3)
    assert (spade.method.discriminator.scales, spade.method.discriminator.spectral_norm) == (2, True)
    assert spade.method.discriminator.channels == 32


def test_applying_it_again_changes_nothing() -> None:
    once = choose_recipe(config(), 5, 3, 3)
    assert choose_recipe(once, 5, 3, 3) == once == apply_recipe(once)
    whole = type(once).model_validate(once.model_dump())  # as a resume reads it
    assert choose_recipe(whole, FEW, 3, 3) == whole


@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_is_made_of_options(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, settings in load_method(method).recipes.items():
        assert name in ("paper", "small")
        applied = apply_recipe(run_type(method)(method={"name": method}, recipe=name))
        assert set(list_settings(settings)) <= set(list_settings(applied.model_dump()))
        assert f"recipe {name}" in describe_recipe(applied)
        with pytest.raises(SystemExit):
            main(["train", method, "--recipe", name, "--help"])
        shown = capsys.readouterr().out
        assert all(f"--{option}" in shown or option.endswith(".kind") for option, _ in list_settings(settings))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"kind": "projected", "l1": 50.0}),
        (["--l1-weight", "100"], {"kind": "projected", "l1": 100.0}),  # the paper's
        (["--discriminator.layers=2"], {"kind": "patch", "l1": 50.0}),
        (["--recipe", "small", "--discriminator.mixing", "cross-scale"], {"kind": "projected", "l1": 50.0}),
        (["--recipe", "paper"], {"kind": "patch", "l1": 100.0}),
        (["--l1_weight", "100"], {"kind": "projected", "l1": 100.0}),  # tyro takes underscores, too
        (["--recipe", "small", "--l1-weight", "100"], {"kind": "projected", "l1": 100.0}),
    ],
)
def test_options_override_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: dict[str, Any]
) -> None:
    monkeypatch.setitem(Pix2PixConfig.recipes, "small", {**SMALL, "method": {**SMALL["method"], "l1_weight": 50.0}})  # type: ignore[arg-type]
    data = write_pairs(tmp_path / "data", 4)
    small = ["--size", "32", "--generator.channels", "4", "--steps", "1", "--device", "cpu"]
    assert main(["train", "pix2pix", "--data", str(data), *small, "--output", str(tmp_path / "run"), *options]) == 0
    found = read_config(tmp_path / "run" / "config.yaml")
    assert found.method.discriminator.kind == expected["kind"] and found.method.l1_weight == expected["l1"]
    assert found.recipe == ("paper" if "paper" in options else "small")
    assert found.method.generator.channels == 4
    assert found.method.generator.upsampling == ("transpose" if "paper" in options else "resize")


def test_a_flag_that_is_turned_off_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Pix2PixConfig.recipes, "small", {"method": {"discriminator": {"spectral_norm": True}}})  # type: ignore[arg-type]
    data = write_pairs(tmp_path / "data", 4)
    start = ["train", "pix2pix", "--data", str(data), "--size", "32", "--steps", "1", "--device", "cpu"]
    for option, has in (("--generator.channels=4", True), ("--discriminator.no-spectral-norm", False)):
        assert main([*start, "--output", str(tmp_path / option), "--generator.channels", "4", option]) == 0
        assert read_config(tmp_path / option / "config.yaml").method.discriminator.spectral_norm == has


def test_asked_for_it_spares_what_does_not_fit(tmp_path: Path) -> None:
    explicit = choose_recipe(config(recipe="small"), 5, 4, 4)
    assert explicit.method.discriminator == PatchGANConfig(), "projected ones take no images with alpha"
    tuned = config(recipe="small", finetune={"init": (Path("model"),)})
    small = choose_recipe(tuned, 5, 3, 3)
    assert small.method.generator == UNetConfig() and small.method.discriminator.kind == "projected"
    tuned = config(recipe="small", finetune={"init_discriminator": (Path("run"),)})
    small = choose_recipe(tuned, 5, 3, 3)
    assert small.method.discriminator == PatchGANConfig() and small.method.generator != UNetConfig()
    with pytest.raises(UsageError, match="inpaint has no such recipe"):
        choose_recipe(RunConfig[InpaintConfig](method=InpaintConfig(), recipe="small"), 5, 3, 3)
    staged = RunConfig[CycleGANConfig](method=CycleGANConfig(pretrain=3), recipe="small", output=tmp_path)
    stage = earlier_config(staged)
    assert stage is not None and stage.recipe == "paper" and choose_recipe(stage, 5, 3, 3) == stage


@pytest.mark.parametrize("method", ["cyclegan", "cut", "fastcut"])
def test_generators_compute_the_change_where_source_and_target_have_the_same_channels(method: str) -> None:
    settings = run_type(method)(method={"name": method})
    small = choose_recipe(settings, 5, 3, 3).method
    assert small.generator.residual and small.generator.channels == 32 and small.discriminator.kind == "projected"
    other = choose_recipe(settings, 5, 1, 3).method
    assert not other.generator.residual and other.generator.channels == 32
    assert other.discriminator.kind == "projected"
    alpha = choose_recipe(settings, 5, 4, 3).method
    assert alpha.discriminator.kind == ("patch" if method == "cyclegan" else "projected"), "it judges both sides"


@pytest.mark.parametrize(
    ("settings", "recipe"),
    [
        ({}, "small"),
        ({"unconditional": True}, "small"),
        ({"generator": {"kind": "biggan"}, "discriminator": {"kind": "resnet"}}, "paper"),
        ({"adversarial": "wasserstein", "gradient_penalty": 10}, "paper"),
        ({"gradient_penalty": 10}, "paper"),
        ({"adversarial": "hinge"}, "paper"),
        ({"r1": 1}, "paper"),
        ({"discriminator": {"kind": "dcgan", "spectral_norm": True}}, "paper"),
    ],
)
def test_learning_rates_are_for_the_networks_and_losses_that_they_were_measured_with(
    settings: dict[str, Any], recipe: str
) -> None:
    found = choose_recipe(run_type("gan")(method={"name": "gan", **settings}), 5, 3, 3)
    assert found.recipe == recipe and found.method.lr == (1e-3 if recipe == "small" else 2e-4)


def test_a_run_of_before_there_were_recipes_keeps_its_settings(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("method: {name: pix2pix}\n")
    assert load_run_config(tmp_path).recipe == "paper"
    (tmp_path / "config.yaml").write_text("method: {name: pix2pix}\nrecipe: small\n")
    assert load_run_config(tmp_path).recipe == "small"


@pytest.mark.parametrize("method", ["pix2pixhd", "spade"])
def test_what_a_part_leaves_out_is_the_methods(method: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(f"method: {{name: {method}, perceptual: {{weight: 3}}}}\n")
    found = read_config(tmp_path / "settings.yaml")
    assert found.method.perceptual.network == "vgg19" and found.method.perceptual.weight == 3
    assert found.method.perceptual.model_fields_set == {"weight"}, "so that a recipe may choose the network"
    assert choose_recipe(found, 5, 3, 3).method.perceptual.network == "lite"
    (tmp_path / "settings.yaml").write_text(f"method: {{name: {method}, perceptual: {{file: v.pth}}}}\n")
    alone = read_config(tmp_path / "settings.yaml").method.perceptual
    assert (alone.network, alone.weight, alone.file) == ("vgg19", 10, Path("v.pth"))


def test_a_file_of_settings_overrides_it_and_a_resume_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = write_pairs(tmp_path / "data", 4), tmp_path / "run"
    text = "method: {name: pix2pix, l1_weight: 7, generator: {kind: unet, channels: 4}}\nsteps: 1\ndevice: cpu\n"
    (tmp_path / "settings.yaml").write_text(text)
    start = ["train", "--config", str(tmp_path / "settings.yaml"), "--data", str(data), "--size", "32"]
    assert main([*start, "--output", str(run)]) == 0
    first = read_config(run / "config.yaml")
    assert first.method.l1_weight == 7 and first.method.discriminator.kind == "projected"
    assert main(["train", "--resume", str(run), "--steps", "2"]) == 0
    assert read_config(run / "config.yaml") == first.model_copy(update={"steps": 2})
    assert "recipe small" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--recipe", "paper"]) == 2
    assert "leave --recipe out" in capsys.readouterr().err


def test_a_file_that_the_recipe_does_not_use_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vgg.pth").touch()
    data = write_pairs(tmp_path / "data", 4)
    options = ["--size", "32", "--perceptual.network", "vgg19", "--perceptual.file", str(tmp_path / "vgg.pth")]
    start = ["train", "pix2pix", "--data", str(data), "--output", str(tmp_path / "run")]
    assert main([*start, *options]) == 2
    assert "no VGG-19 weights" in capsys.readouterr().err, "the recipe's weight, and the network that was chosen"
    assert main([*start, *options[:2], *options[4:]]) == 2
    assert "--perceptual.network vgg19" in capsys.readouterr().err


def test_infogan_without_a_category_has_the_papers_settings() -> None:
    codes = {"categorical": (), "continuous": 2}
    assert choose_recipe(run_type("infogan")(method={"name": "infogan", "codes": codes}), 5, 3, 3).recipe == "paper"
    small = choose_recipe(run_type("infogan")(method={"name": "infogan"}), 5, 3, 3)
    assert small.recipe == "small" and small.method.clustering_weight == 1 and small.method.generator.latent == 62


def test_a_resumed_run_gets_no_settings_that_a_recipe_has_had_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = write_pairs(tmp_path / "data", 4), tmp_path / "run"
    small = ["--size", "32", "--generator.channels", "4", "--steps", "1", "--device", "cpu"]
    assert main(["train", "pix2pix", "--data", str(data), "--output", str(run), *small]) == 0
    text = (run / "config.yaml").read_text()
    assert "  r2: 0.0\n" in text
    (run / "config.yaml").write_text(text.replace("  r2: 0.0\n", ""))  # as if that option were new
    monkeypatch.setitem(Pix2PixConfig.recipes, "small", {**SMALL, "method": {**SMALL["method"], "r2": 1.0}})  # type: ignore[arg-type]
    assert main(["train", "--resume", str(run), "--steps", "2"]) == 0
    assert read_config(run / "config.yaml").method.r2 == 0


def test_it_is_told_as_options() -> None:
    told = describe_recipe(choose_recipe(run_type("cyclegan")(method={"name": "cyclegan"}), 5, 3, 3))
    assert "--generator.residual " in told and "residual True" not in told and "--ema 0.999" in told


def test_another_kind_of_network_leaves_nothing_chosen(tmp_path: Path) -> None:
    data, run = write_pairs(tmp_path / "data", 4), tmp_path / "run"
    text = "method: {name: pix2pix, generator: {kind: resnet, channels: 8}}\nsteps: 1\ndevice: cpu\nfeatures: none\n"
    (tmp_path / "settings.yaml").write_text(text)
    start = ["train", "--config", str(tmp_path / "settings.yaml"), "--data", str(data), "--size", "32"]
    options = ["--generator.kind", "unet", "--generator.depth", "2"]
    assert main([*start, "--output", str(run), *options]) == 0
    found = read_config(run / "config.yaml").method.generator
    assert (found.kind, found.depth, found.channels) == ("unet", 2, 32), "the recipe's"
