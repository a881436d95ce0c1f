"""Geometric consistency of one scene: do its views project into each other, and if not, why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from statistics import median

import numpy as np
import torch

from streamvggt.data.consistency import GeometricConsistency, agreement, is_sparse
from streamvggt.data.dataset_reader import DatasetReader
from streamvggt.data.decode import DataError
from streamvggt.data.explanation import Views, explain
from streamvggt.data.sampling import CovisibilitySampler, GraphWalkSampler, GroupSampler
from streamvggt.data.view import View

MIN_OVERLAP, MIN_SPARSE_OVERLAP = 0.2, 0.04
"""Minimum overlap of two compared views, as a ratio of the first. With sparse depth, few pixels overlap."""
CLOSE_OVERLAP, CLOSE_SPARSE_OVERLAP, NUM_CLOSE = 0.75, 0.2, 2
"""Close pairs judge a scene if it has enough of them: errors of real poses and sensors grow with the distance."""
MIN_AGREEMENT = 0.7
"""Smallest median of close pairs. Intact sets reach 86 % (7-Scenes' Kinect) to 98 % (rendered)."""
MIN_FAR_AGREEMENT = 0.1
"""Smallest median if no pairs are close. Pairs of 7-Scenes that are 2 s apart reach 16 %."""
MAX_DEPTH_RATIO = 20
"""Largest ratio of the median depths of two compared views."""
MAX_BASELINE = 10
"""Largest median distance of the cameras of two frames that should overlap, in units of their largest depth."""
STEPS = (1, 2, 1, 5)
"""Distances of compared frames, in turn."""
MAX_PAIRS_FACTOR = 3
"""By how much the number of pairs may grow until enough of them are close."""
NUM_EXPLAINED, NUM_SHIFTED = 6, 3
"""Pairs that an explanation is tried on, and those of them of which neighboring frames are read."""
MAX_JUMP = 0.5
"""Largest step from frame to frame, as a share of the distance of any two frames, of poses in the order of time."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class ComparedPair:
    """Two frames and the result of their comparison. `views` is None once they are drawn or not needed."""

    found: GeometricConsistency
    frames: Pair
    views: tuple[View, View] | None

    @property
    def overlaps(self) -> bool:
        return self.found.overlap > (MIN_SPARSE_OVERLAP if is_sparse(self.views[1]) else MIN_OVERLAP)

    @property
    def is_close(self) -> bool:
        return self.found.overlap > (CLOSE_SPARSE_OVERLAP if is_sparse(self.views[1]) else CLOSE_OVERLAP)


@dataclass
class SceneVerdict:
    """Geometric consistency of a scene.

    Attributes:
        consistent_ratio: Ratio of the common pixels of both views that project onto each other, per overlapping pair.
        worst: Pair with the lowest fraction.
        problem: Description of the error, or None.
    """

    scene: str
    consistent_ratio: list[float] = field(default_factory=list)
    worst: ComparedPair | None = None
    problem: str | None = None


def judge_scene(
    readable, scene: str, frames: Sequence[str], num_pairs: int | None, random: np.random.Generator
) -> SceneVerdict:
    """Compare pairs of frames of a scene.

    Args:
        readable: Set to read from.
        num_pairs: Pairs to compare, more until enough of them are close. None: every frame and the next.
        random: Generator that selects the pairs.
    """
    verdict = SceneVerdict(scene)
    compared: list[ComparedPair] = []
    for number, frames_of_pair in enumerate(select_pairs(readable, scene, frames, num_pairs, random)):
        if num_pairs and number >= num_pairs and sum(pair.is_close for pair in compared) >= NUM_CLOSE:
            break
        if views := _read_pair(readable, scene, frames_of_pair):
            compared.append(ComparedPair(agreement(*views), frames_of_pair, views))
    judged = judged_pairs(compared)
    verdict.consistent_ratio = [pair.found.consistent_ratio for pair in judged]
    verdict.worst = min(judged or compared, key=lambda pair: pair.found.consistent_ratio, default=None)
    verdict.problem = _problem(compared, judged, Neighbors(readable, scene, frames))
    return verdict


def judged_pairs(compared: Sequence[ComparedPair]) -> list[ComparedPair]:
    """Return the close pairs if there are enough, otherwise all overlapping pairs."""
    close = [pair for pair in compared if pair.is_close]
    return close if len(close) >= NUM_CLOSE else [pair for pair in compared if pair.overlaps]


class Neighbors:
    """Frames next to those of a pair, for sets whose frames are in temporal order."""

    def __init__(self, readable, scene: str, frames: Sequence[str]):
        self._readable, self._scene, self._frames = readable, scene, frames
        self._position = {frame: number for number, frame in enumerate(frames)}
        selection = getattr(readable, "view_sampler", None)
        self.are_in_order = not isinstance(selection, GraphWalkSampler | GroupSampler)

    def shifted(self, pairs: Sequence[ComparedPair]) -> dict[str, list[tuple[Views, Views]]]:
        """Return, by explanation, the pairs unchanged and with the depth of the previous or next frames."""
        if not self.are_in_order:
            return {}
        far = sorted(pairs, key=lambda pair: -self.step(pair))[:NUM_SHIFTED]
        both = {
            words: [(pair.views, tuple(views)) for pair in far if all(views := self._with_depth_beside(pair, shift))]
            for words, shift in (("the next frame", -1), ("the frame before", 1))
        }
        return {f"the depth of a frame looks like that of {words}": found for words, found in both.items() if found}

    def jump(self, pairs: Sequence[ComparedPair]) -> bool:
        """Return whether the camera is as far from the next frame as from any other."""
        steps = [self._distance(*pair.views) for pair in pairs if self.step(pair) == 1]
        views = [view for pair in pairs for view in pair.views]
        others = [self._distance(*two) for two in combinations(views, 2)]
        return self.are_in_order and len(steps) > 1 and median(steps) > MAX_JUMP * median(others)

    def step(self, pair: ComparedPair) -> int:
        return abs(self._position[pair.frames[1]] - self._position[pair.frames[0]])

    @staticmethod
    def _distance(first: View, second: View) -> float:
        centers = (view.cameras.world_from_cam[:, 3] for view in (first, second))
        return (next(centers) - next(centers)).norm().item()

    def _with_depth_beside(self, pair: ComparedPair, shift: int) -> list[View | None]:
        """Return both views with the depth of frames at an offset. None if no such frame has this size."""
        positions = [self._position[frame] + shift for frame in pair.frames]
        if min(positions) < 0 or max(positions) >= len(self._frames):
            return [None]
        beside = _read_pair(self._readable, self._scene, tuple(self._frames[position] for position in positions))
        return [
            replace(view, depth=other.depth, valid=other.valid) if other.depth.shape == view.depth.shape else None
            for view, other in zip(pair.views, beside or (), strict=False)
        ] or [None]


def _problem(compared: Sequence[ComparedPair], judged: Sequence[ComparedPair], beside: Neighbors) -> str | None:
    """Return a description of the error of a scene, or None."""
    if unlike := unlike_frames(compared):
        return unlike
    share = median(pair.found.consistent_ratio for pair in judged) if judged else 0.0
    wanted = MIN_AGREEMENT if sum(pair.is_close for pair in judged) >= NUM_CLOSE else MIN_FAR_AGREEMENT
    tried = compared[:NUM_EXPLAINED]
    explanation = explain([pair.views for pair in tried], lambda: beside.shifted(tried))
    if explanation is None and (not judged or share >= wanted):
        # Without judged pairs: photos from all directions, a rotating camera, or views without overlap.
        return None if judged else distant_cameras(compared)
    if explanation is None:
        explanation = (
            "the poses jump from frame to frame, as if they belonged to other frames"
            if beside.jump(compared)
            else "check intrinsics, poses and depth"
        )
    return f"{explanation} ({share:.0%} of what two views both see agrees, expected {MIN_AGREEMENT:.0%})"


def unlike_frames(pairs: Sequence[ComparedPair]) -> str | None:
    """Describe frames whose depth has a unit different from that of neighboring frames."""
    for pair in pairs:
        first, second = pair.views
        if first.valid.any() and second.valid.any():
            ratio = (first.depth[first.valid].median() / second.depth[second.valid].median()).item()
            if (factor := max(ratio, 1 / ratio)) > MAX_DEPTH_RATIO:
                return f"the depth of frames {' and '.join(pair.frames)} differs by a factor of {factor:.0f}"
    return None


def distant_cameras(pairs: Sequence[ComparedPair]) -> str | None:
    """Describe overlapping cameras that are much farther apart than the distance of the scene."""
    distances, ratios = [], []
    for pair in pairs:
        first, second = pair.views
        if first.valid.any() and second.valid.any():
            distances.append(torch.dist(first.cameras.world_from_cam[:, 3], second.cameras.world_from_cam[:, 3]).item())
            ratios.append(distances[-1] / max(first.depth[first.valid].max(), second.depth[second.valid].max()).item())
    if not ratios or median(ratios) <= MAX_BASELINE:
        return None
    return (
        f"the cameras of compared frames are {median(distances):.3g} apart, {median(ratios):.0f} times as far as their "
        "largest depth: the depth looks too small for the poses, or the frames show different places"
    )


def select_pairs(
    readable, scene: str, frames: Sequence[str], count: int | None, random: np.random.Generator
) -> list[Pair]:
    """Return overlapping pairs of frames: neighbors in time, or from the lists of the set."""
    selection = getattr(readable, "view_sampler", None)
    if isinstance(readable, DatasetReader) and isinstance(selection, GraphWalkSampler | GroupSampler):
        positions = _listed_pairs(readable, scene, selection, random)
        return [(frames[i], frames[j]) for i, j in positions[: count and MAX_PAIRS_FACTOR * count]]
    runs = readable.segments(scene) if isinstance(selection, CovisibilitySampler) else [range(len(frames))]
    runs = [run for run in runs if len(run) > 1]
    if count is None:
        return [(frames[i], frames[j]) for run in runs for i, j in pairwise(run)]
    starts = {
        (number, step): random.permutation(len(run) - 1).tolist()
        for number, run in enumerate(runs)
        for step in sorted(set(STEPS))
    }
    pairs = []
    for attempt in range(MAX_PAIRS_FACTOR * count if runs else 0):
        number, step = attempt % len(runs), STEPS[attempt // len(runs) % len(STEPS)]
        run, left = runs[number], starts[number, step]
        if left:
            start = left.pop()
            pairs.append((frames[run[start]], frames[run[min(start + step, len(run) - 1)]]))
    return list(dict.fromkeys(pairs))


def _listed_pairs(source: DatasetReader, scene: str, selection, random: np.random.Generator) -> list[tuple[int, int]]:
    """Return pairs of frame positions in random order."""
    if isinstance(selection, GraphWalkSampler):
        pairs, shares = source.overlap(scene)
        pairs = pairs[:, shares > selection.min_overlap].T
    else:
        pairs = np.array([(group[0], other) for group in source.groups(scene) for other in group[1:]]).reshape(-1, 2)
    return [(int(i), int(j)) for i, j in random.permutation(pairs) if i != j]


def _read_pair(readable, scene: str, pair: Pair) -> tuple[View, View] | None:
    try:
        first, second = (readable.read(scene, frame) for frame in pair)
    except (DataError, OSError):
        return None  # reported when frames are read individually
    return first, second
