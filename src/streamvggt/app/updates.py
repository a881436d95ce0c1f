"""Updates of a scene for the viewer: its status, and packets of new frames. The response waits until there are some."""

import asyncio
import struct
import time

from streamvggt.app.packet import MAX_SCENE_POINTS, pack_arrays, truncate
from streamvggt.app.scene import Scene
from streamvggt.app.status import Status
from streamvggt.choices import PointSource

UPDATE_INTERVAL = 0.25  # seconds between responses during a run, to limit the load
POLL_INTERVAL = 0.1  # polling interval in seconds
FIRST_POLL_INTERVAL = 0.03  # shorter interval before the first frame
LONG_POLL_TIMEOUT = 10.0  # seconds until an empty response
UPDATES_BYTES = 3_000_000  # approximate packet bytes per response


async def next_status(scene: Scene, have: int, run: int, state: str) -> tuple[Status, int]:
    """Wait until a scene has something that a viewer lacks, for at most `LONG_POLL_TIMEOUT`.

    Args:
        scene: The scene.
        have: Number of frames of the viewer.
        run: Run number of these frames.
        state: State that the viewer shows.

    Returns:
        The status, and the number of the viewer's frames that belong to its run.
    """
    deadline = time.monotonic() + LONG_POLL_TIMEOUT
    while True:
        status = scene.status
        if run != status.run:
            have = 0
        if status.num_frames > have or run != status.run or state != status.state or time.monotonic() > deadline:
            break
        await asyncio.sleep(POLL_INTERVAL if have else FIRST_POLL_INTERVAL)
    if have and status.state == "running":
        await asyncio.sleep(UPDATE_INTERVAL)
        status = scene.status if scene.status.run == status.run else status
    return status, have


def payload(scene: Scene, status: Status, have: int, source: PointSource) -> bytes:
    """Concatenate packets with length prefixes: the status, and the frames from position `have`."""
    packets = [pack_arrays({**scene.describe(status), "source": source, "first": have}, {})]
    try:
        for position in range(have, status.num_frames):
            packets.append(truncate(scene.packet(position, source), MAX_SCENE_POINTS // status.num_frames))
            if sum(map(len, packets)) > UPDATES_BYTES:
                break
    except (OSError, ValueError, IndexError):
        if scene.status.run == status.run:  # otherwise the next run has deleted the files
            raise
    return b"".join(piece for packet in packets for piece in (struct.pack("<I", len(packet)), packet))
