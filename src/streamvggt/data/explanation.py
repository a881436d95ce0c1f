"""Explain an inconsistent geometry by undoing frequent errors.

Two views of a scene observe the same depth. A wrong unit, axis, focal length or time changes the depth slightly,
even if the views seem to agree. If the error is undone, the difference decreases to the noise of the sensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations, product
from statistics import median

import torch

from streamvggt.data.consistency import agreement, dilate_depth, is_sparse, sample_depth
from streamvggt.data.view import View
from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.pointmap import project

Views = tuple[View, View]

SIDE = 200
"""Pixels of the larger side of the views that are compared."""
MIN_LANDED = 0.15
"""Share of a view that must land on valid pixels of the other."""
MIN_DIFFERENCE = 3e-4
"""Relative difference of depth that needs no explanation: the rounding of 16-bit depth."""
MAX_EXPLAINED = 0.03
"""Largest difference of an intact scene. Pairs of 7-Scenes that are 2 s apart reach 0.01."""
MAX_RATIO = 0.75
"""By what an explanation must shrink the difference at least; intact scenes have none that shrinks it at all."""
MIN_SHIFTED = 2e-3
"""Smallest relative difference of depth for which neighboring frames are read."""
MIN_UNDONE = 0.4
"""Smallest median agreement of pairs with the mistake undone; shuffled poses come near to no explanation's."""
MIN_BETTER = 0.75
"""Share of the pairs in which an explanation must be better."""


NO_PARALLAX = 1e6
"""Factor of depth at which the distances of cameras do not matter any longer."""


def _with_depth(factor: float) -> Callable[[View], View]:
    return lambda view: replace(view, depth=view.depth * factor)


def _with_focal(factor: float) -> Callable[[View], View]:
    scale = torch.tensor([[factor, 1, 1], [1, factor, 1], [1, 1, 1]])
    return lambda view: replace(view, intrinsics=view.intrinsics * scale)


def _with_pose(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[View], View]:
    return lambda view: replace(view, cam_from_world=change(view.cam_from_world))


def _along_axis(view: View) -> View:
    rays = replace(view, depth=torch.ones_like(view.depth), cam_from_world=torch.eye(4)[:3]).points()
    return replace(view, depth=view.depth / rays.norm(dim=-1))


def _turns() -> Iterator[tuple[str, torch.Tensor]]:
    """Return the other right-handed conventions of camera axes, with their rotations to OpenCV. (3, 3)"""
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        turn = torch.zeros(3, 3)
        turn[range(3), order] = torch.tensor(signs)
        if torch.linalg.det(turn) > 0 and not torch.equal(turn, torch.eye(3)):
            names = ", ".join("-"[: sign < 0] + "xyz"[axis] for axis, sign in zip(order, signs, strict=True))
            yield (
                OPENGL if names == "x, -y, -z" else f"the camera axes look swapped: OpenCV's x, y, z are {names}",
                turn,
            )


OPENGL = "the camera axes look like OpenGL's (y up, z backward) for OpenCV's, or the other way around"
INVERTED = "the poses look inverted (camera-from-world where world-from-camera is expected)"
TURNS = dict(_turns())
DEPTH_TOO_SMALL = {
    f"the depth looks {factor:g} times too small for the poses": _with_depth(factor)
    for factor in (1.2, 1.5, 2, 10, 100, 1000, 5000)
}
EXPLANATIONS: dict[str, Callable[[View], View]] = {
    INVERTED: _with_pose(invert_pose),
    f"{INVERTED}, and {OPENGL}": _with_pose(lambda pose: TURNS[OPENGL] @ invert_pose(pose)),
    "the rotations look transposed": _with_pose(lambda pose: torch.cat([pose[:, :3].mT, pose[:, 3:]], 1)),
    **{words: _with_pose(lambda pose, turn=turn: turn @ pose) for words, turn in TURNS.items()},
    "the depth looks like the distance along the ray, not along the optical axis": _along_axis,
    **{
        f"the depth looks {factor:g} times too large for the poses": _with_depth(1 / factor)
        for factor in (1.2, 1.5, 2, 10, 100, 1000, 5000)
    },
    **DEPTH_TOO_SMALL,
    **{
        f"the focal length looks {factor:g} times too {word}": _with_focal(undo)
        for factor in (1.2, 1.5, 2)
        for word, undo in (("large", 1 / factor), ("small", factor))
    },
}
"""What may be wrong with all views of a scene, and what undoes it."""


def explain(pairs: Sequence[Views], shifted: Callable[[], Mapping[str, Sequence[tuple[Views, Views]]]]) -> str | None:
    """Return the explanation with the smallest depth difference, if the difference decreases enough.

    Args:
        pairs: Pairs of overlapping views.
        shifted: Function that returns further explanations: pairs before and after the correction. Called if required.
    """
    pairs = [tuple(map(small, views)) for views in pairs]
    as_is = [depth_difference(*views) for views in pairs]
    if not pairs or median(as_is) < MIN_DIFFERENCE:
        return None
    tried = {words: (pairs, [tuple(map(undo, views)) for views in pairs]) for words, undo in EXPLANATIONS.items()}
    if median(as_is) > MIN_SHIFTED:
        for words, both in shifted().items():
            tried[words] = tuple([tuple(map(small, views)) for views in side] for side in zip(*both, strict=True))
    counting = {}
    for words, (before, after) in tried.items():
        left = [depth_difference(*views) for views in after]
        if _explains(as_is if before is pairs else [depth_difference(*views) for views in before], left):
            counting[words] = left
    # Views from nearly the same direction agree in the limit of infinite depth, wherever the cameras are.
    if not counting.keys().isdisjoint(DEPTH_TOO_SMALL):
        far = [depth_difference(*map(_with_depth(NO_PARALLAX), views)) for views in pairs]
        counting = {
            words: left for words, left in counting.items() if words not in DEPTH_TOO_SMALL or _explains(far, left)
        }
    for words in sorted(counting, key=lambda words: median(counting[words])):
        if median(agreement(*views).consistent_ratio for views in tried[words][1]) > MIN_UNDONE:
            return words
    return None


def depth_difference(first: View, second: View) -> float:
    """Return the median relative depth difference of the common pixels of two views, infinite if there are none."""
    second = dilate_depth(second) if is_sparse(second) else second
    points = first.points()[first.valid]
    pixels, depth = project(points, second.cameras)
    seen = sample_depth(second, pixels)
    landed = (depth > 0) & (seen > 0)
    if landed.sum() < (MIN_LANDED * len(points) if len(points) else 1):
        return math.inf
    return (seen[landed] / depth[landed]).log().abs().median().item()


def small(view: View) -> View:
    """Subsample the pixels of a view, unless only single pixels have depth."""
    step = max(view.depth.shape) // SIDE
    if step < 2 or is_sparse(view):
        return view
    fields = {name: getattr(view, name)[..., ::step, ::step] for name in ("image", "depth", "valid", "sky")}
    return replace(view, **fields, intrinsics=view.intrinsics / torch.tensor([[step], [step], [1]]), instance_ids=None)


def _explains(before: Sequence[float], after: Sequence[float]) -> bool:
    better = sum(new < old for old, new in zip(before, after, strict=True))
    limit = min(MAX_RATIO * median(before), MAX_EXPLAINED)
    return median(after) < limit and better >= MIN_BETTER * len(before)
