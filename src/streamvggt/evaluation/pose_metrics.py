"""Pose metrics. Poses are camera-from-world, (S, 3, 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import compose_poses, invert_pose


def relative_pose_errors(estimated: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the angular errors of the relative poses of all frame pairs, independent of scale and world.

    As in the reference implementation, the relative pose of a pair is camera i in the frame of camera j. The inverse
    has equal rotation angles but other translation angles.

    Args:
        estimated: Predicted poses. (S, 3, 4)
        true: Ground-truth poses. (S, 3, 4)

    Returns:
        Rotation and translation errors in degrees, of each pair i < j in the order (0, 1), (0, 2), …. Translations are
        directions without sign, so at most 90, and 90 if a camera does not move. Non-finite poses have the maximum
        error. (S·(S-1)/2,) each
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
    """Return the ratio of errors below `threshold` degrees: RRA for rotations, RTA for translations. (N,)"""
    return (errors < threshold).double().mean().item()


def auc(errors: Tensor, threshold: int) -> float:
    """Return the area under the curve of the ratio of errors below 1, 2, …, `threshold` degrees, in [0, 1]. (N,)"""
    shares = [(errors < degree).double().mean() for degree in range(1, threshold)]
    return torch.stack([*shares, (errors <= threshold).double().mean()]).mean().item()


def auc_scores(errors: Tensor, thresholds: Sequence[int]) -> dict[str, float]:
    """Return `auc` at each threshold by name, as "AUC@30". (N,)"""
    return {f"AUC@{threshold}": auc(errors, threshold) for threshold in thresholds}


def ate(estimated: Tensor, true: Tensor) -> float:
    """Return the RMS distance of camera centers after similarity alignment, relative to the ground-truth path length.

    Args:
        estimated: Predicted poses. (S, 3, 4)
        true: Ground-truth poses. (S, 3, 4)
    """
    length = invert_pose(true.double())[:, :, 3].diff(dim=0).norm(dim=-1).sum().clamp(min=1e-9)
    return trajectory_errors(estimated, true).ate / length.item()


@dataclass(frozen=True)
class TrajectoryErrors:
    """Root mean square errors of a trajectory after similarity alignment of the camera centers.

    Attributes:
        ate: Distance of the centers in the unit of the ground truth.
        rpe_translation: Error of the relative translation over a frame gap in the unit of the ground truth.
        rpe_rotation: Error of the relative rotation over the gap in degrees.
    """

    ate: float
    rpe_translation: float
    rpe_rotation: float


def trajectory_errors(estimated: Tensor, true: Tensor, frame_delta: int = 1) -> TrajectoryErrors:
    """Compute ATE and RPE over all frames and all pairs with a gap of `frame_delta` frames.

    The results equal evo's `ape` and `rpe` with alignment and scale correction. evo rejects straight trajectories,
    whose best rotation is not unique.

    Args:
        estimated: Predicted poses. (S, 3, 4), S > frame_delta
        true: Ground-truth poses. (S, 3, 4)
        frame_delta: Frame gap of the RPE.

    Raises:
        ValueError: If the lengths differ, or are not larger than the gap.

    Reference: Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012.
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
    """Align the predicted to the ground-truth trajectory by a similarity of the camera centers.

    Args:
        estimated: Predicted poses. (S, 3, 4)
        true: Ground-truth poses. (S, 3, 4)

    Returns:
        World-from-camera poses of both in the ground-truth world, float64. (S, 3, 4) each
    """
    ours, theirs = (invert_pose(pose.double()) for pose in (estimated, true))
    similarity = align_points(ours[..., 3], theirs[..., 3])
    rotation = similarity.rotation @ ours[..., :3]
    return torch.cat([rotation, similarity.apply(ours[..., 3])[..., None]], -1), theirs


def rotation_angle(rotation: Tensor) -> Tensor:
    """Return the rotation angle in radians, in [0, π], accurate for small angles. (..., 3, 3) → (...)"""
    skew = (rotation - rotation.mT) / 2
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1).norm(dim=-1)
    cosine = (rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(sine, cosine)


def _root_mean_square(values: Tensor) -> float:
    return values.square().mean().sqrt().item()
