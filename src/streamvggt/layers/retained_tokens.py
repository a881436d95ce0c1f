"""Positions of retained tokens: the first tokens of evicted frames, stored before the slots of a KV cache."""

from __future__ import annotations

MAX_INITIAL_RETAINED = 256  # frames; larger numbers are reached by doubling


class RetainedTokenRing:
    """Ring of the retained tokens of the latest evicted slots.

    Positions are negative: -1 is the token before the first slot. The newest tokens are stored before the others. If
    there is no room, they replace the oldest:

                room for 3 retained frames │ slots
        evict([1])               –   –   1 │ 0  –  2  3
        evict([2])               –   2   1 │ 0  –  –  3
        evict([3])               3   2   1 │ 0  –  –  –
        evict([4])               3   2   4 │ …

    The room doubles on demand, up to `num_frames`.

    Attributes:
        tokens_per_slot: Number of retained tokens per evicted slot.
        num_evicted: Number of evicted slots with retained tokens, including replaced ones.
        room: Number of tokens that fit.
    """

    def __init__(self, num_frames: int, tokens_per_slot: int):
        """Create an empty ring.

        Args:
            num_frames: Maximum number of evicted slots whose tokens are retained. 0: no tokens are retained.
            tokens_per_slot: Number of retained tokens per evicted slot.
        """
        self.tokens_per_slot = tokens_per_slot
        self.num_evicted = 0
        self._max_room = num_frames * tokens_per_slot
        self.room = min(num_frames, MAX_INITIAL_RETAINED) * tokens_per_slot

    def __len__(self) -> int:
        """Number of retained tokens."""
        return min(self.room, self.num_evicted * self.tokens_per_slot)

    @property
    def is_full(self) -> bool:
        """Whether the next tokens replace the oldest."""
        return len(self) == self._max_room

    @property
    def must_grow(self) -> bool:
        """Whether the next tokens need more room. Call `grow` first."""
        return len(self) == self.room < self._max_room

    def grow(self, num_evicted: int) -> int:
        """Extend the room to the tokens of `num_evicted` slots and more. Return the room in tokens."""
        wanted = MAX_INITIAL_RETAINED
        while wanted < num_evicted:
            wanted *= 2
        self.room = min(wanted * self.tokens_per_slot, self._max_room)
        return self.room

    def next_position(self) -> int:
        """Reserve room for the tokens of one more slot. Return the position of the first token."""
        position = -((self.num_evicted * self.tokens_per_slot) % self.room) - self.tokens_per_slot
        self.num_evicted += 1
        return position
