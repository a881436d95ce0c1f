"""Predict one stream frame by frame with a model, a memory and an eviction policy."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import wraps
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor

from streamvggt.choices import CameraCacheMode, KVCacheDtype, StepMode
from streamvggt.frame import Frame
from streamvggt.layers.attention import without_cudnn
from streamvggt.model.eviction import EvictionPolicy
from streamvggt.model.fingerprint import fingerprint
from streamvggt.model.memory import KVCacheMemory
from streamvggt.model.vggt import VGGT
from streamvggt.prediction import Prediction
from streamvggt.stream.policies.trajectory import published_policy
from streamvggt.stream.state_file import loaded_state, save_state
from streamvggt.stream.static_step import STEP_BUILDERS, StaticStep, validate_step_mode
from streamvggt.stream.timing import MAX_TIMINGS, Timer, timing_percentiles
from streamvggt.transfer import current, unit_range, uploaded

Result = TypeVar("Result")


@dataclass(frozen=True)
class StreamStatistics:
    """Frame counts, memory and speed of a stream.

    Attributes:
        num_frames: Number of pushed frames.
        num_kept_frames: Number of cached frames that the next frame attends to. For policies that keep tokens, the
            number of frames in the camera trunk.
        memory_bytes: Size of keys, values, track features and policy state in bytes, including preallocated slots.
        median_ms: Median time of the latest frames from input to result on the device, in milliseconds. None before
            the first frame.
        p95_ms: 95th percentile of the same times in milliseconds. None before the first frame.
    """

    num_frames: int
    num_kept_frames: int
    memory_bytes: int
    median_ms: float | None
    p95_ms: float | None


def one_at_a_time(method: Callable[..., Result]) -> Callable[..., Result]:
    """Reject a call while another call of the same session is running in any thread."""

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
    """Convert frames to predictions one by one, without recomputing earlier frames.

        session = StreamSession(model, policy=SlidingWindow(1, 8))
        for frame in load_frames("clip.mp4"):
            prediction = session.push(frame)

    The session does not store predictions. A failed push changes nothing, so the same frame can be pushed again. The
    session rejects concurrent calls from several threads. Use `SessionPool` for concurrent calls.

    Reference: StreamVGGT, arXiv 2507.11539.
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
        """Create an empty stream.

        Args:
            model: Causal model (`causal=True`).
            policy: Eviction policy. None selects the policy of the reference implementation: all frames, which grows
                with every frame, or `Trajectory` for a model with scale frames. The command line has a bounded default
                (`streamvggt.stream.policy.DEFAULT_POLICY`).
            camera_cache: "per_iteration" gives the poses of the full causal pass. "shared" gives the poses of the
                reference streaming code.
            heads: Names of the heads to run. None runs all heads of the model.
            track_window: Number of frames kept for tracking besides the query frame, at least 1.
            kv_cache_dtype: Number format of keys and values. "auto" stores the computed dtype. "int8" stores one byte
                per value, half the memory of bfloat16.
            step_mode: Execution of a frame once a memory of whole frames is full. "eager" runs the model. "cuda_graph"
                replays a CUDA graph with bit-exact results. "compile" uses torch.compile, equal up to floating-point
                rounding; the first compiled frame takes at least a minute. Only "eager" tracks points.

        Raises:
            ValueError: If the model is not causal, the policy requires a head that does not run, `track_window` is
                below 1, or `step_mode` does not support the policy, camera cache or device.
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
        """Clear the memory. The next frame starts a new stream."""
        self._forget()

    def _forget(self) -> None:
        self.memory: KVCacheMemory = self.model.new_memory(
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
        """Number of pushed frames."""
        return self.memory.num_frames

    @property
    def num_bytes(self) -> int:
        """Size of the memory in bytes, as in `StreamStatistics.memory_bytes`."""
        return self.memory.num_bytes

    @one_at_a_time
    def push(
        self, frame: Frame | Tensor, *, query_points: Tensor | None = None, patch_tokens: Tensor | None = None
    ) -> Prediction:
        """Predict the next frame and add it to the memory.

        Args:
            frame: A Frame, or RGB in [0, 1] of shape (3, H, W), or (B, 3, H, W) for B streams that advance together.
            query_points: Points (x, y) in pixels of this frame to track from this frame on. (K, 2) or (B, K, 2)
            patch_tokens: Output of the model's `aggregator.encode_patches` for this frame. None computes it.
                (B, 1, h·w, C)

        Returns:
            The prediction of this frame, S = 1, on the model's device. The world frame is the first camera.

        Raises:
            ValueError: If the frame does not fit the stream, for example because its size changed.
            RuntimeError: If another call of this session is running.
        """
        return self._compute(self._images([frame]), query_points, patch_tokens)

    @one_at_a_time
    def start(self, frames: Sequence[Frame | Tensor]) -> Prediction:
        """Predict the first frames of a stream in one joint step, as models with scale frames were trained.

        The memory afterwards equals that after single calls of `push`. The predictions differ: `push` predicts each of
        the first `scale_frames` frames from the frames up to it.

        Args:
            frames: As for `push`.

        Returns:
            The prediction of these frames, S = len(frames).

        Raises:
            ValueError: If the stream has already started, `frames` is empty, or the frames do not fit together.
        """
        if self.num_frames or not frames:
            raise ValueError(
                f"start: expected the first frames of a stream, got {len(frames)} after {self.num_frames}."
            )
        return self._compute(self._images(frames), None, None)

    def _images(self, frames: Sequence[Frame | Tensor]) -> Tensor:
        """Stack the images of frames on the model's device. (B, S, 3, H, W)"""
        images = [upload_image(frame, self._device) for frame in frames]
        for image in images:
            if image.ndim not in (3, 4):
                raise ValueError(f"a frame is (3, H, W), or (B, 3, H, W) of several streams, not {tuple(image.shape)}")
            if image.shape != images[0].shape:
                raise ValueError(
                    f"frames of one size were expected, got {tuple(images[0].shape)} and {tuple(image.shape)}"
                )
        together = [image.reshape(-1, 1, *image.shape[-3:]) for image in images]
        return torch.cat(together, 1) if len(together) > 1 else together[0]

    def _compute(self, images: Tensor, query_points: Tensor | None, patch_tokens: Tensor | None) -> Prediction:
        if query_points is not None:
            if self._static_step is not None:
                raise ValueError(f"step_mode={self._step_mode!r} cannot track points: choose step_mode='eager'")
            query_points = uploaded(query_points.reshape(-1, *query_points.shape[-2:]), self._device)
        with current(self._device), without_cudnn, self.memory.all_or_nothing():
            timer = Timer(self._device)
            if self._static_step is not None and patch_tokens is None and self._static_step.is_ready:
                prediction = self._static_step(images)
            else:
                with torch.no_grad():
                    prediction = self.model.step(
                        images,
                        self.memory,
                        heads=self.heads,
                        query_points=query_points,
                        patch_tokens=patch_tokens,
                    )
            timer.stop()
        self.times.append(timer)
        return prediction

    def statistics(self) -> StreamStatistics:
        """Return frame counts, memory and speed. Synchronizes with the device."""
        return StreamStatistics(
            self.num_frames, len(self.memory.kept_frames), self.num_bytes, *timing_percentiles(self.times)
        )

    @one_at_a_time
    def save(self, path: str | os.PathLike) -> None:
        """Write the state of the stream atomically. `restore` continues from it."""
        save_state(path, self._identity, self.memory.state_dict())

    @one_at_a_time
    def restore(self, path: str | os.PathLike) -> None:
        """Continue a stream that `save` wrote, in this process or another. A failed call changes nothing.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, is no saved stream, or was saved with other weights, another policy or
                another camera cache.
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
    """Return the image of a frame, or the tensor itself."""
    image = frame.image if isinstance(frame, Frame) else frame
    if not isinstance(image, Tensor):
        raise ValueError(f"a frame is a Frame or a tensor, as from load_frames, not {type(frame).__name__}")
    return image


def upload_image(frame: Frame | Tensor, device: torch.device) -> Tensor:
    """Copy the image of a frame, or the tensor itself, to a device without blocking the host.

    Images of 8 bits are copied as such, a quarter of the bytes, and converted on the device.
    """
    if device.type != "cpu" and isinstance(frame, Frame) and frame.pixels is not None:
        return unit_range(uploaded(frame.pixels, device))
    return uploaded(to_image_tensor(frame), device)
