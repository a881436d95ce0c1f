"""Finished keys and values of the frames that one attention layer remembers."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from streamvggt.layers.attention import Kernel

FIRST_SLOTS = 8  # where the number of frames is not known beforehand
MOST_SLOTS_AT_ONCE = 64  # a larger known capacity is reached by doubling


class KVCache:
    """Keys and values in preallocated slots, one slot for one frame's tokens.

    Attention over the past does not care for the order of its keys (positions carry no frame), so a new frame may
    take the place of a dropped one, and nothing is ever shifted or concatenated:

        slot          0    1    2    3    4        P tokens each
        frames        0    5    6    7   free
        drop([5])     0    –    6    7   free      nothing moves
        append(8)     0    8    6    7   free      written in place
        drop([0, 6])  –    8    –    7   free
        append(9)     9    8    –    7   free
        contents()    9    8    7   free free      the last slot fills the hole that is left

    A frame may fill several slots (`append` it several times). Slots double when they run out, up to `capacity`.

    A dropped frame may leave a remnant: its first tokens. Remnants lie before the slots, the newest first, so that all
    that is held stays in one piece; where there is no room for another, the oldest is overwritten:

                      room for 3 remnants │ slots
        drop([1])               –   –   1 │ 0  –  2  3
        drop([2])               –   2   1 │ 0  –  –  3
        drop([3])               3   2   1 │ 0  –  –  –
        drop([4])               3   2   4 │ …

    A layer may also be pruned token by token (`keep_tokens`); from then on it only grows at the end.

    Not differentiable: what is stored carries no gradient.

    B streams · N heads · T tokens held · D head width.
    """

    def __init__(self, capacity: int | None = None, *, remnants: int = 0, remnant_tokens: int = 1):
        """
        Args:
            capacity: the most slots that will be needed, if known.
            remnants: slots dropped, the latest so many, of which the first `remnant_tokens` tokens stay.
        """
        self.capacity = capacity
        self.remnant_tokens = remnant_tokens
        self.num_dropped = 0  # slots that have left a remnant, overwritten ones too
        self._front = remnants * remnant_tokens  # where the first slot begins
        self.frames: list[int | None] = []  # the frame in each used slot, None: free to overwrite
        self.frame_tokens = 0  # P, from the first frame on
        self.pruned = False
        self._free: set[int] = set()  # slots whose frame was dropped
        self._length = 0  # tokens in use, from the first slot on
        self._keys = self._values = None  # (B, N, front + room, D)

    @torch.no_grad()
    def append(self, frame: int, keys: Tensor, values: Tensor) -> None:
        """Remember one frame's keys and values. (B, N, P, D), P the same for every frame unless pruned"""
        tokens = self.frame_tokens = keys.shape[2]
        if self._free:
            slot = min(self._free)
            self._free.remove(slot)
            self.frames[slot] = frame
            start = slot * tokens
        else:
            if not self.pruned:
                self.frames.append(frame)
            start = self._length
            if start + tokens > self._room:
                self._resize(self._wanted(start + tokens), keys)
            self._length = start + tokens
        start += self._front
        self._keys[:, :, start : start + tokens] = keys
        self._values[:, :, start : start + tokens] = values

    def drop(self, frames: Collection[int]) -> None:
        """Forget frames, but for their remnants; those that are not held are ignored. No other data moves."""
        for slot in sorted(self._slots(frames), key=self.frames.__getitem__):
            if self._front:
                self._leave_remnant(slot)
            self._clear(slot)

    def undo(self, frames: Collection[int]) -> None:
        """Forget frames as if they had never come."""
        for slot in self._slots(frames):
            self._clear(slot)

    def undo_tokens(self, length: int) -> None:
        """Of a layer pruned by tokens: forget those that came last, so that it holds no more than `length`."""
        assert self.pruned, "a layer of whole frames forgets frames"
        self._length = min(self._length, length)

    @torch.no_grad()
    def keep_tokens(self, index: Tensor) -> None:
        """Keep these tokens of each stream and head and forget the others.

        Args:
            index: into the tokens of `contents()`. (B, N, T_kept)
        """
        assert not self._front, "a layer of remnants is not pruned by tokens"
        keys, values = self.contents()
        where = index[..., None].expand(-1, -1, -1, keys.shape[-1])
        kept_keys, kept_values = keys.gather(2, where), values.gather(2, where)
        self._length = index.shape[2]
        self._keys[:, :, : self._length] = kept_keys
        self._values[:, :, : self._length] = kept_values
        self.frames, self.pruned = [], True

    def make_room(self, tokens: int) -> None:
        """Have room for exactly so many tokens, as many as are held at least, so that they can come without a copy."""
        assert tokens >= self._length
        if tokens != self._room:
            self._resize(tokens, self._keys)

    def contents(self) -> tuple[Tensor, Tensor]:
        """All keys and values held, as views of the remnants and the slots in use. (B, N, T, D) each"""
        self._fill_holes()
        held = slice(self._front - self._remnant_length, self._front + self._length)
        return self._keys[:, :, held], self._values[:, :, held]

    def keys_of(self, frame: int) -> Tensor:
        """One frame's keys, as a view of its slot. (B, N, P, D)"""
        start = self._front + self.frames.index(frame) * self.frame_tokens
        return self._keys[:, :, start : start + self.frame_tokens]

    def __len__(self) -> int:
        """Tokens held."""
        if not self._free:
            return self._remnant_length + self._length
        return self._remnant_length + self.frame_tokens * (len(self.frames) - len(self._free))

    @property
    def num_bytes(self) -> int:
        """Memory taken, free slots included."""
        return 0 if self._keys is None else 2 * self._keys.nbytes

    def state(self) -> dict[str, object]:
        """What is held, slot by slot, free ones too: a cache restored from it goes on to the bit.

        {"frames": list of int or None, "frame_tokens": int, "pruned": bool, "num_dropped": int,
        "keys", "values": (B, N, T, D) or None}
        """
        held = slice(self._front - self._remnant_length, self._front + self._length)
        keys = None if self._keys is None else self._keys[:, :, held].clone()
        values = None if self._values is None else self._values[:, :, held].clone()
        return {
            "frames": list(self.frames),
            "frame_tokens": self.frame_tokens,
            "pruned": self.pruned,
            "num_dropped": self.num_dropped,
            "keys": keys,
            "values": values,
        }

    @torch.no_grad()
    def restore(self, state: dict[str, object], device: torch.device) -> None:
        """Hold what `state` says, and nothing else."""
        self.frames, self.pruned = list(state["frames"]), state["pruned"]
        self.frame_tokens, self.num_dropped = state["frame_tokens"], state["num_dropped"]
        self._free = {slot for slot, frame in enumerate(self.frames) if frame is None}
        self._keys = self._values = None
        self._length = 0
        if state["keys"] is not None:
            keys, values = state["keys"].to(device), state["values"].to(device)
            length = keys.shape[2] - self._remnant_length
            self._resize(self._wanted(length), keys)
            self._length = length
            held = slice(self._front - self._remnant_length, self._front + length)
            self._keys[:, :, held], self._values[:, :, held] = keys, values

    @property
    def _remnant_length(self) -> int:
        return min(self._front, self.num_dropped * self.remnant_tokens)

    def _slots(self, frames: Collection[int]) -> list[int]:
        """The slots that hold any of these frames."""
        if not frames:
            return []
        assert not self.pruned, "a layer pruned by tokens has no frames"
        return [slot for slot, frame in enumerate(self.frames) if frame is not None and frame in frames]

    def _clear(self, slot: int) -> None:
        self.frames[slot] = None
        self._free.add(slot)

    @torch.no_grad()
    def _leave_remnant(self, slot: int) -> None:
        """Copy the first tokens of a slot before the newest remnant, or over the oldest."""
        tokens, size = self.frame_tokens, self.remnant_tokens
        start = self._front + slot * tokens
        place = self._front - (self.num_dropped * size) % self._front - size
        for x in (self._keys, self._values):
            x[:, :, place : place + size] = x[:, :, start : start + size]
        self.num_dropped += 1

    def _fill_holes(self) -> None:
        """Move the last frames into free slots, so that the slots in use are the first ones."""
        if not self._free:
            return
        tokens = self.frame_tokens
        for slot in sorted(self._free):
            while self.frames and self.frames[-1] is None:
                self.frames.pop()
            last = len(self.frames) - 1
            if slot > last:
                break
            start, end = self._front + slot * tokens, self._front + last * tokens
            for x in (self._keys, self._values):
                x[:, :, start : start + tokens] = x[:, :, end : end + tokens]
            self.frames[slot] = self.frames.pop()
        self._free.clear()
        self._length = len(self.frames) * tokens

    @property
    def _room(self) -> int:
        """Tokens that fit in without growing."""
        return 0 if self._keys is None else self._keys.shape[2] - self._front

    def _wanted(self, length: int) -> int:
        """Tokens to make room for where `length` are needed: more, since others will follow."""
        first = FIRST_SLOTS if self.capacity is None else min(self.capacity, MOST_SLOTS_AT_ONCE)
        wanted = max(2 * self._room, first * self.frame_tokens)
        if self.capacity is not None:
            wanted = min(wanted, self.capacity * self.frame_tokens)
        return max(length, wanted)

    def _resize(self, room: int, like: Tensor) -> None:
        """Move what is held to where there is room for so many tokens of the shape of `like` (B, N, any, D)."""
        batch, heads, _, width = like.shape
        used = self._front + self._length
        for name in ("_keys", "_values"):
            held, resized = getattr(self, name), like.new_empty(batch, heads, self._front + room, width)
            if held is not None:
                resized[:, :, :used] = held[:, :, :used]
            setattr(self, name, resized)


class SeeMemory:
    """Attention pattern of a stream: each new frame joins a cache, then meets all that the cache holds."""

    def __init__(
        self,
        cache: KVCache,
        arrivals: list[tuple[int, Collection[int]]],
        watch: Callable[[Tensor, KVCache], None] | None = None,
    ):
        """
        Args:
            arrivals: for each new frame its number and the frames to forget before it comes.
            watch: is shown each new frame's queries, (B, N, P, D), and the cache that they meet.
        """
        self.cache = cache
        self.arrivals = arrivals
        self.watch = watch

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
        tokens = q.shape[2] // len(self.arrivals)
        seen = []
        new = zip(self.arrivals, q.split(tokens, 2), k.split(tokens, 2), v.split(tokens, 2), strict=True)
        for (frame, dropped), q_frame, k_frame, v_frame in new:
            self.cache.drop(dropped)
            self.cache.append(frame, k_frame, v_frame)
            if self.watch is not None:
                self.watch(q_frame, self.cache)
            seen.append(kernel(q_frame, *self.cache.contents()))
        return torch.cat(seen, 2) if len(seen) > 1 else seen[0]
