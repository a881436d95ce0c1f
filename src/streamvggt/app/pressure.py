"""Limits of concurrent requests and request rates per user and address."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException

VISITOR_REQUESTS = 24  # concurrent requests per cookie; a browser opens six connections
ADDRESS_REQUESTS = 200  # concurrent requests per address; a proxy serves many users
VISITOR_UPLOADS = 2
PERIOD = 10.0  # seconds
PERIOD_REQUESTS = 2000  # requests per address within PERIOD


class Pressure:
    """Count requests by user and by address."""

    def __init__(self) -> None:
        self._in_work: Counter[tuple[str, str]] = Counter()
        self._of_late: Counter[str] = Counter()
        self._since = time.monotonic()

    @contextmanager
    def request(self, address: str, visitor: str | None, is_upload: bool) -> Iterator[None]:
        """Count a request while the block runs.

        Raises:
            HTTPException: 429 if a limit is exceeded.
        """
        if time.monotonic() - self._since > PERIOD:
            self._of_late.clear()
            self._since = time.monotonic()
        self._of_late[address] += 1
        if self._of_late[address] > PERIOD_REQUESTS:
            raise HTTPException(429, "Too many requests: wait some seconds.")
        bounds = {("address", address): ADDRESS_REQUESTS}
        if visitor is not None:
            bounds["visitor", visitor] = VISITOR_REQUESTS
        if is_upload:
            bounds["upload", visitor or address] = VISITOR_UPLOADS
        if any(self._in_work[key] >= most for key, most in bounds.items()):
            raise HTTPException(429, "Too many requests at once: wait until earlier ones are answered.")
        self._in_work.update(bounds.keys())
        try:
            yield
        finally:
            self._in_work.subtract(bounds.keys())
            for key in bounds:
                if not self._in_work[key]:
                    del self._in_work[key]
