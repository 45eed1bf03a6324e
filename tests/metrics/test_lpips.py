"""LPIPS is what torchmetrics computes, without the pickles and the silent downloads."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data import picture
from helpers.lpips import draw_weights
from torchmetrics.functional.image.lpips import _LPIPS

from img2img.cli import main
from img2img.core.errors import UsageError
from img2img.images import Array, write_image
from img2img.inference.evaluate import compare
from img2img.metrics.lpips import TRUNKS, Lpips, LpipsNetwork, make_lpips


def compute_by_torchmetrics(network: LpipsNetwork, weights: Path, image: Array, truth: Array) -> float:
    theirs = _LPIPS(pretrained=True, net=network, pnet_rand=True, eval_mode=True)
    known = torch.load(weights, weights_only=True)
    own = {name: known["features." + re.sub(r"^slices?\.?\d+\.", "", name)] for name in theirs.net.state_dict()}
    theirs.net.load_state_dict(own)
    a, b = (torch.from_numpy(each.transpose(2, 0, 1)[None].copy()) / 127.5 - 1 for each in (image, truth))
    with torch.no_grad():
        return theirs(a, b).item()


@pytest.mark.parametrize("network", ["alex", "vgg", "squeeze"])
def test_it_equals_torchmetrics(tmp_path: Path, network: LpipsNetwork) -> None:
    image, truth = picture(40, 1100, 3), picture(40, 1100, 3, seed=1)
    weights = draw_weights(network, tmp_path / "weights.pth")
    lpips = Lpips(network, weights)
    expected = compute_by_torchmetrics(network, weights, image, truth)
    assert expected > 0.01
    assert lpips(image, truth) == pytest.approx(expected, rel=1e-3)
    assert lpips(image, image) == 0
    smallest = TRUNKS[network].smallest
    lpips(picture(smallest, smallest), picture(smallest, smallest))
    assert math.isnan(lpips(picture(smallest - 1, 64), picture(smallest - 1, 64)))
    gray = picture(40, 1100, 1)
    assert lpips(gray, truth) == lpips(np.repeat(gray, 3, 2), truth)


def test_folders_are_scored_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = draw_weights("squeeze", tmp_path / "weights.pth")
    for folder, seed in (("made", 0), ("truth", 1)):
        for number in range(2):
            write_image(tmp_path / folder / f"{number}.png", picture(40, 32, 3, seed=10 * number + seed))
    for folder in ("made", "truth"):
        write_image(tmp_path / folder / "small.png", picture(16, 32, 3))
    folders = tmp_path / "made", tmp_path / "truth"
    found = compare(*folders, lpips=Lpips("squeeze", weights))
    lpips = Lpips("squeeze", weights)
    each = [lpips(picture(40, 32, 3, seed=10 * n), picture(40, 32, 3, seed=10 * n + 1)) for n in range(2)]
    assert found.metrics["lpips"] == pytest.approx(sum(each) / 2)
    assert len(found.images) == 3 and not found.failed, "the small one has the other scores"
    assert found.about["remark"] == "1 of 3 images have no LPIPS: --lpips squeeze needs 17 pixels a side."
    assert found.values()["lpips_network"] == "squeeze" and "lpips" not in compare(*folders).metrics
    assert main(["evaluate", *map(str, folders), "--lpips", "squeeze", "--lpips-weights", str(weights)]) == 0
    out = capsys.readouterr().out
    assert "LPIPS" in out and f"{found.metrics['lpips']:.4f}" in out and "LPIPS by squeeze" in out


def test_other_files_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = draw_weights("squeeze", tmp_path / "weights.pth")
    with pytest.raises(UsageError, match=r"weights\.pth doesn't hold the weights of torchvision's alexnet"):
        Lpips("alex", weights)
    with pytest.raises(UsageError, match="--lpips-weights nowhere: there is no such file"):
        make_lpips("alex", Path("nowhere"), print)
    write_image(tmp_path / "a" / "1.png", picture(40, 32, 3))
    assert main(["evaluate", str(tmp_path / "a"), str(tmp_path / "a"), "--lpips-weights", str(weights)]) == 2
    assert "needs the network's name, too: --lpips alex" in capsys.readouterr().err


def test_published_weights_are_announced_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("img2img.core.downloads.download", lambda url, file, checksum: said.append(f"{url} {checksum}"))
    for network, name in (
        ("alex", "alexnet-owt-7be5be79"),
        ("vgg", "vgg16-397923af"),
        ("squeeze", "squeezenet1_1-b8a52dc0"),
    ):
        with pytest.raises(UsageError):  # nothing came
            make_lpips(network, None, said.append)  # type: ignore[arg-type]
        assert f"https://download.pytorch.org/models/{name}.pth" in said[-2] and said[-2].startswith("Downloading the")
        assert said[-1].endswith(f"{name}.pth sha256:{name.rpartition('-')[2]}")
