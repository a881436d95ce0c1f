"""Pending frames of a pool, and the choice of frames that run in one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.prediction import Prediction
from streamvggt.stream.session import StreamSession


@dataclass(frozen=True, eq=False)
class Request:
    """A pending frame.

    Attributes:
        session: Stream of the frame.
        images: RGB in [0, 1]. (1, 1, 3, H, W)
        pixels: `images` as uint8, see `Frame.pixels`. (3, H, W)
        query_points: Points (x, y) in pixels. (1, K, 2)
        future: Future of the prediction.
    """

    session: StreamSession
    images: Tensor
    pixels: Tensor | None
    query_points: Tensor | None
    future: Future

    @property
    def batch_key(self) -> object:
        """Key that all frames of a batch share."""
        session, images = self.session, self.images
        if self.query_points is not None or session.memory.is_tracking or session.memory.is_opening:
            return session
        heads = session.model.heads if session.heads is None else session.heads
        return images.shape, images.dtype, images.device, frozenset(heads) - {"track"}, session.memory.camera_cache


class PendingFrames:
    """Queue of pending frames per stream, with round-robin scheduling of the streams."""

    def __init__(self):
        self._queues: dict[StreamSession, deque[Request]] = {}  # in scheduling order, without empty queues

    def __bool__(self) -> bool:
        """Whether any frame is pending."""
        return bool(self._queues)

    def count(self, session: StreamSession) -> int:
        """Return the number of pending frames of a stream."""
        return len(self._queues.get(session, ()))

    def add(self, request: Request) -> None:
        """Append a frame to the queue of its stream."""
        self._queues.setdefault(request.session, deque()).append(request)

    def remove(self, session: StreamSession) -> list[Request]:
        """Remove and return all pending frames of a stream."""
        return list(self._queues.pop(session, ()))

    def next_batch(
        self, max_batch: int, validate: Callable[[Request], None]
    ) -> tuple[list[Request], list[tuple[Request, Exception]]]:
        """Take the next frame of up to `max_batch` streams with equal `Request.batch_key`.

        A stream whose frame is taken moves to the end of the scheduling order.

        Args:
            max_batch: Maximum number of frames.
            validate: Function that raises an error for frames to reject. The stream of a rejected frame keeps its turn.

        Returns:
            The batch, and the rejected frames with their errors.
        """
        batch: list[Request] = []
        refused: list[tuple[Request, Exception]] = []
        for session, queue in list(self._queues.items()):
            if len(batch) == max_batch:
                break
            while queue and (not batch or queue[0].batch_key == batch[0].batch_key):
                request = queue.popleft()
                if not request.future.set_running_or_notify_cancel():
                    continue
                try:
                    validate(request)
                except Exception as error:  # raised by the future
                    refused.append((request, error))
                    continue
                batch.append(request)
                self._queues[session] = self._queues.pop(session)  # move to the end
                break
            if not queue:
                del self._queues[session]
        return batch, refused


def clone_prediction(prediction: Prediction) -> Prediction | Exception:
    """Copy a prediction, so that a reference to it does not keep the memory of the whole batch."""
    try:
        return prediction.map(torch.clone)
    except torch.OutOfMemoryError as error:
        return error


def resolve_future(future: Future, outcome: Prediction | Exception) -> None:
    """Set the result or the error of a future."""
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
