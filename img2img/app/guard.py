"""What stands between the network and Gradio: who is answered, what is answered at all, and how much is read."""

import asyncio
import secrets
import shutil
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gradio.route_utils import FnIndexInferError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from img2img.app.limits import LARGEST_REQUEST, ROOM

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
API = "/gradio_api"
STARTED = f"{API}/startup-events"
"""What Gradio asks itself for when it starts, without a password; it tells nothing."""
UPLOAD = f"{API}/upload"
PATHS = {
    "", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", STARTED, UPLOAD, f"{API}/upload_progress",
    f"{API}/info", f"{API}/openapi.json", f"{API}/cancel", f"{API}/reset", f"{API}/app_id",
}  # fmt: skip
FOLDERS = (
    "/assets/", "/static/", "/svelte/", f"{API}/queue/", f"{API}/call/", f"{API}/run/", f"{API}/file=", f"{API}/heartbeat/",
)  # fmt: skip
"""What is answered; Gradio has more that is of no use here, some of which would write files elsewhere."""
CALL = f"{API}/call/v2/"
TRAILER = " Please click on 'view API' in the footer of the Gradio app to see usage."
LONGEST_REASON = 200  # letters, some of which the client chose
DELAY = 1.0  # seconds after a wrong password


class _TooLargeError(Exception):
    """More is sent than is read."""


class Guard:
    """Refuses what should not be answered, and sends a policy with every answer.

    Args:
        app: what answers, as ASGI has it.
        login: the user and the password, by HTTP's basic authentication. (Gradio's own login page tells strangers the models' names.)
        host: the address that the server listens on.
        folder: where uploads go.
    """

    def __init__(
        self, app: Callable[..., Awaitable[None]], login: tuple[str, str] | None, host: str, folder: Path
    ) -> None:
        self.app, self.folder = app, folder
        self.wanted = None if login is None else b"Basic " + b64encode(":".join(login).encode())
        self.hosts = {host, "localhost", "127.0.0.1", "::1"} if login is None else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refuse_stranger(scope["path"], headers) or self._refuse_request(scope, headers)
        if refusal is not None:
            if refusal.status_code == 401 and "authorization" in headers:
                await asyncio.sleep(DELAY)
            await refusal(scope, receive, send)
            return
        read, begun = 0, False

        async def receive_some() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > LARGEST_REQUEST and scope["path"] != UPLOAD:
                raise _TooLargeError
            return message

        async def send_with_policy(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        try:
            await self.app(scope, receive_some, send_with_policy)
        except _TooLargeError:
            if not begun:
                await _refuse(413, "This is more than the server reads at once.")(scope, receive, send)
        except Exception as error:
            said = None if begun else _explain(scope["path"], error)
            if begun and isinstance(error.__cause__, HTTPException):  # Gradio has sent it as an event already
                await send({"type": "http.response.body", "body": b""})
            elif said:
                sentence = f"{said} {API}/info lists the functions and their parameters."
                await _refuse(400, sentence)(scope, receive, send_with_policy)
            else:
                raise

    def _refuse_stranger(self, path: str, headers: dict[str, str]) -> PlainTextResponse | None:
        """Who has no password, or was led here by another name: a page elsewhere may call this machine by a name of its own."""
        if self.wanted is not None and path != STARTED:
            given = headers.get("authorization", "").encode("latin-1")
            if not secrets.compare_digest(given, self.wanted):
                asked = {"WWW-Authenticate": 'Basic realm="img2img", charset="UTF-8"'}
                return PlainTextResponse("The user or the password is wrong.", 401, asked)
        try:
            name = urlsplit(f"//{headers.get('host', '')}").hostname
        except ValueError:
            name = None
        if self.hosts is not None and name not in self.hosts:
            return _refuse(421, "This server is not the one of that name.")
        return None

    def _refuse_request(self, scope: Any, headers: dict[str, str]) -> PlainTextResponse | None:
        path, method = scope["path"], scope["method"]
        if path.rstrip("/") not in PATHS and not path.startswith(FOLDERS):
            return _refuse(404, "There is no such page.")
        if method in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        if (origin is not None and urlsplit(origin).netloc != headers.get("host")) or headers.get(
            "sec-fetch-site", "none"
        ) not in ("same-origin", "none"):
            return _refuse(403, "Another site's pages may not use this one.")
        try:
            length = int(headers["content-length"])
        except (KeyError, ValueError):
            length = None
        if path == UPLOAD and length is None:
            return _refuse(411, "Say how long the upload is.")
        if path == UPLOAD and shutil.disk_usage(self.folder).free < ROOM + 2 * (length or 0):
            return _refuse(507, "The server's disk has no room for this.")
        if path != UPLOAD and length is not None and length > LARGEST_REQUEST:
            return _refuse(413, "This is more than the server reads at once.")
        return None


def _explain(path: str, error: Exception) -> str | None:
    """What is wrong with a request whose function Gradio can't find, or can't give its parameters to; None if it is something else."""
    by_name, by_number = path.startswith(CALL), path.startswith((f"{API}/queue/join", f"{API}/run/"))
    wanted = error.args[0] if isinstance(error, KeyError) and error.args else None
    missing = by_number if isinstance(wanted, int) else by_name and wanted == "/" + path.removeprefix(CALL).rstrip("/")
    if missing or isinstance(error, FnIndexInferError):
        return "There is no such function."
    said = str(error)
    if by_name and isinstance(error, TypeError) and said.startswith(("Parameter `", "No value provided")):
        said = said.removesuffix(TRAILER).rstrip(".")
        return f"{said[:LONGEST_REASON]}."
    return None


def _refuse(status: int, sentence: str) -> PlainTextResponse:
    return PlainTextResponse(sentence, status)
