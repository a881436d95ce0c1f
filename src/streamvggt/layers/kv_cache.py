"""Finished keys and values of the frames that one attention layer remembers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from streamvggt.layers.attention import Kernel
from streamvggt.layers.kv_quantization import KVCacheDtype, get_quantizer

INITIAL_SLOTS = 8  # where the number of frames is not known beforehand
MAX_INITIAL_SLOTS = 64  # a larger known capacity is reached by doubling
MOST_REMNANTS_AT_ONCE = 256  # as well
UNBOUNDED = sys.maxsize
"""Number of remnants of a cache that keeps all."""


class KVCache:
    """Keys and values in preallocated slots, one slot for one frame's tokens.

    Attention over the past does not care for the order of its keys (positions carry no frame), so a new frame may
    take the place of a dropped one, and nothing is ever shifted or concatenated:

        slot          0    1    2    3    4        P tokens each
        frames        0    5    6    7   free
        evict([5])     0    –    6    7   free      nothing moves
        append(8)     0    8    6    7   free      written in place
        evict([0, 6])  –    8    –    7   free
        append(9)     9    8    –    7   free
        contents()    9    8    7   free free      the last slot fills the hole that is left

    A frame may fill several slots (`append` it several times). Slots double when they run out, up to `capacity`.

    A dropped frame may leave a remnant: its first tokens. Remnants lie before the slots, the newest first, so that all
    that is held stays in one piece; where there is no room for another, the oldest is overwritten:

                      room for 3 remnants │ slots
        evict([1])               –   –   1 │ 0  –  2  3
        evict([2])               –   2   1 │ 0  –  –  3
        evict([3])               3   2   1 │ 0  –  –  –
        evict([4])               3   2   4 │ …

    The room for many remnants doubles when it is full, up to their number.

    A layer may also be pruned token by token (`select_tokens`); from then on it only grows at the end.

    How keys and values are stored is a matter of its own (`storage`).

    Not differentiable: what is stored carries no gradient.

    B streams · N heads · T tokens held · D head width.
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
        """
        Args:
            capacity: the most slots that will be needed, if known.
            remnants: slots dropped, the latest so many, of which the first `tokens_per_retained` tokens stay.
            num_special: Tokens of a frame before its patches, for policies that treat them differently.
            leaves_remnant: False for the numbers of frames that leave nothing; None: all frames leave a remnant.
        """
        self.capacity = capacity
        self.quantizer = get_quantizer(dtype)
        self.tokens_per_retained = tokens_per_retained
        self.num_evicted = 0  # slots that have left a remnant, overwritten ones too
        self.num_special_tokens = num_special_tokens
        self._leaves_remnant = leaves_remnant or (lambda frame: True)
        self._most_front = num_retained_frames * tokens_per_retained  # tokens of remnants, at most
        self._retained_size = (
            min(num_retained_frames, MOST_REMNANTS_AT_ONCE) * tokens_per_retained
        )  # where the first slot begins
        self.frames: list[int | None] = []  # the frame in each used slot, None: free to overwrite
        self.tokens_per_frame = 0  # P, from the first frame on
        self.is_pruned = False
        self._free: set[int] = set()  # slots whose frame was dropped
        self._length = 0  # tokens in use, from the first slot on
        self._keys: list[Tensor] = []  # planes of the storage, (B, N, front + room, any) each
        self._values: list[Tensor] = []
        self._snapshot: _Snapshot | None = None

    @torch.no_grad()
    def append(self, frame: int, keys: Tensor, values: Tensor) -> None:
        """Remember one frame's keys and values. (B, N, P, D), P the same for every frame unless pruned"""
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
        """Give a free slot, of which there must be one, to a frame whose keys and values are about to be written."""
        slot = min(self._free)
        self._free.remove(slot)
        self.frames[slot] = frame
        return slot

    @property
    def is_static(self) -> bool:
        """Full but for one slot, and all remnants there: the next frame takes that slot, and no shape changes."""
        is_full = self.capacity is not None and len(self.frames) == self.capacity and len(self._free) == 1
        return is_full and self._retained_length == self._most_front

    def evict(self, frames: Collection[int]) -> None:
        """Forget frames, but for their remnants; those that are not held are ignored. No other data moves."""
        for slot in sorted(self._slots(frames), key=self.frames.__getitem__):
            if self._retained_size and self._leaves_remnant(self.frames[slot]):
                self._retain_tokens(slot)
            self._clear(slot)

    def clear(self) -> None:
        """Forget everything; the room stays."""
        self.frames, self._free, self._length = [], set(), 0
        self.num_evicted, self.is_pruned = 0, False

    def begin(self) -> None:
        """From here on keep what is overwritten, so that `rollback` can come back to here, until `commit`."""
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
        """What was overwritten since `begin` is not needed any more."""
        self._snapshot = None

    @torch.no_grad()
    def rollback(self) -> None:
        """Be as at `begin`, to the bit: what is held, and where it lies."""
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
        """Keep these tokens of each stream and head and forget the others.

        Args:
            index: into the tokens of `keys_values()`. (B, N, T_kept)
        """
        assert not self._retained_size, "a layer of remnants is not pruned by tokens"
        self._compact()
        expanded = index[..., None].expand
        self._write(0, [plane.gather(2, expanded(-1, -1, -1, plane.shape[-1])) for plane in self._planes])
        self._length = index.shape[2]
        self.frames, self.is_pruned = [], True

    def reserve(self, tokens: int) -> None:
        """Have room for exactly so many tokens, as many as are held at least, so that they can come without a copy."""
        assert tokens >= self._length
        if tokens != self._allocated_tokens:
            self._resize(tokens, self._planes)

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """All keys and values held: views of the remnants and the slots in use, if they are stored as they are.

        (B, N, T, D) each
        """
        self._compact()
        return self._decoded(self._keys, self._allocated_frames), self._decoded(self._values, self._allocated_frames)

    def buffers(self) -> tuple[list[Tensor], list[Tensor]]:
        """What keys and values are stored in, as views of the remnants and all slots, free ones too."""
        return [plane[:, :, self._allocated_frames] for plane in self._keys], [
            plane[:, :, self._allocated_frames] for plane in self._values
        ]

    def slot_offset(self, slot: int) -> int:
        """Where a slot begins, in tokens of `buffers()`."""
        return self._retained_length + slot * self.tokens_per_frame

    def frame_keys(self, frame: int) -> Tensor:
        """One frame's keys, a view of its slot if they are stored as they are. (B, N, P, D)"""
        start = self._retained_size + self.frames.index(frame) * self.tokens_per_frame
        return self._decoded(self._keys, slice(start, start + self.tokens_per_frame))

    def __len__(self) -> int:
        """Tokens held."""
        if not self._free:
            return self._retained_length + self._length
        return self._retained_length + self.tokens_per_frame * (len(self.frames) - len(self._free))

    @property
    def num_bytes(self) -> int:
        """Memory taken, free slots included."""
        return sum(plane.nbytes for plane in self._planes)

    def state_dict(self) -> dict[str, object]:
        """What is held, slot by slot, free ones too: a cache restored from it goes on to the bit.

        On the host, plane by plane, so that the device needs no room for it.

        {"frames": list of int or None, "tokens_per_frame": int, "pruned": bool, "num_evicted": int,
        "keys", "values": list of planes, (B, N, T, any) each, empty where nothing came yet}
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
        """Hold what `state` says, and nothing else."""
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
        """Remnants and slots, free ones too."""
        return slice(self._retained_size - self._retained_length, self._retained_size + self._length)

    def _decoded(self, planes: list[Tensor], where: slice) -> Tensor:
        return self.quantizer.decode([plane[:, :, where] for plane in planes])

    def _write(self, start: int, planes: list[Tensor]) -> None:
        end = start + planes[0].shape[2]
        if self._snapshot is not None and self._was_held(start, end):
            self._keep(start, end)
        self._put(start, planes)

    def _keep(self, start: int, end: int) -> None:
        """Have something to come back to where these tokens are about to be lost."""
        self._snapshot.overwritten.append(
            (start - self._retained_size, [plane[:, :, start:end].clone() for plane in self._planes])
        )

    def _put(self, start: int, planes: list[Tensor]) -> None:
        for plane, new in zip(self._planes, planes, strict=True):
            plane[:, :, start : start + new.shape[2]] = new

    def _move(self, start: int, place: int, tokens: int) -> None:
        self._write(place, [plane[:, :, start : start + tokens] for plane in self._planes])

    def _was_held(self, start: int, end: int) -> bool:
        """Whether any of these tokens held something at `begin`."""
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
        """The slots that hold any of these frames."""
        if not frames:
            return []
        assert not self.is_pruned, "a layer pruned by tokens has no frames"
        return [slot for slot, frame in enumerate(self.frames) if frame is not None and frame in frames]

    def _clear(self, slot: int) -> None:
        self.frames[slot] = None
        self._free.add(slot)

    @torch.no_grad()
    def _retain_tokens(self, slot: int) -> None:
        """Copy the first tokens of a slot before the newest remnant, or over the oldest."""
        tokens, size = self.tokens_per_frame, self.tokens_per_retained
        if self._retained_length == self._retained_size < self._most_front:
            self._resize(self._allocated_tokens, self._planes, self._wanted_front(self.num_evicted + 1))
        start = self._retained_size + slot * tokens
        place = self._retained_size - (self.num_evicted * size) % self._retained_size - size
        self._move(start, place, size)
        self.num_evicted += 1

    def _compact(self) -> None:
        """Move the last frames into free slots, so that the slots in use are the first ones."""
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
        """Tokens that fit in without growing."""
        return self._keys[0].shape[2] - self._retained_size if self._keys else 0

    def _next_size(self, length: int) -> int:
        """Tokens to make room for where `length` are needed: more, since others will follow."""
        first = INITIAL_SLOTS if self.capacity is None else min(self.capacity, MAX_INITIAL_SLOTS)
        wanted = max(2 * self._allocated_tokens, first * self.tokens_per_frame)
        if self.capacity is not None:
            wanted = min(wanted, self.capacity * self.tokens_per_frame)
        return max(length, wanted)

    def _wanted_front(self, num_evicted: int) -> int:
        """Tokens to make room for before the slots where so many remnants have been left: more, as others follow."""
        wanted = MOST_REMNANTS_AT_ONCE
        while wanted < num_evicted:
            wanted *= 2
        return min(wanted * self.tokens_per_retained, self._most_front)

    def _resize(self, room: int, like: list[Tensor], front: int | None = None) -> None:
        """Move what is held to where there is room for so many tokens of planes like these, (B, N, any, any) each.

        Args:
            front: tokens of remnants to make room for; None: as many as now.
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
    """A cache at `begin`.

    had_planes: something had been stored.
    overwritten: where, in tokens from the first slot on, and what was there, in the order of writing.
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
    """Attention pattern of a stream: each new frame joins a cache, then meets all that the cache holds."""

    def __init__(
        self,
        cache: KVCache,
        schedule: list[tuple[int, Collection[int]]],
        query_hook: Callable[[Tensor, KVCache], None] | None = None,
        is_joint: bool = False,
    ):
        """
        Args:
            arrivals: for each new frame its number and the frames to forget before it comes.
            watch: is shown each new frame's queries, (B, N, P, D), and the cache that they meet.
            is_joint: All new frames join the cache before the first one attends to it; none is forgotten before.
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
    """Attention pattern of a stream whose memory is full: what differs between frames is told to the device alone.

    The new frame is written where `index` says, then meets all there is: as `CachedPattern` for one frame, but no shape
        and
    no address changes, so that a step can be recorded and played again.
    """

    def __init__(self, cache: KVCache, index: Tensor):
        """
        Args:
            cache: full, but for one slot.
            index: which of the tokens of its planes the new frame's take the place of, on the device. (P)
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
