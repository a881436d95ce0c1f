"""Verdict on the geometry of one scene: whether its views project into each other, and if not, what explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median

import numpy as np
import torch

from streamvggt.data.agreement import Agreement, agreement, is_sparse
from streamvggt.data.decode import BadData
from streamvggt.data.sampling import Covisible, GraphWalk, Sets
from streamvggt.data.source import Source
from streamvggt.data.view import View
from streamvggt.geometry.camera import invert_pose

MIN_OVERLAP, MIN_SPARSE_OVERLAP = 0.2, 0.04
"""Share of a view that another view must see to compare both. If depth is known at single pixels only, few meet."""
CLOSE_OVERLAP, CLOSE_SPARSE_OVERLAP, NUM_CLOSE = 0.75, 0.2, 2
"""Close pairs judge a scene if it has enough of them: errors of real poses and sensors grow with the distance."""
MIN_AGREEMENT = 0.7
"""Smallest median of close pairs. Intact sets reach 86 % (7-Scenes' Kinect) to 98 % (rendered)."""
MIN_FAR_AGREEMENT = 0.1
"""Smallest median if no pairs are close. Pairs of 7-Scenes that are 2 s apart reach 16 %."""
MIN_EXPLAINED = 0.8
"""Smallest median with which an explanation counts."""
CLEAR_AGREEMENT = 0.9
"""Above this, no explanation is searched for."""
MAX_DEPTH_RATIO = 20
"""Largest ratio of the median depths of two compared views."""
MAX_BASELINE = 10
"""Largest median distance of the cameras of two frames that should see the same, in units of their largest depth."""
STEPS = (1, 2, 1, 5)
"""Distances of compared frames, in turn."""
MAX_PAIRS_FACTOR = 3
"""By how much the number of pairs may grow until enough of them are close."""
NUM_EXPLAINED = 6
"""Pairs that an explanation is tried on."""

Pair = tuple[str, str]


def _with_poses(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[View], View]:
    return lambda view: replace(view, cam_from_world=change(view.cam_from_world))


def _with_depth(factor: float) -> Callable[[View], View]:
    return lambda view: replace(view, depth=view.depth * factor)


AXES = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
EXPLANATIONS: dict[str, Callable[[View], View]] = {
    "the poses look inverted (camera-from-world where world-from-camera is expected)": _with_poses(invert_pose),
    "the rotations look transposed": _with_poses(lambda pose: torch.cat([pose[:, :3].mT, pose[:, 3:]], 1)),
    "the camera axes look like OpenGL's (y up, z backward)": _with_poses(lambda pose: AXES @ pose),
    **{
        f"the depth looks {factor:g} times too large for the poses": _with_depth(1 / factor)
        for factor in (2, 10, 100, 1000, 5000)
    },
    **{
        f"the depth looks {factor:g} times too small for the poses": _with_depth(factor)
        for factor in (2, 10, 100, 1000, 5000)
    },
}
"""What may be wrong with all views of a scene, and what undoes it."""


@dataclass(frozen=True)
class ComparedPair:
    """Two frames and what was found.

    views: None once they are drawn or not needed.
    """

    found: Agreement
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
    """Geometry of a scene.

    agreeing: Share of what both views of a pair see that they see at the same place, per pair that overlaps.
    worst: Pair that agrees least.
    problem: What is wrong; None if nothing is.
    """

    scene: str
    agreeing: list[float] = field(default_factory=list)
    worst: ComparedPair | None = None
    problem: str | None = None


def judge_scene(
    readable, scene: str, frames: Sequence[str], num_pairs: int | None, random: np.random.Generator
) -> SceneVerdict:
    """Compare pairs of frames of a scene.

    Args:
        readable: Set to read from.
        num_pairs: Pairs to compare; more until enough of them are close. None: every frame and the next.
        random: Chooses the pairs.
    """
    verdict = SceneVerdict(scene)
    compared: list[ComparedPair] = []
    for number, frames_of_pair in enumerate(pairs_of(readable, scene, frames, num_pairs, random)):
        if num_pairs and number >= num_pairs and sum(pair.is_close for pair in compared) >= NUM_CLOSE:
            break
        if views := _read_pair(readable, scene, frames_of_pair):
            compared.append(ComparedPair(agreement(*views), frames_of_pair, views))
    judged = judged_pairs(compared)
    verdict.agreeing = [pair.found.agreeing for pair in judged]
    verdict.worst = min(judged or compared, key=lambda pair: pair.found.agreeing, default=None)
    verdict.problem = _problem(compared, judged)
    return verdict


def judged_pairs(compared: Sequence[ComparedPair]) -> list[ComparedPair]:
    """The close pairs if there are enough, otherwise those that overlap at all."""
    close = [pair for pair in compared if pair.is_close]
    return close if len(close) >= NUM_CLOSE else [pair for pair in compared if pair.overlaps]


def _problem(compared: Sequence[ComparedPair], judged: Sequence[ComparedPair]) -> str | None:
    """What is wrong with a scene, in words; None: nothing that shows."""
    if unlike := unlike_frames(compared):
        return unlike
    share = median(pair.found.agreeing for pair in judged) if judged else 0.0
    if not compared or share > CLEAR_AGREEMENT:
        return None
    wanted = MIN_AGREEMENT if sum(pair.is_close for pair in judged) >= NUM_CLOSE else MIN_FAR_AGREEMENT
    explanation = explain(judged or compared, share)
    if explanation or (judged and share < wanted):
        reason = explanation or "check intrinsics, poses and depth"
        return f"{share:.0%} of what two views both see agrees, expected at least {MIN_AGREEMENT:.0%}: {reason}"
    # Without judged pairs: photographs from all around, a turning camera, or places that have nothing in common
    return None if judged else distant_cameras(compared)


def explain(pairs: Sequence[ComparedPair], share: float) -> str | None:
    """Return the explanation with which the views agree, if the disagreement shrinks to less than half."""
    best, words = share, None
    for said, undo in EXPLANATIONS.items():
        undone = [tuple(map(undo, pair.views)) for pair in pairs[:NUM_EXPLAINED]]
        found = judged_pairs([ComparedPair(agreement(*views), ("", ""), views) for views in undone])
        shares = [pair.found.agreeing for pair in found]
        if 2 * len(shares) >= len(undone) and median(shares) > best:
            best, words = median(shares), said
    return words if 1 - best < (1 - share) / 2 and best >= MIN_EXPLAINED else None


def unlike_frames(pairs: Sequence[ComparedPair]) -> str | None:
    """Say whether the depth of some frames has another unit than that of frames beside them."""
    for pair in pairs:
        first, second = pair.views
        if first.valid.any() and second.valid.any():
            ratio = (first.depth[first.valid].median() / second.depth[second.valid].median()).item()
            if (factor := max(ratio, 1 / ratio)) > MAX_DEPTH_RATIO:
                return f"the depth of frames {' and '.join(pair.frames)} differs by a factor of {factor:.0f}"
    return None


def distant_cameras(pairs: Sequence[ComparedPair]) -> str | None:
    """Say whether cameras that should see the same are much farther apart than anything that they see is away."""
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


def pairs_of(readable, scene: str, frames: Sequence[str], count: int | None, random: np.random.Generator) -> list[Pair]:
    """Return pairs of frames that should see the same: neighbors in time, or of the set's own lists."""
    selection = getattr(readable, "selection", None)
    if isinstance(readable, Source) and isinstance(selection, GraphWalk | Sets):
        positions = _listed_pairs(readable, scene, selection, random)
        return [(frames[i], frames[j]) for i, j in positions[: count and MAX_PAIRS_FACTOR * count]]
    runs = readable.runs(scene) if isinstance(selection, Covisible) else [range(len(frames))]
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


def _listed_pairs(source: Source, scene: str, selection, random: np.random.Generator) -> list[tuple[int, int]]:
    """Pairs by position, in random order."""
    if isinstance(selection, GraphWalk):
        pairs, shares = source.overlap(scene)
        pairs = pairs[:, shares > selection.min_overlap].T
    else:
        pairs = np.array([(group[0], other) for group in source.groups(scene) for other in group[1:]]).reshape(-1, 2)
    return [(int(i), int(j)) for i, j in random.permutation(pairs) if i != j]


def _read_pair(readable, scene: str, pair: Pair) -> tuple[View, View] | None:
    try:
        first, second = (readable.read(scene, frame) for frame in pair)
    except (BadData, OSError):
        return None  # told where frames are read one by one
    return first, second
