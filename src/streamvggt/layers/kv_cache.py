"""Finished keys and values of the frames that one attention layer remembers."""

from __future__ import annotations

from collections.abc import Collection

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
    A layer may also be pruned token by token (`keep_tokens`); from then on it only grows at the end.

    Not differentiable: what is stored carries no gradient.

    B streams · N heads · T tokens held · D head width.
    """

    def __init__(self, capacity: int | None = None):
        """
        Args:
            capacity: the most slots that will be needed, if known.
        """
        self.capacity = capacity
        self.frames: list[int | None] = []  # the frame in each used slot, None: free to overwrite
        self.pruned = False
        self._free: set[int] = set()  # slots whose frame was dropped
        self._length = 0  # tokens in use
        self._keys = self._values = None  # (B, N, room, D)

    @torch.no_grad()
    def append(self, frame: int, keys: Tensor, values: Tensor) -> None:
        """Remember one frame's keys and values. (B, N, P, D), P the same for every frame unless pruned"""
        tokens = keys.shape[2]
        if self._free:
            slot = min(self._free)
            self._free.remove(slot)
            self.frames[slot] = frame
            start = slot * tokens
        else:
            if not self.pruned:
                self.frames.append(frame)
            start = self._length
            self._reserve(keys, start + tokens)
            self._length = start + tokens
        self._keys[:, :, start : start + tokens] = keys
        self._values[:, :, start : start + tokens] = values

    def drop(self, frames: Collection[int]) -> None:
        """Forget frames; those that are not held are ignored. No data moves."""
        if not frames:
            return
        assert not self.pruned, "a layer pruned by tokens has no frames to drop"
        for slot, frame in enumerate(self.frames):
            if frame is not None and frame in frames:
                self.frames[slot] = None
                self._free.add(slot)

    @torch.no_grad()
    def keep_tokens(self, index: Tensor) -> None:
        """Keep these tokens of each stream and head and forget the others.

        Args:
            index: into the tokens of `contents()`. (B, N, T_kept)
        """
        keys, values = self.contents()
        where = index[..., None].expand(-1, -1, -1, keys.shape[-1])
        kept_keys, kept_values = keys.gather(2, where), values.gather(2, where)
        self._length = index.shape[2]
        self._keys[:, :, : self._length] = kept_keys
        self._values[:, :, : self._length] = kept_values
        self.frames, self.pruned = [], True

    def contents(self) -> tuple[Tensor, Tensor]:
        """All keys and values held, as views of the slots in use. (B, N, T, D) each"""
        self._fill_holes()
        return self._keys[:, :, : self._length], self._values[:, :, : self._length]

    def __len__(self) -> int:
        """Tokens held."""
        if not self._free:
            return self._length
        return self._length // len(self.frames) * (len(self.frames) - len(self._free))

    @property
    def num_bytes(self) -> int:
        """Memory taken, free slots included."""
        return 0 if self._keys is None else 2 * self._keys.nbytes

    def state(self) -> dict[str, object]:
        """What is held, slot by slot, free ones too: a cache restored from it goes on to the bit.

        {"frames": list of int or None, "pruned": bool, "keys", "values": (B, N, T, D) or None}
        """
        held = slice(0, self._length)
        keys = None if self._keys is None else self._keys[:, :, held].clone()
        values = None if self._values is None else self._values[:, :, held].clone()
        return {"frames": list(self.frames), "pruned": self.pruned, "keys": keys, "values": values}

    @torch.no_grad()
    def restore(self, state: dict[str, object], device: torch.device) -> None:
        """Hold what `state` says, and nothing else."""
        self.frames, self.pruned = list(state["frames"]), state["pruned"]
        self._free = {slot for slot, frame in enumerate(self.frames) if frame is None}
        self._keys = self._values = None
        self._length = 0
        if state["keys"] is not None:
            keys, values = state["keys"].to(device), state["values"].to(device)
            self._reserve(keys, keys.shape[2])
            self._length = keys.shape[2]
            self._keys[:, :, : self._length], self._values[:, :, : self._length] = keys, values

    def _fill_holes(self) -> None:
        """Move the last frames into free slots, so that the slots in use are the first ones."""
        if not self._free:
            return
        tokens = self._length // len(self.frames)
        for slot in sorted(self._free):
            while self.frames and self.frames[-1] is None:
                self.frames.pop()
            last = len(self.frames) - 1
            if slot > last:
                break
            for x in (self._keys, self._values):
                x[:, :, slot * tokens : (slot + 1) * tokens] = x[:, :, last * tokens : (last + 1) * tokens]
            self.frames[slot] = self.frames.pop()
        self._free.clear()
        self._length = len(self.frames) * tokens

    def _reserve(self, like: Tensor, length: int) -> None:
        """Make room for `length` tokens of the shape of `like` (B, N, P, D)."""
        batch, heads, tokens, width = like.shape
        room = 0 if self._keys is None else self._keys.shape[2]
        if length <= room:
            return
        first = FIRST_SLOTS if self.capacity is None else min(self.capacity, MOST_SLOTS_AT_ONCE)
        wanted = max(length, 2 * room, first * tokens)
        if self.capacity is not None:
            wanted = max(length, min(wanted, self.capacity * tokens))
        for name in ("_keys", "_values"):
            larger = like.new_empty(batch, heads, wanted, width)
            if self._length:
                larger[:, :, : self._length] = getattr(self, name)[:, :, : self._length]
            setattr(self, name, larger)


class SeeMemory:
    """Attention pattern of a stream: each new frame joins a cache, then meets all that the cache holds."""

    def __init__(self, cache: KVCache, arrivals: list[tuple[int, Collection[int]]]):
        """
        Args:
            arrivals: for each new frame its number and the frames to forget before it comes.
        """
        self.cache = cache
        self.arrivals = arrivals

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
        tokens = q.shape[2] // len(self.arrivals)
        seen = []
        new = zip(self.arrivals, q.split(tokens, 2), k.split(tokens, 2), v.split(tokens, 2), strict=True)
        for (frame, dropped), q_frame, k_frame, v_frame in new:
            self.cache.drop(dropped)
            self.cache.append(frame, k_frame, v_frame)
            seen.append(kernel(q_frame, *self.cache.contents()))
        return torch.cat(seen, 2)
