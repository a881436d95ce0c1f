"""Assignment of frames to the slots of a KV cache."""

from __future__ import annotations

from collections.abc import Collection


class Slots:
    """Frame of each slot in use. The slot of an evicted frame is free until another frame reserves it.

    A frame can use several slots.

    Attributes:
        frames: Frame in each slot in use. None: free.
    """

    def __init__(self, frames: Collection[int | None] = ()):
        self.frames = list(frames)
        self._free = {slot for slot, frame in enumerate(self.frames) if frame is None}

    def copy(self) -> Slots:
        """Return an independent copy."""
        return Slots(self.frames)

    @property
    def num_free(self) -> int:
        """Number of free slots."""
        return len(self._free)

    @property
    def num_used(self) -> int:
        """Number of slots with a frame."""
        return len(self.frames) - len(self._free)

    def is_used(self, slot: int) -> bool:
        """Whether the slot contains a frame."""
        return slot < len(self.frames) and slot not in self._free

    def add(self, frame: int) -> None:
        """Append a slot."""
        self.frames.append(frame)

    def reserve(self, frame: int) -> int:
        """Assign the first free slot to a frame. Requires a free slot. Return the slot."""
        slot = min(self._free)
        self._free.remove(slot)
        self.frames[slot] = frame
        return slot

    def find(self, frames: Collection[int]) -> list[int]:
        """Return the slots of frames, oldest frame first. Ignores frames without a slot."""
        slots = [slot for slot, frame in enumerate(self.frames) if frame is not None and frame in frames]
        return sorted(slots, key=self.frames.__getitem__)

    def release(self, slot: int) -> None:
        """Mark a slot as free."""
        self.frames[slot] = None
        self._free.add(slot)

    def compact(self) -> list[tuple[int, int]]:
        """Assign the last frames to free slots, so that the slots in use are contiguous.

        Returns:
            Moves to make, in this order: source and target slot.
        """
        moves = []
        for slot in sorted(self._free):
            while self.frames and self.frames[-1] is None:
                self.frames.pop()
            if slot >= len(self.frames):
                break
            moves.append((len(self.frames) - 1, slot))
            self.frames[slot] = self.frames.pop()
        self._free.clear()
        return moves
