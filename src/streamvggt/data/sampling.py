"""How the views of a training sample are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Selection(Protocol):
    """Chooses the views of a sample."""


@dataclass(frozen=True)
class Clips:
    """From a start frame onwards, at random intervals (the frames of a video, or a shuffled collection).

    max_interval: largest step between neighbours, in frames.
    video_prob: share of samples that stay in the order of time.
    fix_prob: share of videos with all intervals equal.
    block_shuffle: collections are shuffled within consecutive blocks of this many views; None: all together.
    """

    max_interval: int = 25
    video_prob: float = 0.5
    fix_prob: float = 0.5
    block_shuffle: int | None = None


@dataclass(frozen=True)
class Covisible:
    """Members of one of the scene's `groups`, or a clip of one of its `runs`.

    clips: how clips are chosen.
    clip_share: share of samples that are clips.
    best_first: only the best members of a group are chosen from, twice to four times as many as are wanted.
    """

    clips: Clips
    clip_share: float
    best_first: bool = False


@dataclass(frozen=True)
class Sets:
    """Any members of one of the scene's `groups`."""


@dataclass(frozen=True)
class GraphWalk:
    """A random walk over frames that share enough (`overlap`).

    min_overlap: what a pair must share more than.
    """

    min_overlap: float = 0.2
