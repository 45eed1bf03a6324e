from pathlib import Path
from typing import Any

import pytest
from helpers.configs import tiny_config

from img2img.config import read_config, run_type, write_config
from img2img.core.errors import UsageError


def test_yaml_comes_back_equal(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "data", tmp_path / "run", {"generator": {"kind": "resnet", "blocks": 3}})
    write_config(tmp_path / "a.yaml", config)
    assert read_config(tmp_path / "a.yaml") == config


def test_what_a_file_leaves_out_takes_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("method: pix2pix\nbatch_size: 3\n")
    config = read_config(tmp_path / "a.yaml")
    assert config.batch_size == 3 and config.epochs == 200
    (tmp_path / "b.yaml").write_text("batch_size: 3\n")
    assert read_config(tmp_path / "b.yaml", "pix2pix").method.name == "pix2pix"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: pix2pix\ncolour: red", "colour: there is no such setting"),
        ("method: {name: pix2pix, l1_wait: 3}", "l1_wait: there is no such setting"),
        ("method: {name: gan, -1: 3}", "-1 is no name of a setting"),
        ("method: gan\ndata: folder", "data: "),
        ("method: gan\ndata: [1, 2]", "data: "),
        ("- " * 3000, "recursion depth"),
        (
            "".join(f"a{n + 1}: &a{n + 1} [{f'*a{n},' * 9 if n else 1}]\n" for n in range(30))
            + "method: {name: gan, lr: *a30}",
            "lr",
        ),
        ("method: pix2pix\ndata: {size: 4}", "data.size: input should be greater than or equal to 8, not 4"),
        ("method: pix2pix\nbatch_size: many", "batch_size"),
        ("method: pix2pux", "no method 'pix2pux'; there are: pix2pix"),
        ("batch_size: 3", "names no method"),
        ("[1, 2]", "holds no settings"),
        ("a: [", "is not YAML"),
        ("method: {name: pix2pix, generator: {kind: vnet}}", "generator"),
        ("method: pix2pix\nepochs: .inf", "epochs"),
    ],
)
def test_mistakes_in_a_file_are_sentences(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_config(tmp_path / "a.yaml")
    assert words in str(caught.value) and "a.yaml" in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_file_for_another_method_or_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("method: pix2pix")
    with pytest.raises(UsageError, match="not cyclegan"):
        read_config(tmp_path / "a.yaml", "cyclegan")
    with pytest.raises(UsageError, match=r"none\.yaml can't be read"):
        read_config(tmp_path / "none.yaml")


def test_every_field_has_a_description() -> None:
    def check(model: Any) -> None:
        for name, field in model.model_fields.items():
            if name == "name":
                continue
            assert field.description, f"{model.__name__}.{name}"

    config = run_type("pix2pix")(method={"name": "pix2pix"})
    for model in (config, config.data, config.method, config.method.generator, config.method.discriminator):
        check(type(model))
