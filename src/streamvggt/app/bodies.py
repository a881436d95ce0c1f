"""Request bodies: limited in size per route, independent of their headers, and in receive time."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

UPLOAD = "/gradio_api/upload"
FORM_BYTES = 1_000_000  # part headers and boundaries of an upload
OTHER_BYTES = 64_000  # routes that are not in the table
BODY_BYTES = {
    r"/gradio_api/(cancel|reset)/?": 4_000,
    r"/scene/[^/]+/queries": 1_000_000,
    r"/scene/[^/]+/(stop|photo/[^/]+/remove)": 1_000,
    r"/scene/[^/]+/export/[^/]+": 1_000_000,
    r"/scene/[^/]+/camera-frame": 4_000_000,
}
"""Maximum body size per route in bytes. These bodies are kept in memory. Uploads are streamed to the disk."""

JSON_ROUTES = re.compile(r"/gradio_api/(queue/join|cancel|reset)/?")
"""Gradio routes. Gradio responds with server errors to unexpected JSON."""

BODY_GRACE = 20.0  # seconds to receive a body of any size
BODY_RATE = 20_000  # minimum bytes per second afterwards


def most_bytes(path: str, upload_bytes: int) -> int:
    """Return the maximum body size of a route in bytes."""
    if path == UPLOAD:
        return upload_bytes + FORM_BYTES
    return next((most for route, most in BODY_BYTES.items() if re.fullmatch(route, path)), OTHER_BYTES)


def check_json(body: bytes, functions: Container[int] | None, uploads: Path | None) -> None:
    """Reject a body that is not a JSON object, or refers to an unknown function or to a file that was not uploaded.

    Gradio copies every file and URL that a request refers to, for all components, before the page can check it.

    Args:
        body: The whole body.
        functions: Function numbers of the page. None skips their check.
        uploads: Folder of uploaded files. None: no files are accepted.

    Raises:
        HTTPException: 400.
    """
    try:
        content = json.loads(body, parse_constant=_no_number)
        json.dumps(content, ensure_ascii=False).encode()  # lone surrogates cannot be encoded
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "Request body: expected JSON, got something else. Send a valid request.") from error
    is_ours = isinstance(content, dict) and isinstance(content.get("data", []), list)
    if is_ours and functions is not None and ("data" in content or "fn_index" in content):
        number = content.get("fn_index")
        is_ours = type(number) is int and number in functions
    if not is_ours or not all(_is_upload(path, uploads) for path in _file_paths(content)):
        raise HTTPException(400, "Request body: expected a request of this page, got another. Reload the page.")


def _file_paths(content: object) -> Iterator[object]:
    """Yield the paths of all files in Gradio's notation: objects with a "path"."""
    unseen = [content]
    while unseen:
        value = unseen.pop()
        if isinstance(value, dict):
            if "path" in value:
                yield value["path"]
            unseen += value.values()
        elif isinstance(value, list):
            unseen += value


def _is_upload(path: object, uploads: Path | None) -> bool:
    try:
        return uploads is not None and isinstance(path, str) and Path(path).resolve().is_relative_to(uploads.resolve())
    except (OSError, ValueError):  # invalid file name
        return False


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def too_large(most: int) -> HTTPException:
    return HTTPException(413, f"Request body: expected at most {most} bytes, got more. Send less.")


class BoundedBody:
    """`receive` of an ASGI request with a size limit and a time limit.

    Attributes:
        num_bytes: Number of bytes received.
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
            HTTPException: 413 if the body is too large, 408 if it is too slow.
        """
        if self._is_whole:
            return await self._receive()  # waits for the end of the connection
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
        """Receive the whole body. The result returns it as one message.

        Args:
            check: Validates the whole body; raises HTTPException.

        Raises:
            HTTPException: As for `__call__`.
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
