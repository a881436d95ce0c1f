"""How a long stream is cut into windows."""

from __future__ import annotations

from dataclasses import dataclass

from streamvggt.words import counted

USAGE = "LENGTH,OVERLAP"


@dataclass(frozen=True)
class WindowSize:
    """Windows of `length` frames, each of which shares its first `overlap` frames with the one before.

        frames     0         10        20        30
        window 0   ────────────────────
        window 1              ──────────────────── …      length 20, overlap 8: one starts every 12 frames

    An overlap is at most half a window, so never more than two windows are open.
    """

    length: int = 60
    overlap: int = 15

    def __post_init__(self):
        if not 1 <= self.overlap <= self.length // 2:
            raise ValueError(
                f"windows of {counted(self.length, 'frame')} that overlap by {self.overlap}: "
                "an overlap of at least one frame and at most half a window was expected"
            )

    @classmethod
    def parse(cls, text: str) -> WindowSize:
        """What a command line says, as in "60,15".

        Raises:
            ValueError: that is no window.
        """
        try:
            length, overlap = map(int, text.split(","))
        except ValueError as error:
            raise ValueError(f"windows {text!r}: two whole numbers were expected, {USAGE}, as in 60,15") from error
        return cls(length, overlap)
