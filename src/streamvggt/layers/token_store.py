"""Allocated memory of a KV cache: keys and values by token position, with rollback.

B streams · N heads · T tokens · D head width.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from streamvggt.layers.kv_quantization import NoQuantizer

IsUsed = Callable[[int, int], bool]


class TokenStore:
    """Keys and values at token positions -front, …, -1, 0, …, capacity - 1, in one allocation each.

    The number format of the `quantizer` determines the planes: tensors (B, N, front + capacity, any).

    Attributes:
        front: Number of positions before 0.
    """

    def __init__(self, quantizer: NoQuantizer, front: int = 0):
        self.quantizer = quantizer
        self.front = front
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._journal: _Journal | None = None

    @property
    def planes(self) -> list[Tensor]:
        """All planes, of the keys first. Empty before the first `resize`."""
        return [*self._keys, *self._values]

    @property
    def capacity(self) -> int:
        """Number of allocated positions from 0."""
        return self._keys[0].shape[2] - self.front if self._keys else 0

    @property
    def num_bytes(self) -> int:
        """Allocated memory in bytes."""
        return sum(plane.nbytes for plane in self.planes)

    def resize(self, capacity: int, length: int, *, front: int | None = None, like: list[Tensor] | None = None) -> None:
        """Move the content to larger or smaller planes.

        Args:
            capacity: Number of positions from 0.
            length: Number of positions from 0 to keep.
            front: Number of positions before 0. None: unchanged.
            like: Planes that determine the other dimensions and the dtype. None: the present planes.
        """
        if self._journal is not None and length < self._journal.length:
            self._save(length, self._journal.length)
        front = self.front if front is None else front
        resized = [new.new_empty(*new.shape[:2], front + capacity, new.shape[3]) for new in like or self.planes]
        for old, new in zip(self.planes, resized, strict=False):
            new[:, :, front - self.front : front + length] = old[:, :, : self.front + length]
        self.front = front
        half = len(resized) // 2
        self._keys, self._values = resized[:half], resized[half:]

    def free(self, front: int) -> None:
        """Free the memory."""
        self._keys, self._values, self.front = [], [], front

    def write(self, start: int, planes: list[Tensor]) -> None:
        """Write encoded keys and values from position `start` on."""
        end = start + planes[0].shape[2]
        if self._journal is not None and self._journal.is_used(start, end):
            self._save(start, end)
        self._put(start, planes)

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy tokens between positions that do not overlap."""
        self.write(target, self.views(source, source + tokens))

    def gather(self, index: Tensor) -> None:
        """Move the tokens at `index` (B, N, T) of positions from 0 to the first positions."""
        expanded = index[..., None].expand
        self.write(0, [plane.gather(2, expanded(-1, -1, -1, plane.shape[-1])) for plane in self.planes])

    def views(self, start: int, end: int) -> list[Tensor]:
        """Return views of all planes, of the keys first. (B, N, end - start, any) each"""
        return [plane[:, :, self.front + start : self.front + end] for plane in self.planes]

    def keys(self, start: int, end: int) -> Tensor:
        """Return keys, a view if the store is not quantized. (B, N, end - start, D)"""
        return self._decoded(self._keys, start, end)

    def values(self, start: int, end: int) -> Tensor:
        """Return values, a view if the store is not quantized. (B, N, end - start, D)"""
        return self._decoded(self._values, start, end)

    def begin(self, length: int, is_used: IsUsed) -> None:
        """Start to save overwritten tokens for `rollback`, until `commit`.

        Args:
            length: Number of positions from 0 in use.
            is_used: Whether a range of positions contains tokens that `rollback` must restore.
        """
        self._journal = _Journal(length, is_used, bool(self._keys))

    def commit(self) -> None:
        """Drop the saved tokens."""
        self._journal = None

    def rollback(self) -> None:
        """Restore the tokens in use at `begin`, except for positions before 0 that `resize` dropped."""
        journal = self._journal
        assert journal is not None, "begin first"
        if self.capacity < journal.length:
            self.resize(journal.length, min(self.capacity, journal.length))
        while journal.overwritten:
            self._put(*journal.overwritten.pop())
        if not journal.was_allocated:
            self.free(self.front)

    def _save(self, start: int, end: int) -> None:
        self._journal.overwritten.append((start, [plane.clone() for plane in self.views(start, end)]))

    def _put(self, start: int, planes: list[Tensor]) -> None:
        start += self.front
        for plane, new in zip(self.planes, planes, strict=True):
            plane[:, :, start : start + new.shape[2]] = new

    def _decoded(self, planes: list[Tensor], start: int, end: int) -> Tensor:
        return self.quantizer.decode([plane[:, :, self.front + start : self.front + end] for plane in planes])


class _Journal:
    """Saved tokens since `TokenStore.begin`.

    Attributes:
        length, is_used: Arguments of `begin`.
        was_allocated: Whether memory was allocated.
        overwritten: Start position and planes of overwritten tokens, in the order of writing.
    """

    def __init__(self, length: int, is_used: IsUsed, was_allocated: bool):
        self.length = length
        self.is_used = is_used
        self.was_allocated = was_allocated
        self.overwritten: list[tuple[int, list[Tensor]]] = []
