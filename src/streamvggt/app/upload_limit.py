"""How much visitors may upload: one of them in a while, and all together at a time."""

import time
from collections import deque
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from streamvggt.app.scenes import Scenes

WINDOW_SECONDS = 3600.0  # seconds over which the uploads of a visitor are added up


@dataclass
class Reservation:
    """Room for one upload. num_bytes: announced, and received once the upload is over."""

    visitor: str
    num_bytes: int
    begun: float
    is_over: bool = False

    def settle(self, num_bytes: int) -> None:
        """The upload is over, whole or not."""
        self.num_bytes, self.is_over = num_bytes, True


class UploadRateLimit:
    """Refuses uploads beyond the quota before they are received, in words that the page shows.

    `Scenes.max_bytes` bounds all uploads together, so a visitor who deletes the cookie fills no disk.

    Args:
        upload_bytes: Of the files of one upload.
        max_bytes_per_hour: Of one visitor within an hour.
    """

    def __init__(self, scenes: Scenes, upload_bytes: int, max_bytes_per_hour: int):
        self.scenes = scenes
        self.upload_bytes = upload_bytes
        self.max_bytes_per_hour = max_bytes_per_hour
        self._taken: deque[Reservation] = deque()

    async def reserve(self, visitor: str, num_bytes: int) -> Reservation:
        """Reserve room.

        Raises:
            HTTPException: 413 if the visitor's quota or the disk's is used up.
        """
        now = time.monotonic()
        while self._taken and self._taken[0].is_over and self._taken[0].begun < now - WINDOW_SECONDS:
            self._taken.popleft()
        if (
            sum(taken.num_bytes for taken in self._taken if taken.visitor == visitor) + num_bytes
            > self.max_bytes_per_hour
        ):
            raise HTTPException(
                413, f"You may upload {self.max_bytes_per_hour / 1e9:.1f} GB within an hour: try again later."
            )
        reservation = Reservation(visitor, num_bytes, now)
        self._taken.append(reservation)  # before the disk is looked at: others come meanwhile
        on_disk = await run_in_threadpool(self.scenes.num_bytes)
        if on_disk + sum(taken.num_bytes for taken in self._taken if not taken.is_over) > self.scenes.max_bytes:
            self._taken.remove(reservation)
            raise HTTPException(413, "There is no room left for uploads at the moment: try again later.")
        return reservation
