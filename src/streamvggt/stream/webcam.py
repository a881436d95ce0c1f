"""Read frames from a local camera."""

import time
from collections.abc import Iterator

import cv2
import numpy as np

from streamvggt.stream.source import FrameOptions
from streamvggt.stream.video import TimedFrameSource


class WebcamSource(TimedFrameSource):
    """A local camera, selected by its number."""

    kind = "live"

    def __init__(self, number: int, options: FrameOptions) -> None:
        super().__init__(options)
        if not 0 <= number < 100:  # OpenCV uses larger numbers for other camera backends
            raise ValueError(f"webcam: expected a number from 0 to 99, got {number}.")
        self.number = number
        self.num_frames = options.max_frames
        self._open().release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self.number)
        if not capture.isOpened():
            capture.release()
            raise ConnectionError(f"No webcam {self.number}; is it plugged in, permitted and not in use elsewhere?")
        return capture

    def _decode_frames(self) -> Iterator[tuple[float, np.ndarray]]:
        capture = self._open()
        try:
            first = None
            while True:
                has_picture, bgr = capture.read()
                if not has_picture:
                    break
                now = time.monotonic()
                first = now if first is None else first
                yield now - first, bgr
            if first is None:
                raise ConnectionError(f"webcam {self.number} opened but gave no picture")
        finally:
            capture.release()

    def _rgb(self, picture: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
