"""UNSB against its paper."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.configs import TINY, tiny_config
from helpers.data import write_unpaired
from torch import Tensor

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.images import Array, read_image, write_image
from img2img.inference.engine import Engine
from img2img.inference.evaluate import evaluate
from img2img.interop.exporting import export_reference
from img2img.interop.onnx import export_onnx
from img2img.losses.contrastive import patch_nce
from img2img.losses.entropy import estimate_entropy
from img2img.methods.unsb import UNSB, UNSBConfig
from img2img.models import Translator
from img2img.networks.conditioning import begin, list_times
from img2img.networks.operations import count_multiply_adds
from img2img.tiling.progress import watch_large_images
from img2img.training.train import train


def tiny(**settings: Any) -> UNSB:
    torch.manual_seed(0)
    patch = {"discriminator": {"kind": "patch", "channels": 4, "layers": 1}}
    return UNSBConfig.model_validate({**TINY["unsb"], **patch, "initialisation_gain": 1.0, **settings}).build(3, 3, 16)


def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"source": torch.rand(2, 3, 16, 16) * 2 - 1, "target": torch.rand(2, 3, 16, 16) * 2 - 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_unpaired(tmp_path_factory.mktemp("data"), 5, 4)
    settings = {"name": "unsb", "initialisation_gain": 1.0, "tau": 0.5}
    output = tmp_path_factory.mktemp("runs") / "run"
    return train(tiny_config(data, output, settings, batch_size=2, data={"holdout": 0.3}), quiet=True)


@pytest.fixture(scope="module")
def model(run: Path) -> Translator:
    return Translator.load(run)


def draw(height: int = 16, width: int = 24) -> Array:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_defaults_are_the_papers() -> None:
    config = UNSBConfig()
    assert (config.nfe, config.tau, config.bridge_weight, config.nce_weight, config.identity_nce) == (
        5,
        0.01,
        1,
        1,
        True,
    )
    assert (config.lr, config.betas, config.adversarial) == (2e-4, (0.5, 0.999), "lsgan")
    assert [(phase.name, phase.trains, len(phase.parts)) for phase in tiny().phases] == [
        ("D", ("discriminator",), 1),
        ("E", ("energy",), 1),
        ("G", ("generator", "projection"), 2),
    ]


def test_times_are_those_of_the_published_code() -> None:
    assert list_times(5) == pytest.approx([0, 0.5, 0.74, 0.86, 0.94, 1.0])
    assert list_times(1) == [0, 1] and list_times(2) == [0, 0.5, 1]


def test_steps_follow_a_brownian_bridge() -> None:
    """If the network always makes the same image, the process has the bridge's mean (1 - t) a + t b and variance t (1 - t) τ at each time."""
    torch.manual_seed(0)
    count, tau, steps = 200_000, 0.3, 4
    first, end = torch.full((1, 1, 1, count), -1.0), torch.full((1, 1, 1, count), 2.0)
    place = begin(first)
    for step, time in enumerate(list_times(steps)[1:]):
        place = place.move_on(end, step, steps, tau, torch.randn(first.shape))
        image = place.seen
        assert torch.allclose(place.image, torch.lerp(first, end, time)), "noise is kept apart"
        assert image.mean().item() == pytest.approx(-1 + 3 * time, abs=0.01)
        assert image.var().item() == pytest.approx(time * (1 - time) * tau, abs=0.002)


def test_losses_against_the_published_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    method, data = tiny(tau=0.4, bridge_weight=3.0, nce_weight=2.0, patches=300), batch()
    monkeypatch.setattr(method, "_draw", lambda image: torch.zeros(len(image), method.width))
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(1))
    torch.manual_seed(2)
    outputs = method.forward(data)
    generator, networks = method.networks["generator"], method.networks
    torch.manual_seed(2)
    images = torch.cat([data["source"], data["target"]])
    with torch.no_grad():
        place = begin(images).move_on(generator(images), 0, 3, 0.4, torch.randn_like(images))
    begins = place.seen
    fake, same = generator(begins, step=1).chunk(2)
    assert torch.allclose(outputs.images["fake"], fake, atol=1e-5)
    planes = torch.zeros(2, 3, 16, 16)
    planes[:, 1] = 1

    def energy(first: Tensor, second: Tensor) -> Tensor:
        return networks["energy"](torch.cat([planes, first, second], 1))

    pair = torch.cat([begins[:2], fake], 1)
    spread = energy(pair, pair[[1, 0]]).exp().sum().log()
    entropy = energy(pair, pair).mean() - spread

    def nce(source: Tensor, made: Tensor) -> Tensor:
        places = [torch.arange(16 // pixels * (16 // pixels)) for _, pixels in method.depths]
        seen = [generator(image, places, decode=False)[1] for image in (made, source)]
        queries, keys = (networks["projection"](each) for each in seen)
        return torch.stack([patch_nce(q, k) for q, k in zip(queries, keys, strict=True)]).mean()

    judged = networks["discriminator"](torch.cat([planes, fake], 1))
    expected = {
        "G/near": 3 * 0.4 * (fake - begins[:2]).square().mean(),
        "G/certain": -3 * 0.4 * (2 / 3) * entropy,
        "G/nce": 2 * 0.5 * nce(data["source"], fake),
        "G/adversarial": (judged - 1).square().mean(),
    }
    losses = method.generator_losses(data, outputs)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-3), name
    assert method.identity_losses(data, outputs)["G/nce_identity"].item() == pytest.approx(
        nce(data["target"], same).item(), rel=1e-3
    )
    real = networks["discriminator"](torch.cat([planes, data["target"]], 1))
    found = method.discriminator_losses(data, outputs)
    assert found["D/real"].item() == pytest.approx(0.5 * (real - 1).square().mean().item(), rel=1e-4)
    assert found["D/fake"].item() == pytest.approx(0.5 * judged.square().mean().item(), rel=1e-4)
    found = method.energy_losses(data, outputs)
    assert found["E/entropy"].item() == pytest.approx(-entropy.item(), rel=1e-4)
    assert found["E/drift"].item() == pytest.approx(spread.square().item(), rel=1e-4)


def test_each_phase_trains_its_own_networks_only() -> None:
    method, data = tiny(), batch()
    outputs = method.forward(data)
    torch.stack(list(method.energy_losses(data, outputs).values())).sum().backward()
    assert all(p.grad is None for p in method.networks["generator"].parameters())
    assert all(p.grad is not None for p in method.networks["energy"].parameters())
    losses = method.generator_losses(data, outputs)
    torch.stack(list(losses.values())).sum().backward()
    idle = [name for name, p in method.networks["generator"].named_parameters() if p.grad is None]
    assert not idle, "steps and noise are trained, too"


def test_the_estimate_tells_wide_from_narrow_distributions() -> None:
    """A critic that knows the distance of two samples: independent ones of a wide distribution are far apart."""

    def critic(seen: Tensor) -> Tensor:
        return -(seen[:, 1:2] - seen[:, 2:3]).square()

    torch.manual_seed(0)
    samples = torch.randn(64, 1, 1, 1)
    narrow, wide = (estimate_entropy(critic, scale * samples, torch.zeros(64, 1, 1, 1))[0] for scale in (0.1, 3.0))  # type: ignore[arg-type]
    assert wide > narrow + 1


def test_steps_and_noise_matter_from_the_beginning() -> None:
    generator = tiny(initialisation_gain=0.02).networks["generator"]
    image, noise = batch()["source"], torch.randn(2, 16)
    first = generator(image, noise=noise)
    assert (generator(image, noise=noise, step=1) - first).std() > 0.05 * first.std()
    assert (generator(image, noise=torch.randn(2, 16)) - first).std() > 0.05 * first.std()


def test_a_batch_of_one_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = write_unpaired(tmp_path / "data")
    with pytest.raises(UsageError, match="give at least 2"):
        train(tiny_config(data, tmp_path / "run", {"name": "unsb"}, batch_size=1), quiet=True)
    assert not (tmp_path / "run").exists()


def test_other_methods_begin_with_its_weights_in_one_step(run: Path, tmp_path: Path) -> None:
    from img2img.models import Translator as Loaded

    data = write_unpaired(tmp_path / "data")
    arguments = [
        "train",
        "cut",
        "--data",
        str(data),
        "--init",
        str(run),
        "--steps",
        "1",
        "--device",
        "cpu",
        "--recipe",
        "paper",
    ]
    small = ["--size", "16", "--discriminator.channels", "4", "--discriminator.layers", "1", "--features", "none"]
    assert main([*arguments, *small, "--output", str(tmp_path / "cut")]) == 0
    assert Loaded.load(tmp_path / "cut").nfe is None
    assert (
        main(
            [
                *arguments[:1],
                "unsb",
                *arguments[2:],
                *small,
                "--energy.layers",
                "1",
                "--nfe",
                "2",
                "--output",
                str(tmp_path / "two"),
            ]
        )
        == 0
    )
    assert Loaded.load(tmp_path / "two").nfe == 2


def test_a_translator_takes_the_papers_steps(model: Translator) -> None:
    source = batch()["source"]
    random = torch.Generator().manual_seed(7)
    told = torch.randn(3, 16, generator=random)
    place, made = begin(source), source
    with torch.no_grad():
        for step in range(3):
            if step:
                place = place.move_on(made, step - 1, 3, 0.5, torch.randn(1, 3, 16, 16, generator=random))
            made = model.generator(place.seen, step=step, noise=told[step].expand(2, -1), base=place.image)  # type: ignore[operator]
            assert torch.allclose(model.with_nfe(step + 1)(source, seed=7), made, atol=1e-4)
    assert torch.allclose(model(source, seed=7), made, atol=1e-4), "all steps by default"
    assert torch.equal(model(source, seed=7), model(source, seed=7))
    assert (model(source, seed=7) - model(source, seed=8)).abs().max() > 0.01
    assert torch.allclose(model(source)[:1], model(source[:1]), atol=1e-4), "batches change nothing"


def test_strips_are_the_whole_image_at_each_step(model: Translator) -> None:
    image, shares = torch.rand(1, 3, 61, 47) * 2 - 1, []
    with watch_large_images(shares.append):
        in_strips = model(image, tile=16)
    assert torch.allclose(in_strips, model(image, tile=0), atol=1e-4)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1) and min(shares) < 0.2


def test_a_folder_is_converted_in_fewer_steps(run: Path, model: Translator, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    deep = np.dstack([draw().astype(np.uint16) * 257, np.full((16, 24), 40000, np.uint16)])
    write_image(tmp_path / "in" / "a.png", draw())
    write_image(tmp_path / "in" / "b.png", deep)
    convert = ["convert", str(tmp_path / "in"), "--model", str(run), "--dtype", "fp32"]
    assert main([*convert, str(tmp_path / "all")]) == 0
    assert main([*convert, str(tmp_path / "two"), "--nfe", "2", "--seed", "3"]) == 0
    assert np.abs(read_image(tmp_path / "all" / "a.png").astype(int) - model(draw())).max() <= 1
    assert np.abs(read_image(tmp_path / "two" / "a.png").astype(int) - model.with_nfe(2)(draw(), seed=3)).max() <= 1
    made = read_image(tmp_path / "two" / "b.png")
    assert made.dtype == np.uint16 and np.array_equal(made[..., 3], deep[..., 3])
    for wrong in ("0", "4"):
        assert main([*convert, str(tmp_path / "no"), "--nfe", wrong]) == 2
    assert not (tmp_path / "no").exists()


def test_it_is_evaluated_by_steps(run: Path, model: Translator, tmp_path: Path) -> None:
    data = write_unpaired(tmp_path, 10, 10)
    scores = [evaluate(model, data, nfe=nfe, features="random").metrics["kid"] for nfe in (1, 3)]
    assert scores[0] != scores[1]


def test_what_cant_be_done_says_so(model: Translator, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model.save(folder)
    with pytest.raises(UsageError, match="1 to 3 steps"):
        model.with_nfe(4)
    with pytest.raises(UsageError, match="compress"):
        export_onnx(model, tmp_path / "a.onnx")
    with pytest.raises(UsageError, match="steps"):
        export_reference(folder, tmp_path / "a.pth")
    with pytest.raises(UsageError, match="several steps"):
        Engine(model, "eval", compile=True)
    with pytest.raises(UsageError, match="several steps"):
        Engine(model, "eval", backend="openvino")
    with pytest.raises(UsageError, match="img2img train unsb"):
        from helpers.identity import identity

        identity().with_nfe(1)


def test_a_student_takes_one_step(run: Path, model: Translator, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        write_image(photos / f"{number}.png", draw())
    command = [
        "compress",
        str(run),
        "--data",
        str(photos),
        "--macs",
        "0.5",
        "--steps",
        "2",
        "--output",
        str(tmp_path / "small"),
    ]
    assert main([*command, "--device", "cpu"]) in (0, 1)
    student = img2img.load(tmp_path / "small")
    assert student.nfe is None and student(draw()).shape == (16, 24, 3)
    costs = [count_multiply_adds(each.config.generator, 16, 16) for each in (model, student)]
    one = model.config.generator.model_copy(update={"steps": None})
    assert costs[0] > 2.9 * count_multiply_adds(one, 16, 16) and costs[1] <= costs[0] / 2


def test_a_recipe_is_stronger_than_the_papers_batch() -> None:
    from img2img.config import run_type
    from img2img.training.recipes import apply_recipe

    config = run_type("unsb")(method={"name": "unsb"}, data={"path": "x"}, output="y", recipe="small")
    assert config.batch_size == 2 and apply_recipe(config).batch_size == 4
    chosen = run_type("unsb")(method={"name": "unsb"}, data={"path": "x"}, output="y", recipe="small", batch_size=3)
    assert apply_recipe(chosen).batch_size == 3
