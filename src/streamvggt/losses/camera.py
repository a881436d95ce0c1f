"""Camera loss, for distillation and for supervision with ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from streamvggt.geometry.rotation import matrix_from_quaternion
from streamvggt.losses.target import Target
from streamvggt.losses.terms import RobustLoss, iteration_mean, masked_mean, robust_error
from streamvggt.prediction import Prediction


@dataclass(frozen=True)
class CameraTerm:
    """Error of translation, rotation and field of view of the pose encoding.

    Attributes:
        weight: Weight of this term in the total loss. 0: the camera head is not run.
        error, delta: Error function, see `robust_error`.
        translation, rotation, field_of_view: Weights within this term.
        iteration_decay: Weight of each iteration of the camera head relative to the next one, see `iteration_mean`
            (VGGT: 0.6). None: supervise the last iteration only; `empty_pose_tokens` is then not trained.
        min_valid_pixels: Skip sequences whose first frame has fewer valid pixels, because their scale is uncertain.
        pair_rotation, pair_translation, pair_direction: Weights of the relative poses of all pairs of frames in the
            last iteration, see `pair_errors`. They are added to the other errors.

    Reference: VGGT, arXiv 2503.11651, Sec. 3.4.
    """

    weight: float
    error: RobustLoss = "huber"
    delta: float = 0.1
    translation: float = 1.0
    rotation: float = 1.0
    field_of_view: float = 0.5
    iteration_decay: float | None = 0.6
    min_valid_pixels: int = 0
    pair_rotation: float = 0.0
    pair_translation: float = 0.0
    pair_direction: float = 0.0

    def __call__(self, prediction: Prediction, target: Target) -> Tensor:
        """Return the error, a scalar without `weight`."""
        known = target.prediction.pose_enc
        counted = torch.ones_like(known[:, 0, 0], dtype=torch.bool)  # (B,)
        if target.valid is not None:
            counted = target.valid[:, 0].flatten(1).sum(1) >= self.min_valid_pixels
        # Skipped targets can be NaN, and the gradient of an error multiplied by 0 is still NaN.
        known = torch.where(counted[:, None, None], known, prediction.pose_enc.detach())
        stages = prediction.pose_enc_list
        if self.iteration_decay is None or not stages:
            error = self._iteration_loss(prediction.pose_enc, known, counted)
        else:
            error = iteration_mean(
                [self._iteration_loss(stage, known, counted) for stage in stages], self.iteration_decay
            )
        weights = (self.pair_rotation, self.pair_translation, self.pair_direction)
        if any(weights) and known.shape[1] > 1:
            errors = pair_errors(prediction.pose_enc, known)
            error = error + sum(weight * of for weight, of in zip(weights, errors, strict=True))
        return error

    def _iteration_loss(self, pose_enc: Tensor, known: Tensor, counted: Tensor) -> Tensor:
        translation, quaternion, fov = pose_enc.split([3, 4, 2], -1)
        known_translation, known_quaternion, known_fov = known.split([3, 4, 2], -1)
        # q and -q are the same rotation. Compare with the nearer one.
        opposite = (quaternion.detach() * known_quaternion).sum(-1, keepdim=True) < 0
        known_quaternion = torch.where(opposite, -known_quaternion, known_quaternion)
        error = (
            self.translation * robust_error(translation, known_translation, self.error, self.delta)
            + self.rotation * robust_error(quaternion, known_quaternion, self.error, self.delta)
            + self.field_of_view * robust_error(fov, known_fov, self.error, self.delta)
        )  # (B, S)
        return torch.where(counted[:, None], error, 0).sum() / (counted.sum() * error.shape[1]).clamp(min=1)


SHORTEST_BASELINE = 0.02
"""Minimum length in scene units of translations whose directions are compared."""


def pair_errors(pose_enc: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare the relative poses of all ordered pairs of frames.

    Args:
        pose_enc, known: Predicted and target pose encodings of S > 1 frames, see `Prediction`. (B, S, 9)

    Returns:
        Mean Frobenius norm of the difference of the rotations, mean absolute error of the translations, and mean
        chord between the directions of translation (0 to 2). Scalars.
    """
    (rotation, translation), (known_rotation, known_translation) = relative_poses(pose_enc), relative_poses(known)
    others = ~torch.eye(pose_enc.shape[1], dtype=torch.bool, device=pose_enc.device)
    rotation_error, translation_error = (
        masked_mean(error, others.expand_as(error))
        for error in (
            _length((rotation - known_rotation).flatten(-2)),
            (translation - known_translation).abs().mean(-1),
        )
    )
    chord = _length(F.normalize(translation, dim=-1, eps=1e-3) - F.normalize(known_translation, dim=-1, eps=1e-3))
    counts = (known_translation.norm(dim=-1) > SHORTEST_BASELINE) & others
    direction_error = torch.where(counts, chord, 0).sum() / counts.sum().clamp(min=1)
    return rotation_error, translation_error, direction_error


def relative_poses(pose_enc: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the relative poses of all pairs of frames: x_i = R_ij x_j + t_ij.

    Args:
        pose_enc: Camera-from-world pose encodings. (B, S, 9)

    Returns:
        R (B, S, S, 3, 3) and t (B, S, S, 3), indexed by i, then j.
    """
    rotation, translation = matrix_from_quaternion(pose_enc[..., 3:7]), pose_enc[..., :3]
    relative = rotation[:, :, None] @ rotation[:, None].mT
    moved = (relative @ translation[:, None, :, :, None])[..., 0]
    return relative, translation[:, :, None] - moved


def _length(vectors: Tensor) -> Tensor:
    """Compute the Euclidean length with a finite gradient at 0. (..., C) → (...)"""
    return (vectors.pow(2).sum(-1) + 1e-6).sqrt()
