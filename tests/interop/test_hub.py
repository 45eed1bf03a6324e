"""Sharing, without a network: local folders, the Hub's cache in its offline mode, and an upload that is caught."""

import errno
import os
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from helpers.configs import tiny_config
from helpers.data import picture
from huggingface_hub import ModelCard, constants

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError, UserError
from img2img.images import read_image
from img2img.models import Base, Training, Translator, TranslatorConfig
from img2img.networks import UNetConfig, build_generator
from img2img.training.train import train


def make() -> Translator:
    torch.manual_seed(0)
    generator = UNetConfig(channels=4, depth=2).resolve(3, 3, 16)
    training = Training(img2img="0", data="/home/me/my secrets/faces", updates=7, scores={"l1": 0.125, "psnr": 20.5})
    config = TranslatorConfig(method="pix2pix", generator=generator, size=16, training=training)
    return Translator(config, build_generator(config.generator).eval())


def offline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))


def in_the_hubs_cache(model: Any, home: Path, name: str) -> None:
    place = home / f"models--{name.replace('/', '--')}"
    model.save_pretrained(place / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")


def test_a_folder_with_a_card(tmp_path: Path) -> None:
    translator, image = make(), picture(20, 24)
    translator.save_pretrained(tmp_path / "shared", model_card_kwargs={"licence": "mit"})
    assert sorted(file.name for file in (tmp_path / "shared").iterdir()) == [
        "README.md",
        "config.json",
        "generator.safetensors",
    ]
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert (card.data.license, card.data.pipeline_tag, card.data.library_name) == ("mit", "image-to-image", "img2img")
    for words in ("pix2pix", "faces", "0.125", "PSNR in dB | 20.5", 'img2img.load("USER/NAME")', "1611.07004"):
        assert words in card.text
    everything = "".join(file.read_text() for file in (tmp_path / "shared").glob("*.[mj]*"))
    assert "secrets" not in everything and "home" not in everything
    for again in (Translator.from_pretrained(tmp_path / "shared"), img2img.load(tmp_path / "shared")):
        assert np.array_equal(again(image), translator(image))  # type: ignore[operator]


def test_the_hubs_name_in_its_offline_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator, image = make(), picture(20, 24)
    in_the_hubs_cache(translator, tmp_path / "hub", "somebody/faces")
    offline(tmp_path / "hub", monkeypatch)
    monkeypatch.chdir(tmp_path)
    for load in (img2img.load, Translator.from_pretrained):
        assert np.array_equal(load("somebody/faces")(image), translator(image))  # type: ignore[operator]
    with pytest.raises(UsageError, match="can't be reached"):
        img2img.load("somebody/else")
    assert main(["convert", "nothing", "out", "--model", "somebody/else"]) == 2


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "HF_HOME"), (errno.EACCES, "HF_HOME"), (None, "give it")])
def test_a_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch, number: int | None, words: str) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number)) if number else OSError("the connection broke")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=words):
        img2img.load("somebody/faces")


def test_what_comes_from_the_hub_points_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator = make()
    base = Base(model=str(tmp_path / "private"), digest="0", rank=1)
    translator.config, translator.adapter = translator.config.model_copy(update={"base": base}), {}
    translator.save(tmp_path / "there")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **options: str(tmp_path / "there"))
    with pytest.raises(UsageError, match="somebody's disk"):
        img2img.load("somebody/faces")
    translator.save_pretrained(tmp_path / "shared")
    assert (tmp_path / "shared" / "generator.safetensors").is_file(), "what is pushed is whole"


def test_what_looks_like_a_name_but_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UsageError, match="no such folder"):
        img2img.load("runs/mine")
    make().save(tmp_path / "runs" / "mine")
    assert isinstance(img2img.load("runs/mine"), Translator)


def test_only_weights_and_config_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    make().save(tmp_path / "there")

    def snapshot(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(tmp_path / "there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    img2img.load("somebody/faces@v1")
    assert asked["repo"] == "somebody/faces" and asked["revision"] == "v1"
    assert asked["allow_patterns"] == ["config.json", "*.safetensors"]


def test_a_run_goes_with_its_samples(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(tiny_config(pairs, tmp_path / "run"), quiet=True)
    sent: dict[str, bytes] = {}

    class Hub:
        def __init__(self, **options: Any) -> None:
            pass

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, folder_path: Path, repo_id: str, **options: Any) -> str:
            sent.update({file.name: file.read_bytes() for file in Path(folder_path).iterdir()})
            return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", Hub)
    assert main(["push", str(run), "somebody/faces", "--licence", "mit"]) == 0
    assert sent.keys() == {"README.md", "config.json", "generator.safetensors", "samples.png"}
    assert b"samples.png" in sent["README.md"] and str(tmp_path).encode() not in sent["config.json"]
    assert main(["push", str(run), str(tmp_path / "local")]) == 0
    shown = sorted((run / "samples").glob("*.png"))[-1]
    assert np.array_equal(read_image(tmp_path / "local" / "samples.png"), read_image(shown))
    assert main(["push", str(run), str(tmp_path / "local")]) == 2, "it is there"


def test_a_sampler_is_shared_alike(tmp_path: Path, classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tiny_config(classes, tmp_path / "run", {"name": "gan"}), quiet=True)
    assert main(["push", str(run), str(tmp_path / "shared")]) == 0
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert card.data.pipeline_tag == "unconditional-image-generation" and "not stated" in card.text
    assert isinstance(img2img.load(tmp_path / "shared"), img2img.NoiseGenerator)


def test_without_the_hub_it_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make().save(tmp_path / "t")
    offline(tmp_path / "hub", monkeypatch)
    assert main(["push", str(tmp_path / "t"), "somebody/faces"]) == 1
    assert "can't be pushed" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "t"), "no name at all"]) == 2
    assert "USER/NAME" in capsys.readouterr().err
