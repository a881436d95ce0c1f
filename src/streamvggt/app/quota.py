"""How much visitors may upload: one of them in a while, and all together at a time."""

import time
from collections import deque

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from streamvggt.app.scenes import Scenes
from streamvggt.app.server import visitor_of

MESSAGE_BYTES = 10_000_000  # of what is sent and is no upload: clicks, settings, pictures of a camera
PERIOD = 3600.0  # seconds over which the uploads of a visitor are added up


class UploadQuota:
    """Middleware: refuses uploads beyond the quota before they are received, in words that the page shows.

    An upload is whatever is sent as the files of a form, to any of Gradio's addresses that take some.

    What all bring together is bounded by `Scenes.most_bytes`; so this protects the machine also from a visitor who
    throws away the cookie.

    Args:
        visitor_bytes: of one visitor within an hour.
    """

    def __init__(self, app: ASGIApp, scenes: Scenes, visitor_bytes: int):
        self.app = app
        self.scenes = scenes
        self.visitor_bytes = visitor_bytes
        self._taken: deque[tuple[float, str | None, int]] = deque()  # when, whose, bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            refusal = await self._refusal(Headers(scope=scope))
            if refusal is not None:
                return await refusal(scope, receive, send)
        await self.app(scope, receive, send)

    async def _refusal(self, headers: Headers) -> PlainTextResponse | None:
        announced = headers.get("content-length", "")
        if not announced.isdecimal():  # the server holds the sender to what it announces
            return PlainTextResponse("What is sent must say its length.", 411)
        if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
            return PlainTextResponse("That is too much.", 413) if int(announced) > MESSAGE_BYTES else None
        visitor, size, now = visitor_of(cookie_parser(headers.get("cookie", ""))), int(announced), time.monotonic()
        while self._taken and self._taken[0][0] < now - PERIOD:
            self._taken.popleft()
        if sum(bytes for _, whose, bytes in self._taken if whose == visitor) + size > self.visitor_bytes:
            return PlainTextResponse(
                f"You may upload {self.visitor_bytes / 1e9:.1f} GB within an hour: try again later.", 413
            )
        if await run_in_threadpool(self.scenes.num_bytes) + size > self.scenes.most_bytes:
            return PlainTextResponse("There is no room left for uploads at the moment: try again later.", 413)
        self._taken.append((now, visitor, size))
        return None
