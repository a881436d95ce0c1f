"""Distillation: a causal student learns to say what its bidirectional teacher says (StreamVGGT, arXiv 2507.11539).

The idea and the weights are the published ones; where the released code lost supervision (scale, sign and offset of
every frame free, gradients through a fit that ignores the mask, visibility trained as a logit, …) this is the
corrected loss. The released one is `streamvggt.losses.distill_reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from streamvggt.losses.camera import CameraTerm
from streamvggt.losses.criterion import MapPair, SumOfTerms
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

MIN_ENTRIES = 10  # of slopes or normals, for their mean to be worth having


@dataclass(frozen=True)
class DistillMapTerm:
    """Error of a depth or point map against the teacher's: confident error and error of slopes or normals.

    Everything is averaged over the valid pixels of a sequence, then over the sequences that have any.

    weight: of this term in the total; 0: the head is not run.
    gamma, alpha: see `confidence_weighted_error`; the confidence is the student's.
    normalization: the teacher's map is divided by its mean distance from the origin; the student's by "teacher": the
        same factor, so that its scale is taught too, consistent with the camera's translation; "per_map": its own mean
        distance, so that its scale is free; "least_squares": the factor that brings it nearest to the teacher's,
        positive and constant, so that its scale is free too.
    scope: factors are of a "sequence", or of each "view", which leaves the scale between frames free unless
        `normalization` is "teacher".
    gradient: error of the "slope" (differences of neighbours), of the surface "normal", or "none".
    gradient_weight: beside the confident error's 1.
    strides: pixels between the neighbours; the mean over the strides is taken.
    weight_gradient_by_conf: weigh the slopes and normals by the student's (detached) confidence.
    weight_by_teacher_conf: pixels count by the teacher's confidence in them.
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
        """The scalars "conf" and "gradient", without the term's weight."""
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
    """Teacher to student: cameras, depth, points and tracks. What the teacher did not say is left out."""

    def __init__(
        self,
        *,
        camera: CameraTerm | None = CAMERA,
        depth: DistillMapTerm | None = DEPTH,
        points: DistillMapTerm | None = POINTS,
        track: TrackTerm | None = TRACK,
    ):
        super().__init__(camera=camera, depth=depth, points=points, track=track)
