"""Web server of page and viewer, with limits on connections and their times."""

import asyncio
import errno
import os
import socket
import threading

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # maximum seconds for request line and headers
CLOSE_SECONDS = 10.0  # maximum seconds to wait for the end of a server
WRITE_SECONDS = 60.0  # maximum seconds for a client to receive pending data
CONNECTIONS = 500
ADDRESS_CONNECTIONS = 250  # maximum number of connections per address; a proxy serves many users
HEADER_BYTES = 32_768
FIRST_PORT, NUM_PORTS = 7860, 100


class PatientProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn with timeouts for slow headers and slow readers."""

    head_timer: asyncio.TimerHandle | None = None
    write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        address = self.client and self.client[0]
        of_address = sum(other.client is not None and other.client[0] == address for other in self.connections)
        if len(self.connections) > CONNECTIONS or of_address > ADDRESS_CONNECTIONS:
            return transport.abort()
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel("head_timer")
        self._cancel("write_timer")
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._cancel("write_timer")
        self.write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel("write_timer")

    def _watch_head(self) -> None:
        """Limit the time from the end of the last request to complete headers, independent of partial data."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel("head_timer")
        elif self.head_timer is None and not self.transport.is_closing():
            self.head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _cancel(self, name: str) -> None:
        timer: asyncio.TimerHandle | None = getattr(self, name)
        if timer is not None:
            timer.cancel()
        setattr(self, name, None)


class Server(uvicorn.Server):
    """Server of an application in this thread (`run`) or in another thread (`start`).

    Args:
        port: Port. None selects the first free port from 7860, 0 any free port.

    Raises:
        OSError: If no such port is free.
    """

    def __init__(self, app: ASGIApp, host: str, port: int | None):
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                http=PatientProtocol,
                ws="none",
                log_level="warning",
                access_log=False,
                h11_max_incomplete_event_size=HEADER_BYTES,
                timeout_graceful_shutdown=3,
            )
        )
        self.socket = bind(host.strip("[]"), port)
        self.port: int = self.socket.getsockname()[1]
        shown = "localhost" if host in ("0.0.0.0", "::", "") else host
        self.address = f"http://{shown}:{self.port}/"
        self._has_started = threading.Event()
        self._thread = threading.Thread(target=self.run, daemon=True)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets or [self.socket])
        finally:
            self._has_started.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._has_started.set()

    def start(self) -> None:
        """Serve in a thread. Returns when the server accepts requests."""
        self._thread.start()
        self._has_started.wait()
        if not self.started:
            raise RuntimeError("the server did not start; its log says why")

    def wait(self) -> None:
        """Wait until the server stops."""
        while self._thread.is_alive():
            self._thread.join(1)  # the timeout lets Ctrl-C interrupt the wait

    def close(self) -> None:
        """Stop the server of `start`. A shutdown that does not end, for example of an open stream, is abandoned."""
        self.should_exit = True
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self.force_exit = True
            self._thread.join(1)


def bind(host: str, port: int | None) -> socket.socket:
    """Open a socket at a free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = range(FIRST_PORT, FIRST_PORT + NUM_PORTS) if port is None else (port,)
    for number in ports:
        bound = socket.socket(family)
        if os.name == "posix":  # on other systems the option allows two servers on one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, number))
        except OSError as error:
            bound.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise OSError(
                    f"--host: expected an address of this machine, got {host!r} ({error.strerror}). Use 127.0.0.1 or "
                    "0.0.0.0."
                ) from error
            reason = error
        else:
            return bound
    raise OSError(f"--port: expected a free port at {host}, got {ports[0]} ({reason.strerror}). Choose another one.")
