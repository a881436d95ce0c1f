"""The distillation loss of the released StreamVGGT code, exactly; `streamvggt.losses.distill` is what to use.

Per view and batch the student's maps are fitted to the teacher's by an affine change, over all pixels and through
which the gradient flows, so scale, sign and offset of depth and points are not taught. Cameras are read from the last
refinement step only. Tracks count by the student's own confidence, and visibility, a probability, is read as a logit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from streamvggt.losses.criterion import HEAD_FIELDS, Criterion, MapPair, has_target
from streamvggt.losses.target import Target
from streamvggt.losses.terms import confidence_weighted_error, finite_differences, masked_mean, normals, robust_error
from streamvggt.prediction import Prediction


class DistillLossReference(Criterion):
    """20·camera + 20·depth + 10·points + 0.5·track.

    delta: where the camera's Huber turns linear.
    gamma, alpha: see `confidence_weighted_error`.
    normalise: divide student's and teacher's maps by their mean distances first (the released code does so in training
        mode).
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
        return tuple(head for head, weight in self.weights.items() if weight)

    def terms(self, prediction: Prediction, target: Target) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        compute = {"camera": self._camera, "depth": self._depth, "points": self._points, "track": self._track}
        losses = {}
        for head in self.heads:
            if has_target(HEAD_FIELDS[head], prediction, target):
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
    """Huber of translation, quaternion and half of the field of view; (B, S, 9) → scalar."""
    blocks = zip((1.0, 1.0, 0.5), student.split([3, 4, 2], -1), teacher.split([3, 4, 2], -1), strict=True)
    return sum(weight * robust_error(p, g, "huber", delta).mean() for weight, p, g in blocks)


def track_error(tracks: Tensor, visibility: Tensor, conf: Tensor, known: Tensor, known_visibility: Tensor) -> Tensor:
    """Distance in pixels, and cross entropy that takes the probability `visibility` for a logit; → scalar."""
    distance = robust_error(tracks, known, "l2")
    entropy = binary_cross_entropy_with_logits(visibility, known_visibility, reduction="none")
    return (conf * distance).mean() + (conf * entropy).mean()


def view_errors(
    student: Tensor, conf: Tensor, teacher: Tensor, valid: Tensor, gamma: float, alpha: float, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Confident error, its -α·log c, and gradient error of one view of all samples.

    Args:
        student, teacher: (B, H, W, C), C = 1 for depth, 3 for points
        conf, valid: (B, H, W)
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
    """Mean length of each sample's valid vectors, between 0.001 and 1000: (B, H, W, C) → (B, 1, 1, 1)."""
    total = torch.where(valid, torch.linalg.vector_norm(values, dim=-1), 0).sum((1, 2))
    return (total / (valid.sum((1, 2)) + 1e-3)).clamp(1e-3, 1e3)[:, None, None, None]


def fit_affine(values: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """s and t (C,) that bring s·values + t closest to the target, over all pixels of all samples of (B, H, W, C)."""
    mean, target_mean = values.mean((0, 1, 2)), target.mean((0, 1, 2))
    centred = values - mean
    scale = (centred * (target - target_mean)).sum() / (centred * centred).sum().clamp(min=1e-6)
    return scale, target_mean - scale * mean


def slope_error(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Error of the differences of neighbours; pairs that are not valid count as zeros."""
    (along_x, pairs_x), (along_y, pairs_y) = finite_differences(student - teacher, valid)
    error_x = (along_x.abs().mean(-1) * pairs_x)[:, :-1].mean()
    error_y = (along_y.abs().mean(-1) * pairs_y)[:, :, :-1].mean()
    return (error_x + error_y) / 2


def normal_error(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of all normals at strides 1, 2 and 4, those of border pixels and of invalid ones too."""
    strides = (1, 2, 4)
    errors = [
        1 - cosine_similarity(normals(student[:, ::s, ::s]), normals(teacher[:, ::s, ::s]), dim=-1).mean()
        for s in strides
    ]
    return sum(errors) / len(errors)
