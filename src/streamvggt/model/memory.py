"""Stream memory between calls of the model, and the base class of eviction policies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from streamvggt.layers.attention import RetainedTokens
from streamvggt.layers.cached_attention import CachedPattern
from streamvggt.layers.kv_cache import KVCache
from streamvggt.layers.kv_quantization import KVCacheDtype
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.tracking.stream import TrackMemory
from streamvggt.prediction import Prediction

CameraCacheMode = Literal["per_iteration", "shared"]
PolicyState = Tensor | list[Tensor] | list[int]


@dataclass(frozen=True)
class PolicyContext:
    """Input of policies that are not index-based, after each frame.

    Attributes:
        result: Prediction of the new frame, S = 1.
        layers: KV caches of the global layers, including the new frame.
        policy_state: State of the policy for this stream by name, saved and restored with the stream. Replace tensors,
            do not modify them in place.
    """

    result: Prediction
    layers: Sequence[KVCache]
    policy_state: dict[str, PolicyState]


class EvictionPolicy:
    """Eviction policy: selects the frames to keep. This base class keeps all frames.

    Subclasses in `streamvggt.stream.policies` override `select` or `prune`. Attention is independent of the policy: it
    attends to the cached tokens. For full sequences, `attended_frames` gives the equivalent attention mask, which is
    used in training and to test eviction against masking.
    """

    capacity: int | None = None
    """Maximum number of cached frames, including the new one. None: unbounded."""

    retained: int = 0
    """Number of latest evicted frames whose special tokens are kept: camera and register tokens in the global layers,
    the single token in the camera trunk."""

    is_index_based = True
    """True: `select` depends on frame indices only. False: `select` needs a context, so frames run one at a time."""

    required_heads: tuple[str, ...] = ()
    """Heads that must run, because the policy uses their predictions."""

    hooks: tuple[str, ...] = ()
    """Hooks to call during the forward pass: "mlp_output" for `on_mlp_output`, "queries" for `on_queries`."""

    is_token_level = False
    """True: `prune` evicts tokens of the global layers, and `select` applies to the camera caches only."""

    def select(self, frames: Sequence[int], context: PolicyContext | None) -> Sequence[int]:
        """Select the frames that the next frame attends to.

        Args:
            frames: Indices of the cached frames, oldest first. The last one is the new frame.
            context: Prediction, caches and policy state. None if the policy is index-based.

        Returns:
            Subset of `frames`, oldest first.
        """
        return frames

    def stores(self, frame: int) -> bool:
        """Return False for frames that `select` never keeps and whose special tokens are not retained."""
        return True

    def on_mlp_output(self, layer: int, residual: Tensor, policy_state: dict[str, PolicyState]) -> None:
        """Receive the MLP residual of the frame block before a global layer, for the new frame. (B, P, C)"""

    def on_queries(self, layer: int, q: Tensor, cache: KVCache, policy_state: dict[str, PolicyState]) -> None:
        """Receive the queries (B, N, P, D) of the new frame in a global layer, and the cache they attend to."""

    def prune(self, context: PolicyContext) -> None:
        """Evict tokens of the global layers with `KVCache.select_tokens`, after each frame if `is_token_level`."""

    def validate_heads(self, heads: Collection[str]) -> None:
        """Check that the heads of `required_heads` run.

        Raises:
            ValueError: If a required head is missing.
        """
        if missing := sorted(set(self.required_heads) - set(heads)):
            raise ValueError(
                f"{self} decides by what the {' and '.join(missing)} head says, which is not to run: "
                f"add it to the heads ({', '.join(heads)}), or choose another memory"
            )

    def attended_frames(self, num_frames: int) -> list[list[int | RetainedTokens]]:
        """Return the frames that each frame of a sequence attends to. Requires an index-based policy.

        Args:
            num_frames: Number of frames S of the sequence.

        Returns:
            Per frame: retained tokens, kept frames, and the frame itself as the last entry.
        """
        assert self.is_index_based, f"{type(self).__name__} is not index-based"
        kept: list[int] = []
        dropped: list[int] = []
        seen = []
        for frame in range(num_frames):
            remnants = (
                [RetainedTokens(old, Aggregator.num_special_tokens) for old in dropped[-self.retained :]]
                if self.retained
                else []
            )
            seen.append([*remnants, *kept, frame])
            frames = [*kept, frame]
            kept = list(self.select(frames, None))
            dropped += [old for old in frames if old not in kept and self.stores(old)]
        return seen


class StreamMemory:
    """Memory of one stream, or of a batch of streams with synchronized frames. Created by `VGGT.new_memory`.

    Attributes:
        num_frames: Number of frames so far.
        num_stored: Number of stored frames, including frames evicted later. This is the time of the next frame.
        kept_frames: Indices of the frames that the next frame attends to.
        opening: Patch tokens of the first frames until the joint first step is complete. (B, S, h·w, C)
        image_size: Height and width of the images in pixels. None before the first frame.
        batch_size: Number of streams. None before the first frame.
        policy_state: State of the policy by name.
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
            policy: Eviction policy. None: keep all frames.
            camera_cache: KV caches of the camera head. "per_iteration": one per iteration, so that streamed poses
                equal those of the full causal pass in training. "shared": one for all iterations, as in the reference
                implementation.
            track_window: Number of latest frames kept for tracking, in addition to the query frame.
            kv_cache_dtype: Number format of keys and values. "auto": as computed. "int8": one byte per value.
            scale_frames: Number of first frames in the joint first step.
            num_special_tokens: Special tokens per frame.

        Raises:
            ValueError: If `camera_cache` is unknown, or `scale_frames` does not support the policy or the cache mode.
        """
        if camera_cache not in ("per_iteration", "shared"):
            raise ValueError(f"camera_cache: expected 'per_iteration' or 'shared', got {camera_cache!r}")
        self.policy = policy or EvictionPolicy()
        if scale_frames:
            check_joint_step(self.policy, camera_cache, scale_frames)
        self.camera_cache = camera_cache
        self.kv_cache_dtype = kv_cache_dtype
        capacity = self.policy.capacity
        refinements = camera_iterations if camera_cache == "per_iteration" else 1
        slots_per_frame = 1 if camera_cache == "per_iteration" else camera_iterations
        camera_capacity = None if capacity is None else capacity * slots_per_frame
        remnants = self.policy.retained
        self.layers = [
            KVCache(
                capacity,
                num_retained_frames=remnants,
                tokens_per_retained=num_special_tokens,
                dtype=kv_cache_dtype,
                num_special_tokens=num_special_tokens,
                retains=self.policy.stores,
            )
            for _ in range(num_layers)
        ]
        self.camera = [
            [
                KVCache(
                    camera_capacity,
                    num_retained_frames=remnants * slots_per_frame,
                    dtype=kv_cache_dtype,
                    retains=self.policy.stores,
                )
                for _ in range(camera_blocks)
            ]
            for _ in range(refinements)
        ]
        self.tracks = TrackMemory(track_window)
        self.policy_state: dict[str, PolicyState] = {}
        self.scale_frames = scale_frames
        self.num_frames = 0
        self.num_stored = 0
        self.kept_frames: list[int] = []
        self.opening: Tensor | None = None
        self._frame_notes: list[dict[str, PolicyState]] = []
        self.image_size: tuple[int, int] | None = None
        self.batch_size: int | None = None
        self._snapshot: _Snapshot | None = None
        self._num_marks = 0

    @property
    def is_index_based(self) -> bool:
        """Whether several frames can run in one step, because the policy depends on frame indices only."""
        return self.policy.is_index_based

    @property
    def is_tracking(self) -> bool:
        """Whether the stream tracks points."""
        return self.tracks.queries is not None

    @property
    def is_empty(self) -> bool:
        """Whether the next frame is the first of the stream."""
        return self.num_frames == 0

    @property
    def is_opening(self) -> bool:
        """Whether the joint first step is incomplete."""
        return self.num_frames < self.scale_frames

    def reopen(self, patch_tokens: Tensor) -> Tensor:
        """Restart the joint first step with the previous and the next frames.

        The memory after the joint step is therefore independent of the number of frames per call.

        Args:
            patch_tokens: Patch tokens of the next frames, at most the missing frames of the joint step.
                (B, S, h·w, C)

        Returns:
            Patch tokens of all frames so far. (B, num_frames + S, h·w, C)
        """
        if self.opening is not None:
            patch_tokens = torch.cat([self.opening, patch_tokens], 1)
        self.opening = patch_tokens if patch_tokens.shape[1] < self.scale_frames else None
        self.num_frames, self.num_stored, self.kept_frames, self.policy_state = 0, 0, [], {}
        for cache in self._caches:
            cache.clear()
        return patch_tokens

    def validate_inputs(self, batch_size: int, image_size: tuple[int, int], heads: Collection[str]) -> None:
        """Check the next frames against the memory and the policy. Does not modify the memory.

        Raises:
            ValueError: If the batch size or image size differs from earlier frames, or a required head is missing.
        """
        self.policy.validate_heads(heads)
        if self.image_size is None:
            return
        if batch_size != self.batch_size:
            raise ValueError(
                f"this memory holds {self.batch_size} stream(s) but {batch_size} came: "
                "use one memory per batch of streams"
            )
        if image_size != self.image_size:
            raise ValueError(
                f"frame {self.num_frames} is {image_size[0]}×{image_size[1]} (height × width) but the stream began "
                f"with {self.image_size[0]}×{self.image_size[1]}: resize or pad it, or start a new stream"
            )

    def begin(self, batch_size: int, image_size: tuple[int, int]) -> None:
        """Start a call of the model. End the call with `commit`, or undo it with `rollback`."""
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
        self._snapshot = _Snapshot(
            self.num_frames,
            self.num_stored,
            list(self.kept_frames),
            self.opening,
            self.image_size,
            self.batch_size,
            {name: list(note) if isinstance(note, list) else note for name, note in self.policy_state.items()},
            replace(self.tracks, maps=list(self.tracks.maps)),
        )
        for cache in self._caches:
            cache.begin()

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
                seen = [*kept, frame]
                kept = list(self.policy.select(seen, None))
                dropped = set(seen) - set(kept)
        return plan

    def layer_patterns(self, num_new: int) -> list[CachedPattern]:
        """Return the attention patterns of the global layers for the next frames."""
        schedule = self.eviction_schedule(num_new)
        if self.policy.is_token_level:
            schedule = [(frame, set()) for frame, _ in schedule]
        watches = [
            partial(self.policy.on_queries, layer, policy_state=self.policy_state)
            if "queries" in self.policy.hooks
            else None
            for layer in range(len(self.layers))
        ]
        return [
            CachedPattern(cache, schedule, watch, self.is_opening)
            for cache, watch in zip(self.layers, watches, strict=True)
        ]

    def camera_patterns(self, num_new: int) -> list[list[CachedPattern]]:
        """Return the attention patterns of the camera trunk per iteration (one entry if "shared") and block."""
        schedule = self.eviction_schedule(num_new)
        return [[CachedPattern(cache, schedule, None, self.is_opening) for cache in blocks] for blocks in self.camera]

    def times(self, num_new: int) -> Tensor:
        """Return the number of earlier stored frames of each of the next frames. (1, num_new)"""
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
        """Return the attention patterns of the camera trunk with a "shared" cache, per frame and block."""
        return [
            [CachedPattern(cache, [arrival]) for cache in self.camera[0]] for arrival in self.eviction_schedule(num_new)
        ]

    def mlp_hook(self, num_new: int = 1) -> Callable[[int, Tensor], None] | None:
        """Return the hook for MLP residuals of frame blocks. None if the policy does not use it."""
        if "mlp_output" not in self.policy.hooks:
            return None
        if num_new == 1:
            return partial(self.policy.on_mlp_output, policy_state=self.policy_state)
        self._frame_notes = [{} for _ in range(num_new)]  # in a joint step, `update` copies the state frame by frame

        def watch(layer: int, residual: Tensor) -> None:
            for part, policy_state in zip(
                residual.unflatten(0, (-1, num_new)).unbind(1), self._frame_notes, strict=True
            ):
                self.policy.on_mlp_output(layer, part, policy_state)

        return watch

    def update(self, num_new: int, result: Prediction) -> None:
        """Count the new frames and evict the frames that the policy does not keep.

        Args:
            num_new: Number of new frames.
            result: Prediction of the new frames.
        """
        is_joint = self.is_opening
        for number, (frame, _) in enumerate(self.eviction_schedule(num_new)):
            if self._frame_notes:
                self.policy_state.update(self._frame_notes.pop(0))
            context = None
            if not self.policy.is_index_based:
                context = PolicyContext(
                    result if num_new == 1 else result.select_frame(number), self.layers, self.policy_state
                )
            seen = [*self.kept_frames, frame]
            kept = list(self.policy.select(seen, context))
            dropped = set(seen) - set(kept)
            self._evict(dropped)
            self.kept_frames = kept
            self.num_frames += 1
            self.num_stored += is_joint or self._is_stored(frame, dropped)
            if self.policy.is_token_level:
                self.policy.prune(context)

    def commit(self) -> None:
        """End a call that started with `mark` or `begin`, and drop the outermost snapshot."""
        self._num_marks -= 1
        if self._num_marks == 0:
            self._close()

    def rollback(self) -> None:
        """Restore the bit-exact state at the outermost mark, so that a partially failed call can be repeated."""
        before = self._snapshot
        assert before is not None, "mark or begin first"
        self.num_frames, self.kept_frames = before.num_frames, list(before.kept_frames)
        self.num_stored, self.opening, self._frame_notes = before.num_stored, before.opening, []
        self.image_size, self.batch_size = before.image_size, before.batch_size
        self.policy_state, self.tracks = (
            dict(before.policy_state),
            replace(before.tracks, maps=list(before.tracks.maps)),
        )
        for cache in self._caches:
            cache.rollback()
        self.commit()

    def _close(self) -> None:
        self._snapshot = None
        for cache in self._caches:
            cache.commit()

    def _evict(self, frames: set[int]) -> None:
        for cache in self._frame_caches():
            cache.evict(frames)

    def _frame_caches(self) -> list[KVCache]:
        return self._camera_caches if self.policy.is_token_level else [*self.layers, *self._camera_caches]

    @property
    def _camera_caches(self) -> list[KVCache]:
        return [cache for blocks in self.camera for cache in blocks]

    @property
    def _caches(self) -> list[KVCache]:
        return [*self.layers, *self._camera_caches]

    @property
    def num_tokens(self) -> list[int]:
        """Number of cached tokens per global layer."""
        return [len(cache) for cache in self.layers]

    @property
    def num_bytes(self) -> int:
        """Size in bytes of keys, values, track features and policy state, including free slots."""
        of_policy = sum(note.nbytes for note in flatten_state(self.policy_state) if isinstance(note, Tensor))
        return sum(cache.num_bytes for cache in self._caches) + self.tracks.num_bytes + of_policy

    def state_dict(self) -> dict[str, object]:
        """Return the content of the memory as tensors, numbers and lists. The policy is not included."""
        return {
            "num_frames": self.num_frames,
            "kept_frames": list(self.kept_frames),
            "image_size": list(self.image_size) if self.image_size else None,
            "batch_size": self.batch_size,
            "camera_cache": self.camera_cache,
            "kv_cache_dtype": self.kv_cache_dtype,
            "layers": [cache.state_dict() for cache in self.layers],
            "camera": [[cache.state_dict() for cache in blocks] for blocks in self.camera],
            "tracks": self.tracks.state_dict(),
            "num_stored": self.num_stored,
            "opening": self.opening,
            "policy_state": {
                name: list(note) if isinstance(note, list) else note for name, note in self.policy_state.items()
            },
        }

    def load_state_dict(self, state: dict[str, object], device: torch.device) -> None:
        """Restore the content of `state_dict()`.

        Raises:
            ValueError: If the camera cache mode or the KV cache dtype differs.
        """
        if state["camera_cache"] != self.camera_cache:
            raise ValueError(
                f"the saved stream has camera_cache {state['camera_cache']!r}, this one has {self.camera_cache!r}"
            )
        if state["kv_cache_dtype"] != self.kv_cache_dtype:
            raise ValueError(
                f"the saved stream has kv_cache_dtype {state['kv_cache_dtype']!r}, this one has {self.kv_cache_dtype!r}"
            )
        self.num_frames, self.kept_frames = state["num_frames"], list(state["kept_frames"])
        self.image_size = tuple(state["image_size"]) if state["image_size"] else None
        self.batch_size = state["batch_size"]
        self.num_stored = state["num_stored"]
        self.opening = None if state["opening"] is None else state["opening"].to(device)
        for cache, saved in zip(self.layers, state["layers"], strict=True):
            cache.load_state_dict(saved, device)
        for blocks, saved_blocks in zip(self.camera, state["camera"], strict=True):
            for cache, saved in zip(blocks, saved_blocks, strict=True):
                cache.load_state_dict(saved, device)
        self.tracks.load_state_dict(state["tracks"], device)
        self.policy_state = {
            name: [to_device(entry, device) for entry in note] if isinstance(note, list) else to_device(note, device)
            for name, note in state["policy_state"].items()
        }


class _Snapshot(NamedTuple):
    """State of a memory at a mark, without its caches. Tensors are not copied."""

    num_frames: int
    num_stored: int
    kept_frames: list[int]
    opening: Tensor | None
    image_size: tuple[int, int] | None
    batch_size: int | None
    policy_state: dict[str, PolicyState]
    tracks: TrackMemory


def check_joint_step(policy: EvictionPolicy, camera_cache: CameraCacheMode, scale_frames: int) -> None:
    """Check that a joint first step supports the policy and the camera cache mode.

    Raises:
        ValueError: If the camera cache is shared, or a token-level policy with the MLP hook has a capacity of at most
            `scale_frames`.
    """
    if camera_cache != "per_iteration":
        raise ValueError(
            f"camera_cache={camera_cache!r}: expected 'per_iteration' for a network with scale_frames={scale_frames}, "
            "whose camera head has one cache per iteration. Leave camera_cache out."
        )
    if policy.is_token_level and "mlp_output" in policy.hooks and policy.capacity <= scale_frames:
        raise ValueError(
            f"{policy}: expected room for more than the {scale_frames} frames of the joint first step, got room for "
            f"{policy.capacity}. Choose a larger budget."
        )


def flatten_state(policy_state: dict[str, PolicyState]) -> list[Tensor | int]:
    """Return all entries of the policy state as a flat list."""
    return [entry for note in policy_state.values() for entry in (note if isinstance(note, list) else [note])]


def to_device(entry: Tensor | int, device: torch.device) -> Tensor | int:
    """Move tensors to a device. Other values are unchanged."""
    return entry.to(device) if isinstance(entry, Tensor) else entry
