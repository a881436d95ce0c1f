"""Which of the past stays in a stream's memory. A policy decides and nothing else; attention does not know it.

session = StreamSession(model, policy=Window(anchor=1, recent=8))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamvggt.model.memory import Policy
from streamvggt.prediction import Prediction


@dataclass(frozen=True)
class KeepAll(Policy):
    """Every frame stays: the published behaviour. Memory and time per frame grow with every frame."""


@dataclass(frozen=True)
class Window(Policy):
    """The first frames and the latest ones stay (attention sinks, arXiv 2309.17453; STream3R, arXiv 2508.10893).

    anchor: first frames that stay for ever; the first one's camera is the world.
    recent: latest frames that stay, so that a frame sees `anchor` + `recent` earlier ones and itself.
    """

    anchor: int = 1
    recent: int = 8

    def __post_init__(self):
        if self.anchor < 0 or self.recent < 0:
            raise ValueError(f"a window has no negative sizes: anchor={self.anchor}, recent={self.recent}")

    @property
    def capacity(self) -> int:
        return self.anchor + self.recent + 1

    def keep(self, frames: Sequence[int], result: Prediction | None) -> Sequence[int]:
        next_frame = frames[-1] + 1
        return [frame for frame in frames if frame < self.anchor or frame >= next_frame - self.recent]


def parse_policy(text: str) -> Policy:
    """The policy that a command line names: "all", "window" or "window:ANCHOR,RECENT".

    Raises:
        ValueError: there is none of that name, or its numbers cannot be read.
    """
    name, _, numbers = text.partition(":")
    if name == "all" and not numbers:
        return KeepAll()
    if name == "window":
        if not numbers:
            return Window()
        parts = numbers.split(",")
        if len(parts) == 2 and all(part.strip().isdecimal() for part in parts):
            return Window(*map(int, parts))
    raise ValueError(f"memory {text!r} is unknown; choose 'all', 'window' or 'window:ANCHOR,RECENT' such as window:1,8")
