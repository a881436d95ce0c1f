"""Length and overlap of submaps."""

from __future__ import annotations

from dataclasses import dataclass

from streamvggt.words import counted

USAGE = "LENGTH,OVERLAP"


@dataclass(frozen=True)
class SubmapOptions:
    """Size of the submaps of a long stream.

        frames     0         10        20        30
        submap 0   ────────────────────
        submap 1              ──────────────────── …      length 20, overlap 8: one starts every 12 frames

    Attributes:
        length: Frames per submap.
        overlap: Frames that a submap shares with the submap before. At most half of `length`, so that at most two
            submaps are active.

    Raises:
        ValueError: If `overlap` is less than 1 or more than half of `length`.
    """

    length: int = 60
    overlap: int = 15

    def __post_init__(self):
        if not 1 <= self.overlap <= self.length // 2:
            raise ValueError(
                f"submaps of {counted(self.length, 'frame')} that overlap by {self.overlap}: "
                "expected an overlap of at least one frame and at most half a submap"
            )

    @classmethod
    def parse(cls, text: str) -> SubmapOptions:
        """Parse a command-line value such as "60,15".

        Raises:
            ValueError: If `text` is not two integers, or they are not valid options.
        """
        try:
            length, overlap = map(int, text.split(","))
        except ValueError as error:
            raise ValueError(f"submaps {text!r}: expected two integers {USAGE}, for example 60,15") from error
        return cls(length, overlap)
