"""StarGAN: its losses, its discriminator, and the translators between domains that come out of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.configs import tiny_config
from helpers.data import picture, write_volumes
from torch import Tensor

import img2img
from img2img.cli import main
from img2img.config import read_config
from img2img.core.errors import UsageError
from img2img.data.base import DataConfig, Pair
from img2img.data.class_folders import ClassFolderData
from img2img.data.paired import read_validation_pair
from img2img.images import read_image
from img2img.methods.stargan import StarGAN, StarGANConfig
from img2img.metrics.distribution import features, make_extractor
from img2img.metrics.domains import choose_other_domains, compare_domains
from img2img.metrics.paired import describe_scores
from img2img.models.hub import write_card
from img2img.networks.discriminators.stargan import StarGANDiscriminator, StarGANDiscriminatorConfig
from img2img.pages.curves import explain
from img2img.training.train import train

SMALL: dict[str, Any] = {
    "generator": {"kind": "resnet", "channels": 4, "blocks": 1},
    "discriminator": {"kind": "stargan", "channels": 4},
}


def stargan(**values: Any) -> StarGAN:
    torch.manual_seed(0)
    return StarGANConfig.model_validate({**SMALL, **values}).build(3, 3, 16, 3)


def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"target": torch.rand(4, 3, 16, 16) * 2 - 1, "label": torch.tensor([0, 1, 2, 2])}


def tell(images: Tensor, labels: Tensor) -> Tensor:
    """By hand: the generator's input."""
    copies = torch.zeros(len(images), 9, *images.shape[2:])
    for place, label in enumerate(labels):
        copies[place, 3 * label : 3 * label + 3] = images[place]
    return torch.cat([images, copies], 1)


def test_the_losses_are_those_of_the_paper() -> None:
    method, data = stargan(adversarial="lsgan", gradient_penalty=0.0, domain_weight=2.0, cycle_weight=5.0), batch()
    with torch.no_grad():  # fresh networks give logits of almost 0, by which all classes are alike
        for parameter in method.networks["discriminator"].parameters():
            parameter.mul_(6)
    outputs = method.forward(data, 4)
    fake, wanted = outputs.images["fake"], outputs.images["wanted"]
    assert not torch.equal(wanted, data["label"])
    generator, discriminator = method.networks["generator"], method.networks["discriminator"]
    assert torch.allclose(fake, generator(tell(data["target"], wanted)))
    losses = method.discriminator_losses(data, outputs)
    on_real, on_fake = discriminator(data["target"]), discriminator(fake)
    assert torch.allclose(losses["D/domain"], 2 * F.cross_entropy(on_real[1], data["label"]), atol=1e-6)
    assert torch.allclose(losses["D/real"], (on_real[0] - 1).square().mean(), atol=1e-6)
    losses = method.generator_losses(data, outputs)
    assert torch.allclose(losses["G/domain"], 2 * F.cross_entropy(on_fake[1], wanted), atol=1e-6)
    back = generator(tell(fake, data["label"]))
    assert torch.allclose(losses["G/cycle"], 5 * (back - data["target"]).abs().mean(), atol=1e-6)
    assert torch.allclose(losses["G/adversarial"], (on_fake[0] - 1).square().mean(), atol=1e-6)


def test_each_side_trains_its_own_network() -> None:
    method, data = stargan(), batch()
    outputs = method.forward(data, 4)
    sum(method.discriminator_losses(data, outputs).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in method.networks["discriminator"].parameters())
    assert all(p.grad is None for p in method.networks["generator"].parameters())
    sum(method.generator_losses(data, outputs).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in method.networks["generator"].parameters())


def test_the_generator_is_due_every_fifth_update_and_all_domains_are_drawn() -> None:
    method, data = stargan(), batch()
    outputs = [method.forward(data, update) for update in range(10)]
    assert [each.images["fake"].requires_grad for each in outputs] == [update % 5 == 4 for update in range(10)]
    assert torch.cat([each.images["wanted"] for each in outputs]).unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(("size", "layers", "patches"), [(128, 6, 2), (256, 6, 4), (64, 5, 2), (20, 3, 2), (8, 2, 2)])
def test_the_discriminator_is_as_deep_as_the_image_permits(size: int, layers: int, patches: int) -> None:
    config = StarGANDiscriminatorConfig(channels=2)
    network = StarGANDiscriminator(config, 3, size, 5)
    logits, domains = network(torch.zeros(2, 3, size, size))
    assert config.count_layers(size) == layers == len(network.layer_names()) - 1
    assert logits.shape == (2, 1, patches, patches) and domains.shape == (2, 5)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(UsageError, match="put the images of each into a folder"):
        StarGANConfig.model_validate(SMALL).build(3, 3, 16, 0)
    with pytest.raises(UsageError, match=r"needs 64 pixels; use fewer --discriminator\.layers"):
        stargan(discriminator={"kind": "stargan", "layers": 6})
    with pytest.raises(UsageError, match="--adversarial wasserstein needs a critic"):
        stargan(gradient_penalty=0.0)
    with pytest.raises(UsageError, match="is about each image alone"):
        stargan(discriminator={"kind": "stargan", "norm": "batch"})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three domains: waves in red, in green, and, with a name that is another's number, in blue."""
    root = tmp_path_factory.mktemp("stargan")
    for split, count in (("train", 6), ("val", 10)):
        for channel, name in enumerate(("2", "green", "red")):
            for number in range(count):
                image = picture(20, 20, seed=number + 10 * channel) // 3
                image[..., 2 - channel] += 150
                (root / "data" / split / name).mkdir(parents=True, exist_ok=True)
                img2img.images.write_image(root / "data" / split / name / f"{number}.png", image)
    method = {"name": "stargan", "adversarial": "hinge", "gradient_penalty": 0.0, "domain_weight": 5.0, "lr": 2e-3}
    return train(
        tiny_config(root / "data", root / "run", method, steps=60, batch_size=4, features="random"), quiet=True
    )


def test_a_run_keeps_translators_that_know_their_domains(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    translator = img2img.load(run)
    assert translator.config.domains == ("2", "green", "red") and translator.in_channels == 3
    assert translator.generator.stem[1].in_channels == 12
    last = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()][-1]
    assert {"kid", "fid"} <= {key.rpartition("/")[2] for key in last}, last
    sheet = read_image(next((run / "samples").iterdir()))
    assert sheet.shape[1] // 16 == 4, "a column for the source and each domain"
    card = write_card(translator, None, False)
    assert "RGB images → RGB images of 2, green, red" in card
    assert "model(image, style='2')" in card and "--model MODEL --style 2" in card


def test_each_image_is_scored_as_another_domain_than_its_own() -> None:
    assert choose_other_domains([0, 0, 0, 1, 1, 2]) == (1, 2, 1, 2, 0, 0)
    assert choose_other_domains([0, 0]) == (0, 0)
    random = torch.Generator().manual_seed(0)
    sets = [torch.randn(12, 1, 4, generator=random) + 9 * domain for domain in range(3)]
    real = [(domain, each) for domain, images in enumerate(sets) for each in images]
    right = [(domain, each + 0.01) for domain, each in real]
    copied = [((domain + 1) % 3, each) for domain, each in real]
    assert compare_domains(right, real)["fid"] < 0.1 < 50 < compare_domains(copied, real)["fid"]
    assert compare_domains(right, real).keys() == {"kid", "fid"}
    assert compare_domains(right[5:], real) == {}, "too few of one domain"


def test_scores_are_means_over_domains(run: Path) -> None:
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = [line for line in logged if "val/kid" in line][-1]  # ten images of each domain are enough
    translator, extractor, data = (
        img2img.load(run / "latest"),
        make_extractor("random", None),
        read_config(run / "config.yaml").data,
    )
    names = translator.config.domains
    files = [file for name in names for file in sorted((run.parent / "data" / "val" / name).iterdir())]
    labels = [names.index(file.parent.name) for file in files]
    images = [read_validation_pair(Pair("", file, file), data.size, data.resize, 3, 3)[0] for file in files]
    real = [
        (label, features(extractor, [image], torch.device("cpu"))) for label, image in zip(labels, images, strict=True)
    ]
    made = [
        (wanted, features(extractor, [translator(image, style=names[wanted])], torch.device("cpu")))
        for wanted, image in zip(choose_other_domains(labels), images, strict=True)
    ]
    expected = compare_domains(made, real)
    assert last["val/kid"] == pytest.approx(expected["kid"], rel=1e-3, abs=1e-5)
    assert last["val/fid"] == pytest.approx(expected["fid"], rel=1e-3)
    of_each = [last[f"val/fid of {name}"] for name in names]
    assert np.mean(of_each) == pytest.approx(last["val/fid"]) and len(set(of_each)) == 3
    red = [[(domain, each) for domain, each in side if domain == 2] for side in (made, real)]
    assert last["val/fid of red"] == pytest.approx(compare_domains(*red)["fid"], rel=1e-3)
    assert "fid of red" in translator.config.training.scores
    assert "fid of" not in describe_scores(translator.config.training.scores), "many domains would make long sentences"
    assert explain("val/fid of red") == explain("val/fid")


def test_a_domain_is_chosen_by_name_or_number(run: Path) -> None:
    translator, image = img2img.load(run), picture(13, 22, seed=77)
    with pytest.raises(
        UsageError, match=r"which domain\? This translator makes 2, green, red: choose one with --style"
    ):
        translator(image)
    with pytest.raises(UsageError, match=r"style blue: this translator makes 2, green, red"):
        translator(image, style="blue")
    made = {name: translator(image, style=name) for name in translator.config.domains}
    assert made["red"].shape == image.shape and not np.array_equal(made["red"], made["green"])
    assert np.array_equal(translator(image, style=1), made["green"])
    assert np.array_equal(translator(image, style=2), made["2"]), "a name is a name"
    assert np.array_equal(translator(image, style=torch.tensor([0.0, 0.0, 1.0])), made["red"])
    wave = torch.linspace(-1, 1, 768).view(1, 3, 16, 16)
    by_hand = translator.generator(tell(wave, torch.tensor([2])))
    assert torch.allclose(translator(wave, style="red"), by_hand, atol=1e-6)
    strips = translator(picture(40, 50), style="red", tile=24)
    assert np.abs(strips.astype(int) - translator(picture(40, 50), style="red", tile=0)).max() <= 1


def test_folders_are_converted_and_evaluated(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = run.parent / "data" / "val" / "green"
    assert main(["convert", str(photos), str(tmp_path / "out"), "--model", str(run)]) == 2
    assert "choose one with --style NAME" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["convert", str(photos), str(tmp_path / "out"), "--model", str(run), "--style", "red", "--dtype", "fp32"]) == 0  # fmt: skip
    wanted = img2img.load(run)(read_image(photos / "1.png"), style="red")
    assert np.abs(read_image(tmp_path / "out" / "1.png").astype(int) - wanted).max() <= 1
    for side, name in (("A", "green"), ("B", "red")):
        (run.parent / "sides").mkdir(exist_ok=True)
        (run.parent / "sides" / f"test{side}").symlink_to(run.parent / "data" / "val" / name)
    scores = img2img.evaluate(run, run.parent / "sides", style="red", device="cpu")
    assert scores.metrics["l1"] > 0
    with pytest.raises(UsageError, match="which domain"):
        img2img.evaluate(run, run.parent / "sides", device="cpu")
    with pytest.raises(UsageError, match="testA with sources, testB with real images of the one that --style names"):
        img2img.evaluate(run, run.parent / "data", style="red", device="cpu")


def test_onnx_files_hold_one_domain_or_the_network_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), str(tmp_path / "red.onnx")]) == 2
    assert "choose one with --style NAME" in capsys.readouterr().err
    assert main(["export", str(run), str(tmp_path / "red.onnx"), "--style", "red"]) == 0
    assert main(["export", str(run), str(tmp_path / "raw.onnx"), "--raw"]) == 0
    image, wanted = picture(20, 24, seed=5), img2img.load(run).with_style("red")
    assert main(["export", str(run), str(tmp_path / "red.pth")]) == 2
    assert "export it as ONNX" in capsys.readouterr().err
    for file, style in (("red.onnx", None), ("raw.onnx", "red")):
        made = img2img.load(tmp_path / file)(image, style=style)
        assert np.abs(made.astype(int) - wanted(image)).max() <= 1


def test_it_translates_measurements(tmp_path: Path) -> None:
    drawn, data = np.random.default_rng(0), tmp_path / "data"
    for place, domain in enumerate(("dry", "wet")):
        for split, count in (("train", 4), ("val", 10)):
            for number in range(count):
                values = drawn.integers(-900 + 1500 * place, 1000 + 1500 * place, (16, 16, 2)).astype(np.int16)
                (data / split / domain).mkdir(parents=True, exist_ok=True)
                np.save(data / split / domain / f"{number}.npy", values)
    settings = {"name": "stargan", **SMALL}
    shown = {"size": 16, "range": (-1000.0, 3000.0)}
    config = tiny_config(data, tmp_path / "run", settings, data=shown, validate_every=2, features="lite")
    run = train(config, quiet=True)
    model = img2img.load(run)
    assert model.config.in_range == model.config.out_range == (-1000, 3000)
    assert model.config.domains == ("dry", "wet") and model.in_channels == model.out_channels == 2
    opened = ClassFolderData(config.data)
    opened.divide(0)
    item = opened.build_training_set(config.data.build_transform(), 2, 2, 0)[0, 0]
    stored = np.load(data / "train" / "dry" / "0.npy").astype(np.float32)
    given = np.concatenate([np.load(file).ravel() for file in sorted((data / "train").rglob("*.npy"))])
    assert set(np.rint(item["target"].numpy().ravel() * 2000 + 1000).astype(int)) <= set(given.astype(int))
    made = model.with_style("wet")(stored)
    assert made.dtype == np.float32 and made.shape == (16, 16, 2) and -1000 <= made.min() < made.max() <= 3000
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all("val/fid" in line for line in log if "val/kid" in line) and any("val/kid" in line for line in log)
    assert (
        main(["convert", str(data / "val" / "dry"), str(tmp_path / "out"), "--model", str(run), "--style", "wet"]) == 0
    )
    written = np.load(tmp_path / "out" / "3.npy")
    assert written.dtype == np.int16, "the source's type holds the range"
    assert (
        np.abs(written - model.with_style("wet")(np.load(data / "val" / "dry" / "3.npy").astype(np.float32))).max() <= 1
    )
    with pytest.raises(UsageError, match=r"have one range: give --data\.range"):
        ClassFolderData(DataConfig(path=data, source_range=(0, 1)))


def test_its_domains_may_be_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for domain, side in (("t1", "trainA"), ("t2", "trainB")):
        (tmp_path / "data").mkdir(exist_ok=True)
        write_volumes(tmp_path / domain, slices=5, train=3)
        (tmp_path / domain / side).rename(tmp_path / "data" / domain)
    opened = ClassFolderData(DataConfig(path=tmp_path / "data", size=32, range=(-1000, 3000), axis="coronal"))
    assert tuple(opened.splits["train"].labels) == (0,) * 108 + (1,) * 108, "36 coronal slices of each volume"
    report = opened.check()
    assert not report.errors and report.names == ("t1", "t2")
    opened.divide(0.34)
    held = {file.parent for file in opened.validation_set("").targets}
    assert len(held) == 2 and not held & {file.parent for file in opened.train.files}, "volumes are held out whole"
    assert len(opened.train.files) == 4 * 36
    (said,) = ClassFolderData(DataConfig(path=tmp_path / "data", size=32)).check().errors
    assert (
        "holds measurements; to take them, train with their range: --data.range LOW HIGH" in said
        and "Repair" not in said
    )
    assert main(["check", str(tmp_path / "data"), "--range", "-1000", "3000"]) == 0
    assert main(["check", str(tmp_path / "data")]) == 1
    assert "train with their range: --range LOW HIGH" in " ".join(capsys.readouterr().out.split())
