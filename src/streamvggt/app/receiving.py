"""Uploads over HTTP: the files of a form are streamed to the disk, each upload into a separate folder.

This route replaces Gradio's, which keeps other form fields in memory and leaves files of incomplete uploads.
"""

import secrets
import shutil
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from streamvggt.app.bodies import UPLOAD
from streamvggt.app.scenes import Scenes

HEADER_BYTES = 8_000  # maximum header size per file of the form
NUM_FILES = 1000
NAME_BYTES = 120


def upload_route(scenes: Scenes) -> Route:
    """Return the upload route of the page. It responds with the file paths, as Gradio expects."""

    async def upload(request: Request) -> Response:
        folder = scenes.uploads / secrets.token_urlsafe(24)
        folder.mkdir(parents=True, mode=0o700)
        form = None
        try:
            form = Form(request.headers.get("content-type", ""), folder)
            async for piece in request.stream():
                await run_in_threadpool(form.write, piece)
            return JSONResponse([str(path) for path in form.finish()])
        except (HTTPException, ClientDisconnect, FormParserError, OSError, ValueError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            status = error.status_code if isinstance(error, HTTPException) else 400
            words = error.detail if isinstance(error, HTTPException) else "The upload broke off: try again."
            return PlainTextResponse(words, status)
        finally:
            if form is not None:
                form.close()

    return Route(UPLOAD, upload, methods=["POST"])


class Form:
    """Write the files of a multipart form.

    Raises:
        HTTPException: 400 if the body is no such form.
    """

    def __init__(self, content_type: str, folder: Path):
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise HTTPException(400, "Upload: expected multipart/form-data. Use the page.")
        self._folder = folder
        self._paths: list[Path] = []
        self._file: BinaryIO | None = None
        self._header_size = 0
        self._name, self._value = b"", b""
        self._is_whole = False
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header("_name", data[start:end]),
                "on_header_value": lambda data, start, end: self._header("_value", data[start:end]),
                "on_header_end": self._header_over,
                "on_part_data": self._data,
                "on_part_end": self.close,
                "on_end": self._end,
            },
        )

    def write(self, piece: bytes) -> None:
        self._parser.write(piece)

    def finish(self) -> list[Path]:
        """Return the files in the order of the form."""
        if not self._is_whole:
            raise HTTPException(400, "The upload broke off: try again.")
        return self._paths

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _begin(self) -> None:
        self._header_size = 0
        self._name, self._value = b"", b""

    def _header(self, part: str, data: bytes) -> None:
        self._header_size += len(data)
        if self._header_size > HEADER_BYTES:
            raise HTTPException(
                413, f"Upload: expected file headers of at most {HEADER_BYTES} bytes. Shorten the name."
            )
        setattr(self, part, getattr(self, part) + data)

    def _header_over(self) -> None:
        name, value = self._name.lower(), self._value
        self._name, self._value = b"", b""
        if name != b"content-disposition":
            return
        _, options = parse_options_header(value)
        if b"filename" not in options or self._file is not None:
            raise HTTPException(400, "Upload: expected files only, got another field. Use the page.")
        if len(self._paths) == NUM_FILES:
            raise HTTPException(413, f"Upload: expected at most {NUM_FILES} files, got more. Send a zip.")
        within = self._folder / f"{len(self._paths):04d}"
        within.mkdir()
        self._paths.append(within / plain_name(options[b"filename"]))
        self._file = open(self._paths[-1], "wb")  # noqa: SIM115 - `close` is called at the end of the part

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            raise HTTPException(400, "Upload: expected files only, got another field. Use the page.")
        self._file.write(data[start:end])

    def _end(self) -> None:
        self._is_whole = True


def plain_name(name: bytes) -> str:
    """Convert the browser's file name to a display name without a path."""
    last = PurePosixPath(name.decode("utf-8", "replace").replace("\\", "/")).name
    printable = "".join(letter if letter.isprintable() else "_" for letter in last).strip(". ")
    while len(printable.encode()) > NAME_BYTES:
        printable = printable[1:]  # keep the suffix
    return printable or "file"
