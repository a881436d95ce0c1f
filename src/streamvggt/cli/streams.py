"""Standard output and error that a command can always write to, because its messages matter less than its results."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO


class LastingStream:
    """Text stream that drops its text after the reader of its pipe ended, as in `streamvggt … | head -1`."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            discard(self._stream.fileno())
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            discard(self._stream.fileno())


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Redirect standard output and error to streams that a command can always write to.

    A closed stream (`>&-`, a service) discards its text. Otherwise the next opened file gets its number, and messages
    of libraries are written into that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest free number
        pass
    os.close(number)
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if isinstance(stream, io.TextIOWrapper):  # file names may contain characters that it cannot encode
                stream.reconfigure(errors="backslashreplace")
            lasting = LastingStream(nowhere if stream is None else stream)
            stack.enter_context(redirect(lasting))
            stack.callback(lasting.flush)
        yield


def discard(*numbers: int) -> None:
    """Redirect open file descriptors, so that their text is dropped."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        for number in numbers:
            os.dup2(nowhere.fileno(), number)
