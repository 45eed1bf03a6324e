"""The server: who may connect, what a browser may load, and what is left when it ends."""

import ipaddress
import os
import secrets
import socket
import threading
import webbrowser
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.responses import PlainTextResponse

from img2img.core.errors import UsageError

PASSWORD = "IMG2IMG_PASSWORD"
LARGEST_UPLOAD = "2gb"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-src 'none'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Content-Security-Policy: nothing comes from another machine, nor goes there."""
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
OWN_PATH = "/gradio_api/startup-events"
"""What Gradio asks itself for when it starts, without a password; it tells nothing."""
FONTS = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]


def serve(
    places: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: str | None = None,
    device: str = "auto",
    max_pixels: int = 200_000_000,
    timeout: float = 60.0,
    file_memory: float = 4.0,
    browser: bool = False,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        places: models, runs, or folders of them.
        host: the address to listen on.
        port: the port.
        auth: who may log in; the password is in the environment, as `PASSWORD` says.
        device: where models run.
        max_pixels: as of `convert`, as are the next two.
        browser: whether to open the page.

    Raises:
        UsageError: if it can't be served.
    """
    login = find_login(host, auth)
    refuse_port(host, port)
    folder = prepare_environment()
    from img2img.app.jobs import Jobs, Limits  # Gradio reads the environment when it is imported
    from img2img.app.models import Models
    from img2img.app.page import build_page
    from img2img.app.tab import App

    jobs = Jobs(folder, Limits(max_pixels, timeout, file_memory))
    try:
        models = Models(places, device)
        for place, reason in models.damaged.items():
            print(f"left out: {place}: {reason}", flush=True)
        page = build_page(App(models, jobs))
        _launch(page, host, port, login)
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
    """Tells Gradio where its files lie, and to call nobody; gives the folder. Gradio must not have been imported yet."""
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SHARE": "False",
        "GRADIO_SSR_MODE": "False",
        "GRADIO_NODE_PATH": "",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "localhost,127.0.0.1"])),
    }
    from img2img.app.private import make_private_folder

    folder = make_private_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def _launch(page: Any, host: str, port: int, login: tuple[str, str] | None) -> None:
    import gradio
    from starlette.middleware import Middleware

    from img2img.app.page import CSS

    theme = gradio.themes.Default(font=FONTS[0], font_mono=FONTS[1])
    page.launch(
        server_name=host, server_port=port, share=False, inbrowser=False, quiet=True, prevent_thread_lock=True,
        show_error=True, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False, run_history=False,
        max_file_size=LARGEST_UPLOAD, footer_links=["api", "settings"], theme=theme, css=CSS,
        app_kwargs={"middleware": [Middleware(_Guard, login=login)]},
    )  # fmt: skip


class _Guard:
    """Asks for the password before anything else (Gradio's own login page tells strangers the models' names), and sends the policy with every answer.

    Args:
        app: what answers, as ASGI has it.
        login: the user and the password, by HTTP's basic authentication.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], login: tuple[str, str] | None) -> None:
        self.app = app
        self.wanted = None if login is None else b"Basic " + b64encode(":".join(login).encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        open_to_all = self.wanted is None or scope["path"] == OWN_PATH
        if not open_to_all and not secrets.compare_digest(given, self.wanted or b""):
            asked = {"WWW-Authenticate": 'Basic realm="img2img", charset="UTF-8"'}
            await PlainTextResponse("The user or the password is wrong.", 401, asked)(scope, receive, send)
            return

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        await self.app(scope, receive, send_with_policy)
