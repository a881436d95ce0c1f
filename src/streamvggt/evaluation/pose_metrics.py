"""How far estimated cameras are from true ones. Poses are camera-from-world, (S, 3, 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from streamvggt.geometry.alignment import align_points
from streamvggt.geometry.camera import compose_poses, invert_pose


def relative_pose_errors(estimated: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Angles between the relative poses of all pairs of frames; scale and world do not matter.

    Args:
        estimated, true: (S, 3, 4)

    Returns:
        rotation, translation: degrees, of each pair i < j; translations are directions without sign, so ≤ 90.
        (S·(S-1)/2,) each
    """
    first, second = torch.triu_indices(len(true), len(true), offset=1)
    ours, theirs = (
        compose_poses(pose[second], invert_pose(pose[first])) for pose in (estimated.double(), true.double())
    )
    trace = (ours[..., :3].mT @ theirs[..., :3]).diagonal(dim1=-2, dim2=-1).sum(-1)
    cosine = (trace - 1) / 2
    direction = torch.nn.functional.cosine_similarity(ours[..., 3], theirs[..., 3], dim=-1).abs()
    return tuple(torch.rad2deg(torch.arccos(value.clamp(-1, 1))) for value in (cosine, direction))


def auc(errors: Tensor, threshold: int) -> float:
    """Area under the curve of the share of errors below 1, 2, …, `threshold` degrees; 1 is perfect. (N,)"""
    shares = [(errors < degree).double().mean() for degree in range(1, threshold)]
    return torch.stack([*shares, (errors <= threshold).double().mean()]).mean().item()


def trajectory_error(estimated: Tensor, true: Tensor) -> float:
    """Root mean square distance of camera centres after the best similarity (ATE), over the true path's length.

    Args:
        estimated, true: (S, 3, 4)
    """
    ours, theirs = (invert_pose(pose.double())[:, :, 3] for pose in (estimated, true))
    distance = (align_points(ours, theirs).apply(ours) - theirs).norm(dim=-1)
    length = theirs.diff(dim=0).norm(dim=-1).sum().clamp(min=1e-9)
    return (distance.square().mean().sqrt() / length).item()
