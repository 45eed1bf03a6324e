import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.data import picture
from helpers.forked import call
from safetensors.torch import save_file

from img2img.core.errors import UsageError
from img2img.core.processes import exit_process
from img2img.metrics import distribution
from img2img.metrics.distribution import Features, RandomVGG, distances, features, find_weights
from img2img.metrics.distribution import make_extractor as make

CPU = torch.device("cpu")


def make_extractor(kind: Features, weights: Path | None, say: Any) -> tuple[str, torch.nn.Module]:
    return kind, make(kind, find_weights(kind, weights, say))


def kid_by_hand(x: torch.Tensor, y: torch.Tensor) -> float:
    """The unbiased estimate of Bińkowski et al. 2018, eq. 4, with the cubic kernel."""
    m, n = len(x), len(y)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    same = (xx.sum() - xx.trace()) / (m * (m - 1)) + (yy.sum() - yy.trace()) / (n * (n - 1))
    return (same - 2 * xy.mean()).item()


def fid_by_hand(x: torch.Tensor, y: torch.Tensor) -> float:
    """Heusel et al. 2017, eq. 6, with the matrix root from eigenvalues."""
    a, b = x.double().numpy(), y.double().numpy()
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(ca @ cb).astype(complex)).real.sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * root)


def test_against_the_papers_equations() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randn(40, 6) * 1.5 + 0.5
    found = distances(x, y)
    assert found["kid"] == pytest.approx(kid_by_hand(x, y), rel=1e-4)
    assert found["fid"] == pytest.approx(fid_by_hand(x, y), rel=1e-3)


def test_sets_of_one_kind_are_near_and_no_random_numbers_are_drawn() -> None:
    torch.manual_seed(0)
    near, far = distances(*torch.randn(2, 300, 5)), distances(torch.randn(300, 5), torch.randn(300, 5) + 2)
    assert abs(near["kid"]) < 0.05 < far["kid"] and near["fid"] < 0.2 < far["fid"]
    sets = torch.randn(2, 150, 5)  # of which KID draws subsets
    first = distances(*sets)
    torch.manual_seed(1)
    assert distances(*sets) == first, "the same subsets every time"
    state = torch.get_rng_state()
    distances(torch.ones(120, 3), torch.zeros(150, 3))
    assert torch.equal(state, torch.get_rng_state())


def test_several_processes_count_each_image_once(tmp_path: Path) -> None:
    """torchmetrics would gather the features of all processes, though each has all of them."""
    torch.manual_seed(0)
    sets = list(torch.randn(2, 30, 4))
    torch.save((sets, distances(*sets)), tmp_path / "expected.pt")
    call(_in_a_process, (tmp_path,), 2)


def _in_a_process(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    sets, expected = torch.load(folder / "expected.pt", weights_only=True)
    assert distances(*sets) == pytest.approx(expected)
    exit_process(0)


def test_too_few_images_are_not_measured() -> None:
    assert distances(torch.randn(9, 4), torch.randn(50, 4)) == {}


def test_the_random_network_is_the_same_everywhere_and_sees_differences() -> None:
    torch.manual_seed(5)
    one = RandomVGG()
    torch.manual_seed(6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), RandomVGG().parameters(), strict=True))
    large = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 200, 130), np.uint8))
    small = F.interpolate(large / 127.5 - 1, (64, 64), mode="bilinear", antialias=True, align_corners=False)
    seen = one.layers(small)
    by_hand = torch.cat([seen.mean((2, 3)), seen.flatten(2).std(2)], 1)
    assert torch.allclose(one(large), by_hand, atol=1e-5)
    plain = [picture(20, 30, seed=seed) for seed in range(12)]
    darker = [image // 3 for image in plain]
    a, b = (features(one, images, CPU) for images in (plain, darker))
    assert a.shape == (12, 1024) and a.isfinite().all()
    other = features(one, [picture(20, 30, seed=seed) for seed in range(50, 62)], CPU)
    assert distances(a, b)["kid"] > distances(a, other)["kid"]


def test_any_kind_of_image_has_features() -> None:
    kinds = [picture(9, 12, channels, dtype=dtype) for channels in (1, 2, 3, 4) for dtype in (np.uint8, np.uint16)]
    found = features(RandomVGG(), kinds, CPU)
    assert found.shape == (8, 1024)
    assert torch.allclose(found[0], found[1], atol=1e-3), "8 and 16 bits look alike"


def inception_weights() -> dict[str, torch.Tensor]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        with torch.device("meta"):
            network = FeatureExtractorInceptionV3("x", ["2048"])
    torch.manual_seed(0)
    drawn = {name: torch.randn(t.shape) * 0.03 for name, t in network.state_dict().items()}
    return {name: t.abs() + 1 if name.endswith("running_var") else t for name, t in drawn.items()}


def test_inception_weights_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = inception_weights()
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pth")
    images = [picture(20, 20, seed=1)]
    found = []
    for name in ("w.safetensors", "w.pth"):
        kind, network = make_extractor("inception", tmp_path / name, print)
        assert kind == "inception"
        found.append(features(network, images, CPU))
    assert found[0].shape == (1, 2048) and torch.equal(*found)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached = distribution.INCEPTION.file
    assert cached.parent == tmp_path / "checkpoints"
    cached.parent.mkdir()
    (tmp_path / "w.pth").rename(cached)
    assert find_weights("inception", None, print) == cached


@pytest.mark.parametrize("content", [None, b"", b"no weights"])
def test_weights_that_are_none_are_refused_in_a_sentence(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "w.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"--feature-weights .*w\.pth"):
        make_extractor("inception", file, print)


def test_weights_of_another_network_and_pickles_that_run_code_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="no Inception weights"):
        make_extractor("inception", tmp_path / "other.pth", print)

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"fc.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match="no Inception weights"):
        make_extractor("inception", tmp_path / "evil.pth", print)
    assert not (tmp_path / "owned").exists()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the test's folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("right", [True, False])
def test_a_download_is_announced_and_its_checksum_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: str, right: bool
) -> None:
    torch.save(inception_weights(), tmp_path / "published.pth")
    data = (tmp_path / "published.pth").read_bytes()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    published = {
        "url": f"{served}/published.pth",
        "sha256": hashlib.sha256(data if right else b"other").hexdigest(),
    }
    monkeypatch.setattr(distribution, "INCEPTION", replace(distribution.INCEPTION, **published))
    said: list[str] = []
    if right:
        assert make_extractor("inception", None, said.append)[0] == "inception"
    else:
        with pytest.raises(UsageError, match="--features lite"):
            make_extractor("inception", None, said.append)
        assert not list((tmp_path / "cache").rglob("*.pth"))
    assert len(said) == 1 and "Downloading" in said[0]


def test_no_network_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    nowhere = replace(distribution.INCEPTION, url="https://127.0.0.1:9/weights.pth")
    monkeypatch.setattr(distribution, "INCEPTION", nowhere)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(UsageError, match="can't be downloaded"):
        make_extractor("inception", None, lambda _: None)
