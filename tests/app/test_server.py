"""The server as an API: what it gives is what the commands give, and nothing can be had from it that it doesn't serve."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from helpers.data import picture
from PIL import Image

pytest.importorskip("gradio")
from app.conftest import Server, start_server, write_bomb
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from img2img.cli import main
from img2img.images import read_image, write_image

OPTIONS = ("as the input", 0, "default", 0)  # format, size, mode, seed


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(server.address, verbose=False)


def translate(client: Client, file: Path, model: str = "pairs", options: tuple[Any, ...] = OPTIONS) -> Any:
    return client.predict(model, handle_file(file), None, None, None, None, *options, api_name="/translate")


@pytest.mark.parametrize("name", ["8.png", "16.png", "alpha.png", "gray.jpg", "page.tif", "array.npy", "moving.gif"])
def test_a_translation_is_what_convert_makes(client: Client, server: Server, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "moving.gif":
        frames = [Image.fromarray(picture(30, 20, 3, seed=seed)) for seed in range(2)]
        frames[0].save(file, save_all=True, append_images=frames[1:])
    elif name == "16.png":
        write_image(file, picture(30, 21, 3).astype(np.uint16) * 257 + 3)
    else:
        write_image(file, picture(30, 21, {"alpha.png": 4, "gray.jpg": 1}.get(name, 3)))
    (before, after), result, said = translate(client, file)
    assert main(["convert", str(file), str(tmp_path / f"own-{name}"), "--model", str(server.models / "pairs")]) == 0
    assert Path(result).read_bytes() == (tmp_path / f"own-{name}").read_bytes()
    assert Path(result).name == name
    assert Image.open(before).size == Image.open(after).size == Image.open(file).size if name != "array.npy" else True
    assert ("16 bits" if name == "16.png" else "8 bits") in said


def test_options_are_those_of_convert(client: Client, server: Server, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(30, 20, 3))
    _, result, _ = translate(client, tmp_path / "a.png", options=("jpg", 40, "paper", 7))
    command = ["convert", str(tmp_path / "a.png"), str(tmp_path / "own.jpg"), "--model", str(server.models / "pairs")]
    assert main([*command, "--size", "40", "--mode", "paper", "--seed", "7"]) == 0
    assert Path(result).read_bytes() == (tmp_path / "own.jpg").read_bytes()
    assert Image.open(result).size == (40, 60)


def refusal(client: Client, *arguments: Any, name: str = "/translate") -> str:
    with pytest.raises(AppError) as caught:
        client.predict(*arguments, api_name=name)
    return str(caught.value)


def test_what_is_no_image_is_a_sentence(client: Client, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "bomb.png").write_bytes(write_bomb(20_000, 15_000))
    for name, words in (("text.png", "no image of a known format"), ("bomb.png", "300 million pixels")):
        said = refusal(client, "pairs", handle_file(tmp_path / name), None, None, None, None, *OPTIONS)
        assert words in said and said.startswith(name) and "img2img-serve" not in said
    assert "give an image first" in refusal(client, "pairs", None, None, None, None, None, *OPTIONS)
    file = tmp_path / "a.png"
    write_image(file, picture(16, 16, 3))
    said = refusal(client, "pairs", handle_file(file), None, None, None, None, "as the input", -3, "default", 0)
    assert "at least 0" in said
    assert "makes images from noise" in refusal(client, "classes", handle_file(file), None, None, None, None, *OPTIONS)
    translate(client, file)  # the server is alive


def test_folders_and_archives(client: Client, server: Server, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", picture(16, 20, 3))
    write_image(tmp_path / "in" / "deep" / "a.png", picture(16, 20, 3, seed=1).astype(np.uint16) * 200)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"broken")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for file in sorted((tmp_path / "in").rglob("*.*g")):
            archive.write(file, file.relative_to(tmp_path / "in"))
        archive.writestr("../out.png", b"escape")
        archive.writestr("/etc/out.png", b"escape")
    result, said = client.predict(
        "pairs", [handle_file(tmp_path / "in.zip")], None, None, None, None, *OPTIONS, api_name="/convert"
    )
    main(["convert", str(tmp_path / "in"), str(tmp_path / "own"), "--model", str(server.models / "pairs")])
    with zipfile.ZipFile(result) as archive:
        assert sorted(archive.namelist()) == ["a.png", "deep/a.png", "report.jsonl"]
        for name in ("a.png", "deep/a.png"):
            assert archive.read(name) == (tmp_path / "own" / name).read_bytes()
        report = [json.loads(line) for line in archive.read("report.jsonl").splitlines()]
    status = {line["source"]: line["status"] for line in report}
    assert status == {
        "a.png": "done", "bad.jpg": "failed", "deep/a.png": "done", "in.zip/../out.png": "failed",
        "in.zip//etc/out.png": "failed",
    }  # fmt: skip
    assert "2 converted, 0 skipped, 3 failed" in said and str(server.log.parent) not in said
    files = [tmp_path / "in" / "a.png", tmp_path / "in" / "deep" / "a.png"]  # of the same name
    result, said = client.predict(
        "pairs", [handle_file(file) for file in files], None, None, None, None, *OPTIONS, api_name="/convert"
    )
    with zipfile.ZipFile(result) as archive:
        assert sorted(archive.namelist()) == ["a-2.png", "a.png", "report.jsonl"]


def test_label_maps_need_their_instances(client: Client, server: Server, tmp_path: Path) -> None:
    labels = np.arange(32 * 32).reshape(32, 32).astype(np.uint8) % 4
    Image.fromarray(labels).save(tmp_path / "map.png")
    said = refusal(client, "labels", handle_file(tmp_path / "map.png"), None, None, None, None, *OPTIONS)
    assert "instance maps" in said
    given = [handle_file(tmp_path / "map.png")] * 2
    _, result, _ = client.predict("labels", *given, None, "1", None, *OPTIONS, api_name="/translate")
    command = ["convert", str(tmp_path / "map.png"), str(tmp_path / "own.png"), "--style", "1"]
    command += ["--model", str(server.models / "labels"), "--instances", str(tmp_path / "map.png")]
    assert main(command) == 0
    made, own = (read_image(path).astype(int) for path in (Path(result), tmp_path / "own.png"))
    assert np.abs(made - own).max() <= 1, "the server has other threads, by which some processors round otherwise"
    Image.fromarray(labels + 7).save(tmp_path / "map.png")
    given = [handle_file(tmp_path / "map.png")] * 2
    assert "out of range" in refusal(client, "labels", *given, None, None, None, *OPTIONS)


def test_a_sheet_is_what_sample_draws(client: Client, server: Server, tmp_path: Path) -> None:
    from img2img.app.sheet import Sheet

    state = Sheet(count=3, seed=5).pack()
    images, link, files = client.predict("classes", state, api_name="/explore")
    assert link.endswith(f"/?model=classes&explore={state}")
    model = str(server.models / "classes")
    assert main(["sample", "--model", model, "--output", str(tmp_path / "a"), "--latents", files[0]]) == 0
    assert main(["sample", "--model", model, "--output", str(tmp_path / "b"), "--count", "3", "--seed", "5"]) == 0
    for number, image in enumerate(images):
        shown = np.asarray(Image.open(image["image"]).convert("L"))
        for made in (f"a/image{number:04d}.png", f"b/seed{5 + number:04d}.png"):
            assert (read_image(tmp_path / made)[..., 0] == shown).all()
    assert "damaged" in refusal(client, "classes", "nonsense", name="/explore")


def test_no_other_file_can_be_had(server: Server, private: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    write_image(secret, picture(16, 16, 3))
    get = lambda path: httpx.get(f"{server.address}/gradio_api/file={path}")  # noqa: E731
    for path in (
        secret,
        "/etc/passwd",
        server.models / "pairs" / "config.yaml",
        f"{private}/../log",
        "img2img/cli/serve.py",
    ):
        assert get(path).status_code in (403, 404), path
    outside = [
        str(secret),
        f"{private}/../../models",
        "/etc/passwd",
        "https://huggingface.co/robots.txt",
        "http://127.0.0.1:1/x.png",
        "file:///etc/passwd",
    ]
    for path in outside:
        payload = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
        raw = {"data": ["pairs", payload, None, None, None, None, *OPTIONS]}
        answer = httpx.post(f"{server.address}/gradio_api/call/translate", json=raw)
        event = f"{server.address}/gradio_api/call/translate/{answer.json()['event_id']}"
        said = httpx.get(event, timeout=60).text
        assert "event: error" in said and ("an address is not taken" in said) == path.startswith("http"), said
        assert str(tmp_path) not in said and "config.yaml" not in said
    upload = {"files": ("../../../escape.png", b"x")}
    (sent,) = httpx.post(f"{server.address}/gradio_api/upload", files=upload).json()
    assert Path(sent).resolve().is_relative_to(private)


def test_nothing_goes_past_the_queue(server: Server) -> None:
    config = httpx.get(f"{server.address}/config").json()
    computing = [each["id"] for each in config["dependencies"] if each["queue"]]
    assert len(computing) > 10
    for number in computing:
        body = {"fn_index": number, "data": [None] * 20, "session_hash": "x"}
        assert httpx.post(f"{server.address}/gradio_api/run/predict", json=body).status_code == 404
    for number in (each["id"] for each in config["dependencies"] if not each["queue"]):
        body = {"fn_index": number, "data": ["../../etc"] * 20, "session_hash": "x"}
        assert "root:" not in httpx.post(f"{server.address}/gradio_api/run/predict", json=body).text


def test_requests_that_mean_nothing_are_sentences(server: Server) -> None:
    api, before = f"{server.address}/gradio_api", server.log.read_text()

    def refused(path: str, body: dict[str, Any]) -> str:
        answer = httpx.post(f"{api}/{path}", json=body)
        assert answer.status_code == 400, answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        return answer.text

    assert refused("call/v2/translate", {}).startswith(
        "No value provided for required argument: image. /gradio_api/info"
    )
    assert "`colour` is not a valid" in refused("call/v2/translate", {"image": None, "colour": 1})
    for path in ("call/v2/nothing", "call/nothing", "run/nothing"):
        assert refused(path, {"data": []}).startswith("There is no such function."), path
    for path in ("queue/join", "run/predict"):
        assert "no such function" in refused(path, {"fn_index": 9999, "data": [], "session_hash": "x"})
    long = refused("call/v2/translate", {"image": None, "x" * 1000: 1})
    assert len(long) < 400 and "/gradio_api/info" in long
    assert "404" in httpx.get(f"{api}/call/translate/nothing").text  # and the answer has an end

    def failed(name: str, *values: Any) -> str:
        event = httpx.post(f"{api}/call/{name}", json={"data": values}).json()["event_id"]
        answer = httpx.get(f"{api}/call/{name}/{event}", timeout=60).text
        assert answer.startswith("event: error"), answer
        return str(json.loads(answer.partition("data: ")[2])["error"])

    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    assert failed("translate", "pairs", file, *[None] * 4, *OPTIONS) == (
        "The values don't fit /translate. /gradio_api/info lists its parameters. Upload files first."
    )
    assert failed("translate", "pairs", None, None, None, None, None, "exe", *OPTIONS[1:]).startswith(
        "Value: exe is not in the list"
    )
    assert failed("explore", "noise", None).startswith("this link is damaged")
    sent = httpx.post(f"{api}/upload", files={"files": ("a.png", b"x")}).json()[0]
    uploaded = {"path": sent, "meta": file["meta"]}
    assert "no styles to choose" in failed("translate", "pairs", uploaded, None, None, ["a"], None, *OPTIONS)
    assert "Traceback" not in server.log.read_text().removeprefix(before)


def test_a_click_on_nothing_is_a_sentence(server: Server) -> None:
    functions = httpx.get(f"{server.address}/config").json()["dependencies"]
    clicked = [each["id"] for each in functions if any(target[1] == "select" for target in each["targets"])]
    assert len(clicked) >= 2
    for number in clicked:
        for event in (None, {}, {"index": "a"}, {"index": -1}, {"index": True}):
            data = [None] * len(functions[number]["inputs"])
            body = {"fn_index": number, "data": data, "event_data": event, "session_hash": f"click-{number}"}
            assert httpx.post(f"{server.address}/gradio_api/queue/join", json=body).status_code == 200
            answer = httpx.get(f"{server.address}/gradio_api/queue/data?session_hash=click-{number}", timeout=60).text
            assert "Choose an image first." in answer, answer
        body["event_data"] = {"index": 10**6}
        assert httpx.post(f"{server.address}/gradio_api/queue/join", json=body).status_code == 200
        answer = httpx.get(f"{server.address}/gradio_api/queue/data?session_hash=click-{number}", timeout=60).text
        assert "should not have" not in answer and "process_completed" in answer and '"success":false' in answer, answer


def test_other_sites_and_other_names_are_refused(server: Server) -> None:
    host = server.address.removeprefix("http://")
    evil = {"Host": "evil.com", "Origin": "http://evil.com"}
    assert httpx.get(server.address, headers={"Host": "evil.com:80"}).status_code == 421
    assert httpx.get(server.address, headers={"Host": f"localhost:{host.partition(':')[2]}"}).status_code == 200
    assert httpx.get(server.address, headers={"Host": "[::1"}).status_code == 421
    upload = {"files": ("a.png", b"x")}
    url = f"{server.address}/gradio_api/upload"
    assert httpx.post(url, files=upload, headers=evil).status_code == 421
    assert httpx.post(url, files=upload, headers={"Origin": "http://evil.com"}).status_code == 403
    assert httpx.post(url, files=upload, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert httpx.post(url, files=upload, headers={"Origin": server.address}).status_code == 200


def test_what_is_of_no_use_is_not_there(server: Server) -> None:
    for path in (
        "process_recording",
        "component_server",
        "vibe-edit",
        "runs",
        "proxy=http://x",
        "deep_link",
        "profiling/summary",
    ):
        answer = httpx.post(f"{server.address}/gradio_api/{path}", files={"file": b"x"})
        assert answer.status_code == 404 and answer.text == "There is no such page."
    assert httpx.get(f"{server.address}/monitoring").status_code == 404


def test_what_is_sent_is_bounded(server: Server) -> None:
    url = f"{server.address}/gradio_api/queue/join"
    assert httpx.post(url, content=b" " * (2**25 + 1)).status_code == 413
    pieces = (b" " * 2**20 for _ in range(40))  # without a length
    assert httpx.post(url, content=pieces).status_code in (400, 413)  # FastAPI has a word of its own
    chunks = (b"x" for _ in range(2))
    assert httpx.post(f"{server.address}/gradio_api/upload", content=chunks).status_code == 411


def test_runs_that_begin_later_are_found(server: Server, client: Client, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(16, 16, 3))
    shutil.copytree(server.models / "pairs", server.models / "later")
    try:
        translate(client, tmp_path / "a.png", "later")
    finally:
        shutil.rmtree(server.models / "later")
    said = refusal(client, "later", handle_file(tmp_path / "a.png"), None, None, None, None, *OPTIONS)
    assert "there is no" in said and str(server.models) not in said


def test_files_are_private(private: Path) -> None:
    assert private.stat().st_mode & 0o077 == 0


def test_every_answer_forbids_other_machines(server: Server) -> None:
    for path in ("/", "/config", "/theme.css"):
        policy = httpx.get(server.address + path).headers["content-security-policy"]
        assert policy.startswith("default-src 'self'") and "http" not in policy and "*" not in policy


def test_fifty_at_once_are_answered_or_told_to_wait(server: Server, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(64, 64, 3))
    with (tmp_path / "a.png").open("rb") as file:
        (path,) = httpx.post(f"{server.address}/gradio_api/upload", files={"files": file}).json()
    body = {"data": ["pairs", {"path": path, "meta": {"_type": "gradio.FileData"}}, None, None, None, None, *OPTIONS]}
    answers: list[str] = []

    def ask() -> None:
        sent = httpx.post(f"{server.address}/gradio_api/call/translate", json=body, timeout=300)
        if sent.status_code == 503:
            assert "Queue is full" in sent.json()["detail"]
            answers.append("wait")
            return
        url = f"{server.address}/gradio_api/call/translate/{sent.json()['event_id']}"
        answers.append("done" if "event: complete" in httpx.get(url, timeout=300).text else "failed")

    before = psutil.Process(server.process.pid).memory_info().rss
    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 50 and set(answers) == {"done", "wait"}
    assert answers.count("done") >= 32
    assert psutil.Process(server.process.pid).memory_info().rss - before < 500e6


def test_a_password_is_asked_for_and_nothing_is_left(models: Path, tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    environment = {"IMG2IMG_PASSWORD": "right", "TMPDIR": str(tmp_path / "temp")}
    running = start_server(
        models / "pairs", tmp_path / "log", "--auth", "me", "--max-pixels", "500", environment=environment
    )
    try:
        asked = ("/", "/config", "/gradio_api/info", "/gradio_api/file=x", "/theme.css", "/assets/index.js", "/login")
        for auth in (None, ("me", "wrong"), ("you", "right"), ("me", "")):
            for path in asked if auth is None else asked[:1]:  # a wrong password takes a second
                answer = httpx.get(running.address + path, auth=auth)
                assert answer.status_code == 401 and "pairs" not in answer.text
        upload = {"files": ("a.png", b"x")}
        assert httpx.post(f"{running.address}/gradio_api/upload", files=upload).status_code == 401
        assert httpx.post(f"{running.address}/gradio_api/call/translate", json={"data": ["pairs"]}).status_code == 401
        assert "pix2pix" in httpx.get(running.address, auth=("me", "right")).text
        write_image(tmp_path / "a.png", picture(16, 16, 3))
        header = {"Authorization": f"Basic {base64.b64encode(b'me:right').decode()}"}
        client = Client(running.address, verbose=False, headers=header)
        translate(client, tmp_path / "a.png")
        write_image(tmp_path / "large.png", picture(30, 30, 3))
        said = refusal(client, "pairs", handle_file(tmp_path / "large.png"), None, None, None, None, *OPTIONS)
        assert "--max-pixels" in said
        assert len(list((tmp_path / "temp").iterdir())) == 1
        children = psutil.Process(running.process.pid).children()
    finally:
        running.process.send_signal(signal.SIGINT)
    assert running.process.wait(90) == 0
    assert not list((tmp_path / "temp").iterdir()) and not any(child.is_running() for child in children)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "--auth USER"),
        (["--auth", "me"], "IMG2IMG_PASSWORD"),
        (["--port", "0"], "--port 0"),
        (["--host", "no.such.host.invalid", "--auth", "me"], "can't be used"),
    ],
)
def test_a_wrong_command_is_a_sentence(models: Path, options: list[str], words: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "IMG2IMG_PASSWORD"}
    if "no.such" in options[1]:
        environment["IMG2IMG_PASSWORD"] = "x"
    command = [sys.executable, "-m", "img2img", "serve", str(models), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_the_examples_of_the_documentation_work(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    text = text.replace("http://127.0.0.1:7860", server.address).replace("my-run", "pairs")
    write_image(tmp_path / "photo.png", picture(20, 30, 3))
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(example, {})
    assert main(["convert", "photo.png", "own.png", "--model", str(server.models / "pairs")]) == 0
    assert "photo.png" in capsys.readouterr().out and Image.open("painting.png").size == (30, 20)
    assert Path("painting.png").read_bytes() == Path("own.png").read_bytes()
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    (commands,) = re.findall(r"```bash\n(path=.*?)```", text, re.DOTALL)
    done = subprocess.run(["bash", "-euc", commands], capture_output=True, text=True, timeout=120)
    assert Path("translated.png").read_bytes() == Path("own.png").read_bytes(), done.stdout + done.stderr


def test_a_port_in_use_is_a_sentence(server: Server) -> None:
    port = server.address.rpartition(":")[2]
    command = [sys.executable, "-m", "img2img", "serve", str(server.models), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and f"--port {port} can't be used" in done.stderr
