"""Closing of loops: where a window comes to a place that an earlier one has seen, both are asked about it together.

K key frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.spatial import KDTree

from streamvggt.stream.session import StreamSession
from streamvggt.stream.windows.health import Health
from streamvggt.stream.windows.joint import join
from streamvggt.stream.windows.places import Place, alikeness
from streamvggt.stream.windows.pose_graph import Edge
from streamvggt.stream.windows.sight import Sight, typical_size
from streamvggt.stream.windows.size import WindowSize

SAME = 0.05
"""Share of its depth within which a point must have another one, for both to be seen as the same."""


@dataclass(frozen=True)
class Loops:
    """How loops are found and which are believed.

    every: frames from one key frame to the next.
    gap: frames that must lie between two places; what is nearer the windows join themselves.
    alike: how much two key frames must look alike to be asked about, a cosine.
    around: key frames of each of the two windows that are asked about.
    agree: share of the points of each end that must be points of the other end, too.
    most: key frames kept at most; then those of every second window go.
    """

    every: int = 5
    gap: int = 120
    alike: float = 0.7
    around: int = 4
    agree: float = 0.3
    most: int = 2000

    def __post_init__(self):
        if min(self.every, self.gap, self.around) < 1 or self.most < 3 * self.around:
            raise ValueError(f"{self}: every, gap and around must be at least 1, most at least three times around")


def parse_windows(windows: str | None, loops: bool) -> tuple[WindowSize | None, Loops | None]:
    """What a command line says of windows and loops; None: there are to be none.

    Raises:
        ValueError: that is no window, or loops are to be closed without windows.
    """
    if loops and windows is None:
        raise ValueError("--loops are closed between windows: add --windows, as in --windows 60,15")
    return None if windows is None else WindowSize.parse(windows), Loops() if loops else None


def find_loop(
    places: Sequence[Place], window: int, loops: Loops, tried: Sequence[tuple[int, int]]
) -> tuple[list[Place], list[Place]] | None:
    """The key frames of an earlier window and of this one that look most like each other, or None.

    Args:
        places: all key frames, in order of time.
        tried: pairs of windows that were asked about lately; their neighbours are not asked about again.
    """
    best, found = loops.alike, None
    for new in places:
        if new.window != window:
            continue
        old = [
            place
            for place in places
            if place.frame <= new.frame - loops.gap
            and not any(abs(place.window - a) <= 1 and abs(window - b) <= 1 for a, b in tried)
        ]
        if not old:
            continue
        others = [place for place in places if place.frame > new.frame - loops.gap and place is not new]
        scores = alikeness(new, [*old, *others])[: len(old)]
        if scores.max() > best:
            best, found = scores.max().item(), (old[int(scores.argmax())], new)
    if found is None:
        return None
    return tuple(
        sorted(
            sorted(
                (place for place in places if place.window == end.window),
                key=lambda place: abs(place.frame - end.frame),
            )[: loops.around],
            key=lambda place: place.frame,
        )
        for end in found
    )


class Closing:
    """A small window of key frames of both ends of a loop, asked one image after the other.

    session: fresh; it must see all of its frames.
    """

    def __init__(self, session: StreamSession, old: list[Place], new: list[Place], num_points: int):
        self.session = session
        self.old, self.new = old, new
        self._num_points = num_points
        self._sights: list[Sight] = []

    @property
    def windows(self) -> tuple[int, int]:
        return self.old[0].window, self.new[0].window

    def step(self) -> bool:
        """Ask about the next key frame; whether that was the last one."""
        place = [*self.old, *self.new][len(self._sights)]
        image = place.image().to(next(self.session.model.parameters()).dtype)
        self._sights.append(Sight.of(self.session.push(image), self._num_points))
        return len(self._sights) == len(self.old) + len(self.new)

    def judge(self, loops: Loops, health: Health) -> Edge | str:
        """What is known of the two windows by now; or why nothing is, in words."""
        if not all(sight.is_finite for sight in self._sights):
            return "not finite"
        old, new = self._sights[: len(self.old)], self._sights[len(self.old) :]
        joints = [join(seen, [place.sight for place in places]) for seen, places in ((old, self.old), (new, self.new))]
        for joint in joints:
            if misfit := health.of_joint(joint):
                return misfit
        agree = common_share(old, new)
        if agree < loops.agree:
            return f"only {agree:.0%} of the points are common"
        size = typical_size(place.sight for place in self.old)
        return Edge(*self.windows, joints[0].old_from_new @ joints[1].old_from_new.inverse(), size)

    @property
    def num_bytes(self) -> int:
        return self.session.num_bytes

    def state(self) -> dict[str, Any]:
        return {
            "memory": self.session.memory.state(),
            "old": [place.state() for place in self.old],
            "new": [place.state() for place in self.new],
            "sights": [sight.state() for sight in self._sights],
        }

    @classmethod
    def from_state(
        cls, state: dict[str, Any], session: StreamSession, num_points: int, device: torch.device
    ) -> Closing:
        session.memory.restore(state["memory"], device)
        ends = [[Place.from_state(place) for place in state[end]] for end in ("old", "new")]
        closing = cls(session, *ends, num_points)
        closing._sights = [Sight(*parts) for parts in state["sights"]]
        return closing


def common_share(old: Sequence[Sight], new: Sequence[Sight]) -> float:
    """How much of each end's points are points of the other end, on average; 1 where both see the same.

    A network puts also two different places somewhere; that their surfaces then fit each other would be chance.
    """
    shares = []
    for ours, theirs in ((old, new), (new, old)):
        points, depth = (torch.cat([getattr(sight, name) for sight in ours]) for name in ("points", "depth"))
        others = torch.cat([sight.points for sight in theirs])
        usable = points.isfinite().all(-1) & (depth > 0)
        others = others[others.isfinite().all(-1)]
        if not usable.any() or not len(others):
            return 0.0
        distance, _ = KDTree(others.numpy()).query(points[usable].numpy())
        shares.append(float((distance < SAME * depth[usable].numpy()).mean()))
    return sum(shares) / 2
