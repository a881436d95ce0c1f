"""Save the state of a stream beside its result, for --resume."""

from __future__ import annotations

import time
from pathlib import Path

from tqdm import tqdm

from streamvggt.cli.memory_settings import Session
from streamvggt.files import temporary_path
from streamvggt.words import counted

STATE_NAME = "stream_state.pt"
SAVE_INTERVAL = 30.0  # minimum number of seconds between two saves of the stream's state
MAX_SAVE_TIME_RATIO = 0.05  # maximum ratio of run time for saves


class StreamCheckpoint:
    """The stream's state on disk for --resume. The save interval keeps the cost low."""

    def __init__(self, path: Path, session: Session):
        self.path = path
        self.session = session
        self._saved, self._took = time.monotonic(), 0.0

    def should_save(self) -> bool:
        return time.monotonic() - self._saved > max(SAVE_INTERVAL, self._took / MAX_SAVE_TIME_RATIO)

    def save(self, num_written: int) -> None:
        """Save the state if it matches the written frames. A failed save is reported and does not stop the run."""
        if not num_written or self.session.num_frames != num_written:
            return  # a computed frame was not written, so keep the last save
        begun = time.monotonic()
        try:
            self.session.save(self.path)
        except (OSError, RuntimeError) as error:  # torch.save on a full disk raises RuntimeError
            tqdm.write(
                f"warning: the stream's state could not be saved ({error}): --resume continues from an earlier one"
            )
        self._saved = time.monotonic()
        self._took = self._saved - begun

    def restore(self, num_written: int) -> int:
        """Restore the session to the last saved state and return its number of frames.

        Raises:
            FileNotFoundError: If no state was saved.
            ValueError: If the state cannot be read, or earlier frames are missing.
        """
        self.session.restore(self.path)
        done = self.session.num_frames
        if done > num_written:
            raise ValueError(f"{self.path} continues after {counted(done, 'frame')}, but {num_written} are there")
        return done

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        temporary_path(self.path).unlink(missing_ok=True)
