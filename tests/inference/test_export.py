"""ONNX files give what their translators give."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.data import picture
from torch import Tensor, nn

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError, UserError
from img2img.data.classes import Classes
from img2img.images import read_image, write_image
from img2img.interop import onnx as room
from img2img.interop.onnx import export_onnx
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import Pix2PixHDConfig, ResNetConfig, SPADEConfig, UNetConfig, build_generator, initialise
from img2img.networks.layers import ImageNetwork, ZeroConv2d

NETWORKS: dict[str, Any] = {
    "unet": UNetConfig(channels=4, depth=2),
    "resnet": ResNetConfig(channels=4, blocks=1, norm="instance"),
    "resnet-cut": ResNetConfig(channels=4, blocks=1, norm="instance", downsampling="blur", upsampling="blur"),
    "resnet-residual": ResNetConfig(channels=4, blocks=1, norm="instance", residual=True),
    "resnet-batch": ResNetConfig(channels=4, blocks=1, norm="batch", dropout=0.5, padding="replicate"),
    "pix2pixhd": Pix2PixHDConfig(channels=4, downsampling=2, blocks=1, enhancers=1, enhancer_blocks=1),
    "spade": SPADEConfig(channels=2, hidden=4, norm="sync-batch"),
}  # fmt: skip


def make(name: str, classes: int = 0, edges: bool = False, latent: int = 0, **about: Any) -> Translator:
    torch.manual_seed(0)
    channels = classes + edges if classes else 3
    config = NETWORKS[name].resolve(channels, 3, 64 if name != "hd4" else 128)
    if latent:
        config = config.model_copy(update={"latent": latent, "latent_size": 2})
    network = initialise(build_generator(config), "xavier", 1.0).eval()
    for layer in network.modules():
        if isinstance(layer, ZeroConv2d):
            layer.weight.data.normal_(0, 0.1)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
    labels = Classes(count=classes) if classes else None
    settings = {"method": "pix2pix", "size": 64, "training": Training(img2img="0"), "classes": labels, "edges": edges}
    return Translator(TranslatorConfig(generator=config, **{**settings, **about}), network)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a U-Net: what takes seconds to make, and tests only read."""
    file = tmp_path_factory.mktemp("exported") / "x.onnx"
    export_onnx(make("unet"), file)
    return file


@pytest.mark.parametrize("name", ["unet", "resnet-cut", "resnet-residual", "pix2pixhd"])
def test_networks(name: str, tmp_path: Path) -> None:
    """All of them, in all sizes: tools/bench_onnx.py."""
    translator = make(name)
    done = export_onnx(translator, tmp_path / "packed.onnx")
    assert max(done.differences.values()) <= 1 and len(done.differences) == len(room.SIZES) + 1
    onnx.checker.check_model(str(tmp_path / "packed.onnx"))
    assert not onnx.load(str(tmp_path / "packed.onnx")).graph.value_info, (
        "the exporter's notes of sizes are wrong for some"
    )


def test_the_network_alone(tmp_path: Path) -> None:
    translator = make("unet")
    raw = export_onnx(translator, tmp_path / "raw.onnx", raw=True)
    assert max(raw.differences.values()) < 1e-4
    loaded = img2img.load(tmp_path / "raw.onnx")
    image = torch.rand(1, 3, 45, 67) * 2 - 1
    assert isinstance(loaded, Translator)
    assert (loaded(image) - translator(image, mode="eval")).abs().max() < 1e-4


def test_any_size_goes_in(exported: Path) -> None:
    translator = make("unet")
    session = onnxruntime.InferenceSession(str(exported))
    for size in ((1, 1), (1, 9), (2, 3), (5, 5), (200, 7)):
        image = picture(*size)
        made = session.run(None, {"images": np.stack([image, image])})[0]
        assert made.shape == (2, *size, 3) and made.dtype == np.uint8
        assert np.abs(made[0].astype(int) - translator(image).astype(int)).max() <= 1


def test_label_maps_go_in_as_integers(tmp_path: Path) -> None:
    translator = make("unet", classes=5, edges=True)
    export_onnx(translator, tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    labels = np.random.default_rng(0).integers(0, 5, (1, 70, 66, 2), np.int32)
    labels = np.repeat(np.repeat(labels[:, ::8, ::8], 8, 1), 8, 2)[:, :70, :66]
    made = session.run(None, {"labels": labels})[0]
    assert np.abs(made[0].astype(int) - translator(labels[0]).astype(int)).max() <= 1
    with pytest.raises(UsageError, match="--raw"):
        img2img.load(tmp_path / "x.onnx")


def test_a_style_is_an_input_of_the_network_alone(tmp_path: Path) -> None:
    translator = make("spade", classes=5, latent=6)
    export_onnx(translator, tmp_path / "raw.onnx", raw=True)
    loaded = img2img.load(tmp_path / "raw.onnx")
    labels = np.kron(np.arange(64).reshape(8, 8) % 5, np.ones((8, 8))).astype(np.int32)
    for style in (0, 3):
        wanted = translator(labels, style=style).astype(int)
        assert np.abs(loaded(labels, style=style).astype(int) - wanted).max() <= 1  # type: ignore[operator]
    assert np.abs(wanted - translator(labels, style=0)).max() > 1


def test_the_papers_mode_has_each_images_statistics_and_no_dropout(tmp_path: Path) -> None:
    translator = make("resnet-batch", mode="paper")
    done = export_onnx(translator, tmp_path / "x.onnx", raw=True)
    assert any("dropout" in note for note in done.notes)
    for layer in translator.generator.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    made = onnxruntime.InferenceSession(str(tmp_path / "x.onnx")).run(None, {"source": images.numpy()})[0]
    assert (torch.from_numpy(made) - translator(images)).abs().max() < 1e-4
    assert (torch.from_numpy(made) - translator(images, mode="eval")).abs().max() > 0.01


def test_a_range_from_zero_to_one(tmp_path: Path) -> None:
    translator, image = make("resnet", value_range=(0, 1)), picture(40, 40)
    export_onnx(translator, tmp_path / "x.onnx")
    loaded = img2img.load(tmp_path / "x.onnx")
    assert np.abs(loaded(image).astype(int) - translator(image).astype(int)).max() <= 1  # type: ignore[operator]
    assert not np.array_equal(translator(image), make("resnet")(image))


def test_an_onnx_file_only_translates(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(exported)
    for command in (["push", file, str(tmp_path / "shared")], ["export", file, str(tmp_path / "x.pth")], ["export", file, str(tmp_path / "y.onnx")]):  # fmt: skip
        assert main(command) == 2
        assert "only translates" in capsys.readouterr().err
    loaded = img2img.load(file)
    with pytest.raises(UsageError, match="8-bit images"):
        loaded(picture(20, 20, dtype=np.uint16))  # type: ignore[operator]
    for options in (["--compile"], ["--tile", "64"], ["--device", "cuda"]):
        assert main(["convert", str(tmp_path), str(tmp_path / "out"), "--model", file, *options]) == 2


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = room._build_plain

    def other(network: nn.Module, mode: Any) -> nn.Module:
        changed = plain(network, mode)
        with torch.no_grad():
            next(changed.parameters()).mul_(1.5)
        return changed

    monkeypatch.setattr(room, "_build_plain", other)
    with pytest.raises(UserError, match="isn't written: onnxruntime's results differ"):
        export_onnx(make("unet"), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Python(ImageNetwork):
        size_multiple = min_size = 1

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return x * float(np.asarray(self.weight.detach())[0] if x.sum() > 0 else 2)

    translator = make("unet")
    translator.generator = Python()
    with pytest.raises(UserError, match="can't be exported"):
        export_onnx(translator, tmp_path / "x.onnx")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    translator = make("unet")
    translator.save(tmp_path / "model")
    write_image(tmp_path / "in" / "a.png", picture(50, 40))
    write_image(tmp_path / "in" / "deep.png", picture(50, 40, dtype=np.uint16))
    for name, options in (("packed", []), ("raw", ["--raw"])):
        file = str(tmp_path / f"{name}.onnx")
        assert main(["export", str(tmp_path / "model"), file, *options]) == 0
        assert "64×64: largest difference" in capsys.readouterr().out
        assert main(["export", str(tmp_path / "model"), file]) == 2, "it exists"
        code = main(["convert", str(tmp_path / "in"), str(tmp_path / name), "--model", file, "--engine", "onnx"])
        assert code == (1 if name == "packed" else 0)
        assert ("--raw" in capsys.readouterr().err) == (name == "packed"), "16 bits need the network alone"
        made = read_image(tmp_path / name / "a.png")
        assert np.abs(made.astype(int) - translator(picture(50, 40)).astype(int)).max() <= 1
    deep = read_image(tmp_path / "raw" / "deep.png").astype(int)
    assert np.abs(deep - translator(picture(50, 40, dtype=np.uint16)).astype(int)).max() <= 8
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(tmp_path / "model"), "--engine", "onnx"]) == 2  # fmt: skip
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "x.what")]) == 2
    for options in (["--mode", "paper"], ["--dtype", "bf16"], ["--engine", "torch"]):
        assert (
            main(
                [
                    "convert",
                    str(tmp_path / "in"),
                    str(tmp_path / "out"),
                    "--model",
                    str(tmp_path / "raw.onnx"),
                    *options,
                ]
            )
            == 2
        )
    assert main(["export", str(tmp_path / "nothing"), str(tmp_path / "x.onnx")]) == 2


def test_files_that_are_not_ours_are_a_sentence(exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.onnx"
    file.write_bytes(b"no model at all")
    with pytest.raises(UsageError, match="damaged"):
        img2img.load(file)
    model = onnx.load(str(exported))
    (about,) = (each for each in model.metadata_props if each.key == "img2img")
    about.value = json.dumps({"raw": True})
    onnx.save(model, str(file))
    with pytest.raises(UsageError, match="description"):
        img2img.load(file)
    del model.metadata_props[:]
    onnx.save(model, str(file))
    with pytest.raises(UsageError, match="img2img export"):
        img2img.load(file)
    with pytest.raises(UsageError, match="no such file"):
        img2img.load(tmp_path / "nothing.onnx")


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are made in the temporary folder first."""

    def fail(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(onnx, "save", fail)
    with pytest.raises(UserError, match=r"No space left on device.*TMPDIR"):
        export_onnx(make("unet"), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["secret.bin", "../secret.bin", "{tmp_path}/secret.bin"])
def test_a_file_reads_no_other_files(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """External data, which ONNX allows, would let a file show what else is on a disk."""
    file = tmp_path / "folder" / "x.onnx"
    file.parent.mkdir()
    model = onnx.load(str(exported))
    stolen = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    for folder in (tmp_path, file.parent):
        (folder / "secret.bin").write_bytes(stolen.raw_data)
    length = len(stolen.raw_data)
    stolen.ClearField("raw_data")
    stolen.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": place.format(tmp_path=tmp_path), "offset": "0", "length": str(length)}.items():
        entry = stolen.external_data.add()
        entry.key, entry.value = key, value
    file.write_bytes(model.SerializeToString())
    monkeypatch.chdir(file.parent)
    with pytest.raises(UsageError, match="damaged"):
        img2img.load(file)
