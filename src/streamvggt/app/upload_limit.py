"""Upload limits per user and period, and for all users together."""

import time
from collections import deque
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from streamvggt.app.scenes import Scenes

WINDOW_SECONDS = 3600.0  # period of the limit per user in seconds


@dataclass
class Reservation:
    """Reserved space of one upload.

    Attributes:
        num_bytes: Announced size; the received size after the upload.
    """

    visitor: str
    num_bytes: int
    begun: float
    is_over: bool = False

    def settle(self, num_bytes: int) -> None:
        """Record the end of the upload, complete or not."""
        self.num_bytes, self.is_over = num_bytes, True


class UploadRateLimit:
    """Reject uploads above the limit before they are received, with a message for the page.

    `Scenes.max_bytes` limits all uploads together, so deleting the cookie does not circumvent the disk limit.

    Args:
        upload_bytes: Maximum size of one upload in bytes.
        max_bytes_per_hour: Maximum upload size per user and hour in bytes.
    """

    def __init__(self, scenes: Scenes, upload_bytes: int, max_bytes_per_hour: int):
        self.scenes = scenes
        self.upload_bytes = upload_bytes
        self.max_bytes_per_hour = max_bytes_per_hour
        self._taken: deque[Reservation] = deque()

    async def reserve(self, visitor: str, num_bytes: int) -> Reservation:
        """Reserve space for an upload.

        Raises:
            HTTPException: 413 if the limit of the user or of the disk is exceeded.
        """
        now = time.monotonic()
        while self._taken and self._taken[0].is_over and self._taken[0].begun < now - WINDOW_SECONDS:
            self._taken.popleft()
        if (
            sum(taken.num_bytes for taken in self._taken if taken.visitor == visitor) + num_bytes
            > self.max_bytes_per_hour
        ):
            raise HTTPException(
                413, f"Uploads are limited to {self.max_bytes_per_hour / 1e9:.1f} GB per hour. Try again later."
            )
        reservation = Reservation(visitor, num_bytes, now)
        self._taken.append(reservation)  # before the asynchronous disk check, because of concurrent uploads
        on_disk = await run_in_threadpool(self.scenes.num_bytes)
        if on_disk + sum(taken.num_bytes for taken in self._taken if not taken.is_over) > self.scenes.max_bytes:
            self._taken.remove(reservation)
            raise HTTPException(413, "The disk of the server is full. Try again later.")
        return reservation
