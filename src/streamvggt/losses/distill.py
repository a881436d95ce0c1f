"""Distillation loss of a causal student against a bidirectional teacher (StreamVGGT, arXiv 2507.11539).

Terms and weights are the published ones. This loss corrects the lost supervision of the reference implementation:
free scale, sign and offset per frame, gradients through a fit that ignores the mask, and visibility trained as a
logit. `streamvggt.losses.distill_reference` reproduces the reference implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from streamvggt.losses.camera import CameraTerm
from streamvggt.losses.criterion import MapPair, MapTerm, SumOfTerms
from streamvggt.losses.terms import (
    confidence_weighted_error,
    finite_differences,
    least_squares_scale,
    mean_distance,
    normal_errors,
    normals_valid,
    robust_error,
    sample_mean,
    zero_invalid,
)
from streamvggt.losses.track import TrackTerm

MIN_ENTRIES = 10  # minimum number of slopes or normals per sample


@dataclass(frozen=True)
class DistillMapTerm(MapTerm):
    """Error of a depth or point map against the teacher's map: confidence-weighted error, and slope or normal error.

    Errors are averaged over the valid pixels of each sequence, then over the sequences with valid pixels.

    Attributes:
        weight: Weight of this term in the total loss. 0: the head is not run.
        gamma, alpha: See `confidence_weighted_error`. The confidence is the student's.
        normalization: Divisor of the student's map. The teacher's map is divided by its mean distance from the origin.
            "teacher": the same divisor, which also supervises the scale, consistent with the camera translation.
            "per_map": the mean distance of the student's map; the scale is free. "least_squares": the positive,
            constant factor with the least error to the teacher's map; the scale is free.
        scope: "sequence": one divisor per sequence. "view": one per frame, which leaves the scale between frames free
            unless `normalization` is "teacher".
        gradient: Additional error: "slope" (differences of neighboring pixels), surface "normal" or "none".
        gradient_weight: Weight of the additional error relative to the confidence-weighted error.
        strides: Pixel strides of the additional error, which is averaged over the strides.
        weight_gradient_by_conf: Weight slopes and normals by the detached confidence of the student.
        weight_by_teacher_conf: Weight pixels by the confidence of the teacher.

    Raises:
        ValueError: If `normalization`, `scope` or `gradient` is unknown.
    """

    weight: float
    gamma: float = 1.0
    alpha: float = 0.1
    normalization: Literal["teacher", "per_map", "least_squares"] = "teacher"
    scope: Literal["sequence", "view"] = "sequence"
    gradient: Literal["slope", "normal", "none"] = "none"
    gradient_weight: float = 1.0
    strides: Sequence[int] = (1,)
    weight_gradient_by_conf: bool = False
    weight_by_teacher_conf: bool = False

    def __post_init__(self):
        for name, allowed in (
            ("normalization", ("teacher", "per_map", "least_squares")),
            ("scope", ("sequence", "view")),
            ("gradient", ("slope", "normal", "none")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}: expected one of {allowed}")

    def __call__(self, maps: MapPair) -> dict[str, Tensor]:
        """Return the scalars "conf" and, if selected, "gradient", without `weight`.

        Raises:
            ValueError: If `weight_by_teacher_conf` is set and the target has no confidence.
        """
        valid, conf = maps.valid, maps.conf
        student, teacher = self._normalize(
            zero_invalid(maps.prediction, valid), zero_invalid(maps.target, valid), valid
        )
        importance = valid.to(student.dtype)
        if self.weight_by_teacher_conf:
            if maps.target_conf is None:
                raise ValueError("weight_by_teacher_conf needs a teacher with confidences; this target has none")
            importance = torch.where(valid, maps.target_conf, 0)
        error = robust_error(student, teacher, "l1")
        losses = {"conf": sample_mean(confidence_weighted_error(error, conf, self.alpha, self.gamma), importance)}
        if self.gradient != "none":
            by = importance * conf.detach() if self.weight_gradient_by_conf else importance
            errors = [self._gradient_error(*(m[:, :, ::s, ::s] for m in (student, teacher, by))) for s in self.strides]
            losses["gradient"] = self.gradient_weight * sum(errors) / len(errors)
        return losses

    def _normalize(self, student: Tensor, teacher: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        dims = (1, 2, 3) if self.scope == "sequence" else (2, 3)
        unit = mean_distance(teacher, valid, dims)
        if self.normalization == "per_map":
            return student / mean_distance(student, valid, dims), teacher / unit
        if self.normalization == "least_squares":
            student = student * least_squares_scale(student, teacher, valid, dims)
        return student / unit, teacher / unit

    def _gradient_error(self, student: Tensor, teacher: Tensor, importance: Tensor) -> Tensor:
        valid = importance > 0
        if self.gradient == "normal":
            entries = normals_valid(valid) * importance[:, :, None]
            return sample_mean(normal_errors(student, teacher), entries, MIN_ENTRIES)
        (along_x, pairs_x), (along_y, pairs_y) = finite_differences(student - teacher, valid)
        error_x = sample_mean(along_x.abs().mean(-1), pairs_x * importance[..., :, 1:], MIN_ENTRIES)
        error_y = sample_mean(along_y.abs().mean(-1), pairs_y * importance[..., 1:, :], MIN_ENTRIES)
        return (error_x + error_y) / 2


CAMERA = CameraTerm(weight=20.0)
DEPTH = DistillMapTerm(weight=20.0, gradient="slope")
POINTS = DistillMapTerm(weight=10.0, gradient="normal", strides=(1, 2, 4))
TRACK = TrackTerm(weight=0.5)


class DistillLoss(SumOfTerms):
    """Distillation loss of cameras, depth, points, tracks and further heads. Skips outputs the teacher did not predict.

    Reference: StreamVGGT, arXiv 2507.11539, Sec. 3.3.
    """

    def __init__(
        self,
        *,
        camera: CameraTerm | None = CAMERA,
        depth: DistillMapTerm | None = DEPTH,
        points: DistillMapTerm | None = POINTS,
        track: TrackTerm | None = TRACK,
        **others,
    ):
        super().__init__(camera=camera, depth=depth, points=points, track=track, **others)
