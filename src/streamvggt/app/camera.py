"""The camera of a user's browser as a source of frames."""

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from streamvggt.stream.frames import FrameSource, frame_from_array
from streamvggt.stream.source import FrameOptions

CAMERA_TIMEOUT = 10.0  # seconds without a frame until the camera is considered closed
FIRST_PICTURE = 30.0  # the same before the first frame, while the browser asks for permission


class CameraFeed:
    """The latest image of a user's camera. A call opens the images as frames, as `open_frames` of `Scene`.

    Args:
        stopped: Ends the frames.
    """

    def __init__(self, stopped: threading.Event):
        self._stopped = stopped
        self._pictures: queue.Queue[np.ndarray] = queue.Queue(maxsize=1)

    def __call__(self, *, size: int, patch_size: int, max_frames: int | None, fps: float | None) -> FrameSource:
        options = FrameOptions(size=size, patch_size=patch_size, max_frames=max_frames)
        return BrowserCamera(self._pictures, self._stopped, options)

    def push(self, picture: np.ndarray) -> None:
        """Set the latest image. A pending image is replaced. RGB, uint8 (H0, W0, 3)"""
        with suppress(queue.Empty):
            self._pictures.get_nowait()
        with suppress(queue.Full):
            self._pictures.put_nowait(picture)

    @property
    def needs_picture(self) -> bool:
        """Whether the last image has been taken."""
        return self._pictures.empty()


class BrowserCamera(FrameSource):
    """Frames sent by a browser until it stops or `stopped` is set."""

    kind = "live"

    def __init__(self, pictures: "queue.Queue[np.ndarray]", stopped: threading.Event, options: FrameOptions):
        super().__init__(options)
        self.num_frames = options.max_frames
        self._pictures = pictures
        self._stopped = stopped

    def __iter__(self) -> Iterator:
        begun = last = time.monotonic()
        shape, index = None, 0
        while not self._stopped.is_set() and index != self.options.max_frames:
            try:
                picture = self._pictures.get(timeout=0.1)
            except queue.Empty:
                if time.monotonic() - last < (CAMERA_TIMEOUT if index else FIRST_PICTURE):
                    continue
                if index:
                    return
                raise ConnectionError("No image came from the camera. Check that it is on and permitted.") from None
            last = time.monotonic()
            shape = shape or picture.shape
            if picture.shape != shape:
                raise ValueError("The camera changed its image size, for example because it was rotated. Start again.")
            yield frame_from_array(picture, **self.options.preprocess_options, index=index, time=last - begun)
            index += 1
