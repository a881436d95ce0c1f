"""Write a result in threads while the next frames are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from streamvggt.export.writer import ResultWriter
from streamvggt.frame import Frame
from streamvggt.prediction import Prediction

MAX_PENDING = 3  # frames that wait to be written
NUM_ENCODERS = 2


class BackgroundWriter:
    """Write the frames of a stream in threads, in order.

        with BackgroundWriter(ResultWriter("out")) as writer:
            for frame in frames:
                writer.add(frame, session.push(frame))
            writer.flush()

    A pool of threads encodes the images. One thread finishes the frames in the order of the stream. At most
    `MAX_PENDING` frames wait, so a slow disk slows down the stream. After an error no further frame is written.
    """

    def __init__(self, writer: ResultWriter):
        self.writer = writer
        self._pending: deque[Future[None]] = deque()
        self._error: BaseException | None = None
        self._encoders = ThreadPoolExecutor(NUM_ENCODERS, thread_name_prefix="encode")
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="finish")

    def add(self, frame: Frame, prediction: Prediction) -> None:
        """Queue the next frame of the stream.

        Raises:
            ValueError: As for `ResultWriter.add`, of an earlier frame.
            OSError: If an earlier frame could not be written.
        """
        self._wait(MAX_PENDING - 1)
        image = self._encoders.submit(self.writer.write_image, frame)
        self._pending.append(self._finisher.submit(self._finish, frame, prediction.start_download(), image))

    def flush(self) -> None:
        """Wait until all frames are written.

        Raises:
            ValueError: As for `add`.
            OSError: As for `add`.
        """
        self._wait(0)

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(self, *_) -> None:
        self._encoders.shutdown()
        self._finisher.shutdown()

    def _wait(self, max_pending: int) -> None:
        """Wait until at most `max_pending` frames are not written. Raise the error of an earlier frame."""
        while self._pending and (len(self._pending) > max_pending or self._pending[0].done()):
            self._pending[0].result()
            self._pending.popleft()
        if self._error is not None:
            raise self._error

    def _finish(self, frame: Frame, prediction: Callable[[], Prediction], image: Future[None]) -> None:
        if self._error is not None:
            return
        try:
            with self.writer.explained(frame):
                image.result()
                self.writer.finish(frame, prediction())
        except BaseException as error:
            self._error = error
