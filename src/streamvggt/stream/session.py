"""One stream from its first frame to its last: a model, a memory, a policy."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import wraps
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from streamvggt.frame import Frame
from streamvggt.layers.attention import without_cudnn
from streamvggt.layers.kv_quantization import KVCacheDtype
from streamvggt.model.memory import CameraCacheMode, EvictionPolicy, StreamMemory
from streamvggt.model.vggt import VGGT
from streamvggt.model.weights import fingerprint
from streamvggt.prediction import Prediction
from streamvggt.stream.policies.trajectory import published_policy
from streamvggt.stream.state_file import loaded_state, save_state
from streamvggt.stream.static_step import STEP_BUILDERS, StaticStep, StepMode, validate_step_mode
from streamvggt.transfer import current, uploaded

MAX_TIMINGS = 1000  # of the latest frames, for the statistics
Result = TypeVar("Result")


@dataclass(frozen=True)
class StreamStatistics:
    """How a stream is doing.

    num_frames, num_kept_frames: frames pushed, and those the next frame will see; where a policy keeps tokens, those
        that the camera trunk will see.
    memory_bytes: keys, values, track features and the policy's notes, preallocated slots included.
    median_ms, p95_ms: of the latest frames, input to result on the device; None before the first.
    """

    num_frames: int
    num_kept_frames: int
    memory_bytes: int
    median_ms: float | None
    p95_ms: float | None


def one_at_a_time(method: Callable[..., Result]) -> Callable[..., Result]:
    """Refuse a call while another one of the same session is at work, in whatever thread."""

    @wraps(method)
    def guarded(self, *args, **kwargs):
        if not self._in_use.acquire(blocking=False):
            raise RuntimeError(
                f"{type(self).__name__}.{method.__name__}: expected one call at a time, got one while another is at "
                "work. Call it from one thread, or give each thread a stream of a SessionPool."
            )
        try:
            return method(self, *args, **kwargs)
        finally:
            self._in_use.release()

    return guarded


class StreamSession:
    """Turns frames into predictions one by one, without looking at the past again.

        session = StreamSession(model, policy=SlidingWindow(1, 8))
        for frame in load_frames("clip.mp4"):
            prediction = session.push(frame)

    It holds no results: a prediction that the caller drops is gone. A push that fails changes nothing, so the frame can
    be pushed again. One call at a time: a second one from another thread is refused (`SessionPool` takes them).
    """

    def __init__(
        self,
        model: VGGT,
        *,
        policy: EvictionPolicy | None = None,
        camera_cache: CameraCacheMode = "per_iteration",
        heads: Collection[str] | None = None,
        track_window: int = 8,
        kv_cache_dtype: KVCacheDtype = "auto",
        step_mode: StepMode = "eager",
    ):
        """
        Args:
            model: with causal=True.
            policy: which frames stay; None: those of the published stream of the network: all, so that it grows with
                every frame, or LingBot-Map's own memory for a network with scale frames. Command lines have a bounded
                default (`streamvggt.stream.policy.DEFAULT_POLICY`).
            camera: "per_iteration" poses equal the full causal pass; "shared" ones equal the published streaming code.
            heads: those to run; None: all the model has.
            track_window: frames kept for tracking, besides the query frame.
            kv_cache_dtype: of keys and values, "auto": as computed; "int8": one byte per value, half of bfloat16's
                memory.
            step_mode: how a frame is computed once a memory of whole frames is full. "eager": as before; "cuda_graph":
                by replaying a CUDA graph, to the same bit; "compile": by torch.compile, to rounding; the first such
                frame takes a minute and more. Points are followed by "eager" alone.

        Raises:
            ValueError: the model cannot stream, the policy looks at a head that is not to run, or the step does not
                serve such a memory or device.
        """
        self.model = model
        self.policy = policy or published_policy(model)
        self.policy.validate_heads(model.heads if heads is None else heads)
        self.heads = heads
        self._camera_cache: CameraCacheMode = camera_cache
        self._track_window = track_window
        self._kv_cache_dtype: KVCacheDtype = kv_cache_dtype
        self._step_mode: StepMode = step_mode
        self._device = next(model.parameters()).device
        self._in_use = Lock()
        validate_step_mode(step_mode, self.policy, camera_cache, self._device)
        self._forget()

    @one_at_a_time
    def reset(self) -> None:
        """Forget everything; the next frame is the first of a new stream."""
        self._forget()

    def _forget(self) -> None:
        self.memory: StreamMemory = self.model.new_memory(
            self.policy,
            camera_cache=self._camera_cache,
            track_window=self._track_window,
            kv_cache_dtype=self._kv_cache_dtype,
        )
        self._static_step = None
        if self._step_mode != "eager":
            heads = [head for head in self.model.heads if head != "track"] if self.heads is None else self.heads
            self._static_step = StaticStep(self.model, self.memory, heads, STEP_BUILDERS[self._step_mode])
        self.times: deque[Timer] = deque(maxlen=MAX_TIMINGS)

    @property
    def num_frames(self) -> int:
        """Frames pushed."""
        return self.memory.num_frames

    @property
    def num_bytes(self) -> int:
        """Memory taken, as in the statistics."""
        return self.memory.num_bytes

    @one_at_a_time
    def push(
        self, frame: Frame | Tensor, *, query_points: Tensor | None = None, patch_tokens: Tensor | None = None
    ) -> Prediction:
        """What the network says of the next frame.

        Args:
            frame: a Frame; or RGB in [0, 1], (3, H, W), or of several streams that advance together, (B, 3, H, W).
            query_points: (x, y) in pixels of this frame, to be followed from here on. (K, 2) or (B, K, 2)
            patch_tokens: what the model's `aggregator.encode_patches` says of this frame, if it is known already. (B,
                1, h·w, C)

        Returns:
            The prediction of this frame, S = 1, on the model's device.

        Raises:
            ValueError: the frame does not fit the stream, for instance its size has changed.
            RuntimeError: another call of this session is at work.
        """
        return self._compute(self._images([frame]), query_points, patch_tokens)

    @one_at_a_time
    def start(self, frames: Sequence[Frame | Tensor]) -> Prediction:
        """Compute the first frames of a stream in one call, as a network with scale frames was trained.

        The memory after them is the same as by single calls of `push`. But `push` predicts each of the first
        `scale_frames` frames from those that have come until then.

        Args:
            frames: As of `push`.

        Returns:
            The prediction of these frames, S = len(frames).

        Raises:
            ValueError: If the stream has begun, there is no frame, or they do not fit together.
        """
        if self.num_frames or not frames:
            raise ValueError(
                f"start: expected the first frames of a stream, got {len(frames)} after {self.num_frames}."
            )
        return self._compute(self._images(frames), None, None)

    def _images(self, frames: Sequence[Frame | Tensor]) -> Tensor:
        """On the device. (B, S, 3, H, W)"""
        images = [to_image_tensor(frame) for frame in frames]
        for image in images:
            if image.ndim not in (3, 4):
                raise ValueError(f"a frame is (3, H, W), or (B, 3, H, W) of several streams, not {tuple(image.shape)}")
            if image.shape != images[0].shape:
                raise ValueError(
                    f"frames of one size were expected, got {tuple(images[0].shape)} and {tuple(image.shape)}"
                )
        together = [image.reshape(-1, 1, *image.shape[-3:]) for image in images]
        joined = torch.cat(together, 1) if len(together) > 1 else together[0]
        return uploaded(joined, self._device)

    def _compute(self, images: Tensor, query_points: Tensor | None, patch_tokens: Tensor | None) -> Prediction:
        if query_points is not None:
            if self._static_step is not None:
                raise ValueError(f"step_mode={self._step_mode!r} cannot follow points: choose step_mode='eager'")
            query_points = uploaded(query_points.reshape(-1, *query_points.shape[-2:]), self._device)
        with current(self._device), without_cudnn, self.memory.all_or_nothing():
            timer = Timer(self._device)
            if self._static_step is not None and patch_tokens is None and self._static_step.is_ready:
                prediction = self._static_step(images)
            else:
                with torch.no_grad():
                    prediction = self.model(
                        images,
                        heads=self.heads,
                        query_points=query_points,
                        memory=self.memory,
                        patch_tokens=patch_tokens,
                    )
            timer.stop()
        self.times.append(timer)
        return prediction

    def statistics(self) -> StreamStatistics:
        """Frames, memory and speed so far. Waits for the device."""
        return StreamStatistics(
            self.num_frames, len(self.memory.kept_frames), self.num_bytes, *timing_percentiles(self.times)
        )

    @one_at_a_time
    def save(self, path: str | os.PathLike) -> None:
        """Write the stream's state, whole or not at all, so that `restore` can go on after an interruption."""
        save_state(path, self._identity, self.memory.state_dict())

    @one_at_a_time
    def restore(self, path: str | os.PathLike) -> None:
        """Go on where `save` was called, in this process or another. If that fails, nothing changes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, no saved stream, or one of other weights, another policy or camera memory.
        """
        before = dict(vars(self))
        self._forget()
        try:
            with loaded_state(path, self._identity, self.memory.state_dict()) as state:
                self.memory.load_state_dict(state, self._device)
        except BaseException:
            vars(self).update(before)
            raise

    @property
    def _identity(self) -> dict[str, str]:
        return {"weights": fingerprint(self.model), "policy": repr(self.policy)}


def to_image_tensor(frame: Frame | Tensor) -> Tensor:
    """The image that a frame is, or holds."""
    image = frame.image if isinstance(frame, Frame) else frame
    if not isinstance(image, Tensor):
        raise ValueError(f"a frame is a Frame or a tensor, as from load_frames, not {type(frame).__name__}")
    return image


def timing_percentiles(times: Collection[Timer]) -> tuple[float | None, float | None]:
    """Of the latest steps, in milliseconds; None before the first. Waits for the device."""
    milliseconds = [timer.milliseconds() for timer in times]
    return tuple(np.percentile(milliseconds, [50, 95]).tolist()) if milliseconds else (None, None)


class Timer:
    """Milliseconds of one step; on CUDA by events, so that nothing waits until somebody asks."""

    def __init__(self, device: torch.device):
        self._device = device
        self._start = self._mark()

    def stop(self) -> None:
        self._end = self._mark()

    def milliseconds(self) -> float:
        if self._device.type != "cuda":
            return (self._end - self._start) * 1000
        self._end.synchronize()
        return self._start.elapsed_time(self._end)

    def _mark(self):
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
