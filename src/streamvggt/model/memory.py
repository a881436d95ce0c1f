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

from streamvggt.layers.attention import Remnant
from streamvggt.layers.kv_cache import KVCache, SeeMemory
from streamvggt.layers.storage import StorageName
from streamvggt.model.aggregator import Aggregator
from streamvggt.model.tracking.stream import TrackMemory
from streamvggt.prediction import Prediction

CameraMemory = Literal["exact", "released"]
Note = Tensor | list[Tensor] | list[int]


@dataclass(frozen=True)
class Evidence:
    """What a policy that does not go by numbers alone may look at after each frame.

    result: the frame's prediction, S = 1.
    layers: the global layers' caches, the frame's keys and values among what they hold.
    notes: what the policy wants to know of this stream later, by name; saved and restored with it. Tensors are replaced
        by new ones, never written into.
    """

    result: Prediction
    layers: Sequence[KVCache]
    notes: dict[str, Note]


class Policy:
    """Which of the past stays; this one keeps everything. Others (`streamvggt.stream.policy`) override a method.

    Attention knows no policy: it meets what the memory holds. The same policy over a whole sequence is a list of
    visible frames (`visible`), so that dropping can be tested against masking, and trained with.
    """

    capacity: int | None = None
    """The most frames ever held, the new one included; None: no bound."""

    remnants: int = 0
    """Frames dropped, the latest so many, whose special tokens stay: camera and registers, in the camera trunk the one
    token there is."""

    by_number = True
    """`keep` goes by the frames' numbers alone. False: it needs evidence, so frames are taken one by one."""

    looks_at: tuple[str, ...] = ()
    """Heads of whose answers the evidence must have some."""

    watches: tuple[str, ...] = ()
    """What is shown to it while a frame is computed: "residuals", "queries"."""

    prunes_tokens = False
    """True: `prune` shortens the global layers' caches token by token; `keep` then rules the camera memory only."""

    def keep(self, frames: Sequence[int], evidence: Evidence | None) -> Sequence[int]:
        """The frames that the next frame may see.

        Args:
            frames: numbers of the frames held, oldest first; the last one has just been computed.
            evidence: what is known of it and the past; None if the policy goes `by_number`.

        Returns:
            Some of `frames`, oldest first.
        """
        return frames

    def stores(self, frame: int) -> bool:
        """False for a frame that `keep` never keeps and that leaves no remnant either."""
        return True

    def watch_residual(self, layer: int, residual: Tensor, notes: dict[str, Note]) -> None:
        """See what the MLP before a global layer (its frame block's) adds to the new frame's tokens. (B, P, C)"""

    def watch_queries(self, layer: int, q: Tensor, cache: KVCache, notes: dict[str, Note]) -> None:
        """See a global layer's queries of the new frame, (B, N, P, D), and the cache that they are about to meet."""

    def prune(self, evidence: Evidence) -> None:
        """Shorten some of the global layers' caches by `keep_tokens`; called after every frame if `prunes_tokens`."""

    def check_heads(self, heads: Collection[str]) -> None:
        """Raises ValueError if a head that the policy looks at is not among those that run."""
        if missing := sorted(set(self.looks_at) - set(heads)):
            raise ValueError(
                f"{self} decides by what the {' and '.join(missing)} head says, which is not to run: "
                f"add it to the heads ({', '.join(heads)}), or choose another memory"
            )

    def visible(self, num_frames: int) -> list[list[int | Remnant]]:
        """For each of `num_frames` frames what it sees, its own frame last; for policies that go by number alone."""
        assert self.by_number, f"{type(self).__name__} decides by more than frame numbers"
        held: list[int] = []
        dropped: list[int] = []
        seen = []
        for frame in range(num_frames):
            remnants = (
                [Remnant(old, Aggregator.num_special) for old in dropped[-self.remnants :]] if self.remnants else []
            )
            seen.append([*remnants, *held, frame])
            frames = [*held, frame]
            held = list(self.keep(frames, None))
            dropped += [old for old in frames if old not in held and self.stores(old)]
        return seen


class Memory:
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
        policy: Policy | None = None,
        camera: CameraMemory = "exact",
        track_window: int = 8,
        storage: StorageName = "plain",
        scale_frames: int = 0,
        num_special: int = Aggregator.num_special,
    ):
        """
        Args:
            camera: "exact": one cache per refinement of the camera head, so that streamed poses equal those of the
                full causal pass that training uses. "released": one cache for all refinements, as in the published
                streaming code, whose numbers were made with it.
            track_window: later frames kept for tracking, besides the query frame.
            storage: of keys and values: "plain", as they come; "int8": in a byte each.
            scale_frames: Number of first frames that are computed in one joint step.
            num_special: Special tokens of a frame.

        Raises:
            ValueError: If the network cannot have such a memory.
        """
        if camera not in ("exact", "released"):
            raise ValueError(f"camera memory {camera!r} is unknown; choose 'exact' or 'released'")
        self.policy = policy or Policy()
        if scale_frames:
            check_joint_step(self.policy, camera, scale_frames)
        self.camera_mode = camera
        self.storage = storage
        capacity = self.policy.capacity
        refinements = camera_iterations if camera == "exact" else 1
        slots_per_frame = 1 if camera == "exact" else camera_iterations
        camera_capacity = None if capacity is None else capacity * slots_per_frame
        remnants = self.policy.remnants
        self.layers = [
            KVCache(
                capacity,
                remnants=remnants,
                remnant_tokens=num_special,
                storage=storage,
                num_special=num_special,
                leaves_remnant=self.policy.stores,
            )
            for _ in range(num_layers)
        ]
        self.camera = [
            [
                KVCache(
                    camera_capacity,
                    remnants=remnants * slots_per_frame,
                    storage=storage,
                    leaves_remnant=self.policy.stores,
                )
                for _ in range(camera_blocks)
            ]
            for _ in range(refinements)
        ]
        self.tracks = TrackMemory(track_window)
        self.notes: dict[str, Note] = {}
        self.scale_frames = scale_frames
        self.num_frames = 0
        self.num_stored = 0
        self.held: list[int] = []
        self.opening: Tensor | None = None
        self._frame_notes: list[dict[str, Note]] = []
        self.image_size: tuple[int, int] | None = None
        self.batch_size: int | None = None
        self._before: _Before | None = None
        self._num_marks = 0

    @property
    def by_number(self) -> bool:
        """Several frames can be computed in one step: which of them see which is known beforehand."""
        return self.policy.by_number

    @property
    def is_tracking(self) -> bool:
        """Points are followed."""
        return self.tracks.queries is not None

    @property
    def is_start(self) -> bool:
        """The next frame is the first of its stream."""
        return self.num_frames == 0

    @property
    def is_opening(self) -> bool:
        """The joint first step misses frames."""
        return self.num_frames < self.scale_frames

    def reopen(self, patches: Tensor) -> Tensor:
        """Begin the joint first step again with the frames so far and the next ones.

        So the memory after the joint step does not depend on how many frames came per call.

        Args:
            patches: Of the next frames, no more than the joint step misses. (B, S, h·w, C)

        Returns:
            Of all frames of the joint step. (B, num_frames + S, h·w, C)
        """
        if self.opening is not None:
            patches = torch.cat([self.opening, patches], 1)
        self.opening = patches if patches.shape[1] < self.scale_frames else None
        self.num_frames, self.num_stored, self.held, self.notes = 0, 0, [], {}
        for cache in self._caches:
            cache.clear()
        return patches

    def admit(self, batch_size: int, image_size: tuple[int, int], heads: Collection[str]) -> None:
        """Check that what is to be computed fits to what was seen before and to the policy. Nothing changes.

        Raises:
            ValueError: another number of streams or another image size, or a head that the policy looks at is missing.
        """
        self.policy.check_heads(heads)
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
        """A call of the model begins; `retract` goes back to here, `end` ends it."""
        self.mark()
        self.batch_size, self.image_size = batch_size, image_size

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Within the block all calls of the model are one: if it raises, none of them has been made."""
        self.mark()
        try:
            yield
        except BaseException:
            self.retract()
            raise
        self.end()

    def mark(self) -> None:
        """`retract` goes back to here, until as many `end` as there were `mark`; an inner one to the outermost mark."""
        self._num_marks += 1
        if self._num_marks > 1:
            return
        self._before = _Before(
            self.num_frames,
            self.num_stored,
            list(self.held),
            self.opening,
            self.image_size,
            self.batch_size,
            {name: list(note) if isinstance(note, list) else note for name, note in self.notes.items()},
            replace(self.tracks, maps=list(self.tracks.maps)),
        )
        for cache in self._caches:
            cache.begin()

    def arrivals(self, num_new: int) -> list[tuple[int, set[int]]]:
        """For each of the next frames its number and the frames to forget just before it comes."""
        if self.is_opening:
            return [(frame, set()) for frame in range(self.num_frames, self.num_frames + num_new)]
        assert num_new == 1 or self.policy.by_number
        plan: list[tuple[int, set[int]]] = []
        held: list[int] = self.held
        dropped: set[int] = set()
        for frame in range(self.num_frames, self.num_frames + num_new):
            plan.append((frame, dropped))
            if len(plan) < num_new:
                seen = [*held, frame]
                held = list(self.policy.keep(seen, None))
                dropped = set(seen) - set(held)
        return plan

    def layer_patterns(self, num_new: int) -> list[SeeMemory]:
        """Attention patterns of the global layers for the next frames."""
        arrivals = self.arrivals(num_new)
        if self.policy.prunes_tokens:
            arrivals = [(frame, set()) for frame, _ in arrivals]
        watches = [
            partial(self.policy.watch_queries, layer, notes=self.notes) if "queries" in self.policy.watches else None
            for layer in range(len(self.layers))
        ]
        return [
            SeeMemory(cache, arrivals, watch, self.is_opening)
            for cache, watch in zip(self.layers, watches, strict=True)
        ]

    def camera_patterns(self, num_new: int) -> list[list[SeeMemory]]:
        """Attention patterns of the camera trunk: per refinement (one for all if "released") and block."""
        arrivals = self.arrivals(num_new)
        return [[SeeMemory(cache, arrivals, None, self.is_opening) for cache in blocks] for blocks in self.camera]

    def times(self, num_new: int) -> Tensor:
        """Number of earlier stored frames of each of the next frames. (1, num_new)"""
        if self.is_opening:
            return torch.arange(num_new)[None]
        times = [self.num_stored]
        for (frame, _), (_, dropped) in pairwise(self.arrivals(num_new)):
            times.append(times[-1] + self._is_stored(frame, dropped))
        return torch.tensor([times])

    def _is_stored(self, frame: int, dropped: Collection[int]) -> bool:
        """Whether anything of a new frame stays, given what is dropped right after it."""
        return frame not in dropped or (self.policy.remnants > 0 and self.policy.stores(frame))

    def released_patterns(self, num_new: int) -> list[list[SeeMemory]]:
        """Attention patterns of the "released" camera trunk, frame by frame: per frame and block."""
        return [[SeeMemory(cache, [arrival]) for cache in self.camera[0]] for arrival in self.arrivals(num_new)]

    def residual_watch(self, num_new: int = 1) -> Callable[[int, Tensor], None] | None:
        """What the aggregator shows its frame blocks' residuals to, if the policy wants to see them."""
        if "residuals" not in self.policy.watches:
            return None
        if num_new == 1:
            return partial(self.policy.watch_residual, notes=self.notes)
        self._frame_notes = [{} for _ in range(num_new)]  # of a joint step: taken over frame by frame

        def watch(layer: int, residual: Tensor) -> None:
            for part, notes in zip(residual.unflatten(0, (-1, num_new)).unbind(1), self._frame_notes, strict=True):
                self.policy.watch_residual(layer, part, notes)

        return watch

    def advance(self, num_new: int, result: Prediction) -> None:
        """Count the frames just computed and forget what the policy does not keep."""
        is_joint = self.is_opening
        for number, (frame, _) in enumerate(self.arrivals(num_new)):
            if self._frame_notes:
                self.notes.update(self._frame_notes.pop(0))
            evidence = None
            if not self.policy.by_number:
                evidence = Evidence(result if num_new == 1 else result.frame(number), self.layers, self.notes)
            seen = [*self.held, frame]
            held = list(self.policy.keep(seen, evidence))
            dropped = set(seen) - set(held)
            self._drop(dropped)
            self.held = held
            self.num_frames += 1
            self.num_stored += is_joint or self._is_stored(frame, dropped)
            if self.policy.prunes_tokens:
                self.policy.prune(evidence)

    def end(self) -> None:
        """What began with `mark` or `begin` has ended well."""
        self._num_marks -= 1
        if self._num_marks == 0:
            self._close()

    def retract(self) -> None:
        """Be as at the outermost mark, to the bit, so that what failed half-way can be done again."""
        before = self._before
        assert before is not None, "mark or begin first"
        self.num_frames, self.held = before.num_frames, list(before.held)
        self.num_stored, self.opening, self._frame_notes = before.num_stored, before.opening, []
        self.image_size, self.batch_size = before.image_size, before.batch_size
        self.notes, self.tracks = dict(before.notes), replace(before.tracks, maps=list(before.tracks.maps))
        for cache in self._caches:
            cache.retract()
        self.end()

    def _close(self) -> None:
        self._before = None
        for cache in self._caches:
            cache.end()

    def _drop(self, frames: set[int]) -> None:
        for cache in self._frame_caches():
            cache.drop(frames)

    def _frame_caches(self) -> list[KVCache]:
        return self._camera_caches if self.policy.prunes_tokens else [*self.layers, *self._camera_caches]

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
        of_policy = sum(note.nbytes for note in flat(self.notes) if isinstance(note, Tensor))
        return sum(cache.num_bytes for cache in self._caches) + self.tracks.num_bytes + of_policy

    def state(self) -> dict[str, object]:
        """All that is remembered, as tensors, numbers and lists; the policy is not part of it."""
        return {
            "num_frames": self.num_frames,
            "held": list(self.held),
            "image_size": list(self.image_size) if self.image_size else None,
            "batch_size": self.batch_size,
            "camera_mode": self.camera_mode,
            "storage": self.storage,
            "layers": [cache.state() for cache in self.layers],
            "camera": [[cache.state() for cache in blocks] for blocks in self.camera],
            "tracks": self.tracks.state(),
            "num_stored": self.num_stored,
            "opening": self.opening,
            "notes": {name: list(note) if isinstance(note, list) else note for name, note in self.notes.items()},
        }

    def restore(self, state: dict[str, object], device: torch.device) -> None:
        """Become the memory that `state()` was taken of."""
        if state["camera_mode"] != self.camera_mode:
            raise ValueError(
                f"the saved stream has camera memory {state['camera_mode']!r}, this one has {self.camera_mode!r}"
            )
        if state["storage"] != self.storage:
            raise ValueError(f"the saved stream has storage {state['storage']!r}, this one has {self.storage!r}")
        self.num_frames, self.held = state["num_frames"], list(state["held"])
        self.image_size = tuple(state["image_size"]) if state["image_size"] else None
        self.batch_size = state["batch_size"]
        self.num_stored = state["num_stored"]
        self.opening = None if state["opening"] is None else state["opening"].to(device)
        for cache, saved in zip(self.layers, state["layers"], strict=True):
            cache.restore(saved, device)
        for blocks, saved_blocks in zip(self.camera, state["camera"], strict=True):
            for cache, saved in zip(blocks, saved_blocks, strict=True):
                cache.restore(saved, device)
        self.tracks.restore(state["tracks"], device)
        self.notes = {
            name: [on_device(entry, device) for entry in note] if isinstance(note, list) else on_device(note, device)
            for name, note in state["notes"].items()
        }


class _Before(NamedTuple):
    """What a memory was at a mark, but for what its caches hold; tensors are not copied."""

    num_frames: int
    num_stored: int
    held: list[int]
    opening: Tensor | None
    image_size: tuple[int, int] | None
    batch_size: int | None
    notes: dict[str, Note]
    tracks: TrackMemory


def check_joint_step(policy: Policy, camera: CameraMemory, scale_frames: int) -> None:
    """Raises ValueError where a stream that begins with a joint step cannot have such a memory."""
    if camera != "exact":
        raise ValueError(
            f"camera={camera!r}: expected 'exact' for a network with scale_frames={scale_frames}, whose camera head "
            "has one cache per iteration. Leave camera out."
        )
    if policy.prunes_tokens and "residuals" in policy.watches and policy.capacity <= scale_frames:
        raise ValueError(
            f"{policy}: expected room for more than the {scale_frames} frames of the joint first step, got room for "
            f"{policy.capacity}. Choose a larger budget."
        )


def flat(notes: dict[str, Note]) -> list[Tensor | int]:
    """All entries of all notes."""
    return [entry for note in notes.values() for entry in (note if isinstance(note, list) else [note])]


def on_device(entry: Tensor | int, device: torch.device) -> Tensor | int:
    return entry.to(device) if isinstance(entry, Tensor) else entry
