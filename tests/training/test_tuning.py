"""Fine-tuning: what is taken over, what stays as it is, how fast the rest learns, and what is saved."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.configs import tiny_config
from helpers.data import write_labelled, write_pairs
from helpers.runs import assert_equal, finish
from safetensors.torch import load_file

import img2img
from img2img.config import write_config
from img2img.core.errors import UsageError
from img2img.interop import export_reference, read_network, save_discriminator
from img2img.models import Translator, apply_adapter, factor_difference
from img2img.networks import MultiScale, ResNetConfig, UNetConfig, build_generator, initialise
from img2img.networks.discriminators.patchgan import (
    MultiScaleConfig,
    PatchGAN,
    PatchGANConfig,
    PixelGAN,
    PixelGANConfig,
)
from img2img.networks.weights import LowRank, add_adapters, add_spectral_norm, collect_plain_state, load_plain_state
from img2img.training.finetune import TrainingPlan, first_layers, layer_factors
from img2img.training.run_folder import load_run_config
from img2img.training.train import train

UNET = {"generator": {"kind": "unet", "channels": 4, "depth": 2}}


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A run of pix2pix, which others begin from."""
    data = write_pairs(write_pairs(tmp_path / "before-data", 4, first=50), 2, split="val", first=60)
    return train(tiny_config(data, tmp_path / "before", UNET, steps=3, seed=7), quiet=True)


def begun(
    folder: Path, output: Path, init: Any, method: dict[str, Any] | None = None, steps: int = 4, **values: Any
) -> Any:
    """A config that begins with a model; `values` are of the tuning, or of the run."""
    inside = ("init_discriminator", "warmup_discriminator", "freeze", "freeze_discriminator", "layer_lr", "lora", "lora_scale", "save_adapter")  # fmt: skip
    tuning = {name: values.pop(name) for name in inside if name in values}
    given = init if isinstance(init, tuple) else (init,)
    method = {"generator": {"kind": "unet"}} if method is None else method
    return tiny_config(folder, output, method, steps=steps, finetune={"init": given, **tuning}, **values)


def weights(model: Path, name: str = "generator") -> dict[str, torch.Tensor]:
    return load_file(model / f"{name}.safetensors")


def checkpoint(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(sorted((run / "checkpoints").iterdir())[-1] / f"{name}.safetensors")


def moved(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> set[str]:
    """What differs, but for counters."""
    assert old.keys() == new.keys()
    return {name for name in old if not name.endswith("num_batches_tracked") and not torch.equal(old[name], new[name])}


@pytest.mark.parametrize("kind", ["run", "translator", "reference"])
def test_a_run_begins_with_a_model(kind: str, before: Path, pairs: Path, tmp_path: Path) -> None:
    """Nearly nothing has changed after an update with a tiny learning rate; a fresh run is elsewhere."""
    model = {"run": before, "translator": before / "latest", "reference": tmp_path / "latest_net_G.pth"}[kind]
    if kind == "reference":
        export_reference(before, model)
    config = begun(pairs, tmp_path / "run", model, {"generator": {"kind": "unet"}, "lr": 1e-9}, steps=1)
    run = train(config, quiet=True)
    old, new = weights(before / "best"), weights(run / "latest")
    for name in old:
        if "running" not in name and "batches" not in name:
            assert torch.allclose(old[name], new[name], atol=1e-6), name
    config = img2img.load(run / "latest").config
    assert config.generator.channels == 4 and config.generator.depth == 2, "the architecture is the model's"
    assert config.training.init == str(model)
    assert load_run_config(run).method.generator.depth == 2


def test_the_discriminator_warms_up_alone(before: Path, pairs: Path, tmp_path: Path) -> None:
    options = {"validate_every": 2, "checkpoint_every": 2, "keep_checkpoints": 9, "ema": 0.5}
    run = train(begun(pairs, tmp_path / "run", before, steps=4, warmup_discriminator=2, **options), quiet=True)
    saved = sorted((run / "checkpoints").iterdir())
    generators = [load_file(each / "generator.safetensors") for each in saved]
    discriminators = [load_file(each / "discriminator.safetensors") for each in saved]
    still = {name for name in moved(weights(before / "best"), generators[0]) if "running" not in name}
    assert not still and moved(generators[0], generators[1])
    averages = [load_file(each / "generator-ema.safetensors") for each in saved]
    assert not moved(weights(before / "best"), averages[0]), "statistics, too"
    assert moved(averages[0], averages[1])
    assert any("running" not in name for name in moved(discriminators[0], discriminators[1]))
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert "G/l1" in log[0], "what it would be is logged"


@pytest.mark.parametrize("name", ["cyclegan", "cut", "spade", "pix2pixhd"])
def test_every_translators_method_warms_up_and_freezes(
    name: str, unpaired: Path, labelled: Path, tmp_path: Path
) -> None:
    data = labelled if name in ("spade", "pix2pixhd") else unpaired
    size = {"data": {"size": 64}} if name == "spade" else {}
    more = {"best": "l1", "features": "none", **size}
    first = train(tiny_config(data, tmp_path / "first", {"name": name}, steps=2, **more), quiet=True)
    kind = {"cyclegan": "resnet", "cut": "resnet", "spade": "spade", "pix2pixhd": "pix2pixhd"}[name]
    method = {"name": name, "generator": {"kind": kind} | ({"enhancers": 1} if name == "pix2pixhd" else {})}
    options = {"warmup_discriminator": 2, "freeze": "stem|inside.stem|blocks.0", "layer_lr": 0.9, **more}
    run = train(begun(data, tmp_path / "run", first, method, steps=4, **options), quiet=True)
    place = "AtoB/latest" if name == "cyclegan" else "latest"
    old, new = weights(first / place), weights(run / place)
    held = ("stem.", "inside.stem.", "blocks.0.")
    if name == "spade":  # whose spectral norm scales weights once more
        old, new = (
            {each: tensor.float() / tensor.float().norm().clamp(min=1e-9) for each, tensor in state.items()}
            for state in (old, new)
        )
        old = {
            each: new[each] if torch.allclose(tensor, new[each], atol=1e-6) else tensor for each, tensor in old.items()
        }
    changed = {each for each in moved(old, new) if "running" not in each}
    assert changed and not any(each.startswith(held) for each in changed)


def test_freezing_by_name(before: Path, pairs: Path, tmp_path: Path) -> None:
    run = train(begun(pairs, tmp_path / "run", before, freeze=r"down|head\.1\.bias"), quiet=True)
    changed = moved(weights(before / "best"), weights(run / "latest"))
    assert changed and not any(name.startswith("down") or name == "head.1.bias" for name in changed), "statistics, too"
    assert {"head.1.weight"} < changed
    with pytest.raises(UsageError, match="they begin with down, up, head"):
        train(begun(pairs, tmp_path / "other", before, freeze="encoder"), quiet=True)
    with pytest.raises(UsageError, match="leaves nothing"):
        train(begun(pairs, tmp_path / "other", before, freeze="."), quiet=True)
    with pytest.raises(UsageError, match="regular expression"):
        train(begun(pairs, tmp_path / "other", before, freeze="("), quiet=True)
    assert not (tmp_path / "other" / "checkpoints").exists()


@pytest.mark.parametrize("kind", ["run", "imported", "file"])
def test_the_discriminator_may_go_on_and_its_first_layers_stay(
    kind: str, before: Path, pairs: Path, tmp_path: Path
) -> None:
    state = checkpoint(before, "discriminator")
    file = tmp_path / "latest_net_D.pth"
    names = {"stem.0": "model.0", "blocks.0.0": "model.2", "blocks.0.1": "model.3", "head": "model.5"}
    torch.save(
        {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": tensor for key, tensor in state.items()}, file
    )
    save_discriminator(read_network(file), tmp_path / "imported")
    model = {"run": before, "imported": tmp_path / "imported", "file": file}[kind]
    method = {"generator": {"kind": "unet"}, "discriminator": {"kind": "patch"}}
    options = {"init_discriminator": (model,), "freeze_discriminator": 2}
    run = train(begun(pairs, tmp_path / "run", before, method, **options), quiet=True)
    changed = moved(state, checkpoint(run, "discriminator"))
    assert changed == {"head.weight", "head.bias"}


def test_other_channels_keep_what_fits(before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pairs(tmp_path / "gray", 4)
    config = begun(data, tmp_path / "run", before, {"generator": {"kind": "unet"}, "lr": 1e-9}, steps=1, data={"in_channels": 1}, freeze="down.0")  # fmt: skip
    run = train(config)
    assert "and so initialised: down.0.0.weight" in capsys.readouterr().err
    old, new = weights(before / "best"), weights(run / "latest")
    assert new["down.0.0.weight"].shape[1] == 1 and torch.allclose(
        old["down.1.1.weight"], new["down.1.1.weight"], atol=1e-6
    )
    assert load_run_config(run).finetune.fresh == ("down.0.0.weight",)


def test_other_labels_keep_what_fits(labelled: Path, tmp_path: Path) -> None:
    first = train(tiny_config(labelled, tmp_path / "first", {"name": "pix2pixhd"}, steps=1), quiet=True)
    more = write_labelled(tmp_path / "more", 4)
    config = begun(more, tmp_path / "run", first, {"name": "pix2pixhd", "generator": {"kind": "pix2pixhd", "enhancers": 1}}, steps=1, data={"classes": 9})  # fmt: skip
    run = train(config, quiet=True)
    assert set(load_run_config(run).finetune.fresh) == {"inside.stem.1.weight", "enhancers.0.stem.1.weight"}
    assert not (run / "coarse").exists(), "what is trained already needs no coarse stage"


def test_adapters_are_merged_when_saved(before: Path, pairs: Path, tmp_path: Path) -> None:
    run = train(begun(pairs, tmp_path / "run", before, lora=2, ema=0.5), quiet=True)
    old, new = weights(before / "best"), weights(run / "latest")
    assert old.keys() == new.keys() and "head.1.weight" in moved(old, new)
    trained = checkpoint(run, "generator")
    assert torch.equal(trained["head.1.parametrizations.weight.original"], old["head.1.weight"])
    change = (trained["head.1.parametrizations.weight.0.up"] @ trained["head.1.parametrizations.weight.0.down"]).abs()
    assert change.max() > 0


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_adapters_apart_are_a_small_file(ema: float, before: Path, pairs: Path, tmp_path: Path) -> None:
    config = begun(pairs, tmp_path / "run", before / "latest", lora=1, save_adapter=True, ema=ema)
    run = train(config, quiet=True)
    assert sorted(file.name for file in (run / "latest").iterdir()) == ["adapter.safetensors", "config.json"]
    loaded = img2img.load(run / "latest")
    assert isinstance(loaded, Translator)
    if not ema:
        merged = collect_plain_state(_again(run, before))
        for name, tensor in loaded.generator.state_dict().items():
            assert torch.allclose(tensor, merged[name], atol=1e-6), name
    again = tmp_path / "again"
    loaded.save(again)
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(img2img.load(again)(image), loaded(image))  # type: ignore[operator]
    shutil.move(before, tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"is a change of .* which can't be read"):
        img2img.load(run / "latest")
    other = build_generator(UNetConfig(channels=4, depth=2).resolve(3, 3, 16)).eval()
    translator = img2img.load(tmp_path / "elsewhere" / "latest")
    translator.generator.load_state_dict(other.state_dict())
    translator.save(before / "latest")
    with pytest.raises(UsageError, match="others by now"):
        img2img.load(run / "latest")


def _again(run: Path, before: Path) -> Any:
    network = build_generator(UNetConfig(channels=4, depth=2).resolve(3, 3, 16))
    network.load_state_dict(weights(before / "latest"))
    add_adapters(network, 1, 1.0, ())
    network.load_state_dict(checkpoint(run, "generator"))
    return network


def test_adapters_apart_of_the_other_direction(unpaired: Path, pairs: Path, tmp_path: Path) -> None:
    more = {"best": "l1", "features": "none"}
    first = train(tiny_config(unpaired, tmp_path / "first", {"name": "cyclegan"}, steps=1, **more), quiet=True)
    method = {"generator": {"kind": "resnet"}}
    config = begun(pairs, tmp_path / "run", first, method, lora=1, save_adapter=True, data={"direction": "BtoA"})
    translator = img2img.load(train(config, quiet=True) / "latest")
    assert translator.config.base.model == str(first / "BtoA" / "best") or translator.config.base.model == str(
        first / "BtoA" / "latest"
    )
    old = weights(Path(translator.config.base.model))
    change = {
        name: tensor - old[name] for name, tensor in translator.generator.state_dict().items() if tensor.ndim == 4
    }
    assert all(torch.linalg.matrix_rank(each.flatten(1), atol=1e-6) <= 1 for each in change.values())


@pytest.mark.parametrize("options", [{}, {"lora": 2}])
def test_a_spade_begins_as_it_was(options: dict[str, Any], labelled: Path, tmp_path: Path) -> None:
    """Spectral norm would scale its weights once more, unless they are of norm 1."""
    size: dict[str, Any] = {"data": {"size": 64}}
    first = train(
        tiny_config(labelled, tmp_path / "first", {"name": "spade", "encoder": True}, steps=2, ema=0.5, **size),
        quiet=True,
    )
    method = {"name": "spade", "encoder": True, "generator": {"kind": "spade"}, "lr": 1e-9}
    run = train(begun(labelled, tmp_path / "run", first, method, steps=1, **options, **size), quiet=True)
    labels, instances = torch.zeros(64, 64, dtype=torch.int32), torch.zeros(64, 64, dtype=torch.int32)
    labels[20:40] = 2
    one, two = (img2img.load(each / "latest") for each in (first, run))
    for other in (one, two):
        for norm in other.generator.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.reset_running_stats()
    done = [each(labels, instances, style=1) for each in (one, two)]
    assert (done[0] - done[1]).abs().max() < 0.02 * done[0].std() + 1e-4


def test_runs_of_before_are_resumed(before: Path, pairs: Path, tmp_path: Path) -> None:
    """Their optimizers know of no factors."""
    file = sorted((before / "checkpoints").iterdir())[-1] / "state.pt"
    saved = torch.load(file, weights_only=True)
    for optimizer in saved["optimizers"].values():
        for group in optimizer["param_groups"]:
            del group["factor"]
    torch.save(saved, file)
    train(load_run_config(before).model_copy(update={"steps": 5}), resume=before, quiet=True)


def test_what_is_frozen_stays_so() -> None:
    network = add_spectral_norm(build_generator(ResNetConfig(channels=4, blocks=1, norm="batch").resolve(3, 3, 16)))
    held = {name for name, _ in network.named_parameters() if name.startswith("stem")}
    plan = TrainingPlan({"generator": held})
    plan.freeze({"generator": network.train()})
    for _ in range(2):
        assert {name for name, each in network.named_parameters() if not each.requires_grad} == held
        network.requires_grad_(False)
        plan.unfreeze("generator", network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(torch.rand(2, 3, 16, 16))
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and not any(name.startswith("stem") for name in changed), "neither statistics nor singular vectors"


def test_an_adapter_adds_what_it_has_learned() -> None:
    weight = torch.randn(6, 4, 3, 3)
    adapter = LowRank(weight, 2, scale=0.5)
    assert torch.equal(adapter(weight), weight)
    torch.nn.init.normal_(adapter.up)
    wanted = weight + 0.5 * torch.einsum("or,ri->oi", adapter.up, adapter.down).reshape(6, 4, 3, 3)
    assert torch.allclose(adapter(weight), wanted, atol=1e-6)
    assert LowRank(torch.randn(3, 2, 1, 1), 9).down.shape == (2, 2), "no more than there is"


def test_a_difference_of_low_rank_comes_back() -> None:
    base = {"w": torch.randn(12, 6, 3, 3), "b": torch.randn(12), "same": torch.ones(3), "new": torch.ones(2)}
    tuned = {**base, "w": base["w"] + (torch.randn(12, 2) @ torch.randn(2, 54)).view(12, 6, 3, 3), "b": torch.zeros(12)}
    tuned["new"] = torch.ones(5)
    found = factor_difference(base, tuned, 2)
    assert found.keys() == {"w.up", "w.down", "b", "new"}
    back = apply_adapter(base, found)
    assert all(torch.allclose(back[name], tuned[name], atol=1e-4) for name in tuned)
    assert factor_difference(base, {"w": tuned["w"]}, 100).keys() == {"w"}, "what saves nothing is kept whole"


def test_learning_rates_fall_from_layer_to_layer() -> None:
    network = build_generator(ResNetConfig(channels=4, blocks=1, norm="batch").resolve(3, 3, 32))
    factors = layer_factors(network, 0.5)
    assert factors.keys() == {name for name, _ in network.named_parameters()}
    assert factors["head.1.weight"] == factors["head.1.bias"] == 1
    assert factors["up.1.0.weight"] == factors["up.1.1.bias"] == 0.5
    assert factors["stem.1.weight"] == 0.5**7, "there are eight convolutions"


def test_slower_layers_learn_less(before: Path, pairs: Path, tmp_path: Path) -> None:
    old = weights(before / "best")
    far = {}
    for share in (1.0, 0.1):
        run = train(begun(pairs, tmp_path / str(share), before, steps=2, layer_lr=share), quiet=True)
        new = weights(run / "latest")
        far[share] = [float((new[name] - old[name]).abs().max()) for name in ("down.0.0.weight", "head.1.weight")]
    assert far[0.1][0] < 0.01 * far[1.0][0] and far[0.1][1] > 0.5 * far[1.0][1]


@pytest.mark.parametrize(
    ("network", "count", "held"),
    [
        (PatchGAN(PatchGANConfig(channels=2, layers=2, norm="batch"), 3), 2, {"stem.0.weight", "stem.0.bias", "blocks.0.0.weight", "blocks.0.1.weight", "blocks.0.1.bias"}),
        (PixelGAN(PixelGANConfig(channels=2, norm="none"), 3), 1, {"stem.0.weight", "stem.0.bias"}),
        (MultiScale(MultiScaleConfig(channels=2, layers=1, scales=2, norm="instance"), 3), 1, {"scales.0.stem.0.weight", "scales.0.stem.0.bias", "scales.1.stem.0.weight", "scales.1.stem.0.bias"}),
    ],
)  # fmt: skip
def test_the_first_layers_of_discriminators(network: Any, count: int, held: set[str]) -> None:
    assert first_layers(network, count) == held
    with pytest.raises(UsageError, match="leave at least one"):
        first_layers(network, 4)


def test_plain_weights_go_into_spectral_norm() -> None:
    network = add_spectral_norm(initialise(build_generator(ResNetConfig(channels=4, blocks=1).resolve(3, 3, 16))))
    for _ in range(20):
        network(torch.rand(1, 3, 16, 16))
    state = {name: tensor.clone() for name, tensor in collect_plain_state(network).items()}
    other = add_spectral_norm(initialise(build_generator(ResNetConfig(channels=4, blocks=1).resolve(3, 3, 16))))
    load_plain_state(other, state)
    for name, tensor in collect_plain_state(other).items():
        assert torch.allclose(tensor, state[name], rtol=0.02, atol=1e-3), name


@pytest.mark.parametrize(
    "options",
    [
        {"lora": 2, "warmup_discriminator": 3, "freeze": "down.0"},
        {"layer_lr": 0.8, "init_discriminator": ("before",), "freeze_discriminator": 1},
    ],
)
def test_resume_is_exact(options: dict[str, Any], before: Path, pairs: Path, tmp_path: Path) -> None:
    if "init_discriminator" in options:
        options = {**options, "init_discriminator": (before,)}
    small = {} if "init_discriminator" in options else {"channels": 4, "layers": 1}
    method = {"generator": {"kind": "unet"}, "discriminator": {"kind": "patch", **small}}
    common = {"checkpoint_every": 2, "ema": 0.9, "validate_every": 2, **options}
    stopped = train(begun(pairs, tmp_path / "stopped", before, method, steps=4, decay=0.0, **common), quiet=True)
    longer = load_run_config(stopped).model_copy(update={"steps": 7, "decay": 0.0})
    straight = train(begun(pairs, tmp_path / "straight", before, method, steps=7, decay=0.0, **common), quiet=True)
    shutil.rmtree(before)  # a resume needs only the run
    train(longer, resume=stopped, quiet=True)
    assert_equal(straight, stopped)


def test_two_processes_fine_tune_as_one(before: Path, pairs: Path, tmp_path: Path) -> None:
    method = {
        "generator": {"kind": "unet"},
        "discriminator": {"kind": "patch", "channels": 4, "layers": 1, "norm": "instance"},
    }
    for name, processes in (("one", 1), ("two", 2)):
        config = begun(pairs, tmp_path / name, before / "latest", method, steps=6, batch_size=2 // processes, lora=2, warmup_discriminator=2, freeze="down.0")  # fmt: skip
        write_config(tmp_path / f"{name}.yaml", config)
        finish(tmp_path / name, tmp_path / f"{name}.yaml", processes)
    one, two = (checkpoint(tmp_path / name, "generator") for name in ("one", "two"))
    assert one.keys() == two.keys() and any(name.endswith(".up") for name in one)
    old = weights(before / "latest")
    for run in (one, two):
        assert torch.equal(run["down.0.0.weight"], old["down.0.0.weight"])
        assert any(bool(run[name].abs().max() > 0) for name in run if name.endswith(".up"))


def test_cyclegan_takes_both_ways(unpaired: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"best": "l1", "features": "none"}
    first = train(tiny_config(unpaired, tmp_path / "first", {"name": "cyclegan"}, steps=1, **more), quiet=True)
    method = {"name": "cyclegan", "generator": {"kind": "resnet"}, "lr": 1e-9}
    both = (first / "BtoA" / "latest", first / "AtoB" / "latest")  # turned round
    run = train(begun(unpaired, tmp_path / "run", both, method, steps=1, **more), quiet=True)
    for way, other in (("AtoB", "BtoA"), ("BtoA", "AtoB")):
        old, new = weights(first / other / "latest"), weights(run / way / "latest")
        assert all(torch.allclose(old[name], new[name], atol=1e-6) for name in old)
    train(begun(unpaired, tmp_path / "one-way", both[0], method, steps=1, **more))
    assert "generator_BtoA starts fresh" in capsys.readouterr().err


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"save_adapter": True}, "--lora 4"),
    ({"warmup_discriminator": 4}, "only 4 updates"),
    ({"init": (), "lora": 2}, "--lora needs --init"),
    ({"init": (), "freeze": "down"}, "--freeze needs --init"),
    ({"init": (), "freeze_discriminator": 1}, "--init-discriminator"),
    ({"freeze_discriminator": 1}, "--init-discriminator"),
    ({"method": {"name": "spade"}}, "doesn't train a generator of kind unet"),
    ({"method": {"generator": {"kind": "unet", "depth": 3}}}, "leave these options out"),
    ({"method": {"generator": {"kind": "resnet"}}}, "leave these options out"),
    ({"init": Path("nothing")}, "there is no such folder"),
    ({"init": Path("nothing.pth")}, "there is no such file"),
]


@pytest.mark.parametrize(("values", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_does_not_go_together(
    values: dict[str, Any], words: str, before: Path, pairs: Path, labelled: Path, tmp_path: Path
) -> None:
    init, method = values.get("init", before), values.get("method")
    data = labelled if (method or {}).get("name") == "spade" else pairs
    options = {name: value for name, value in values.items() if name not in ("init", "method")}
    with pytest.raises(UsageError, match=words):
        train(begun(data, tmp_path / "run", init, method, **options), quiet=True)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_discriminator_of_a_gan_is_refused(before: Path, pairs: Path, classes: Path, tmp_path: Path) -> None:
    gan = train(tiny_config(classes, tmp_path / "gan", {"name": "gan"}, steps=1), quiet=True)
    config = begun(pairs, tmp_path / "run", before, init_discriminator=(gan,))
    with pytest.raises(UsageError, match="the discriminator of gan sees no translations"):
        train(config, quiet=True)
