"""Many streams on one model: the frames that are waiting are computed together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import zip_longest
from threading import Condition, Lock, Thread

import torch
from torch import Tensor

from streamvggt.frame import Frame
from streamvggt.layers.attention import without_cudnn
from streamvggt.layers.kv_quantization import KVCacheDtype
from streamvggt.model.batched_memory import BatchedMemory
from streamvggt.model.memory import CameraCacheMode, EvictionPolicy
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction
from streamvggt.stream.session import StreamSession, StreamStatistics, Timer, to_image_tensor
from streamvggt.transfer import current, uploaded


class PoolFull(RuntimeError):
    """A limit of the pool is reached; the message says which, and what helps."""


class SessionPool:
    """Serves several cameras or users with one model, as many frames at a time as are waiting.

        with SessionPool(model, max_batch=8) as pool:  # a thread computes
            door, yard = pool.open(policy=SlidingWindow(1, 8)), pool.open(policy=Keyframes())
            futures = [door.push(frame), yard.push(other)]  # from any thread; returns at once
            prediction = futures[0].result()

    Without `with` nothing is computed but by `step()`, in the caller's thread.

    Every stream has its own policy, memory and heads, and gets what a session alone would give, to rounding. A step
    takes one frame of the stream that has waited longest, and of the others those that can be computed with it: of the
    same size and dtype, with the same heads and kind of camera memory. A stream that tracks points goes
    alone, and so does one that misses frames of its joint first step.

    Fair: whoever got its turn goes to the back, so a frame that is its stream's next one waits no more steps than there
    are streams, however many frames others push.

    What goes wrong with a frame is raised by its own future. If a whole step fails (no memory left on the device, say)
    each of its frames is tried again alone.
    """

    def __init__(
        self,
        model: VGGT,
        *,
        max_batch: int = 8,
        max_streams: int = 64,
        max_pending: int = 16,
        max_stream_bytes: int | None = None,
    ):
        """
        Args:
            model: with causal=True.
            max_batch: frames in one step at most.
            max_streams: streams open at a time at most.
            max_pending: frames of one stream that may wait; a camera faster than the network has to leave some out.
            max_stream_bytes: a stream whose memory takes this much or more gets no further frame; None: no bound.
        """
        for name, value in (("max_batch", max_batch), ("max_streams", max_streams), ("max_pending", max_pending)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        self.model = model
        self.max_batch = max_batch
        self.max_streams = max_streams
        self.max_pending = max_pending
        self.max_stream_bytes = max_stream_bytes
        self._device = next(model.parameters()).device
        self._streams: set[PooledStream] = set()
        self._turns: dict[PooledStream, None] = {}  # streams with frames waiting, in the order of their turns
        self._is_closed = False
        self._thread: Thread | None = None
        self._queues = Condition()  # guards all of the above; held for moments only
        self._memories = Lock()  # guards the streams' memories; held while a step is computed

    def open(
        self,
        *,
        policy: EvictionPolicy | None = None,
        camera_cache: CameraCacheMode = "per_iteration",
        heads: Collection[str] | None = None,
        track_window: int = 8,
        kv_cache_dtype: KVCacheDtype = "auto",
    ) -> PooledStream:
        """A new stream, to be closed when it is over. Arguments as for `StreamSession`.

        Raises:
            PoolFull: there are as many streams as there may be.
            ValueError: as of `StreamSession`.
        """
        session = StreamSession(
            self.model,
            policy=policy,
            camera_cache=camera_cache,
            heads=heads,
            track_window=track_window,
            kv_cache_dtype=kv_cache_dtype,
        )
        stream = PooledStream(self, session)
        with self._queues:
            if self._is_closed:
                raise RuntimeError("this pool is closed")
            if len(self._streams) == self.max_streams:
                raise PoolFull(
                    f"all {self.max_streams} streams of this pool are taken: close one, or make a pool with a larger "
                    "max_streams"
                )
            self._streams.add(stream)
        return stream

    def step(self) -> int:
        """Compute the next frame of up to `max_batch` streams. Answers how many frames that settled; 0: none waits."""
        batch: list[_Request] = []
        refused: list[tuple[_Request, Exception]] = []
        outcomes: list[Prediction | Exception] = []
        try:
            with self._memories:
                batch, refused = self._next_batch()
                outcomes = self._run_batch(batch)
        finally:
            # No lock is held: what waits for a future may push, save or close. And Ctrl-C leaves nobody waiting.
            interrupted = RuntimeError("the pool was interrupted while it computed this frame")
            for turn, outcome in [*refused, *zip_longest(batch, outcomes, fillvalue=interrupted)]:
                resolve_future(turn.future, outcome)
        return len(batch) + len(refused)

    def close(self) -> None:
        """Close all streams; frames that wait are cancelled."""
        with self._queues:
            self._is_closed = True
            self._queues.notify_all()
        if self._thread is not None:
            self._thread.join()
        for stream in list(self._streams):
            stream.close()

    def __enter__(self) -> SessionPool:
        self._thread = Thread(target=self._run_loop, name="SessionPool", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _run_loop(self) -> None:
        while True:
            with self._queues:
                self._queues.wait_for(lambda: self._turns or self._is_closed)
                if self._is_closed:
                    return
            self.step()

    def _next_batch(self) -> tuple[list[_Request], list[tuple[_Request, Exception]]]:
        """A frame of each of some streams, beginning with the one whose turn it is, and those that are refused."""
        batch: list[_Request] = []
        refused: list[tuple[_Request, Exception]] = []
        kind = None
        with self._queues:
            for stream in list(self._turns):
                if len(batch) == self.max_batch:
                    break
                while stream.waiting and (kind is None or stream.next_batch_key() == kind):
                    of_this, turn = stream.next_batch_key(), stream.waiting.popleft()
                    if not turn.future.set_running_or_notify_cancel():
                        continue
                    try:
                        self._validate(turn)
                    except Exception as error:  # its caller's matter; the stream's next frame gets the turn
                        refused.append((turn, error))
                    else:
                        kind = of_this
                        batch.append(turn)
                        del self._turns[stream]
                        self._turns[stream] = None  # to the back
                        break
                if not stream.waiting:
                    del self._turns[stream]
        return batch, refused

    def _validate(self, turn: _Request) -> None:
        session = turn.stream.session
        self.model.validate_inputs(turn.images, session.heads, turn.query_points, session.memory)
        if self.max_stream_bytes is not None and session.memory.num_bytes >= self.max_stream_bytes:
            raise PoolFull(
                f"this stream's memory takes {session.memory.num_bytes / 1e6:.1f} MB and may take "
                f"{self.max_stream_bytes / 1e6:.1f} MB: choose a bounded policy such as SlidingWindow(1, 8) instead of "
                f"{session.policy}, or make a pool with a larger max_stream_bytes"
            )

    def _run_batch(self, batch: list[_Request]) -> list[Prediction | Exception]:
        if len(batch) < 2:
            return [self._run_single(turn) for turn in batch]
        sessions = [turn.stream.session for turn in batch]
        memories = BatchedMemory([session.memory for session in sessions])
        timer = Timer(self._device)
        try:
            images = uploaded(torch.cat([turn.images for turn in batch]), self._device)
            with current(self._device), without_cudnn, torch.no_grad():
                together = self.model(images, heads=sessions[0].heads, memory=memories)
        except Exception:  # no stream has advanced, and which of them is to blame is not known
            together = None
        if together is None:
            return [self._run_single(turn) for turn in batch]
        timer.stop()
        for session in sessions:
            session.times.append(timer)
        return [
            failure or clone_prediction(together.stream(number)) for number, failure in enumerate(memories.failures)
        ]

    def _run_single(self, turn: _Request) -> Prediction | Exception:
        try:
            return turn.stream.session.push(turn.images[0], query_points=turn.query_points)
        except Exception as error:
            return error


class PooledStream:
    """One stream of a pool, made by `SessionPool.open`. May be used from any thread."""

    def __init__(self, pool: SessionPool, session: StreamSession):
        self.pool = pool
        self.session = session
        self.waiting: deque[_Request] = deque()

    def push(self, frame: Frame | Tensor, *, query_points: Tensor | None = None) -> Future[Prediction]:
        """Put the next frame into the queue.

        Args:
            frame: a Frame; or RGB in [0, 1]. (3, H, W)
            query_points: (x, y) in pixels of this frame, to be followed from here on. (K, 2)

        Returns:
            The prediction to come, S = 1, on the model's device. One that is cancelled before its turn leaves its frame
            out of the stream.

        Raises:
            PoolFull: as many frames of this stream wait as may wait.
            ValueError: it is no image. Whether it fits the stream says the future.
        """
        image = to_image_tensor(frame)
        if image.ndim != 3:
            raise ValueError(f"a frame of a pooled stream is (3, H, W), not {tuple(image.shape)}")
        turn = _Request(self, image[None, None], None if query_points is None else query_points[None], Future())
        pool = self.pool
        with pool._queues:
            if self not in pool._streams:
                raise RuntimeError("this stream is closed")
            if len(self.waiting) == pool.max_pending:
                raise PoolFull(
                    f"{pool.max_pending} frames of this stream wait already: wait for results, leave frames out, or "
                    "make a pool with a larger max_pending"
                )
            self.waiting.append(turn)
            pool._turns.setdefault(self)
            pool._queues.notify_all()
        return turn.future

    def statistics(self) -> StreamStatistics:
        """As `StreamSession.statistics`; a frame's time is that of its whole batch, without its waiting."""
        with self.pool._memories:
            return self.session.statistics()

    def save(self, path: str | os.PathLike) -> None:
        """As `StreamSession.save`, whose files these are; frames that wait are not in it."""
        with self.pool._memories:
            self.session.save(path)

    def restore(self, path: str | os.PathLike) -> None:
        """As `StreamSession.restore`; frames that wait come after it."""
        with self.pool._memories:
            self.session.restore(path)

    def close(self) -> None:
        """Give the memory and the place back; frames that wait are cancelled."""
        with self.pool._queues:
            self.pool._streams.discard(self)
            self.pool._turns.pop(self, None)
            cancelled = list(self.waiting)
            self.waiting.clear()
        for turn in cancelled:
            turn.future.cancel()
        with self.pool._memories:
            self.session.reset()

    def next_batch_key(self) -> object:
        """What the first frame that waits must share with others to be computed with them."""
        turn, session = self.waiting[0], self.session
        if turn.query_points is not None or session.memory.is_tracking or session.memory.is_opening:
            return self
        heads = self.pool.model.heads if session.heads is None else session.heads
        images = turn.images
        return images.shape, images.dtype, images.device, frozenset(heads) - {"track"}, session.memory.camera_cache


@dataclass(frozen=True, eq=False)
class _Request:
    """A frame that waits. images: (1, 1, 3, H, W); query_points: (1, K, 2)"""

    stream: PooledStream
    images: Tensor
    query_points: Tensor | None
    future: Future


def clone_prediction(prediction: Prediction) -> Prediction | Exception:
    """A copy, so that who keeps one stream's prediction does not keep the whole batch's."""
    try:
        return prediction.map(torch.clone)
    except torch.OutOfMemoryError as error:
        return error


def resolve_future(future: Future, outcome: Prediction | Exception) -> None:
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
