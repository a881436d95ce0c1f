"""Request bodies: bounded by route, whatever their headers announce, and received within a bounded time."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Container

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

UPLOAD = "/gradio_api/upload"
FORM_BYTES = 1_000_000  # around the files of an upload: part headers and boundaries
OTHER_BYTES = 64_000  # of every route that is not in the table
BODY_BYTES = {
    r"/gradio_api/(cancel|reset)/?": 4_000,
    r"/scene/[^/]+/queries": 1_000_000,
    r"/scene/[^/]+/stop": 1_000,
    r"/scene/[^/]+/export/[^/]+": 1_000_000,
    r"/scene/[^/]+/camera-frame": 4_000_000,
}
"""Largest body per route in bytes. Bodies of these routes are held in memory; uploads go to the disk as they come."""

JSON_ROUTES = re.compile(r"/gradio_api/(queue/join|cancel|reset)/?")
"""Routes of Gradio, which answers JSON that it does not expect by errors of the server."""

BODY_GRACE = 20.0  # seconds a body may take, whatever its size
BODY_RATE = 20_000  # bytes per second that a body must bring after that


def most_bytes(path: str, upload_bytes: int) -> int:
    """Return the largest body that a route takes."""
    if path == UPLOAD:
        return upload_bytes + FORM_BYTES
    return next((most for route, most in BODY_BYTES.items() if re.fullmatch(route, path)), OTHER_BYTES)


def check_json(body: bytes, functions: Container[int] | None) -> None:
    """Refuse a body that is no JSON object of plain values, or names a function that the page does not have.

    Args:
        functions: Numbers of the page's functions; None: not known.

    Raises:
        HTTPException: 400.
    """
    try:
        content = json.loads(body, parse_constant=_no_number)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair cannot be written back
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "Request body: expected JSON, got something else. Send a valid request.") from error
    is_ours = isinstance(content, dict) and isinstance(content.get("data", []), list)
    if is_ours and functions is not None and ("data" in content or "fn_index" in content):
        number = content.get("fn_index")
        is_ours = type(number) is int and number in functions
    if not is_ours:
        raise HTTPException(400, "Request body: expected a request of this page, got another. Reload the page.")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def too_large(most: int) -> HTTPException:
    return HTTPException(413, f"Request body: expected at most {most} bytes, got more. Send less.")


class BoundedBody:
    """`receive` of an ASGI request that stops at a size and does not wait for ever.

    num_bytes: received so far.
    """

    def __init__(self, receive: Receive, most: int):
        self.most = most
        self.num_bytes = 0
        self._receive = receive
        self._begun = time.monotonic()
        self._is_whole = False

    async def __call__(self) -> Message:
        """Return the next message.

        Raises:
            HTTPException: 413 if the body is larger than `most`, 408 if it comes too slowly.
        """
        if self._is_whole:
            return await self._receive()  # for the end of the connection
        deadline = self._begun + BODY_GRACE + self.num_bytes / BODY_RATE
        try:
            message = await asyncio.wait_for(self._receive(), deadline - time.monotonic())
        except TimeoutError as error:
            raise HTTPException(408, "Request body: it comes too slowly. Try again.") from error
        self.num_bytes += len(message.get("body", b""))
        if self.num_bytes > self.most:
            raise too_large(self.most)
        self._is_whole = not message.get("more_body", False)
        return message

    async def whole(self, check: Callable[[bytes], None] | None = None) -> Receive:
        """Receive everything; the result hands it on as one message.

        Args:
            check: Of the whole body; raises HTTPException.

        Raises:
            HTTPException: As of calling.
        """
        pieces, more = [], True
        while more:
            message = await self()
            if message["type"] == "http.disconnect":
                raise HTTPException(400, "The connection ended inside the request.")
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(pieces)
        if check is not None:
            check(body)
        kept: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return kept.pop() if kept else await self._receive()

        return receive
