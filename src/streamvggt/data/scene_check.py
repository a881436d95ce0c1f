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
MIN_AGREEMENT = 0.7
"""Smallest median over the pairs of a scene. Intact sets reach 84 % (7-Scenes' Kinect) to 98 % (rendered)."""
CLEAR_AGREEMENT = 0.9
"""Above this, no explanation is searched for."""
HOPELESS = 0.3
"""A pair below this is wrong, unless things move or hide each other."""
MAX_HOPELESS_SHARE = 0.25
STEPS = (1, 5, 2, 10)
"""Distances of compared frames; even and odd ones, so that faults of every second frame show."""
MAX_PAIRS_FACTOR = 3
"""By how much the number of pairs grows where they contradict each other."""

Pair = tuple[str, str]


def _with_poses(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[View], View]:
    return lambda view: replace(view, cam_from_world=change(view.cam_from_world))


def _with_depth(factor: float) -> Callable[[View], View]:
    return lambda view: replace(view, depth=view.depth * factor)


AXES = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
EXPLANATIONS: dict[str, Callable[[View], View]] = {
    "the poses look inverted (camera-from-world where world-from-camera is expected)": _with_poses(invert_pose),
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

    share: Share to sort by; 1 if they do not overlap enough.
    views: None once they are drawn or not needed.
    """

    share: float
    found: Agreement
    frames: Pair
    views: tuple[View, View] | None


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
        num_pairs: Pairs to compare; more where they contradict each other. None: every frame and the next.
        random: Chooses the pairs.
    """
    verdict = SceneVerdict(scene)
    candidates = pairs_of(readable, scene, frames, num_pairs, random)
    compared: list[tuple[View, View]] = []
    for number, pair in enumerate(candidates):
        contradictory = any(share < HOPELESS for share in verdict.agreeing)
        if num_pairs and number >= num_pairs and not (contradictory or not verdict.agreeing):
            break
        views = _read_pair(readable, scene, pair)
        if views is None:
            continue
        compared.append(views)
        found = agreement(*views)
        if overlaps(found, views):
            verdict.agreeing.append(found.agreeing)
        share = found.agreeing if overlaps(found, views) else 1.0
        if verdict.worst is None or share < verdict.worst.share:
            verdict.worst = ComparedPair(share, found, pair, views)
    verdict.problem = _problem(verdict.agreeing, compared)
    return verdict


def _problem(agreeing: list[float], compared: list[tuple[View, View]]) -> str | None:
    """What is wrong with a scene, in words; None: nothing that shows."""
    if not compared or (agreeing and min(agreeing) > CLEAR_AGREEMENT):
        return None
    share = median(agreeing) if agreeing else 0.0
    explanation = explain(compared[:4], share) if share < CLEAR_AGREEMENT else None
    hopeless = sum(one < HOPELESS for one in agreeing)
    if explanation is None and not agreeing:
        return None  # nothing overlaps: photographs from all around, or a turning camera
    if explanation is None and share >= MIN_AGREEMENT and hopeless < MAX_HOPELESS_SHARE * len(agreeing):
        return None
    said = f"{share:.0%} of what two views both see agrees, expected at least {MIN_AGREEMENT:.0%}"
    if hopeless and share >= MIN_AGREEMENT:
        said = f"{hopeless} of {len(agreeing)} pairs disagree"
    return f"{said}: {explanation or unlike_frames(compared) or 'check intrinsics, poses and depth'}"


def explain(pairs: Sequence[tuple[View, View]], share: float) -> str | None:
    """Return the explanation with which the views agree, if the disagreement shrinks to less than half."""
    best, words = share, None
    for said, undo in EXPLANATIONS.items():
        undone = [(undo(first), undo(second)) for first, second in pairs]
        found = [(agreement(*views), views) for views in undone]
        shares = [one.agreeing for one, views in found if overlaps(one, views)]
        if 2 * len(shares) >= len(pairs) and median(shares) > best:
            best, words = median(shares), said
    return words if 1 - best < (1 - share) / 2 and best >= MIN_AGREEMENT else None


def unlike_frames(pairs: Sequence[tuple[View, View]]) -> str | None:
    """Say whether the depth of some frames has another unit than that of the others."""
    for first, second in pairs:
        if first.valid.any() and second.valid.any():
            ratio = (first.depth[first.valid].median() / second.depth[second.valid].median()).item()
            if max(ratio, 1 / ratio) > 20:
                return f"the depth of neighboring frames differs by a factor of {max(ratio, 1 / ratio):.0f}"
    return None


def overlaps(found: Agreement, views: tuple[View, View]) -> bool:
    return found.overlap > (MIN_SPARSE_OVERLAP if is_sparse(views[1]) else MIN_OVERLAP)


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
    pairs = []
    for number in range(MAX_PAIRS_FACTOR * count if runs else 0):
        run = runs[number % len(runs)]
        step = min(STEPS[number % len(STEPS)], len(run) - 1)
        start = int(random.integers(len(run) - step))
        pairs.append((frames[run[start]], frames[run[start + step]]))
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
