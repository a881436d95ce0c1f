"""KV cache of one attention layer: normalized and rotated keys, and values, per frame."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from streamvggt.layers.attention import Kernel
from streamvggt.layers.kv_quantization import KVCacheDtype, get_quantizer

INITIAL_SLOTS = 8  # for unknown capacity
MAX_INITIAL_SLOTS = 64  # larger capacities are reached by doubling
MOST_REMNANTS_AT_ONCE = 256  # initial room for retained frames, also doubled on demand
UNBOUNDED = sys.maxsize
"""`num_retained_frames` of a cache that retains special tokens of all evicted frames."""


class KVCache:
    """KV cache with preallocated slots, one slot per frame.

    Attention is permutation-invariant over keys, and positions do not depend on the frame. A new frame therefore
    overwrites the slot of an evicted frame, and tokens are never shifted or concatenated:

        slot          0    1    2    3    4        P tokens each
        frames        0    5    6    7   free
        evict([5])     0    –    6    7   free      no data moves
        append(8)     0    8    6    7   free      written in place
        evict([0, 6])  –    8    –    7   free
        append(9)     9    8    –    7   free
        contents()    9    8    7   free free      the last used slot fills the gap

    A frame can use several slots: call `append` several times. The number of slots doubles on demand, up to `capacity`.

    The first tokens of an evicted frame can be retained. Retained tokens are stored before the slots, newest first, so
    that all cached tokens are contiguous. If there is no room, the oldest retained tokens are overwritten:

                room for 3 retained frames │ slots
        evict([1])               –   –   1 │ 0  –  2  3
        evict([2])               –   2   1 │ 0  –  –  3
        evict([3])               3   2   1 │ 0  –  –  –
        evict([4])               3   2   4 │ …

    The room for retained tokens doubles on demand, up to `num_retained_frames`.

    `select_tokens` evicts single tokens. After that, new frames are appended at the end only.

    The `quantizer` determines the number format. The cache is not differentiable.

    B streams · N heads · T cached tokens · D head width.
    """

    def __init__(
        self,
        capacity: int | None = None,
        *,
        num_retained_frames: int = 0,
        tokens_per_retained: int = 1,
        dtype: KVCacheDtype = "auto",
        num_special_tokens: int = 5,
        leaves_remnant: Callable[[int], bool] | None = None,
    ):
        """Create an empty cache.

        Args:
            capacity: Maximum number of slots. None: unbounded.
            num_retained_frames: Number of latest evicted slots whose first tokens are retained.
            tokens_per_retained: Number of retained tokens per evicted slot.
            dtype: Number format: "auto" (as computed) or "int8".
            num_special_tokens: Tokens of a frame before its patches, for policies that treat them differently.
            leaves_remnant: Function that returns False for frames without retained tokens. None: True for all frames.
        """
        self.capacity = capacity
        self.quantizer = get_quantizer(dtype)
        self.tokens_per_retained = tokens_per_retained
        self.num_evicted = 0  # evicted slots with retained tokens, including overwritten ones
        self.num_special_tokens = num_special_tokens
        self._leaves_remnant = leaves_remnant or (lambda frame: True)
        self._most_front = num_retained_frames * tokens_per_retained  # maximum number of retained tokens
        self._retained_size = (
            min(num_retained_frames, MOST_REMNANTS_AT_ONCE) * tokens_per_retained
        )  # offset of the first slot
        self.frames: list[int | None] = []  # frame in each used slot; None: free
        self.tokens_per_frame = 0  # P, set by the first frame
        self.is_pruned = False
        self._free: set[int] = set()  # slots of evicted frames
        self._length = 0  # tokens in use, counted from the first slot
        self._keys: list[Tensor] = []  # planes of the quantizer, (B, N, front + room, any) each
        self._values: list[Tensor] = []
        self._snapshot: _Snapshot | None = None

    @torch.no_grad()
    def append(self, frame: int, keys: Tensor, values: Tensor) -> None:
        """Append the keys and values of a frame.

        Args:
            frame: Frame index.
            keys, values: Keys and values. P is equal for all frames, except after `select_tokens`. (B, N, P, D)
        """
        tokens = self.tokens_per_frame = keys.shape[2]
        planes = self.quantizer.encode(keys) + self.quantizer.encode(values)
        if self._free:
            start = self.reserve_slot(frame) * tokens
        else:
            if not self.is_pruned:
                self.frames.append(frame)
            start = self._length
            if start + tokens > self._allocated_tokens:
                self._resize(self._next_size(start + tokens), planes)
            self._length = start + tokens
        self._write(self._retained_size + start, planes)

    def reserve_slot(self, frame: int) -> int:
        """Assign a free slot to a frame whose keys and values are written next. Requires a free slot.

        Returns:
            Index of the slot.
        """
        slot = min(self._free)
        self._free.remove(slot)
        self.frames[slot] = frame
        return slot

    @property
    def is_static(self) -> bool:
        """Whether the next frame changes no shape: one slot is free, and the room for retained tokens is full."""
        is_full = self.capacity is not None and len(self.frames) == self.capacity and len(self._free) == 1
        return is_full and self._retained_length == self._most_front

    def evict(self, frames: Collection[int]) -> None:
        """Evict frames and keep their retained tokens. Ignores frames that are not cached. No other data moves."""
        for slot in sorted(self._slots(frames), key=self.frames.__getitem__):
            if self._retained_size and self._leaves_remnant(self.frames[slot]):
                self._retain_tokens(slot)
            self._clear(slot)

    def clear(self) -> None:
        """Evict all frames and retained tokens. The allocated memory is kept."""
        self.frames, self._free, self._length = [], set(), 0
        self.num_evicted, self.is_pruned = 0, False

    def begin(self) -> None:
        """Start to save overwritten tokens for `rollback`, until `commit`."""
        self._snapshot = _Snapshot(
            list(self.frames),
            set(self._free),
            self._length,
            self.tokens_per_frame,
            self.num_evicted,
            self.is_pruned,
            bool(self._keys),
        )

    def commit(self) -> None:
        """Drop the tokens saved since `begin`."""
        self._snapshot = None

    @torch.no_grad()
    def rollback(self) -> None:
        """Restore the bit-exact content and layout at `begin`."""
        before = self._snapshot
        assert before is not None, "begin first"
        if self._allocated_tokens < before.length:
            self._resize(before.length, self._planes)
        while before.overwritten:
            start, planes = before.overwritten.pop()
            self._put(self._retained_size + start, planes)
        self.frames, self._free, self._length = list(before.frames), set(before.free), before.length
        self.tokens_per_frame, self.num_evicted, self.is_pruned = (
            before.tokens_per_frame,
            before.num_evicted,
            before.is_pruned,
        )
        if not before.had_planes:
            self._keys, self._values = [], []

    @torch.no_grad()
    def select_tokens(self, index: Tensor) -> None:
        """Keep the selected tokens of each stream and head, and evict all others.

        Args:
            index: Indices into the tokens of `keys_values()`. (B, N, T_kept)
        """
        assert not self._retained_size, "a layer of remnants is not pruned by tokens"
        self._compact()
        expanded = index[..., None].expand
        self._write(0, [plane.gather(2, expanded(-1, -1, -1, plane.shape[-1])) for plane in self._planes])
        self._length = index.shape[2]
        self.frames, self.is_pruned = [], True

    def reserve(self, tokens: int) -> None:
        """Allocate memory for exactly `tokens` tokens, at least the cached ones, so that appends need no copy."""
        assert tokens >= self._length
        if tokens != self._allocated_tokens:
            self._resize(tokens, self._planes)

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """Return all cached keys and values, including retained tokens. Views if the cache is not quantized.

        Returns:
            Keys and values. (B, N, T, D) each
        """
        self._compact()
        return self._decoded(self._keys, self._allocated_frames), self._decoded(self._values, self._allocated_frames)

    def buffers(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the planes of keys and of values: views of retained tokens and all slots, including free ones."""
        return [plane[:, :, self._allocated_frames] for plane in self._keys], [
            plane[:, :, self._allocated_frames] for plane in self._values
        ]

    def slot_offset(self, slot: int) -> int:
        """Return the offset of a slot in tokens of `buffers()`."""
        return self._retained_length + slot * self.tokens_per_frame

    def frame_keys(self, frame: int) -> Tensor:
        """Return the keys of a frame, a view if the cache is not quantized. (B, N, P, D)"""
        start = self._retained_size + self.frames.index(frame) * self.tokens_per_frame
        return self._decoded(self._keys, slice(start, start + self.tokens_per_frame))

    def __len__(self) -> int:
        """Number of cached tokens."""
        if not self._free:
            return self._retained_length + self._length
        return self._retained_length + self.tokens_per_frame * (len(self.frames) - len(self._free))

    @property
    def num_bytes(self) -> int:
        """Allocated memory in bytes, including free slots."""
        return sum(plane.nbytes for plane in self._planes)

    def state_dict(self) -> dict[str, object]:
        """Return the content of all slots, including free ones, so that a restored cache continues bit-exact.

        Planes are copied to the host one by one, without additional device memory.

        Returns:
            {"frames": list of int or None, "tokens_per_frame": int, "is_pruned": bool, "num_evicted": int, "keys" and
            "values": list of planes (B, N, T, any), empty before the first frame}
        """
        keys, values = self.buffers()
        return {
            "frames": list(self.frames),
            "tokens_per_frame": self.tokens_per_frame,
            "is_pruned": self.is_pruned,
            "num_evicted": self.num_evicted,
            "keys": [plane.to("cpu", copy=True) for plane in keys],
            "values": [plane.to("cpu", copy=True) for plane in values],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, object], device: torch.device) -> None:
        """Replace the content by that of `state_dict()`."""
        self.frames, self.is_pruned = list(state["frames"]), state["is_pruned"]
        self.tokens_per_frame, self.num_evicted = state["tokens_per_frame"], state["num_evicted"]
        self._free = {slot for slot, frame in enumerate(self.frames) if frame is None}
        self._keys, self._values = [], []
        self._length = 0
        self._retained_size = self._wanted_front(self.num_evicted)
        planes = [plane.to(device) for plane in (*state["keys"], *state["values"])]
        if planes:
            length = planes[0].shape[2] - self._retained_length
            self._resize(self._next_size(length), planes)
            self._length = length
            self._write(self._retained_size - self._retained_length, planes)

    @property
    def _planes(self) -> list[Tensor]:
        return [*self._keys, *self._values]

    @property
    def _allocated_frames(self) -> slice:
        """Range of retained tokens and slots, including free ones."""
        return slice(self._retained_size - self._retained_length, self._retained_size + self._length)

    def _decoded(self, planes: list[Tensor], where: slice) -> Tensor:
        return self.quantizer.decode([plane[:, :, where] for plane in planes])

    def _write(self, start: int, planes: list[Tensor]) -> None:
        end = start + planes[0].shape[2]
        if self._snapshot is not None and self._was_held(start, end):
            self._keep(start, end)
        self._put(start, planes)

    def _keep(self, start: int, end: int) -> None:
        """Save tokens for `rollback` before they are overwritten."""
        self._snapshot.overwritten.append(
            (start - self._retained_size, [plane[:, :, start:end].clone() for plane in self._planes])
        )

    def _put(self, start: int, planes: list[Tensor]) -> None:
        for plane, new in zip(self._planes, planes, strict=True):
            plane[:, :, start : start + new.shape[2]] = new

    def _move(self, start: int, place: int, tokens: int) -> None:
        self._write(place, [plane[:, :, start : start + tokens] for plane in self._planes])

    def _was_held(self, start: int, end: int) -> bool:
        """Return whether any of these tokens was in use at `begin`."""
        before = self._snapshot
        remnants = min(self._retained_size, before.num_evicted * self.tokens_per_retained)
        if start < self._retained_size:
            return end > self._retained_size - remnants
        start, end = start - self._retained_size, min(end - self._retained_size, before.length)
        if before.is_pruned or not before.tokens_per_frame:
            return start < end
        return any(
            slot not in before.free
            for slot in range(start // before.tokens_per_frame, -(-end // before.tokens_per_frame))
        )

    @property
    def _retained_length(self) -> int:
        return min(self._retained_size, self.num_evicted * self.tokens_per_retained)

    def _slots(self, frames: Collection[int]) -> list[int]:
        """Return the slots of frames."""
        if not frames:
            return []
        assert not self.is_pruned, "a layer pruned by tokens has no frames"
        return [slot for slot, frame in enumerate(self.frames) if frame is not None and frame in frames]

    def _clear(self, slot: int) -> None:
        self.frames[slot] = None
        self._free.add(slot)

    @torch.no_grad()
    def _retain_tokens(self, slot: int) -> None:
        """Copy the first tokens of a slot before the newest retained tokens, or over the oldest."""
        tokens, size = self.tokens_per_frame, self.tokens_per_retained
        if self._retained_length == self._retained_size < self._most_front:
            self._resize(self._allocated_tokens, self._planes, self._wanted_front(self.num_evicted + 1))
        start = self._retained_size + slot * tokens
        place = self._retained_size - (self.num_evicted * size) % self._retained_size - size
        self._move(start, place, size)
        self.num_evicted += 1

    def _compact(self) -> None:
        """Move the last frames into free slots, so that the used slots are contiguous."""
        if not self._free:
            return
        tokens = self.tokens_per_frame
        for slot in sorted(self._free):
            while self.frames and self.frames[-1] is None:
                self.frames.pop()
            last = len(self.frames) - 1
            if slot > last:
                break
            start, end = self._retained_size + slot * tokens, self._retained_size + last * tokens
            self._move(end, start, tokens)
            self.frames[slot] = self.frames.pop()
        self._free.clear()
        self._length = len(self.frames) * tokens

    @property
    def _allocated_tokens(self) -> int:
        """Number of tokens that fit into the allocated slots."""
        return self._keys[0].shape[2] - self._retained_size if self._keys else 0

    def _next_size(self, length: int) -> int:
        """Return the number of tokens to allocate if `length` are needed, with room for further frames."""
        first = INITIAL_SLOTS if self.capacity is None else min(self.capacity, MAX_INITIAL_SLOTS)
        wanted = max(2 * self._allocated_tokens, first * self.tokens_per_frame)
        if self.capacity is not None:
            wanted = min(wanted, self.capacity * self.tokens_per_frame)
        return max(length, wanted)

    def _wanted_front(self, num_evicted: int) -> int:
        """Return the number of retained tokens to allocate for `num_evicted` slots, with room for more."""
        wanted = MOST_REMNANTS_AT_ONCE
        while wanted < num_evicted:
            wanted *= 2
        return min(wanted * self.tokens_per_retained, self._most_front)

    def _resize(self, room: int, like: list[Tensor], front: int | None = None) -> None:
        """Move the content to larger or smaller planes.

        Args:
            room: Tokens to allocate in the slots.
            like: Planes that determine the other dimensions and the dtype. (B, N, any, any) each
            front: Retained tokens to allocate. None: unchanged.
        """
        used = self._retained_size + self._length
        if self._snapshot is not None and self._length < self._snapshot.length:
            self._keep(used, self._retained_size + self._snapshot.length)
        front = self._retained_size if front is None else front
        resized = [new.new_empty(*new.shape[:2], front + room, new.shape[3]) for new in like]
        for old, new in zip(self._planes, resized, strict=False):
            new[:, :, front - self._retained_size : front + self._length] = old[:, :, :used]
        self._retained_size = front
        half = len(resized) // 2
        self._keys, self._values = resized[:half], resized[half:]


@dataclass
class _Snapshot:
    """State of a cache at `begin`.

    Attributes:
        had_planes: Whether memory was allocated.
        overwritten: Offsets in tokens from the first slot and the overwritten planes, in the order of writing.
    """

    frames: list[int | None]
    free: set[int]
    length: int
    tokens_per_frame: int
    num_evicted: int
    is_pruned: bool
    had_planes: bool
    overwritten: list[tuple[int, list[Tensor]]] = field(default_factory=list)


class CachedPattern:
    """Attention pattern of a stream: each new frame is appended to a cache, then attends to the cached tokens."""

    def __init__(
        self,
        cache: KVCache,
        schedule: list[tuple[int, Collection[int]]],
        query_hook: Callable[[Tensor, KVCache], None] | None = None,
        is_joint: bool = False,
    ):
        """Create the pattern.

        Args:
            cache: KV cache of the layer, updated in place.
            schedule: Index of each new frame, and the frames to evict before it is appended.
            query_hook: Function of the queries (B, N, P, D) of each new frame and the cache.
            is_joint: Append all new frames before the first one attends. Evict no frames.
        """
        self.cache = cache
        self.schedule = schedule
        self.query_hook = query_hook
        self.is_joint = is_joint

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
        tokens = q.shape[2] // len(self.schedule)
        seen = []
        new = zip(self.schedule, q.split(tokens, 2), k.split(tokens, 2), v.split(tokens, 2), strict=True)
        if self.is_joint:
            return self._joint(q, list(new), kernel)
        for (frame, dropped), q_frame, k_frame, v_frame in new:
            self.cache.evict(dropped)
            self.cache.append(frame, k_frame, v_frame)
            if self.query_hook is not None:
                self.query_hook(q_frame, self.cache)
            seen.append(kernel(q_frame, *self.cache.keys_values()))
        return torch.cat(seen, 2) if len(seen) > 1 else seen[0]

    def _joint(self, q: Tensor, new: list, kernel: Kernel) -> Tensor:
        for (frame, _), _, k_frame, v_frame in new:
            self.cache.append(frame, k_frame, v_frame)
        for _, q_frame, _, _ in new if self.query_hook is not None else ():
            self.query_hook(q_frame, self.cache)
        return kernel(q, *self.cache.keys_values())


class StaticCachePattern:
    """Attention pattern of a full cache for captured steps (CUDA graphs).

    The tokens of the new frame are written to `index`, then the frame attends to all tokens. The result equals
    `CachedPattern` for one frame. No shape and no address changes, so that a step can be captured and replayed.
    """

    def __init__(self, cache: KVCache, index: Tensor):
        """Create the pattern.

        Args:
            cache: Cache with `is_static`: one free slot.
            index: Token offsets of the new frame in `cache.buffers()`, on the device. (P)
        """
        self.quantizer = cache.quantizer
        self.keys, self.values = cache.buffers()
        self.index = index

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
        return kernel(q, self._extended(self.keys, k), self._extended(self.values, v))

    def _extended(self, planes: list[Tensor], new: Tensor) -> Tensor:
        for plane, part in zip(planes, self.quantizer.encode(new), strict=True):
            plane.index_copy_(2, self.index, part)
        return self.quantizer.decode(planes)
