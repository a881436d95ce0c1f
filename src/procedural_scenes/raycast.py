"""Exact ray casting against all primitives.

Rays are grouped into jobs. The rays of a job have one origin and lie in one cone (an image tile, from the camera or
from the lamp). Primitives outside the cone are skipped. Jobs with similar numbers of primitives are batched to reduce
padding, in chunks to bound memory.
F frames · J jobs · P rays per job · N primitives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from procedural_scenes.scene import Primitives
from procedural_scenes.vectors import dot, length, unit

CHUNK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Maximum number of float32 values per intermediate tensor, chosen to fit the CPU cache."""


@dataclass(frozen=True)
class RayBatch:
    """Rays of J jobs.

    Attributes:
        frame: Index of the frame whose primitives are tested. (J,) int64
        origin: (J, 3)
        direction: Not normalized. (J, 3, P)
    """

    frame: Tensor
    origin: Tensor
    direction: Tensor


@dataclass(frozen=True)
class RayHits:
    """First intersections of rays.

    Attributes:
        distance: In lengths of the ray's direction; inf without intersection. (J, P)
        primitive: Index; 0 without intersection. (J, P) int64
    """

    distance: Tensor
    primitive: Tensor


def intersect(primitives: Primitives, jobs: RayBatch, relevant: Tensor | None = None) -> RayHits:
    """Find the first intersection of each ray. Primitives that contain the ray origin are ignored.

    Args:
        primitives: Primitives of F frames. (F, N)
        jobs: The rays.
        relevant: Rays that define the cone. None uses all rays. (J, P) bool
    """
    in_cone = _in_frustum(primitives, jobs, relevant)
    split = primitives.num_boxes
    boxes = _nearest(_intersect_boxes, primitives.local_from_world[:, :split], None, jobs, in_cone[:, :split])
    rounds = _nearest(
        _intersect_quadrics, primitives.local_from_world[:, split:], primitives.is_ball, jobs, in_cone[:, split:]
    )
    first = boxes.distance <= rounds.distance
    return RayHits(
        torch.where(first, boxes.distance, rounds.distance),
        torch.where(first, boxes.primitive, rounds.primitive + split),
    )


def _in_frustum(primitives: Primitives, jobs: RayBatch, relevant: Tensor | None) -> Tensor:
    """Whether a job's cone intersects the bounding spheres of primitives. (J, N) bool"""
    direction = unit(jobs.direction.mT)  # (J, P, 3)
    if relevant is not None:
        direction = direction * relevant[..., None]
    axis = unit(direction.sum(1))[:, None]  # (J, 1, 3)
    cosine = dot(direction, axis)
    if relevant is not None:
        cosine = cosine.masked_fill(~relevant, 1)
    cosine = cosine.amin(-1).clamp(0, 1)[:, None]
    sine = (1 - cosine * cosine).sqrt() + 1e-3  # margin against rounding of cosines near 1
    away = primitives.center[jobs.frame] - jobs.origin[:, None]  # (J, N, 3)
    along = dot(away, axis)
    beside = length(away - along[..., None] * axis)
    radius = primitives.radius[jobs.frame]
    return (radius > 0) & (along > -radius) & (beside * cosine - along * sine < 1.01 * radius + 1e-3)


def _nearest(meet, local_from_world: Tensor, is_ball: Tensor | None, jobs: RayBatch, candidates: Tensor) -> RayHits:
    num_rays = jobs.direction.shape[-1]
    distance = jobs.direction.new_full((len(jobs.frame), num_rays), torch.inf)
    primitive = torch.zeros_like(distance, dtype=torch.int64)
    counts, by_count = candidates.sum(1).sort(descending=True, stable=True)
    counts = counts.tolist()
    order = candidates[by_count].byte().argsort(dim=1, descending=True, stable=True)  # primitives inside the cone first
    budget = CHUNK_ELEMENTS[distance.device.type] // (3 * num_rays)
    start = 0
    while start < len(counts) and counts[start] > 0:
        most = counts[start]
        chunk = slice(start, start + max(1, budget // most))
        start = chunk.stop
        # Pad with primitives outside the cone, which no ray intersects.
        which, rows = order[chunk, :most], by_count[chunk]
        frame = jobs.frame[rows, None]
        local = local_from_world[frame, which]  # (j, n, 3, 4)
        origin, direction = jobs.origin[rows], jobs.direction[rows]
        o = local[..., 0] * origin[:, None, :1] + local[..., 1] * origin[:, None, 1:2]
        o = (o + local[..., 2] * origin[:, None, 2:] + local[..., 3])[..., None]  # (j, n, 3, 1)
        # Term by term instead of a matrix product, see `vectors.py`.
        d = local[..., 0, None] * direction[:, None, None, 0]  # (j, n, 3, P)
        d.addcmul_(local[..., 1, None], direction[:, None, None, 1])
        d.addcmul_(local[..., 2, None], direction[:, None, None, 2])
        met = meet(o, d) if is_ball is None else meet(o, d, is_ball[frame, which])
        near, first = met.min(1)
        distance[rows] = near
        primitive[rows] = which.gather(1, first)
    return RayHits(distance, primitive)


def _intersect_boxes(origin: Tensor, direction: Tensor) -> Tensor:
    """Return distances to the unit cube, inf for a miss. (j, n, 3, 1), (j, n, 3, P) → (j, n, P)"""
    inverse = direction.add_(1e-20).reciprocal_()  # never 0
    middle = -origin * inverse
    reach = inverse.abs_()
    near, far = (middle - reach).amax(2), (middle + reach).amin(2)
    return near.masked_fill_((near >= far) | (near <= 0), torch.inf)


def _intersect_quadrics(origin: Tensor, direction: Tensor, is_ball: Tensor) -> Tensor:
    """Return distances to the unit ball or cylinder, inf for a miss. (j, n, 3, 1), (j, n, 3, P), (j, n) → (j, n, P)

    Uses the point of the ray closest to the center or axis, because b² - ac is inaccurate for small distant objects.
    """
    upright = is_ball[..., None].to(direction)  # y is used for the ball only
    (ox, oy, oz), (dx, dy, dz) = origin.unbind(2), direction.unbind(2)
    a = (dx * dx).addcmul_(dz, dz).addcmul_(dy * dy, upright).add_(1e-20)
    middle = -(dx * ox + dz * oz + dy * (oy * upright)) / a
    rest = 1 - (ox + middle * dx).square_() - (oz + middle * dz).square_() - (oy + middle * dy).square_() * upright
    half = (rest / a).clamp_(min=0).sqrt_()
    # Clip between two planes, which does not affect a ball.
    inverse = (dy + 1e-20).reciprocal()
    level, reach = -oy * inverse, inverse.abs()
    near, far = torch.maximum(middle - half, level - reach), torch.minimum(middle + half, level + reach)
    return near.masked_fill_((rest <= 0) | (near >= far) | (near <= 0), torch.inf)
