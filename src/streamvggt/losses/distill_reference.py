"""Distillation loss of the StreamVGGT reference implementation. Use `streamvggt.losses.distill` for training.

Per view and batch, an affine fit over all pixels aligns the student's maps to the teacher's, and the gradient flows
through the fit. Scale, sign and offset of depth and points are therefore not supervised. Cameras are supervised in the
last iteration only. Tracks are weighted by the student's confidence. The visibility probability is used as a logit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from streamvggt.losses.criterion import Criterion, MapPair, has_target, head_output
from streamvggt.losses.target import Target
from streamvggt.losses.terms import confidence_weighted_error, finite_differences, masked_mean, normals, robust_error
from streamvggt.prediction import Prediction


class DistillLossReference(Criterion):
    """Loss 20·camera + 20·depth + 10·points + 0.5·track.

    Args:
        camera, depth, points, track: Weights. 0: the head is not run.
        delta: Threshold of the Huber loss of cameras.
        gamma, alpha: See `confidence_weighted_error`.
        normalize: Divide the maps of student and teacher by their mean distances first, as the reference implementation
            in training mode.
    """

    def __init__(
        self,
        *,
        camera: float = 20.0,
        depth: float = 20.0,
        points: float = 10.0,
        track: float = 0.5,
        delta: float = 0.1,
        gamma: float = 1.0,
        alpha: float = 0.1,
        normalize: bool = True,
    ):
        self.weights = {"camera": camera, "depth": depth, "points": points, "track": track}
        self.delta, self.gamma, self.alpha, self.normalize = delta, gamma, alpha, normalize

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads with a non-zero weight."""
        return tuple(head for head, weight in self.weights.items() if weight)

    def terms(self, prediction: Prediction, target: Target) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the weighted term of each head with a target. No details."""
        compute = {"camera": self._camera, "depth": self._depth, "points": self._points, "track": self._track}
        losses = {}
        for head in self.heads:
            if has_target(head_output(head), prediction, target):
                losses[head] = self.weights[head] * compute[head](prediction, target)
        return losses, {}

    def _camera(self, prediction: Prediction, target: Target) -> Tensor:
        return camera_error(prediction.pose_enc, target.prediction.pose_enc, self.delta)

    def _depth(self, prediction: Prediction, target: Target) -> Tensor:
        return self._map(MapPair.of("depth", prediction, target))

    def _points(self, prediction: Prediction, target: Target) -> Tensor:
        return self._map(MapPair.of("points", prediction, target))

    def _map(self, maps: MapPair) -> Tensor:
        whole = maps.prediction, maps.conf, maps.target, maps.valid
        views = [
            sum(view_errors(*view, self.gamma, self.alpha, self.normalize))
            for view in zip(*(each.unbind(1) for each in whole), strict=True)
        ]
        return torch.stack(views).mean()

    def _track(self, prediction: Prediction, target: Target) -> Tensor:
        known = target.prediction
        return track_error(
            prediction.tracks, prediction.visibility, prediction.track_conf, known.tracks, known.visibility
        )


def camera_error(student: Tensor, teacher: Tensor, delta: float) -> Tensor:
    """Compute the Huber loss of translation, quaternion and, with weight 0.5, field of view. (B, S, 9) → scalar"""
    blocks = zip((1.0, 1.0, 0.5), student.split([3, 4, 2], -1), teacher.split([3, 4, 2], -1), strict=True)
    return sum(weight * robust_error(p, g, "huber", delta).mean() for weight, p, g in blocks)


def track_error(tracks: Tensor, visibility: Tensor, conf: Tensor, known: Tensor, known_visibility: Tensor) -> Tensor:
    """Compute the distance in pixels plus the cross entropy with the probability `visibility` as a logit. Scalar."""
    distance = robust_error(tracks, known, "l2")
    entropy = binary_cross_entropy_with_logits(visibility, known_visibility, reduction="none")
    return (conf * distance).mean() + (conf * entropy).mean()


def view_errors(
    student: Tensor, conf: Tensor, teacher: Tensor, valid: Tensor, gamma: float, alpha: float, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the errors of one view of all samples.

    Args:
        student, teacher: Maps, C = 1 for depth, 3 for points. (B, H, W, C)
        conf, valid: Confidence of the student and valid pixels. (B, H, W)
        gamma, alpha: See `confidence_weighted_error`.
        normalize: Divide the maps by their mean distances first.

    Returns:
        Weighted error, confidence term -α·log c, and slope or normal error. Scalars.
    """
    valid = valid | ~valid.any()
    if normalize:
        student, teacher = student / mean_norm(student, valid), teacher / mean_norm(teacher, valid)
    scale, shift = fit_affine(student, teacher)
    student = scale * student + shift
    conf = conf.clamp(min=1e-6)
    error = masked_mean(gamma * conf * robust_error(student, teacher, "l1"), valid)
    reward = masked_mean(confidence_weighted_error(torch.zeros_like(conf), conf, alpha), valid)
    gradient = slope_error(student, teacher, valid) if student.shape[-1] == 1 else normal_error(student, teacher)
    return error, reward, gradient


def mean_norm(values: Tensor, valid: Tensor) -> Tensor:
    """Compute the mean length of valid vectors per sample, clamped to [0.001, 1000]. (B, H, W, C) → (B, 1, 1, 1)"""
    total = torch.where(valid, torch.linalg.vector_norm(values, dim=-1), 0).sum((1, 2))
    return (total / (valid.sum((1, 2)) + 1e-3)).clamp(1e-3, 1e3)[:, None, None, None]


def fit_affine(values: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Fit s and t (C,) of s·values + t to the target by least squares, over all pixels of all samples. (B, H, W, C)"""
    mean, target_mean = values.mean((0, 1, 2)), target.mean((0, 1, 2))
    centered = values - mean
    scale = (centered * (target - target_mean)).sum() / (centered * centered).sum().clamp(min=1e-6)
    return scale, target_mean - scale * mean


def slope_error(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Compute the error of the differences of neighboring pixels. Invalid pairs count as zero. Scalar."""
    (along_x, pairs_x), (along_y, pairs_y) = finite_differences(student - teacher, valid)
    error_x = (along_x.abs().mean(-1) * pairs_x)[:, :-1].mean()
    error_y = (along_y.abs().mean(-1) * pairs_y)[:, :, :-1].mean()
    return (error_x + error_y) / 2


def normal_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute 1 - cosine of all normals at strides 1, 2 and 4, including border and invalid pixels. Scalar."""
    strides = (1, 2, 4)
    errors = [
        1 - cosine_similarity(normals(student[:, ::s, ::s]), normals(teacher[:, ::s, ::s]), dim=-1).mean()
        for s in strides
    ]
    return sum(errors) / len(errors)
