"""Run many streams on one model and batch their pending frames."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import Future
from itertools import zip_longest
from threading import Condition, Lock, Thread

import torch
from torch import Tensor

from streamvggt.choices import CameraCacheMode, KVCacheDtype
from streamvggt.frame import Frame
from streamvggt.layers.attention import without_cudnn
from streamvggt.model.batched_memory import BatchedMemory
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.inputs import validate_step
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction
from streamvggt.stream.pending_frames import PendingFrames, Request, clone_prediction, resolve_future
from streamvggt.stream.session import StreamSession, StreamStatistics, to_image_tensor
from streamvggt.stream.timing import Timer
from streamvggt.transfer import current, unit_range, uploaded


class PoolFull(RuntimeError):
    """Raised when a limit of the pool is reached. The message names the limit and the fix."""


class SessionPool:
    """Run the streams of several cameras or users on one model, with as many pending frames per step as possible.

        with SessionPool(model, max_batch=8) as pool:  # a thread computes
            door, yard = pool.open(policy=SlidingWindow(1, 8)), pool.open(policy=Keyframes())
            futures = [door.push(frame), yard.push(other)]  # from any thread; returns at once
            prediction = futures[0].result()

    Without `with`, only `step()` computes frames, in the caller's thread.

    Each stream has a separate policy, memory and heads. Its results equal those of a single session up to
    floating-point rounding. A step takes one frame of the stream with the longest waiting time, and frames of other
    streams with equal size, dtype, heads and camera cache. A stream runs alone if it tracks points or has an
    incomplete joint first step.

    Scheduling is round-robin: a computed stream moves to the end of the queue. The next frame of a stream waits for
    at most as many steps as there are streams, independent of the number of frames in other streams.

    The future of a frame raises the errors of that frame. If a whole step fails, for example because the device is
    out of memory, each frame of the step is retried alone.
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
        """Create a pool without streams.

        Args:
            model: Causal model (`causal=True`).
            max_batch: Maximum number of frames per step.
            max_streams: Maximum number of open streams.
            max_pending: Maximum number of pending frames per stream. A camera that is faster than the model must skip
                frames.
            max_stream_bytes: Maximum memory of a stream in bytes. A stream at the limit accepts no further frames. None
                disables the limit.
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
        self._pending = PendingFrames()
        self._is_closed = False
        self._thread: Thread | None = None
        self._queues = Condition()  # guards all of the above; locked only for short operations
        self._memories = Lock()  # guards the streams' memories; locked during a step

    def open(
        self,
        *,
        policy: EvictionPolicy | None = None,
        camera_cache: CameraCacheMode = "per_iteration",
        heads: Collection[str] | None = None,
        track_window: int = 8,
        kv_cache_dtype: KVCacheDtype = "auto",
    ) -> PooledStream:
        """Open a new stream. Call its `close` at the end. The arguments are those of `StreamSession`.

        Raises:
            PoolFull: If `max_streams` streams are open.
            ValueError: As for `StreamSession`.
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
                    f"all {self.max_streams} streams of this pool are in use: close one, or make a pool with a larger "
                    "max_streams"
                )
            self._streams.add(stream)
        return stream

    def step(self) -> int:
        """Compute the next frame of up to `max_batch` streams.

        Returns:
            Number of finished or rejected frames. 0 if no frame is pending.
        """
        batch: list[Request] = []
        refused: list[tuple[Request, Exception]] = []
        outcomes: list[Prediction | Exception] = []
        try:
            with self._memories:
                batch, refused = self._next_batch()
                outcomes = self._run_batch(batch)
        finally:
            # No lock is held here, because callbacks of a future may push, save or close. Ctrl-C resolves all futures.
            interrupted = RuntimeError("the pool was interrupted while it computed this frame")
            for turn, outcome in [*refused, *zip_longest(batch, outcomes, fillvalue=interrupted)]:
                resolve_future(turn.future, outcome)
        return len(batch) + len(refused)

    def close(self) -> None:
        """Close all streams and cancel pending frames."""
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
                self._queues.wait_for(lambda: self._pending or self._is_closed)
                if self._is_closed:
                    return
            self.step()

    def _next_batch(self) -> tuple[list[Request], list[tuple[Request, Exception]]]:
        with self._queues:
            return self._pending.next_batch(self.max_batch, self._validate)

    def _validate(self, turn: Request) -> None:
        session = turn.session
        validate_step(self.model, turn.images, session.memory, session.heads, turn.query_points)
        if self.max_stream_bytes is not None and session.memory.num_bytes >= self.max_stream_bytes:
            raise PoolFull(
                f"this stream's memory takes {session.memory.num_bytes / 1e6:.1f} MB and may take "
                f"{self.max_stream_bytes / 1e6:.1f} MB: choose a bounded policy such as SlidingWindow(1, 8) instead of "
                f"{session.policy}, or make a pool with a larger max_stream_bytes"
            )

    def _run_batch(self, batch: list[Request]) -> list[Prediction | Exception]:
        if len(batch) < 2:
            return [self._run_single(turn) for turn in batch]
        sessions = [turn.session for turn in batch]
        memories = BatchedMemory([session.memory for session in sessions])
        timer = Timer(self._device)
        try:
            images = upload_images(batch, self._device)
            with current(self._device), without_cudnn, torch.no_grad():
                together = self.model.step(images, memories, heads=sessions[0].heads)
        except Exception:  # no stream has advanced, and the cause is unknown
            together = None
        if together is None:
            return [self._run_single(turn) for turn in batch]
        timer.stop()
        for session in sessions:
            session.times.append(timer)
        return [
            failure or clone_prediction(together.select_stream(number))
            for number, failure in enumerate(memories.failures)
        ]

    def _run_single(self, turn: Request) -> Prediction | Exception:
        try:
            image = upload_images([turn], self._device)[0]
            return turn.session.push(image, query_points=turn.query_points)
        except Exception as error:
            return error


class PooledStream:
    """One stream of a pool, created by `SessionPool.open`. Safe to use from any thread."""

    def __init__(self, pool: SessionPool, session: StreamSession):
        self.pool = pool
        self.session = session

    def push(self, frame: Frame | Tensor, *, query_points: Tensor | None = None) -> Future[Prediction]:
        """Append the next frame to the queue of the stream.

        Args:
            frame: A Frame, or RGB in [0, 1] of shape (3, H, W).
            query_points: Points (x, y) in pixels of this frame to track from this frame on. (K, 2)

        Returns:
            A future of the prediction, S = 1, on the model's device. Canceling the future before the frame is computed
            removes the frame from the stream.

        Raises:
            PoolFull: If `max_pending` frames of this stream are pending.
            ValueError: If `frame` is not an image. The future raises the error if the frame does not fit the stream.
        """
        image = to_image_tensor(frame)
        if image.ndim != 3:
            raise ValueError(f"a frame of a pooled stream is (3, H, W), not {tuple(image.shape)}")
        pixels = frame.pixels if isinstance(frame, Frame) else None
        points = None if query_points is None else query_points[None]
        turn = Request(self.session, image[None, None], pixels, points, Future())
        pool = self.pool
        with pool._queues:
            if self not in pool._streams:
                raise RuntimeError("this stream is closed")
            if pool._pending.count(self.session) == pool.max_pending:
                raise PoolFull(
                    f"{pool.max_pending} frames of this stream are pending: wait for results, skip frames, or "
                    "make a pool with a larger max_pending"
                )
            pool._pending.add(turn)
            pool._queues.notify_all()
        return turn.future

    def statistics(self) -> StreamStatistics:
        """Return the statistics as `StreamSession.statistics`. Times are those of the batch without waiting time."""
        with self.pool._memories:
            return self.session.statistics()

    def save(self, path: str | os.PathLike) -> None:
        """Write the state as `StreamSession.save`, in the same format. Pending frames are not saved."""
        with self.pool._memories:
            self.session.save(path)

    def restore(self, path: str | os.PathLike) -> None:
        """Continue a saved stream as `StreamSession.restore`. Pending frames follow the restored frames."""
        with self.pool._memories:
            self.session.restore(path)

    def close(self) -> None:
        """Free the memory of the stream and cancel its pending frames."""
        with self.pool._queues:
            self.pool._streams.discard(self)
            cancelled = self.pool._pending.remove(self.session)
        for turn in cancelled:
            turn.future.cancel()
        with self.pool._memories:
            self.session.reset()


def upload_images(batch: list[Request], device: torch.device) -> Tensor:
    """Copy the images of a batch in one transfer, see `stream.session.upload_image`. (B, 1, 3, H, W)"""
    pixels = [turn.pixels for turn in batch if turn.pixels is not None]
    if device.type != "cpu" and len(pixels) == len(batch):
        return unit_range(uploaded(torch.stack(pixels)[:, None], device))
    images = [turn.images for turn in batch]
    return uploaded(torch.cat(images) if len(images) > 1 else images[0], device)
