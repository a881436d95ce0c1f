"""Speed and remaining time of a run."""

import time
from collections import deque

FPS_WINDOW = 10  # number of frames for the displayed speed


class Progress:
    """Speed and remaining time of a run that begins now."""

    def __init__(self):
        self.num_frames = 0
        self._begun = time.monotonic()
        self._times = deque([self._begun], maxlen=FPS_WINDOW + 1)

    def add_frame(self) -> None:
        self.num_frames += 1
        self._times.append(time.monotonic())

    @property
    def seconds(self) -> float:
        """Duration until the last frame."""
        return self._times[-1] - self._begun

    @property
    def fps(self) -> float:
        """Frames per second of the latest frames."""
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-6)

    def seconds_left(self, expected: int | None) -> float | None:
        """Estimate the time for the rest of the expected number of frames. None if the number is unknown."""
        return None if expected is None else max(expected - self.num_frames, 0) / self.fps
