"""Sends malformed requests to `img2img serve`, made by schemathesis from the server's own OpenAPI description.

    pip install schemathesis
    python tools/scan_server.py
    python tools/scan_server.py --examples 1000

Each function of the page is called by name, by position, and by its number as the browser does it, with values that fit the
description and with values that don't. Each request must be answered with a result, or with a sentence that says what is wrong: no
error without words, no traceback in the server's log, nothing written where it was started, no answer that doesn't come, and no more
than 500 MB of growth. Exit code 1: something was found.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
import schemathesis
import tyro
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from rich.console import Console

from img2img.app.sheet import Sheet
from img2img.cli import main as run_command
from img2img.images import write_image

API = "/gradio_api"
ANY_CALL = {"type": "object", "properties": {"fn_index": {"type": "integer"}, "data": {"type": "array"}}, "required": ["fn_index", "data"]}  # fmt: skip
META = {"_type": "gradio.FileData"}
PATIENCE = 120.0  # seconds for an answer
GROWTH = 500.0  # MB that the server may grow by after its first requests
TINY = ["--size", "32", "--steps", "1", "--batch-size", "4", "--recipe", "paper", "--features", "none", "--device", "cpu"]  # fmt: skip
NARROW = ["--size", "64", "--perceptual.weight", "0", "--generator.channels", "4", "--discriminator.channels", "4", "--encoder", "--image-encoder.channels", "4"]  # fmt: skip


def prepare(folder: Path) -> list[str]:
    """A translator, one of label maps, and a generator."""
    random = np.random.default_rng(0)
    for side in ("trainA", "trainB"):
        for name in "abcd":
            (folder / "data" / side).mkdir(parents=True, exist_ok=True)
            write_image(folder / "data" / side / f"{name}.png", random.integers(0, 256, (36, 36, 3), np.uint8))
    for name in "abcd":
        for kind in ("label", "inst", "img"):
            (folder / "labels" / f"train_{kind}").mkdir(parents=True, exist_ok=True)
            shape = (72, 72, 3 if kind == "img" else 1)
            write_image(folder / "labels" / f"train_{kind}" / f"{name}.png", random.integers(0, 3, shape, np.uint8))
    data = ["--data", str(folder / "data"), *TINY]
    translator, painter, generator = (str(folder / name) for name in ("translator", "painter", "generator"))
    for command in (
        ["spade", "--data", str(folder / "labels"), *TINY, *NARROW, "--output", painter],
        ["pix2pix", *data, "--output", translator, "--generator.channels", "4", "--generator.depth", "5"],
        ["gan", "--unconditional", *data, "--output", generator],
    ):
        if run_command(["train", *command]):
            sys.exit("The models can't be made.")
    return [translator, painter, generator]


class Server:
    """A server in a folder of its own."""

    def __init__(self, models: list[str], folder: Path) -> None:
        self.folder, self.log = folder, folder.with_suffix(".log")
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "img2img", "serve", *models, "--port", str(port), "--device", "cpu"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
            )

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + PATIENCE
        while "(Ctrl-C ends it)" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"The server doesn't start: {self.log.read_text()}")
            time.sleep(0.2)

    def memory(self) -> float:
        """MB that it and its children use."""
        parent = psutil.Process(self.process.pid)
        return sum(each.memory_info().rss for each in [parent, *parent.children(recursive=True)]) / 1e6

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def describe(address: str) -> dict[str, Any]:
    """The server's description with all that it can be asked."""
    schema = requests.get(f"{address}{API}/openapi.json", timeout=PATIENCE).json()
    known = requests.get(f"{address}{API}/info", timeout=PATIENCE).json()["named_endpoints"]
    config = requests.get(f"{address}/config", timeout=PATIENCE).json()
    uploaded = _upload(address)
    paths = {}
    for path, item in schema["paths"].items():
        if not path.startswith(f"{API}/call/v2/"):
            if "get" in item:
                paths[path] = item  # the results of an event that never was
            continue
        body = item["post"]["requestBody"]["content"]["application/json"]["schema"]
        name = path.removeprefix(f"{API}/call/v2")
        usual = {each["parameter_name"]: each["parameter_default"] for each in known[name]["parameters"]}
        usual |= {"image": uploaded, "images": [uploaded], "state": Sheet(count=2).pack()}
        if name == "/explore":
            usual["model"] = "generator"
        values = {key: _mend(value, uploaded) for key, value in body["properties"].items()}
        named = [
            {"type": "object", "properties": values, "required": list(values)[:2]},
            *_vary({key: usual[key] for key in values}, values),
        ]
        paths[path] = _post({"anyOf": named})
        positions = [{"type": "array", "prefixItems": list(values.values()), "items": {}, "maxItems": len(values) + 1}]
        positions += [{"type": "array", "prefixItems": list(each["properties"].values()), "minItems": len(values), "maxItems": len(values)} for each in named[1:]]  # fmt: skip
        for begin in ("call", "run"):
            data = {"type": "object", "properties": {"data": {"anyOf": positions}}, "required": ["data"]}
            paths[f"{API}/{begin}{name}"] = _post(data)
    for path in ("queue/join", "run/predict"):
        paths[f"{API}/{path}"] = _post({"anyOf": list(_call(config, uploaded))})
        paths[f"{API}/{path}/"] = _post(ANY_CALL)  # the same address, which a description may have once
    return {**schema, "openapi": "3.1.0", "paths": paths, "security": []}


def _upload(address: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "upload.png")
        write_image(image, np.full((40, 30, 3), 99, np.uint8))
        with image.open("rb") as file:
            path = requests.post(f"{address}{API}/upload", files={"files": file}, timeout=PATIENCE).json()[0]
    return {"path": path, "meta": META}


def _vary(usual: dict[str, Any], values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is right but for one value, which may be anything."""
    for odd in usual:
        properties = {key: {"anyOf": [values[key], {}]} if key == odd else {"const": usual[key]} for key in usual}
        yield {"type": "object", "properties": properties, "required": list(usual)}


def _call(config: dict[str, Any], uploaded: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Calls as a browser makes them, of functions that have names and of those that have none."""
    components = {each["id"]: each for each in config["components"]}
    anything = {"anyOf": [{"enum": ["translator", "painter", "generator", "AtoB", "png", "", 0, 1, 1e300, -1, None]}, _files(uploaded), {}]}  # fmt: skip
    for function in config["dependencies"]:
        held = [components[number]["props"].get("value") for number in function["inputs"]]
        data = [{"anyOf": [{"const": value}, anything]} for value in held]
        properties = {
            "fn_index": {"const": function["id"]},
            "data": {
                "type": "array",
                "minItems": len(data),
                "maxItems": len(data) + 1,
                **({"prefixItems": data} if data else {}),
            },
            "event_data": {"anyOf": [{"const": {"index": 0}}, {"type": "object", "properties": {"index": {}}}, {}]},
        }
        yield {"type": "object", "properties": properties, "required": ["fn_index", "data"]}


def _files(uploaded: dict[str, Any]) -> dict[str, Any]:
    """A file that was uploaded, and what others might send in its place."""
    anywhere = {"type": "object", "properties": {"path": {"type": "string"}, "url": {"type": "string"}, "meta": {"const": META}}}  # fmt: skip
    known = [uploaded, {**uploaded, "path": "/etc/passwd"}, {**uploaded, "url": "http://127.0.0.1:1/x.png"}]
    return {
        "anyOf": [*({"const": each} for each in known), {**anywhere, "required": ["path", "meta"]}, {"type": "string"}]
    }


def _mend(value: dict[str, Any], uploaded: dict[str, Any]) -> dict[str, Any]:
    """A value's description as JSON Schema has it: Gradio's has a type "filepath", and choices that come later."""
    if "filepath" in (value.get("format"), value.get("type")):
        return _files(uploaded)
    if value.get("type") == "array":
        return {**value, "items": _mend(value["items"], uploaded)}
    if value.get("type") in ("integer", "number"):
        return {"anyOf": [{"enum": [0, 1, 16, 40]}, value]}
    return {name: each for name, each in value.items() if not (name == "enum" and not each)}


def _post(body: dict[str, Any]) -> dict[str, Any]:
    """An operation of that body."""
    operation = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "an event"}},
    }
    return {"post": operation}


def find_faults(address: str, path: str, case: Any) -> tuple[str, list[str]]:
    """What came of a request, in a word, and what is wrong with the answer."""
    by_number = path.rstrip("/").endswith(("queue/join", "run/predict"))
    if by_number and isinstance(case.body, dict):
        case.body["session_hash"] = uuid.uuid4().hex
    answer = case.call(base_url=address, timeout=PATIENCE)
    status, text = answer.status_code, answer.text
    if status >= 500 and status != 503:  # Gradio has no other for functions that don't wait in its queue
        return "500", find_silence(_read_error(text) if f"{API}/run/" in path else None)
    if status != 200:
        return str(status), [] if text.strip() else [f"status {status} without words"]
    if "event-stream" in answer.headers.get("content-type", [""])[0]:
        return "no event", [] if "error" in text else [f"a stream that says nothing: {text[:300]}"]
    try:
        event = answer.json()["event_id"]
    except (ValueError, KeyError, TypeError):
        return "result", []
    if by_number:
        text = read_stream(f"{address}{API}/queue/data?session_hash={case.body['session_hash']}")
        messages = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        ended = [each for each in messages if each["msg"] == "process_completed"]
        if not ended:
            return "lost", [f"no end: {text[-300:]}"]
        failed, error = not ended[0]["success"], (ended[0]["output"] or {}).get("error")
    else:
        text = read_stream(f"{address}{API}/call/{path.rpartition('/')[2]}/{event}")
        failed = "event: error" in text
        if not failed and "event: complete" not in text:
            return "lost", [f"no end: {text[-300:]}"]
        error = _read_error(text.rpartition("data: ")[2]) if failed else None
    return ("sentence", find_silence(error)) if failed else ("result", [])


def find_silence(error: str | None) -> list[str]:
    """What is wrong with an error's words."""
    if error and "Traceback" not in error and "should not have" not in error:
        return []
    return [f"an error that says: {error}"]


def _read_error(text: str) -> str | None:
    try:
        read = json.loads(text)
    except ValueError:
        return None
    return read.get("error") if isinstance(read, dict) else read


def read_stream(address: str) -> str:
    """All of a stream of events, which goes on with signs of life while a function runs; a `TimeoutError` if it takes too long."""
    until, parts = time.monotonic() + PATIENCE, []
    with requests.get(address, timeout=PATIENCE, stream=True) as answer:
        for part in answer.iter_content(None):
            parts.append(part)
            if time.monotonic() > until:
                raise TimeoutError(f"{address} has no end")
    return b"".join(parts).decode()


class Scan:
    """What was asked, what came of it, and what is wrong."""

    def __init__(self, address: str) -> None:
        self.address, self.faults, self.ends = address, dict[str, str](), Counter[str]()

    def run(self, operation: Any, mode: schemathesis.GenerationMode, examples: int, random: int) -> None:
        """Many requests of one kind to one address."""

        @seed(random)
        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            try:
                end, faults = find_faults(self.address, operation.path, case)
            except (requests.RequestException, TimeoutError) as error:
                end, faults = "no answer", [str(error)]
            self.ends[end] += 1
            for fault in faults:
                key = f"{operation.path} ({mode.value}): {fault[:60]}"
                self.faults.setdefault(key, f"{operation.path} ({mode.value}): {fault}\n  {str(case.body)[:500]}")

        with suppress(Unsatisfiable):  # where every value is right, there is no wrong one
            send()


def main(examples: int = 200, random: int = 0) -> None:
    """Prints what was found.

    Args:
        examples: requests of each kind to each address.
        random: the seed of the requests.
    """
    console = Console(width=160, highlight=False)
    with tempfile.TemporaryDirectory() as temporary:
        server = Server(prepare(Path(temporary)), Path(temporary, "here"))
        scan = Scan(server.address)
        try:
            server.wait()
            schema = schemathesis.openapi.from_dict(describe(server.address))
            early = 0.0
            for operation in (each.ok() for each in schema.get_all_operations()):
                for mode in schemathesis.GenerationMode:
                    scan.run(operation, mode, examples, random)
                early = early or server.memory()
                console.print(f"{operation.path}: {dict(scan.ends)}; {server.memory():.0f} MB", markup=False)
            if server.process.poll() is not None:
                scan.faults["end"] = "the server ended"
            elif server.memory() > early + GROWTH:
                scan.faults["memory"] = f"the server grew from {early:.0f} to {server.memory():.0f} MB"
            if left := list(server.folder.rglob("*")):
                scan.faults["files"] = f"files in the folder where it was started: {left[:3]}"
        finally:
            server.close()
        log = server.log.read_text()
        if "Traceback" in log:
            scan.faults["log"] = "a traceback in the log: " + log[log.index("Traceback") :][-3000:]
    for fault in scan.faults.values():
        console.print(fault, markup=False)
    console.print(f"{scan.ends.total()} requests, {len(scan.faults)} faults.")
    sys.exit(bool(scan.faults) or not scan.ends["result"])


if __name__ == "__main__":
    tyro.cli(main)
