"""Memory of one stream: KV caches, tracks and policy state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from streamvggt.choices import CameraCacheMode, KVCacheDtype
from streamvggt.layers.cached_attention import CachedPattern
from streamvggt.layers.kv_cache import KVCache
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.eviction import EvictionPolicy, PolicyContext, PolicyState, check_joint_step, state_num_bytes
from streamvggt.model.memory_caches import MemoryCaches
from streamvggt.model.stream_memory import StreamMemory
from streamvggt.model.stream_state import StreamState
from streamvggt.model.tracking.stream import TrackMemory
from streamvggt.prediction import Prediction


class KVCacheMemory(StreamState, StreamMemory):
    """Memory of one stream, or of a batch of streams with synchronized frames. Created by `VGGT.new_memory`.

    Attributes:
        caches: KV caches of all layers that attend across frames.
        policy: Eviction policy.
        scale_frames: Number of first frames in the joint first step.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        camera_blocks: int,
        camera_iterations: int,
        policy: EvictionPolicy | None = None,
        camera_cache: CameraCacheMode = "per_iteration",
        track_window: int = 8,
        kv_cache_dtype: KVCacheDtype = "auto",
        scale_frames: int = 0,
        num_special_tokens: int = Aggregator.num_special_tokens,
    ):
        """Create an empty memory.

        Args:
            num_layers: Number of global layers.
            camera_blocks: Number of blocks in the camera trunk. 0: no camera head.
            camera_iterations: Iterations of the camera head.
            policy, camera_cache, track_window, kv_cache_dtype: As in `VGGT.new_memory`.
            scale_frames: Number of first frames in the joint first step.
            num_special_tokens: Special tokens per frame.

        Raises:
            ValueError: If `camera_cache` is unknown, `track_window` is below 1, or `scale_frames` does not support the
                policy or the cache mode.
        """
        if track_window < 1:
            raise ValueError(f"track_window: expected 1 or more frames, got {track_window}.")
        super().__init__(TrackMemory(track_window))
        if camera_cache not in ("per_iteration", "shared"):
            raise ValueError(f"camera_cache: expected 'per_iteration' or 'shared', got {camera_cache!r}")
        self.policy = policy or EvictionPolicy()
        if scale_frames:
            check_joint_step(self.policy, camera_cache, scale_frames)
        self.camera_cache = camera_cache
        self.kv_cache_dtype = kv_cache_dtype
        self.caches = MemoryCaches(
            self.policy,
            num_layers=num_layers,
            camera_blocks=camera_blocks,
            camera_iterations=camera_iterations,
            camera_cache=camera_cache,
            dtype=kv_cache_dtype,
            num_special_tokens=num_special_tokens,
        )
        self.scale_frames = scale_frames
        self._frame_states: list[dict[str, PolicyState]] = []
        self._snapshot: StreamState | None = None
        self._num_marks = 0

    @property
    def is_index_based(self) -> bool:
        return self.policy.is_index_based

    @property
    def layers(self) -> list[KVCache]:
        """KV caches of the global layers."""
        return self.caches.layers

    @property
    def camera(self) -> list[list[KVCache]]:
        """KV caches of the camera trunk per iteration (one entry if "shared") and block."""
        return self.caches.camera

    @property
    def is_tracking(self) -> bool:
        return self.tracks.queries is not None

    @property
    def is_empty(self) -> bool:
        return self.num_frames == 0

    @property
    def is_opening(self) -> bool:
        return self.num_missing > 0

    @property
    def num_missing(self) -> int:
        return max(self.scale_frames - self.num_frames, 0)

    def reopen(self, patch_tokens: Tensor) -> Tensor:
        if self.opening is not None:
            patch_tokens = torch.cat([self.opening, patch_tokens], 1)
        self.opening = patch_tokens if patch_tokens.shape[1] < self.scale_frames else None
        self.num_frames, self.num_stored, self.kept_frames, self.policy_state = 0, 0, [], {}
        self.caches.clear()
        return patch_tokens

    def validate_inputs(self, batch_size: int, image_size: tuple[int, int], heads: Collection[str]) -> None:
        self.policy.validate_heads(heads)
        if self.image_size is None:
            return
        if batch_size != self.batch_size:
            raise ValueError(
                f"images: expected {self.batch_size} streams, as in the memory, got {batch_size}. "
                "Use one memory per batch of streams."
            )
        if image_size != self.image_size:
            raise ValueError(
                f"frame {self.num_frames} is {image_size[0]}×{image_size[1]} (height × width) but the stream began "
                f"with {self.image_size[0]}×{self.image_size[1]}: resize or pad it, or start a new stream"
            )

    def begin(self, batch_size: int, image_size: tuple[int, int]) -> None:
        self.mark()
        self.batch_size, self.image_size = batch_size, image_size

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Make all calls of the model within the block atomic: if the block raises, the memory is restored."""
        self.mark()
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def mark(self) -> None:
        """Take a snapshot for `rollback`. Marks can be nested: only the outermost mark takes a snapshot."""
        self._num_marks += 1
        if self._num_marks > 1:
            return
        self._snapshot = self.snapshot()
        self.caches.begin()

    def eviction_schedule(self, num_new: int) -> list[tuple[int, set[int]]]:
        """Return the index of each of the next frames, and the frames to evict before it is appended."""
        if self.is_opening:
            return [(frame, set()) for frame in range(self.num_frames, self.num_frames + num_new)]
        assert num_new == 1 or self.policy.is_index_based
        plan: list[tuple[int, set[int]]] = []
        kept: list[int] = self.kept_frames
        dropped: set[int] = set()
        for frame in range(self.num_frames, self.num_frames + num_new):
            plan.append((frame, dropped))
            if len(plan) < num_new:
                frames = [*kept, frame]
                kept = list(self.policy.select(frames, None))
                dropped = set(frames) - set(kept)
        return plan

    def layer_patterns(self, num_new: int) -> list[CachedPattern]:
        schedule = self.eviction_schedule(num_new)
        if self.policy.is_token_level:
            schedule = [(frame, set()) for frame, _ in schedule]
        hooks = [
            partial(self.policy.on_queries, layer, policy_state=self.policy_state)
            if "queries" in self.policy.hooks
            else None
            for layer in range(len(self.layers))
        ]
        return [
            CachedPattern(cache, schedule, hook, self.is_opening)
            for cache, hook in zip(self.layers, hooks, strict=True)
        ]

    def camera_patterns(self, num_new: int) -> list[list[CachedPattern]]:
        schedule = self.eviction_schedule(num_new)
        return [[CachedPattern(cache, schedule, None, self.is_opening) for cache in blocks] for blocks in self.camera]

    def times(self, num_new: int) -> Tensor:
        if self.is_opening:
            return torch.arange(num_new)[None]
        times = [self.num_stored]
        for (frame, _), (_, dropped) in pairwise(self.eviction_schedule(num_new)):
            times.append(times[-1] + self._is_stored(frame, dropped))
        return torch.tensor([times])

    def _is_stored(self, frame: int, dropped: Collection[int]) -> bool:
        """Return whether tokens of a new frame are kept, given the frames evicted directly after it."""
        return frame not in dropped or (self.policy.retained > 0 and self.policy.stores(frame))

    def shared_camera_patterns(self, num_new: int) -> list[list[CachedPattern]]:
        return [
            [CachedPattern(cache, [arrival]) for cache in self.camera[0]] for arrival in self.eviction_schedule(num_new)
        ]

    def mlp_hook(self, num_new: int = 1) -> Callable[[int, Tensor], None] | None:
        if "mlp_output" not in self.policy.hooks:
            return None
        if num_new == 1:
            return partial(self.policy.on_mlp_output, policy_state=self.policy_state)
        self._frame_states = [{} for _ in range(num_new)]  # in a joint step, `update` copies the state frame by frame

        def hook(layer: int, residual: Tensor) -> None:
            for part, policy_state in zip(
                residual.unflatten(0, (-1, num_new)).unbind(1), self._frame_states, strict=True
            ):
                self.policy.on_mlp_output(layer, part, policy_state)

        return hook

    def update(self, num_new: int, result: Prediction) -> None:
        is_joint = self.is_opening
        for number, (frame, _) in enumerate(self.eviction_schedule(num_new)):
            if self._frame_states:
                self.policy_state.update(self._frame_states.pop(0))
            context = None
            if not self.policy.is_index_based:
                context = PolicyContext(
                    result if num_new == 1 else result.select_frame(number), self.layers, self.policy_state
                )
            frames = [*self.kept_frames, frame]
            kept = list(self.policy.select(frames, context))
            dropped = set(frames) - set(kept)
            self.caches.evict(dropped)
            self.kept_frames = kept
            self.num_frames += 1
            self.num_stored += is_joint or self._is_stored(frame, dropped)
            if self.policy.is_token_level:
                self.policy.prune(context)

    def commit(self) -> None:
        """End a call that started with `mark` or `begin`, and drop the outermost snapshot."""
        self._num_marks -= 1
        if self._num_marks == 0:
            self._snapshot = None
            self.caches.commit()

    def rollback(self) -> None:
        """Restore the bit-exact state at the outermost mark."""
        assert self._snapshot is not None, "mark or begin first"
        self.restore(self._snapshot)
        self._frame_states = []
        self.caches.rollback()
        self.commit()

    @property
    def num_tokens(self) -> list[int]:
        """Number of cached tokens per global layer."""
        return [len(cache) for cache in self.layers]

    @property
    def num_bytes(self) -> int:
        """Size in bytes of keys, values, track features and policy state, including free slots."""
        return self.caches.num_bytes + self.tracks.num_bytes + state_num_bytes(self.policy_state)

    def state_dict(self) -> dict[str, object]:
        """Return the content of the memory as tensors, numbers and lists. The policy is not included."""
        settings = {"camera_cache": self.camera_cache, "kv_cache_dtype": self.kv_cache_dtype}
        return {**settings, **super().state_dict(), **self.caches.state_dict()}

    def load_state_dict(self, state: dict[str, object], device: torch.device) -> None:
        """Restore the content of `state_dict()`.

        Raises:
            ValueError: If the camera cache mode or the KV cache dtype differs.
        """
        for name in ("camera_cache", "kv_cache_dtype"):
            if state[name] != getattr(self, name):
                raise ValueError(f"the saved stream has {name} {state[name]!r}, this one has {getattr(self, name)!r}")
        super().load_state_dict(state, device)
        self.caches.load_state_dict(state, device)
