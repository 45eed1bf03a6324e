"""The server: who may connect, what a browser may load, and what is left when it ends."""

import ipaddress
import os
import shutil
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from img2img.app.limits import LARGEST_UPLOAD, SESSIONS, Limits
from img2img.app.private import make_private_folder
from img2img.core.errors import UsageError

PASSWORD = "IMG2IMG_PASSWORD"
FONTS = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]


def serve(
    places: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: str | None = None,
    device: str = "auto",
    limits: Limits = Limits(),  # noqa: B008 (it is frozen)
    browser: bool = False,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        places: models, runs, or folders of them.
        host: the address to listen on.
        port: the port.
        auth: who may log in; the password is in the environment, as `PASSWORD` says.
        device: where models run.
        limits: of each image.
        browser: whether to open the page.

    Raises:
        UsageError: if it can't be served.
    """
    for place in places:
        if not place.exists() and len(place.parts) != 2:  # two may be a name on the Hub
            raise UsageError(f"{place}: there is no such folder; give models, runs, or a folder of runs.")
    login = find_login(host, auth)
    refuse_port(host, port)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    folder = prepare_environment()
    try:
        _serve(places, folder, host, port, login, device, limits, browser)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stop(*_: Any) -> NoReturn:
    """Ends the server as Ctrl-C does."""
    raise KeyboardInterrupt


def _serve(
    places: Sequence[Path],
    folder: Path,
    host: str,
    port: int,
    login: tuple[str, str] | None,
    device: str,
    limits: Limits,
    browser: bool,
) -> None:
    from img2img.app.jobs import Jobs  # Gradio reads the environment when it is imported
    from img2img.app.models import Models
    from img2img.app.page import build_page
    from img2img.app.tab import App

    jobs = Jobs(folder, limits)
    try:
        models = Models(places, device)
        for place, reason in models.damaged.items():
            print(f"left out: {place}: {reason}", flush=True)
        page = build_page(App(models, jobs))
        _launch(page, host, port, login, folder)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"{len(models.entries)} models and {len(models.runs)} runs at {address} (Ctrl-C ends it).", flush=True)
        if browser:
            webbrowser.open(address)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)
    finally:
        jobs.close()


def find_login(host: str, auth: str | None) -> tuple[str, str] | None:
    """The user and the password that are asked for; None on this machine, if nobody wants them.

    Raises:
        UsageError: if the page would be open to others without them.
    """
    if auth is None and not _is_loopback(host):
        raise UsageError(
            f"--host {host} lets others use this machine: give --auth USER, and the password in the environment variable {PASSWORD}."
        )
    if auth is None:
        return None
    password = os.environ.get(PASSWORD, "")
    if not auth or not password:
        raise UsageError(f"--auth {auth}: the password is missing; set the environment variable {PASSWORD}.")
    return auth, password


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_port(host: str, port: int) -> None:
    """Raises a `UsageError` if nothing can listen there."""
    if not 1 <= port <= 65535:
        raise UsageError(f"--port {port}: give 1 to 65535.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UsageError(f"--host {host} --port {port} can't be used: {error.strerror}; give another one.") from None


def prepare_environment() -> Path:
    """Tells Gradio where its files lie, and to share nothing; gives the folder. Gradio must not have been imported yet."""
    os.environ |= {
        "GRADIO_SHARE": "False",
        "GRADIO_SSR_MODE": "False",
        "GRADIO_NODE_PATH": "",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "localhost,127.0.0.1"])),
    }
    folder = make_private_folder()
    os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = str(folder)
    return folder


def _launch(page: Any, host: str, port: int, login: tuple[str, str] | None, folder: Path) -> None:
    import gradio
    from starlette.middleware import Middleware

    from img2img.app.guard import Guard

    theme = gradio.themes.Default(font=FONTS[0], font_mono=FONTS[1])
    page.launch(
        server_name=host, server_port=port, share=False, inbrowser=False, quiet=True, prevent_thread_lock=True,
        show_error=False, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False, run_history=False,
        state_session_capacity=SESSIONS, max_file_size=LARGEST_UPLOAD, footer_links=["api", "settings"], theme=theme,
        css_paths=Path(__file__).with_name("page.css"),
        app_kwargs={"middleware": [Middleware(Guard, login=login, host=host, folder=folder)]},
    )  # fmt: skip
