"""How far estimated cameras are from true ones. Poses are camera-from-world, (S, 3, 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import compose_poses, invert_pose


def relative_pose_errors(estimated: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Angles between the relative poses of all pairs of frames; scale and world do not matter.

    The published evaluation of relative poses: the motion of a pair is that of i as seen from j. (The other way round
    the rotations' angles are the same, the directions' are not.)

    Args:
        estimated, true: (S, 3, 4)

    Returns:
        rotation, translation: degrees, of each pair i < j in the order (0, 1), (0, 2), …; translations are directions
        without sign, so ≤ 90, and 90 where a camera does not move. What is not a number is as wrong as can be.
        (S·(S-1)/2,) each
    """
    first, second = torch.triu_indices(len(true), len(true), offset=1)
    ours, theirs = (
        compose_poses(pose[first], invert_pose(pose[second])) for pose in (estimated.double(), true.double())
    )
    rotation = torch.rad2deg(rotation_angle(ours[..., :3].mT @ theirs[..., :3]))
    our_direction, their_direction = (
        motion[..., 3] / (motion[..., 3].norm(dim=-1, keepdim=True) + 1e-15) for motion in (ours, theirs)
    )
    cosine = (our_direction * their_direction).sum(-1).abs()
    translation = torch.rad2deg(torch.arccos(cosine.clamp(max=1)))
    return rotation.nan_to_num(180.0), translation.nan_to_num(90.0)


def pose_accuracy(errors: Tensor, threshold: float) -> float:
    """Share of errors below `threshold` degrees: RRA of rotations, RTA of translations. (N,)"""
    return (errors < threshold).double().mean().item()


def auc(errors: Tensor, threshold: int) -> float:
    """Area under the curve of the share of errors below 1, 2, …, `threshold` degrees; 1 is perfect. (N,)"""
    shares = [(errors < degree).double().mean() for degree in range(1, threshold)]
    return torch.stack([*shares, (errors <= threshold).double().mean()]).mean().item()


def auc_scores(errors: Tensor, thresholds: Sequence[int]) -> dict[str, float]:
    """`auc` at each threshold, as "AUC@30". (N,)"""
    return {f"AUC@{threshold}": auc(errors, threshold) for threshold in thresholds}


def ate(estimated: Tensor, true: Tensor) -> float:
    """Root mean square distance of camera centres after the best similarity (ATE), over the true path's length.

    Args:
        estimated, true: (S, 3, 4)
    """
    length = invert_pose(true.double())[:, :, 3].diff(dim=0).norm(dim=-1).sum().clamp(min=1e-9)
    return trajectory_errors(estimated, true).ate / length.item()


@dataclass(frozen=True)
class TrajectoryErrors:
    """Root mean squares over a trajectory, after the similarity that brings its centres closest to the true ones.

    ate: distance of the centres, in the true unit.
    rpe_translation: difference of the steps from frame to frame (or over a gap of several), in the true unit.
    rpe_rotation: angle between the turns within the same steps, degrees.
    """

    ate: float
    rpe_translation: float
    rpe_rotation: float


def trajectory_errors(estimated: Tensor, true: Tensor, frame_delta: int = 1) -> TrajectoryErrors:
    """ATE and RPE (Sturm et al. 2012), with all frames and all steps of `gap` frames.

    The numbers are those of evo's `ape` and `rpe` with alignment and scale correction; evo itself refuses straight
    lines, of which there is no best rotation but a best fit all the same.

    Args:
        estimated, true: (S, 3, 4), S > gap

    Raises:
        ValueError: the trajectories are not of the same length, or not longer than the gap.
    """
    if len(estimated) != len(true) or len(true) <= frame_delta:
        raise ValueError(
            f"two trajectories of the same {frame_delta + 1} or more frames were expected, not {len(estimated)} and "
            f"{len(true)}"
        )
    if not estimated.isfinite().all():
        return TrajectoryErrors(float("inf"), float("inf"), 180.0)
    ours, theirs = align_trajectory(estimated, true)
    distance = (ours - theirs)[..., 3].norm(dim=-1)
    our_steps, their_steps = (
        compose_poses(invert_pose(pose[:-frame_delta]), pose[frame_delta:]) for pose in (ours, theirs)
    )
    difference = compose_poses(invert_pose(their_steps), our_steps)
    return TrajectoryErrors(
        ate=_root_mean_square(distance),
        rpe_translation=_root_mean_square(difference[..., 3].norm(dim=-1)),
        rpe_rotation=_root_mean_square(torch.rad2deg(rotation_angle(difference[..., :3]))),
    )


def align_trajectory(estimated: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Both ways in the true world, the estimate moved by the similarity that brings its centres closest.

    Args:
        estimated, true: (S, 3, 4)

    Returns:
        world-from-camera poses, float64. (S, 3, 4) each
    """
    ours, theirs = (invert_pose(pose.double()) for pose in (estimated, true))
    similarity = align_points(ours[..., 3], theirs[..., 3])
    rotation = similarity.rotation @ ours[..., :3]
    return torch.cat([rotation, similarity.apply(ours[..., 3])[..., None]], -1), theirs


def rotation_angle(rotation: Tensor) -> Tensor:
    """Radians in 0 … π, exact for small angles, too. (..., 3, 3) → (...)"""
    skew = (rotation - rotation.mT) / 2
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1).norm(dim=-1)
    cosine = (rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(sine, cosine)


def _root_mean_square(values: Tensor) -> float:
    return values.square().mean().sqrt().item()
