"""Files that are damaged, hostile, or of nothing that is known: a sentence, exit code 2, and nothing runs."""

import io
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import plain_networks as plain
from helpers.families import image, made, saved
from helpers.plain_networks import Plain

import img2img
from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.interop.reading import read_weights


class Bomb:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def state() -> dict[str, torch.Tensor]:
    network = Plain("instance")
    plain.resnet(network, image())
    return network.state


def random_bytes(file: Path) -> None:
    file.write_bytes(bytes(torch.randint(0, 256, (5000,), dtype=torch.uint8)))


def truncated(file: Path) -> None:
    torch.save(state(), file)
    file.write_bytes(file.read_bytes()[:-3000])


def truncated_old(file: Path) -> None:
    torch.save(state(), file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-3000])


def without_a_directory(file: Path) -> None:
    """An archive that zipfile takes for one, and then can't read; found by tools/fuzz.py."""
    torch.save(state(), file)
    file.write_bytes(file.read_bytes().replace(b"PK\x01\x02", b"PK\x00\x02", 1))


def of_another_storage(file: Path) -> None:
    """Found by tools/fuzz.py."""
    torch.save({"a": torch.ones(3)}, file, _use_new_zipfile_serialization=False)
    data = file.read_bytes()
    key = re.findall(rb"\d{10,}", data)[0]
    file.write_bytes(data.replace(key, key[:-1] + bytes([key[-1] ^ 1]), 1))


def code(file: Path) -> None:
    torch.save({"model.1.weight": Bomb(f"touch {file.parent / 'ran'}")}, file)


def code_old(file: Path) -> None:
    file.write_bytes(pickle.dumps(Bomb(f"touch {file.parent / 'ran'}")))


def whole_module(file: Path) -> None:
    torch.save(torch.nn.Conv2d(1, 1, 1), file)


def zip_bomb(file: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"model.1.weight": torch.zeros(1000, 5000)}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name))


def wrong_keys(file: Path) -> None:
    torch.save({"conv1.weight": torch.ones(3, 3, 7, 7), "fc.bias": torch.ones(3)}, file)


def half_the_keys(file: Path) -> None:
    torch.save(dict(list(state().items())[::2]), file)


def one_more_key(file: Path) -> None:
    torch.save(state() | {"model.99.weight": torch.ones(2)}, file)


def other_shapes(file: Path) -> None:
    torch.save(state() | {"model.10.conv_block.1.weight": torch.ones(16, 16, 5, 5)}, file)


def other_filter(file: Path) -> None:
    network, _ = made(plain.resnet, image(), "instance", blur=True)
    network.state["model.7.filt"] = torch.full((8, 1, 3, 3), 1 / 9)
    saved(network, file)


def not_finite(file: Path) -> None:
    torch.save(state() | {"model.1.bias": torch.tensor([1.0, float("nan"), 1.0, 1.0])}, file)


def empty(file: Path) -> None:
    file.touch()


def folder(file: Path) -> None:
    file.mkdir()


def no_file(file: Path) -> None:
    pass


def a_list(file: Path) -> None:
    torch.save([torch.ones(2)], file)


def a_number_inside(file: Path) -> None:
    torch.save({"model.1.weight": torch.ones(2), "epoch": 3}, file)


def nothing_inside(file: Path) -> None:
    torch.save({}, file)


def lying_size(file: Path) -> None:
    """A tensor that says it is larger than what is stored."""
    buffer = io.BytesIO()
    torch.save({"model.1.weight": torch.ones(4, 3, 7, 7)}, buffer)
    file.write_bytes(buffer.getvalue().replace(b"K\x04K\x03K\x07K\x07", b"K\xffK\xffK\xffK\xff"))


def itself(file: Path) -> None:
    holds: dict[str, object] = {"epoch": torch.ones(1)}
    holds["state_dict"] = holds
    torch.save(holds, file)


def vast(file: Path) -> None:
    torch.save({"model.1.weight": torch.ones(1).expand(2**20, 2**22)}, file)


def on_no_device(file: Path) -> None:
    torch.save({"model.1.weight": torch.ones(2, 2, device="meta")}, file)


def sparse(file: Path) -> None:
    torch.save({"model.1.weight": torch.eye(3).to_sparse()}, file)


def no_name(file: Path) -> None:
    torch.save({"": 3}, file)


def escapes(file: Path) -> None:
    torch.save({"\x1b[31mred": torch.ones(2)}, file)


def odd_spectral_norm(file: Path) -> None:
    torch.save({"a.weight_orig": torch.ones(3), "a.weight_u": torch.ones(3)}, file)


def whole_numbers(file: Path) -> None:
    torch.save({"a.weight_orig": torch.ones(3, 3), "a.weight_u": torch.ones(3, dtype=torch.int64)}, file)


def nothing_to_divide_by(file: Path) -> None:
    torch.save({"a.weight_orig": torch.zeros(3, 3), "a.weight_u": torch.ones(3), "a.weight_v": torch.ones(3)}, file)


def a_discriminator(file: Path) -> None:
    network, _ = made(plain.patch, image(6), "batch")
    saved(network, file)


BAD: list[tuple[Callable[[Path], None], str]] = [
    (random_bytes, "damaged"),
    (truncated, "damaged"),
    (truncated_old, "damaged"),
    (without_a_directory, "damaged"),
    (of_another_storage, "damaged"),
    (code, "could run code"),
    (code_old, "could run code"),
    (whole_module, "could run code"),
    (zip_bomb, "damaged"),
    (wrong_keys, "conv1.weight"),
    (half_the_keys, "ResNet generator, but model"),
    (one_more_key, "model.99.weight has no place"),
    (other_shapes, "16×16×5×5, not 16×16×3×3"),
    (other_filter, "model.7.filt"),
    (not_finite, "model.1.bias"),
    (empty, "empty"),
    (folder, "folder"),
    (no_file, "no such file"),
    (a_list, "no weights by name"),
    (a_number_inside, "'epoch' is no tensor of its own"),
    (nothing_inside, "no weights by name"),
    (lying_size, "damaged"),
    (itself, "no tensor of its own"),
    (vast, "no tensor of its own"),
    (on_no_device, "no tensor of its own"),
    (sparse, "no tensor of its own"),
    (no_name, "no tensor of its own"),
    (escapes, "no tensor of its own"),
    (odd_spectral_norm, "a.weight_orig"),
    (whole_numbers, "a.weight_orig"),
    (nothing_to_divide_by, "a.weight holds"),
]


@pytest.mark.parametrize(("make", "words"), BAD, ids=lambda each: getattr(each, "__name__", ""))
def test_bad_files_are_a_sentence(
    make: Callable[[Path], None], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "latest_net_G.pth"
    make(file)
    assert main(["import", str(file), "--output", str(tmp_path / "out")]) == 2
    said = capfd.readouterr().err
    assert words in said and str(file) in said and said.count("\n") == 1
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()
    assert main(["convert", str(tmp_path), str(tmp_path / "images"), "--model", str(file)]) == 2
    if make is not folder:
        with pytest.raises(UsageError):
            img2img.load(file)


@pytest.mark.parametrize("length", [2**40, 2**63, 5000])
def test_a_huge_header_is_a_sentence(length: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "G.safetensors"
    file.write_bytes(struct.pack("<Q", length) + b'{"model.1.weight": {"dtype": "F32"' + b" " * 1000)
    assert main(["import", str(file), "--output", str(tmp_path / "out")]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_discriminator_is_no_translator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "latest_net_D.pth"
    a_discriminator(file)
    with pytest.raises(UsageError, match="--init-discriminator"):
        img2img.load(file)
    for options in (["--classes", "7"], ["--mode", "eval"], ["--encoder", "E.pth"], ["--norm", "instance"]):
        assert main(["import", str(file), "--output", str(tmp_path / "D"), *options]) == 2
    assert main(["import", str(file), "--output", str(tmp_path / "D")]) == 0
    assert "PatchGAN, 6 channels" in capsys.readouterr().out
    assert main(["import", str(file), "--output", str(tmp_path / "D")]) == 2, "it is there"
    assert main(["import", str(file), "--output", str(tmp_path / "D"), "--overwrite"]) == 0
    with pytest.raises(UsageError, match="--init-discriminator"):
        img2img.load(tmp_path / "D")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--norm", "batch"], "--norm batch"),
        (["--dropout", "0.3"], "has no dropout"),
        (["--dropout", "2"], "below 1"),
        (["--upsampling", "more"], "--upsampling"),
        (["--value-range", "0", "255"], "--value-range"),
        (["--size", "0"], "--size"),
        (["--edges", "yes"], "--edges"),
        (["--encoder", "nothing.pth"], "no such file"),
    ],
)
def test_options_that_the_file_contradicts(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(state(), tmp_path / "G.pth")
    assert main(["import", str(tmp_path / "G.pth"), "--output", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("error")
def test_another_pickle_protocol_is_a_sentence_alone(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "four.pth", pickle_protocol=4)
    with pytest.raises(UsageError, match="or has another pickle protocol than PyTorch's own"):
        read_weights(tmp_path / "four.pth")
