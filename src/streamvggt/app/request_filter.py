"""`RequestFilter` checks every request of the page and the viewer first.

Order: host, origin, request rate, size and duration of the body, route. A rejected request uses no memory, disk or
model time.
"""

import re
from collections.abc import Container
from functools import partial
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamvggt.app.bodies import JSON_ROUTES, UPLOAD, BoundedBody, check_json, most_bytes, too_large
from streamvggt.app.hosts import Hosts
from streamvggt.app.pressure import Pressure
from streamvggt.app.upload_limit import UploadRateLimit
from streamvggt.app.visitors import COOKIE, new_session_cookie, visitor_in

ROUTES = {
    "GET": re.compile(
        r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte|viewer)/.*"
        r"|/gradio_api/(queue/data|heartbeat/[^/]+|theme\.css|upload_progress|app_id)/?"
        r"|/scene/[^/]+/(updates|preview|photo/\d{1,9}|depth/\d{1,9})?"
    ),
    "POST": re.compile(
        r"/gradio_api/(queue/join|cancel|reset)/?|" + UPLOAD + r"|/scene/[^/]+/"
        r"(queries|stop|camera-frame|photo/\d{1,9}/remove|export/[^/]+)"
    ),
}
"""Required Gradio routes and the routes of this package. Other Gradio routes serve files by path and fetch URLs."""

PLAIN = re.compile(rb"[\x20-\x7e]*")
HEADERS = dict.fromkeys(("host", "accept", "accept-encoding", "accept-language", "user-agent"), PLAIN)
HEADERS |= dict.fromkeys(("content-type", "content-length", "transfer-encoding"), PLAIN)
HEADERS |= dict.fromkeys(("range", "if-range", "if-none-match", "if-modified-since"), PLAIN)
HEADERS |= {"x-forwarded-host": PLAIN}  # checked like `Host`
HEADERS |= {"x-forwarded-proto": re.compile(rb"https?"), "x-forwarded-prefix": re.compile(rb"(/[\w.-]+)+/?")}
"""Headers passed to the application. Gradio trusts other headers, for example its public address."""


class RequestFilter:
    """ASGI middleware around a whole application.

    Args:
        hosts: Accepted host names.
        quota: Upload limit. None if the application has no uploads.
        functions: Function numbers of a Gradio application, or None.
        uploads: Folder of uploaded files. None: requests refer to no files.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Hosts,
        quota: UploadRateLimit | None = None,
        functions: Container[int] | None = None,
        uploads: Path | None = None,
    ):
        self.app = app
        self.hosts = hosts
        self.quota = quota
        self.functions = functions
        self.uploads = uploads
        self._pressure = Pressure()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the page uses no WebSocket
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._admit(scope, receive, watched)
        except HTTPException as refusal:
            if has_begun:
                raise
            await PlainTextResponse(refusal.detail, refusal.status_code)(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._judge_names(headers, scope)
        visitor = visitor_in(headers.getlist("cookie"))
        address = (scope.get("client") or ("",))[0]
        path, is_upload = scope["path"], scope["path"] == UPLOAD and scope["method"] == "POST"
        with self._pressure.request(address, visitor, is_upload):
            most = most_bytes(path, self.quota.upload_bytes if self.quota else 0)
            announced = headers.get("content-length")
            if announced is not None and not (announced.isascii() and announced.isdecimal()):
                raise HTTPException(400, "Content-Length: expected a number. Send a valid request.")
            if announced is not None and (len(announced) > 15 or int(announced) > most):
                raise too_large(most)
            body = BoundedBody(receive, most)
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            if not is_upload:
                is_json = method == "POST" and JSON_ROUTES.fullmatch(path)
                receive = await body.whole(
                    partial(check_json, functions=self.functions, uploads=self.uploads) if is_json else None
                )
            if method not in ROUTES or not ROUTES[method].fullmatch(path):
                raise HTTPException(404, "Not found.")
            scope = {**scope, "headers": cleaned(scope["headers"], visitor)}
            if visitor is None and path == "/":
                send = with_cookie(send, is_https(scope, headers))
            if not is_upload:
                return await self.app(scope, receive, send)
            if self.quota is None:
                raise HTTPException(404, "Not found.")
            reservation = await self.quota.reserve(visitor or address, most if announced is None else int(announced))
            try:
                await self.app(scope, body, send)
            finally:
                reservation.settle(body.num_bytes)

    def _judge_names(self, headers: Headers, scope: Scope) -> None:
        """Check host and origin.

        Raises:
            HTTPException: 403 if one of them is not accepted.
        """
        arrived_at = (scope.get("server") or (None,))[0]
        named, forwarded = headers.getlist("host"), headers.getlist("x-forwarded-host")
        if len(named) != 1 or not all(self.hosts.serves(host, arrived_at) for host in [*named, *forwarded]):
            raise HTTPException(403, "This host name is not served. Start the page with --allow-host NAME.")
        origins = headers.getlist("origin")
        if any(not any(self.hosts.trusts(origin, host) for host in [*named, *forwarded]) for origin in origins):
            raise HTTPException(403, "Requests of other sites are not served.")
        # Browsers send no Origin for images and scripts. Then other headers determine the site.
        is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if is_foreign and not origins and headers.get("sec-fetch-mode") != "navigate":
            raise HTTPException(403, "Requests of other sites are not served.")


def cleaned(headers: list[tuple[bytes, bytes]], visitor: str | None) -> list[tuple[bytes, bytes]]:
    """Return the headers for the application: the first of each allowed name, and only the session cookie."""
    kept: dict[bytes, bytes] = {}
    for name, value in headers:
        allowed = HEADERS.get(name.decode("latin-1"))
        if allowed is not None and allowed.fullmatch(value):
            kept.setdefault(name, value)
    if visitor is not None:
        kept[b"cookie"] = f"{COOKIE}={visitor}".encode()
    return list(kept.items())


def is_https(scope: Scope, headers: Headers) -> bool:
    return scope["scheme"] == "https" or headers.get("x-forwarded-proto", "").startswith("https")


def with_cookie(send: Send, is_https: bool) -> Send:
    """Wrap `send` so that a new user receives the session cookie."""

    async def send_with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"set-cookie", new_session_cookie(is_https).encode())]
        await send(message)

    return send_with_cookie
