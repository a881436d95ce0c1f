"""KV cache of one attention layer: normalized and rotated keys, and values, per frame."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor

from streamvggt.choices import KVCacheDtype
from streamvggt.layers.kv_quantization import get_quantizer
from streamvggt.layers.retained_tokens import RetainedTokenRing
from streamvggt.layers.slots import Slots
from streamvggt.layers.token_store import TokenStore

INITIAL_SLOTS = 8  # for unknown capacity
MAX_INITIAL_SLOTS = 64  # larger capacities are reached by doubling
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

    The first tokens of an evicted frame can be retained (`RetainedTokenRing`). They are stored before the slots, so
    that all cached tokens are contiguous.

    `select_tokens` evicts single tokens. After that, new frames are appended at the end only.

    The cache is not differentiable.

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
        retains: Callable[[int], bool] | None = None,
    ):
        """Create an empty cache.

        Args:
            capacity: Maximum number of slots. None: unbounded.
            num_retained_frames: Number of latest evicted slots whose first tokens are retained.
            tokens_per_retained: Number of retained tokens per evicted slot.
            dtype: Number format: "auto" (as computed) or "int8".
            num_special_tokens: Tokens of a frame before its patches, for policies that treat them differently.
            retains: Function that returns False for frames without retained tokens. None: True for all frames.
        """
        self.capacity = capacity
        self.quantizer = get_quantizer(dtype)
        self.num_special_tokens = num_special_tokens
        self.retains = retains or (lambda frame: True)
        self.tokens_per_frame = 0  # P, set by the first frame
        self.is_pruned = False
        self._retained = RetainedTokenRing(num_retained_frames, tokens_per_retained)
        self._slots = Slots()
        self._length = 0  # tokens in use, counted from the first slot
        self._store = TokenStore(self.quantizer, self._retained.room)
        self._snapshot: _Snapshot | None = None

    @property
    def frames(self) -> list[int | None]:
        """Frame in each slot in use. None: free. Empty after `select_tokens`."""
        return self._slots.frames

    @torch.no_grad()
    def append(self, frame: int, keys: Tensor, values: Tensor) -> None:
        """Append the keys and values of a frame.

        Args:
            frame: Frame index.
            keys, values: Keys and values. P is equal for all frames, except after `select_tokens`. (B, N, P, D)
        """
        tokens = self.tokens_per_frame = keys.shape[2]
        planes = self.quantizer.encode(keys) + self.quantizer.encode(values)
        if self._slots.num_free:
            start = self.reserve_slot(frame) * tokens
        else:
            if not self.is_pruned:
                self._slots.add(frame)
            start = self._length
            if start + tokens > self._store.capacity:
                self._store.resize(self._next_size(start + tokens), self._length, like=planes)
            self._length = start + tokens
        self._store.write(start, planes)

    def reserve_slot(self, frame: int) -> int:
        """Assign a free slot to a frame whose keys and values are written next. Requires a free slot.

        Returns:
            Index of the slot.
        """
        return self._slots.reserve(frame)

    @property
    def is_static(self) -> bool:
        """Whether the next frame changes no shape: one slot is free, and the room for retained tokens is full."""
        is_full = self.capacity is not None and len(self.frames) == self.capacity and self._slots.num_free == 1
        return is_full and self._retained.is_full

    @torch.no_grad()
    def evict(self, frames: Collection[int]) -> None:
        """Evict frames and keep their retained tokens. Ignores frames that are not cached. No other data moves."""
        assert not frames or not self.is_pruned, "a layer pruned by tokens has no frames"
        for slot in self._slots.find(frames) if frames else ():
            if self._retained.room and self.retains(self.frames[slot]):
                if self._retained.must_grow:
                    self._store.resize(
                        self._store.capacity, self._length, front=self._retained.grow(self._retained.num_evicted + 1)
                    )
                start = slot * self.tokens_per_frame
                self._store.move(start, self._retained.next_position(), self._retained.tokens_per_slot)
            self._slots.release(slot)

    def clear(self) -> None:
        """Evict all frames and retained tokens. The allocated memory is kept."""
        self._slots, self._length = Slots(), 0
        self._retained.num_evicted, self.is_pruned = 0, False

    def begin(self) -> None:
        """Start to save overwritten tokens for `rollback`, until `commit`."""
        before = _Snapshot(
            self._slots.copy(), self._length, self.tokens_per_frame, copy(self._retained), self.is_pruned
        )
        self._snapshot = before
        self._store.begin(before.length, before.is_used)

    def commit(self) -> None:
        """Drop the tokens saved since `begin`."""
        self._snapshot = None
        self._store.commit()

    @torch.no_grad()
    def rollback(self) -> None:
        """Restore the bit-exact content and layout at `begin`."""
        before = self._snapshot
        assert before is not None, "begin first"
        self._store.rollback()
        self._slots, self._length = before.slots.copy(), before.length
        self.tokens_per_frame, self.is_pruned = before.tokens_per_frame, before.is_pruned
        self._retained.num_evicted = before.retained.num_evicted

    @torch.no_grad()
    def select_tokens(self, index: Tensor) -> None:
        """Keep the selected tokens of each stream and head, and evict all others.

        Args:
            index: Indices into the tokens of `keys_values()`. (B, N, T_kept)
        """
        assert not self._retained.room, "a layer with retained tokens is not pruned by tokens"
        self._compact()
        self._store.gather(index)
        self._length = index.shape[2]
        self._slots, self.is_pruned = Slots(), True

    def reserve(self, tokens: int) -> None:
        """Allocate memory for exactly `tokens` tokens, at least the cached ones, so that appends need no copy."""
        assert tokens >= self._length
        if tokens != self._store.capacity:
            self._store.resize(tokens, self._length)

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """Return all cached keys and values, including retained tokens. Views if the cache is not quantized.

        Returns:
            Keys and values. (B, N, T, D) each
        """
        self._compact()
        start = -len(self._retained)
        return self._store.keys(start, self._length), self._store.values(start, self._length)

    def buffers(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the planes of keys and of values: views of retained tokens and all slots, including free ones."""
        views = self._store.views(-len(self._retained), self._length)
        half = len(views) // 2
        return views[:half], views[half:]

    def slot_offset(self, slot: int) -> int:
        """Return the offset of a slot in tokens of `buffers()`."""
        return len(self._retained) + slot * self.tokens_per_frame

    def frame_keys(self, frame: int) -> Tensor:
        """Return the keys of a frame, a view if the cache is not quantized. (B, N, P, D)"""
        start = self.frames.index(frame) * self.tokens_per_frame
        return self._store.keys(start, start + self.tokens_per_frame)

    def __len__(self) -> int:
        """Number of cached tokens."""
        if not self._slots.num_free:
            return len(self._retained) + self._length
        return len(self._retained) + self.tokens_per_frame * self._slots.num_used

    @property
    def num_bytes(self) -> int:
        """Allocated memory in bytes, including free slots."""
        return self._store.num_bytes

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
            "num_evicted": self._retained.num_evicted,
            "keys": [plane.to("cpu", copy=True) for plane in keys],
            "values": [plane.to("cpu", copy=True) for plane in values],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, object], device: torch.device) -> None:
        """Replace the content by that of `state_dict()`."""
        self._slots, self.is_pruned = Slots(state["frames"]), state["is_pruned"]
        self.tokens_per_frame, self._retained.num_evicted = state["tokens_per_frame"], state["num_evicted"]
        self._store.free(self._retained.grow(state["num_evicted"]))
        self._length = 0
        planes = [plane.to(device) for plane in (*state["keys"], *state["values"])]
        if planes:
            length = planes[0].shape[2] - len(self._retained)
            self._store.resize(self._next_size(length), 0, like=planes)
            self._length = length
            self._store.write(-len(self._retained), planes)

    def _compact(self) -> None:
        """Move the last frames into free slots, so that the used slots are contiguous."""
        if not self._slots.num_free:
            return
        tokens = self.tokens_per_frame
        for source, target in self._slots.compact():
            self._store.move(source * tokens, target * tokens, tokens)
        self._length = len(self.frames) * tokens

    def _next_size(self, length: int) -> int:
        """Return the number of tokens to allocate if `length` are needed, with room for further frames."""
        first = INITIAL_SLOTS if self.capacity is None else min(self.capacity, MAX_INITIAL_SLOTS)
        wanted = max(2 * self._store.capacity, first * self.tokens_per_frame)
        if self.capacity is not None:
            wanted = min(wanted, self.capacity * self.tokens_per_frame)
        return max(length, wanted)


class _Snapshot(NamedTuple):
    """State of a cache at `begin`, without its tokens."""

    slots: Slots
    length: int
    tokens_per_frame: int
    retained: RetainedTokenRing
    is_pruned: bool

    def is_used(self, start: int, end: int) -> bool:
        """Return whether any of these token positions was in use."""
        if start < 0:
            return end > -len(self.retained)
        end = min(end, self.length)
        if self.is_pruned or not self.tokens_per_frame:
            return start < end
        slots = range(start // self.tokens_per_frame, -(-end // self.tokens_per_frame))
        return any(self.slots.is_used(slot) for slot in slots)
