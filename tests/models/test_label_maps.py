"""Translators of label maps: what they take, what they refuse, and their styles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data import label_map, picture
from PIL import Image

import img2img
from img2img.core.errors import UsageError
from img2img.data.classes import Class, Classes
from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import (
    ImageEncoderConfig,
    InstanceEncoderConfig,
    Pix2PixHDConfig,
    SPADEConfig,
    build_encoder,
    build_generator,
    initialise,
)

CLASSES = Classes(count=4, ignore=255, table={1: Class(name="car"), 2: Class(name="tree")})


def make(encoder: str = "", edges: bool = True) -> Translator:
    torch.manual_seed(0)
    reader: Any = None
    inward = 4 + edges
    if encoder == "instances":
        reader = InstanceEncoderConfig(in_channels=3, channels=4, downsampling=2, features=2)
        inward += 2
    if encoder == "image":
        reader = ImageEncoderConfig(channels=4, latent=5, size=16).resolve(3, 64)
    if encoder == "instances":
        config: Any = Pix2PixHDConfig(channels=4, downsampling=2, blocks=1).resolve(inward, 3, 64)
    else:
        config = SPADEConfig(channels=2, hidden=4).resolve(inward, 3, 64)
        config = config.model_copy(update={"latent": 5, "latent_size": 2} if encoder else {})
    about = TranslatorConfig(
        method="spade",
        generator=config,
        size=64,
        classes=CLASSES,
        edges=edges,
        encoder=reader,
        training=Training(img2img="0"),
    )
    generator = initialise(build_generator(config), "xavier", 1.0).eval()
    read = initialise(build_encoder(reader), "xavier", 1.0).eval() if reader else None
    styles = torch.rand(4, 3, 2) * 2 - 1 if encoder == "instances" else None
    return Translator(about, generator, read, styles)


def maps(height: int = 40, width: int = 50) -> tuple[Any, Any]:
    labels, instances = label_map(max(height, width, 8), 1)
    return labels[:height, :width].copy(), instances[:height, :width].copy()


@pytest.mark.parametrize("encoder", ["", "image", "instances"])
@pytest.mark.parametrize("size", [(40, 50), (1, 1), (64, 64), (131, 67)], ids=str)
def test_every_kind_of_input_gives_the_same(encoder: str, size: tuple[int, int]) -> None:
    translator, (labels, instances) = make(encoder), maps(*size)
    array = translator(labels, instances)
    assert array.shape == (*size, 3) and array.dtype == np.uint8
    assert np.array_equal(translator(labels[..., None], instances[..., None]), array)
    assert np.array_equal(translator(np.stack([labels, instances], 2).astype(np.int32)), array)
    assert np.array_equal(translator(labels.astype(np.uint16), instances.astype(np.int64) + 2**40), array), "identities"
    image = translator(Image.fromarray(labels), Image.fromarray(instances))
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), array)
    tensor = translator(torch.from_numpy(labels), torch.from_numpy(instances))
    assert tensor.shape == (3, *size) and tensor.dtype == torch.float32 and tensor.abs().max() <= 1
    assert np.abs((tensor.permute(1, 2, 0).numpy() + 1) * 127.5 - array).max() < 0.51
    batch = translator(torch.from_numpy(np.stack([labels, labels])), torch.from_numpy(np.stack([instances, instances])))
    assert batch.shape == (2, 3, *size) and torch.allclose(batch[1], tensor, atol=1e-5)
    (mapped,) = translator.map([(labels, instances)])
    assert np.array_equal(mapped, array)


def test_palette_images_are_indices() -> None:
    translator, (labels, _) = make(edges=False), maps()
    paletted = Image.fromarray(labels)
    paletted.putpalette([200, 90, 10] * 256)
    assert paletted.mode == "P"
    assert np.array_equal(np.asarray(translator(paletted)), translator(labels))


def test_what_is_no_label_map_is_refused_in_words() -> None:
    translator, (labels, instances) = make(), maps()
    for given, words in (
        ((picture(8, 8),), "looks like colours"),
        ((Image.fromarray(picture(8, 8)),), "holds colours"),
        ((labels / 255,), "of integers"),
        ((torch.rand(1, 3, 8, 8),), "of integers"),
        (("labels.png",), "not str"),
        ((labels,), "instance maps"),
        ((labels, instances[:5]), "instance map is"),
        ((labels + 4, instances), r"label 4 at row \d+, column \d+ is out of range; this translator knows 0–3 and 255"),
        ((torch.full((1, 4, 4), -7), torch.zeros(1, 4, 4, dtype=torch.int32)), "label -7"),
    ):
        with pytest.raises(UsageError, match=words):
            translator(*given)
    translator(np.full((8, 8), 255, np.uint8), np.zeros((8, 8), np.uint8))
    with pytest.raises(UsageError, match="takes images"):
        plain = SPADEConfig(channels=2, hidden=4).resolve(3, 3, 64)
        about = TranslatorConfig(method="pix2pix", generator=plain, size=64, training=Training(img2img="0"))
        Translator(about, build_generator(plain))(picture(8, 8), picture(8, 8))
    with pytest.raises(UsageError, match="takes images"):
        Translator(about, build_generator(plain))(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8))


def test_edges_are_seen() -> None:
    translator, (labels, instances) = make(), maps()
    assert not np.array_equal(translator(labels, instances), translator(labels, np.zeros_like(instances)))


@pytest.mark.parametrize("encoder", ["image", "instances"])
def test_styles(encoder: str) -> None:
    translator, (labels, instances) = make(encoder), maps()
    plain = translator(labels, instances)
    outputs = [translator(labels, instances, style=k) for k in range(3)]
    assert len({each.tobytes() for each in outputs}) == 3, "three styles"
    assert np.array_equal(outputs[1], translator(labels, instances, style=1)), "and always the same"
    assert np.array_equal(plain, translator(labels, instances)), "asking for one changes nothing"
    assert np.array_equal(plain, outputs[0]) == (encoder == "instances"), "the most frequent is the default"
    bound = translator.with_style(2)
    assert np.array_equal(bound(labels, instances), outputs[2])
    if encoder == "image":
        reference = translator(labels, instances, style=picture(30, 20, seed=3))
        assert np.array_equal(reference, translator(labels, instances, style=Image.fromarray(picture(30, 20, seed=3))))
        with pytest.raises(UsageError, match="of the whole image"):
            translator(labels, instances, style={"car": 1})
    else:
        image = picture(40, 50, seed=3)
        reference = translator(labels, instances, style=(image, labels, instances))
        assert not np.array_equal(
            reference, translator(labels, instances, style=(picture(40, 50, seed=4), labels, instances))
        )
        car = translator(labels, instances, style={"car": 1})
        assert np.array_equal(car, translator(labels, instances, style={1: 1})) and not np.array_equal(car, plain)
        for style, words in (
            (3, "there are 0–2"),
            ({"bus": 0}, "no class 'bus'"),
            (image, "image, labels"),
            ((image[:9], labels), "pixels"),
        ):
            with pytest.raises(UsageError, match=words):
                translator(labels, instances, style=style)
    assert not np.array_equal(reference, plain)
    assert translator.style is not None
    given = torch.ones_like(translator.style)
    assert not np.array_equal(translator(labels, instances, style=given), plain)
    with pytest.raises(UsageError, match="is expected"):
        translator(labels, instances, style=torch.ones(3))
    assert np.array_equal(translator(labels, instances, style=np.int64(2)), outputs[2])
    with pytest.raises(UsageError, match="no styles"):
        make()(labels, instances, style=1)


def test_a_reference_keeps_the_styles_of_classes_that_it_does_not_show() -> None:
    translator, (_, instances) = make("instances"), maps()
    only = np.full((40, 50), 2, np.uint8)
    style = translator.with_style((picture(40, 50), only, instances)).style
    assert style is not None and translator.style is not None
    assert torch.equal(style[[0, 1, 3]], translator.style[[0, 1, 3]]) and not torch.equal(style[2], translator.style[2])


@pytest.mark.parametrize("encoder", ["", "image", "instances"])
def test_saved_and_loaded(encoder: str, tmp_path: Path) -> None:
    translator, (labels, instances) = make(encoder), maps()
    translator.save(tmp_path / "t")
    translator.save(tmp_path / "t")
    loaded = img2img.load(tmp_path / "t")
    for style in (None, 2) if encoder else (None,):
        assert np.array_equal(loaded(labels, instances, style=style), translator(labels, instances, style=style))
    if encoder == "instances":
        (tmp_path / "t" / "styles.safetensors").unlink()
        with pytest.raises(UsageError, match=r"styles\.safetensors"):
            img2img.load(tmp_path / "t")
    if encoder == "image":
        (tmp_path / "t" / "encoder.safetensors").write_bytes(b"broken")
        with pytest.raises(UsageError, match=r"encoder\.safetensors"):
            img2img.load(tmp_path / "t")


def test_an_ignored_label_within_the_range() -> None:
    translator, (labels, instances) = make(), maps()
    about = translator.config.model_copy(update={"classes": CLASSES.model_copy(update={"ignore": 0})})
    ignoring = Translator(about, translator.generator)
    nowhere = np.where(labels == 0, 255, labels).astype(np.uint8)
    assert np.array_equal(ignoring(labels, instances), translator(nowhere, instances))
    assert not np.array_equal(ignoring(labels, instances), translator(labels, instances))
    shown = ignoring.shown(torch.from_numpy(np.stack([nowhere, instances]).astype(np.int32))[None])
    assert (shown[0, :, torch.from_numpy(labels == 0)] == -1).all(), "black"


def test_a_config_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    for encoder in ("instances", "image"):
        translator = make(encoder)
        other = translator.config.encoder.model_copy(update={"latent": 99}) if translator.config.encoder else None
        change = {"classes": None, "edges": False} if encoder == "instances" else {"encoder": other}
        translator.config = translator.config.model_copy(update=change)
        translator.save(tmp_path / encoder)
        with pytest.raises(UsageError, match=r"config\.json"):
            img2img.load(tmp_path / encoder)


def test_memory_is_guessed_by_all_that_a_network_has() -> None:
    small, wide = (SPADEConfig(channels=8).resolve(planes, 3, 64) for planes in (5, 200))
    assert small.bytes_per_pixel > 1000 and wide.bytes_per_pixel > small.bytes_per_pixel + 1500
    assert SPADEConfig().resolve(36, 3, 256).bytes_per_pixel > 4500
