"""Loop closure: detect that a submap revisits an earlier one, and verify the pair with the network.

K keyframes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from streamvggt.stream.session import StreamSession
from streamvggt.stream.submaps.failure_detection import FailureDetector
from streamvggt.stream.submaps.loop_keyframes import LoopKeyframe, descriptor_similarity
from streamvggt.stream.submaps.observation import FrameObservation, scene_scale
from streamvggt.stream.submaps.options import SubmapOptions
from streamvggt.stream.submaps.pose_graph import Edge
from streamvggt.stream.submaps.submap_alignment import align_submaps

OVERLAP_TOLERANCE = 0.05
"""A point is common to two ends of a loop if the other end has a point within this fraction of its depth."""


@dataclass(frozen=True)
class LoopClosureOptions:
    """Detection and acceptance of loops.

    Attributes:
        keyframe_interval: Frames between two keyframes.
        min_frame_gap: Minimum number of frames between the two ends of a loop.
        min_similarity: Minimum cosine similarity of two descriptors.
        num_keyframes: Keyframes of each end that are verified.
        min_overlap: Minimum ratio of common points.
        max_keyframes: Maximum number of keyframes kept.

    Raises:
        ValueError: If a count is less than 1, or `max_keyframes` is less than three times `num_keyframes`.
    """

    keyframe_interval: int = 5
    min_frame_gap: int = 120
    min_similarity: float = 0.7
    num_keyframes: int = 4
    min_overlap: float = 0.3
    max_keyframes: int = 2000

    def __post_init__(self):
        counts = (self.keyframe_interval, self.min_frame_gap, self.num_keyframes)
        if min(counts) < 1 or self.max_keyframes < 3 * self.num_keyframes:
            raise ValueError(
                f"{self}: keyframe_interval, min_frame_gap and num_keyframes must be at least 1, "
                "max_keyframes at least three times num_keyframes"
            )


def parse_submaps(submaps: str | None, loop_closure: bool) -> tuple[SubmapOptions | None, LoopClosureOptions | None]:
    """Parse the values of --submaps and --loop-closure.

    Returns:
        The options; None for what is switched off.

    Raises:
        ValueError: If `submaps` is invalid, or loop closure is requested without submaps.
    """
    if loop_closure and submaps is None:
        raise ValueError("--loop-closure requires --submaps, for example --submaps 60,15")
    return (
        None if submaps is None else SubmapOptions.parse(submaps),
        LoopClosureOptions() if loop_closure else None,
    )


def detect_loop(
    keyframes: Sequence[LoopKeyframe],
    submap: int,
    options: LoopClosureOptions,
    checked_pairs: Sequence[tuple[int, int]],
) -> tuple[list[LoopKeyframe], list[LoopKeyframe]] | None:
    """Find the earlier submap whose keyframes are most similar to those of `submap`.

    Args:
        keyframes: All keyframes in temporal order.
        submap: Index of the submap that may close a loop.
        options: Thresholds.
        checked_pairs: Pairs of submaps that were verified recently. They and their neighbors are skipped.

    Returns:
        The keyframes of the earlier submap and of `submap` around the best match, or None.
    """
    best, found = options.min_similarity, None
    for new in keyframes:
        if new.submap != submap:
            continue
        old = [
            keyframe
            for keyframe in keyframes
            if keyframe.frame <= new.frame - options.min_frame_gap
            and not any(abs(keyframe.submap - a) <= 1 and abs(submap - b) <= 1 for a, b in checked_pairs)
        ]
        if not old:
            continue
        others = [
            keyframe
            for keyframe in keyframes
            if keyframe.frame > new.frame - options.min_frame_gap and keyframe is not new
        ]
        scores = descriptor_similarity(new, [*old, *others])[: len(old)]
        if scores.max() > best:
            best, found = scores.max().item(), (old[int(scores.argmax())], new)
    if found is None:
        return None
    return tuple(_around(end, keyframes, options.num_keyframes) for end in found)


def _around(end: LoopKeyframe, keyframes: Sequence[LoopKeyframe], num_keyframes: int) -> list[LoopKeyframe]:
    """Return the keyframes of a submap that are nearest in time to `end`, in temporal order."""
    candidates = [keyframe for keyframe in keyframes if keyframe.submap == end.submap]
    nearest = sorted(candidates, key=lambda keyframe: abs(keyframe.frame - end.frame))[:num_keyframes]
    return sorted(nearest, key=lambda keyframe: keyframe.frame)


class LoopVerification:
    """A small submap of the keyframes of both ends of a loop, computed one frame per step of the stream.

    Args:
        session: New session whose policy keeps all frames.
        old: Keyframes of the earlier submap.
        new: Keyframes of the later submap.
        max_points: Maximum number of points per frame.
    """

    def __init__(self, session: StreamSession, old: list[LoopKeyframe], new: list[LoopKeyframe], max_points: int):
        self.session = session
        self.old, self.new = old, new
        self._max_points = max_points
        self._observations: list[FrameObservation] = []

    @property
    def submaps(self) -> tuple[int, int]:
        return self.old[0].submap, self.new[0].submap

    def step(self) -> bool:
        """Run the network on the next keyframe. Return whether it was the last one."""
        keyframe = [*self.old, *self.new][len(self._observations)]
        image = keyframe.image().to(next(self.session.model.parameters()).dtype)
        self._observations.append(FrameObservation.from_prediction(self.session.push(image), self._max_points))
        return len(self._observations) == len(self.old) + len(self.new)

    def verify(self, options: LoopClosureOptions, detector: FailureDetector) -> Edge | str:
        """Return the loop edge between the two submaps, or the reason for its rejection."""
        if not all(observation.is_finite for observation in self._observations):
            return "not finite"
        old, new = self._observations[: len(self.old)], self._observations[len(self.old) :]
        alignments = [
            align_submaps(observations, [keyframe.observation for keyframe in keyframes])
            for observations, keyframes in ((old, self.old), (new, self.new))
        ]
        for alignment in alignments:
            if failure := detector.check_alignment(alignment):
                return failure
        overlap = overlap_ratio(old, new)
        if overlap < options.min_overlap:
            return f"only {overlap:.0%} of the points are common"
        old_from_new = alignments[0].old_from_new @ alignments[1].old_from_new.inverse()
        return Edge(*self.submaps, old_from_new, scene_scale(keyframe.observation for keyframe in self.old))

    @property
    def num_bytes(self) -> int:
        return self.session.num_bytes

    def state_dict(self) -> dict[str, Any]:
        return {
            "memory": self.session.memory.state_dict(),
            "old": [keyframe.state_dict() for keyframe in self.old],
            "new": [keyframe.state_dict() for keyframe in self.new],
            "observations": [observation.state_dict() for observation in self._observations],
        }

    @classmethod
    def from_state_dict(
        cls, state: dict[str, Any], session: StreamSession, max_points: int, device: torch.device
    ) -> LoopVerification:
        session.memory.load_state_dict(state["memory"], device)
        ends = [[LoopKeyframe.from_state_dict(keyframe) for keyframe in state[end]] for end in ("old", "new")]
        verification = cls(session, *ends, max_points)
        verification._observations = [FrameObservation(*parts) for parts in state["observations"]]
        return verification


def overlap_ratio(old: Sequence[FrameObservation], new: Sequence[FrameObservation]) -> float:
    """Return the mean ratio of each end's points that the other end also has, in [0, 1].

    The network also predicts a geometry for two different places. Their surfaces coincide only by chance.
    """
    from scipy.spatial import KDTree

    ratios = []
    for frames, others in ((old, new), (new, old)):
        points, depth = (torch.cat([getattr(frame, name) for frame in frames]) for name in ("points", "depth"))
        other_points = torch.cat([frame.points for frame in others])
        usable = points.isfinite().all(-1) & (depth > 0)
        other_points = other_points[other_points.isfinite().all(-1)]
        if not usable.any() or not len(other_points):
            return 0.0
        distance, _ = KDTree(other_points.numpy()).query(points[usable].numpy())
        ratios.append(float((distance < OVERLAP_TOLERANCE * depth[usable].numpy()).mean()))
    return sum(ratios) / 2
