"""What a stream remembers between calls of the model, and who decides what stays."""

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
from streamvggt.layers.kv_cache import CachedPattern, KVCache
from streamvggt.layers.kv_quantization import KVCacheDtype
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.tracking.stream import TrackMemory
from streamvggt.prediction import Prediction

CameraCacheMode = Literal["per_iteration", "shared"]
PolicyState = Tensor | list[Tensor] | list[int]


@dataclass(frozen=True)
class PolicyContext:
    """What a policy that does not go by numbers alone may look at after each frame.

    result: the frame's prediction, S = 1.
    layers: the global layers' caches, the frame's keys and values among what they hold.
    notes: what the policy wants to know of this stream later, by name; saved and restored with it. Tensors are replaced
        by new ones, never written into.
    """

    result: Prediction
    layers: Sequence[KVCache]
    policy_state: dict[str, PolicyState]


class EvictionPolicy:
    """Which of the past stays; this one keeps everything. Others (`streamvggt.stream.policy`) override a method.

    Attention knows no policy: it meets what the memory holds. The same policy over a whole sequence is a list of
    visible frames (`attended_frames`), so that dropping can be tested against masking, and trained with.
    """

    capacity: int | None = None
    """The most frames ever held, the new one included; None: no bound."""

    retained: int = 0
    """Frames dropped, the latest so many, whose special tokens stay: camera and registers, in the camera trunk the one
    token there is."""

    is_index_based = True
    """`select` goes by the frames' numbers alone. False: it needs evidence, so frames are taken one by one."""

    required_heads: tuple[str, ...] = ()
    """Heads of whose answers the evidence must have some."""

    hooks: tuple[str, ...] = ()
    """What is shown to it while a frame is computed: "mlp_output", "queries"."""

    is_token_level = False
    """True: `prune` shortens the global layers' caches token by token; `select` then rules the camera memory only."""

    def select(self, frames: Sequence[int], context: PolicyContext | None) -> Sequence[int]:
        """The frames that the next frame may see.

        Args:
            frames: numbers of the frames held, oldest first; the last one has just been computed.
            evidence: what is known of it and the past; None if the policy goes `is_index_based`.

        Returns:
            Some of `frames`, oldest first.
        """
        return frames

    def stores(self, frame: int) -> bool:
        """False for a frame that `select` never keeps and that leaves no remnant either."""
        return True

    def on_mlp_output(self, layer: int, residual: Tensor, policy_state: dict[str, PolicyState]) -> None:
        """See what the MLP before a global layer (its frame block's) adds to the new frame's tokens. (B, P, C)"""

    def on_queries(self, layer: int, q: Tensor, cache: KVCache, policy_state: dict[str, PolicyState]) -> None:
        """See a global layer's queries of the new frame, (B, N, P, D), and the cache that they are about to meet."""

    def prune(self, context: PolicyContext) -> None:
        """Shorten some of the global layers' caches by `select_tokens`; called after every frame if
        `is_token_level`."""

    def validate_heads(self, heads: Collection[str]) -> None:
        """Raises ValueError if a head that the policy looks at is not among those that run."""
        if missing := sorted(set(self.required_heads) - set(heads)):
            raise ValueError(
                f"{self} decides by what the {' and '.join(missing)} head says, which is not to run: "
                f"add it to the heads ({', '.join(heads)}), or choose another memory"
            )

    def attended_frames(self, num_frames: int) -> list[list[int | RetainedTokens]]:
        """For each of `num_frames` frames what it sees, its own frame last; for policies that go by number alone."""
        assert self.is_index_based, f"{type(self).__name__} decides by more than frame numbers"
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
    """The past of one stream, or of a batch of streams that advance together. Made by `VGGT.new_memory`.

    num_frames: frames seen so far.
    num_stored: Number of frames that were stored, later dropped ones too: the time of the next frame.
    held: numbers of the frames that the next frame will see.
    opening: Encoded patches of the first frames while the joint first step misses some. (B, S, h·w, C)
    image_size: H, W of the stream's images, from the first frame on.
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
        """
        Args:
            camera: "per_iteration": one cache per refinement of the camera head, so that streamed poses equal those of
                the full causal pass that training uses. "shared": one cache for all refinements, as in the published
                streaming code, whose numbers were made with it.
            track_window: later frames kept for tracking, besides the query frame.
            kv_cache_dtype: of keys and values, "auto": as computed; "int8": one byte per value.
            scale_frames: Number of first frames that are computed in one joint step.
            num_special: Special tokens of a frame.

        Raises:
            ValueError: If the network cannot have such a memory.
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
                leaves_remnant=self.policy.stores,
            )
            for _ in range(num_layers)
        ]
        self.camera = [
            [
                KVCache(
                    camera_capacity,
                    num_retained_frames=remnants * slots_per_frame,
                    dtype=kv_cache_dtype,
                    leaves_remnant=self.policy.stores,
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
        """Several frames can be computed in one step: which of them see which is known beforehand."""
        return self.policy.is_index_based

    @property
    def is_tracking(self) -> bool:
        """Points are followed."""
        return self.tracks.queries is not None

    @property
    def is_empty(self) -> bool:
        """The next frame is the first of its stream."""
        return self.num_frames == 0

    @property
    def is_opening(self) -> bool:
        """The joint first step misses frames."""
        return self.num_frames < self.scale_frames

    def reopen(self, patch_tokens: Tensor) -> Tensor:
        """Begin the joint first step again with the frames so far and the next ones.

        So the memory after the joint step does not depend on how many frames came per call.

        Args:
            patches: Of the next frames, no more than the joint step misses. (B, S, h·w, C)

        Returns:
            Of all frames of the joint step. (B, num_frames + S, h·w, C)
        """
        if self.opening is not None:
            patch_tokens = torch.cat([self.opening, patch_tokens], 1)
        self.opening = patch_tokens if patch_tokens.shape[1] < self.scale_frames else None
        self.num_frames, self.num_stored, self.kept_frames, self.policy_state = 0, 0, [], {}
        for cache in self._caches:
            cache.clear()
        return patch_tokens

    def validate_inputs(self, batch_size: int, image_size: tuple[int, int], heads: Collection[str]) -> None:
        """Check that what is to be computed fits to what was seen before and to the policy. Nothing changes.

        Raises:
            ValueError: another number of streams or another image size, or a head that the policy looks at is missing.
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
        """A call of the model begins; `rollback` goes back to here, `commit` ends it."""
        self.mark()
        self.batch_size, self.image_size = batch_size, image_size

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Within the block all calls of the model are one: if it raises, none of them has been made."""
        self.mark()
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def mark(self) -> None:
        """`rollback` goes back to here, until as many `commit` as there were `mark`; an inner one to the outermost
        mark."""
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
        """For each of the next frames its number and the frames to forget just before it comes."""
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
        """Attention patterns of the global layers for the next frames."""
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
        """Attention patterns of the camera trunk: per refinement (one for all if "shared") and block."""
        schedule = self.eviction_schedule(num_new)
        return [[CachedPattern(cache, schedule, None, self.is_opening) for cache in blocks] for blocks in self.camera]

    def times(self, num_new: int) -> Tensor:
        """Number of earlier stored frames of each of the next frames. (1, num_new)"""
        if self.is_opening:
            return torch.arange(num_new)[None]
        times = [self.num_stored]
        for (frame, _), (_, dropped) in pairwise(self.eviction_schedule(num_new)):
            times.append(times[-1] + self._is_stored(frame, dropped))
        return torch.tensor([times])

    def _is_stored(self, frame: int, dropped: Collection[int]) -> bool:
        """Whether anything of a new frame stays, given what is dropped right after it."""
        return frame not in dropped or (self.policy.retained > 0 and self.policy.stores(frame))

    def shared_camera_patterns(self, num_new: int) -> list[list[CachedPattern]]:
        """Attention patterns of the "shared" camera trunk, frame by frame: per frame and block."""
        return [
            [CachedPattern(cache, [arrival]) for cache in self.camera[0]] for arrival in self.eviction_schedule(num_new)
        ]

    def mlp_hook(self, num_new: int = 1) -> Callable[[int, Tensor], None] | None:
        """What the aggregator shows its frame blocks' residuals to, if the policy wants to see them."""
        if "mlp_output" not in self.policy.hooks:
            return None
        if num_new == 1:
            return partial(self.policy.on_mlp_output, policy_state=self.policy_state)
        self._frame_notes = [{} for _ in range(num_new)]  # of a joint step: taken over frame by frame

        def watch(layer: int, residual: Tensor) -> None:
            for part, policy_state in zip(
                residual.unflatten(0, (-1, num_new)).unbind(1), self._frame_notes, strict=True
            ):
                self.policy.on_mlp_output(layer, part, policy_state)

        return watch

    def update(self, num_new: int, result: Prediction) -> None:
        """Count the frames just computed and forget what the policy does not keep."""
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
        """What began with `mark` or `begin` has ended well."""
        self._num_marks -= 1
        if self._num_marks == 0:
            self._close()

    def rollback(self) -> None:
        """Be as at the outermost mark, to the bit, so that what failed half-way can be done again."""
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
        """Tokens held by each global layer."""
        return [len(cache) for cache in self.layers]

    @property
    def num_bytes(self) -> int:
        """Memory taken by keys, values, track features and the policy's notes, free slots included."""
        of_policy = sum(note.nbytes for note in flatten_state(self.policy_state) if isinstance(note, Tensor))
        return sum(cache.num_bytes for cache in self._caches) + self.tracks.num_bytes + of_policy

    def state_dict(self) -> dict[str, object]:
        """All that is remembered, as tensors, numbers and lists; the policy is not part of it."""
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
        """Become the memory that `state_dict()` was taken of."""
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
    """What a memory was at a mark, but for what its caches hold; tensors are not copied."""

    num_frames: int
    num_stored: int
    kept_frames: list[int]
    opening: Tensor | None
    image_size: tuple[int, int] | None
    batch_size: int | None
    policy_state: dict[str, PolicyState]
    tracks: TrackMemory


def check_joint_step(policy: EvictionPolicy, camera_cache: CameraCacheMode, scale_frames: int) -> None:
    """Raises ValueError where a stream that begins with a joint step cannot have such a memory."""
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
    """All entries of all notes."""
    return [entry for note in policy_state.values() for entry in (note if isinstance(note, list) else [note])]


def to_device(entry: Tensor | int, device: torch.device) -> Tensor | int:
    return entry.to(device) if isinstance(entry, Tensor) else entry
