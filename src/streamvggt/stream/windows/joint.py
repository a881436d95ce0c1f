"""How a new window is joined to the one before: by the points of the frames that both have seen.

F common frames · N points of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from streamvggt.geometry.alignment import align_robustly, weighted_median
from streamvggt.geometry.similarity import Similarity, rotation_vector
from streamvggt.stream.windows.sight import Sight

MAX_POINTS = 4_000
"""Points that are aligned at most; with more of them nothing gets better and it only takes longer."""
TOLERANCE = 0.1
"""Share of its depth by which a point may be off before it counts as wrong."""
FEWEST_POINTS = 10
THINNEST = 1e-3
"""Points on a line leave the turn about it open: their second longest spread must have this share of the longest."""


@dataclass(frozen=True)
class Joint:
    """Where a new window is in the world of the old one, and how well they agree.

    old_from_new: float64, on the host.
    by: "points", or "pose" where there are none to align: then by the cameras of the last common frame.
    inlier_share: of the points' weight, off by less than `TOLERANCE`. None by pose.
    residual: median distance of the points after alignment, as a share of their depth. None by pose.
    turn: median angle between the two windows' cameras of a frame after alignment, degrees.
    scale_spread: by what factor the depth of one common frame is scaled more than that of another; 1 is alike.
    """

    old_from_new: Similarity
    by: Literal["points", "pose"]
    inlier_share: float | None
    residual: float | None
    turn: float
    scale_spread: float


def join(new: Sequence[Sight], old: Sequence[Sight]) -> Joint:
    """Align two windows.

    Args:
        new, old: the common frames as each window saw them; their cameras are finite. F ≥ 1 each
    """
    new, old = list(new), list(old)
    source, target = (torch.cat([sight.points for sight in sights]).double() for sights in (new, old))
    new_depth, old_depth = (torch.cat([sight.depth for sight in sights]).double() for sights in (new, old))
    new_conf, old_conf = (torch.cat([sight.conf for sight in sights]).double() for sights in (new, old))
    # Confidence c is said to scale an error of size 1/c: the variances of both windows add up.
    weight = 1 / (new_conf**-2 + old_conf**-2)
    usable = source.isfinite().all(-1) & target.isfinite().all(-1) & weight.isfinite()
    usable &= (new_depth > 0) & (old_depth > 0)

    inlier_share = residual = None
    if usable.sum() >= FEWEST_POINTS and _is_spread_out(source[usable]) and _is_spread_out(target[usable]):
        found = align_robustly(source[usable], target[usable], weight[usable], TOLERANCE * old_depth[usable])
        inlier_share = (weight[usable][found.error < 1].sum() / weight[usable].sum()).item()
        residual = TOLERANCE * weighted_median(found.error, weight[usable]).item()
        old_from_new = found.similarity
    else:
        old_from_new = join_by_pose(new, old)
    ours, theirs = (torch.stack([sight.cam_from_world for sight in sights]) for sights in (new, old))
    turns = rotation_vector(old_from_new.move_poses(ours)[..., :3] @ theirs[..., :3].mT).norm(dim=-1)
    return Joint(
        old_from_new,
        by="pose" if residual is None else "points",
        inlier_share=inlier_share,
        residual=residual,
        turn=torch.rad2deg(turns.median()).item(),
        scale_spread=_scale_spread(new, old),
    )


def join_by_pose(new: Sequence[Sight], old: Sequence[Sight]) -> Similarity:
    """Alignment of the last common frame's cameras; the scale is of depth, else of the way the cameras went, else 1."""
    ratios = _depth_ratios([new[-1]], [old[-1]])
    ways = [
        torch.stack([sight.centre for sight in sights]).diff(dim=0).norm(dim=-1).sum().item() for sights in (new, old)
    ]
    scale = 1.0
    if ratios:
        scale = ratios[0]
    elif min(ways) > 1e-6 * max(ways) > 0:
        scale = ways[1] / ways[0]
    ours, theirs = new[-1].cam_from_world, old[-1].cam_from_world
    rotation = theirs[:, :3].mT @ ours[:, :3]
    scale = torch.tensor(scale, dtype=torch.float64)
    return Similarity(scale, rotation, old[-1].centre - scale * rotation @ new[-1].centre)


def _is_spread_out(points: Tensor) -> bool:
    """Whether points say how something is turned. (N, 3)"""
    spread = torch.linalg.svdvals((points - points.mean(0)) / len(points) ** 0.5)
    return spread[0].item() > 0 and spread[1].item() > THINNEST * spread[0].item()


def _depth_ratios(new: Sequence[Sight], old: Sequence[Sight]) -> list[float]:
    """For each frame of which enough points are known, how much deeper the old window saw it."""
    ratios = []
    for ours, theirs in zip(new, old, strict=True):
        usable = ours.depth.isfinite() & theirs.depth.isfinite() & (ours.depth > 0) & (theirs.depth > 0)
        if usable.sum() >= FEWEST_POINTS:
            ratios.append((theirs.depth[usable] / ours.depth[usable]).double().median().item())
    return ratios


def _scale_spread(new: Sequence[Sight], old: Sequence[Sight]) -> float:
    ratios = _depth_ratios(new, old)
    return max(ratios) / min(ratios) if ratios else 1.0
