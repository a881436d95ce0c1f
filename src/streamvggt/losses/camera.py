"""The camera's share of a loss, for teachers and measurements alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.losses.target import Target
from streamvggt.losses.terms import Robust, robust_error, stage_mean
from streamvggt.prediction import Prediction


@dataclass(frozen=True)
class CameraTerm:
    """Error of translation, rotation and field of view, in the network's own nine numbers.

    weight: of this term in the total; 0: the head is not run.
    error, delta: see `robust_error`.
    translation, rotation, field_of_view: their weights within this term.
    stage_decay: every refinement step is supervised, each with this times the weight of the next, and the mean is
        taken (VGGT: 0.6). None: only the last step counts (then `empty_pose_tokens` is never trained).
    fewest_valid: sequences whose first frame has fewer valid pixels are left out: the scale of a measured scene is
        not well known then.
    """

    weight: float
    error: Robust = "huber"
    delta: float = 0.1
    translation: float = 1.0
    rotation: float = 1.0
    field_of_view: float = 0.5
    stage_decay: float | None = 0.6
    fewest_valid: int = 0

    def __call__(self, prediction: Prediction, target: Target) -> Tensor:
        """The unweighted scalar."""
        known = target.prediction.pose_enc
        counted = torch.ones_like(known[:, 0, 0], dtype=torch.bool)  # (B,)
        if target.valid is not None:
            counted = target.valid[:, 0].flatten(1).sum(1) >= self.fewest_valid
        if self.stage_decay is None or not prediction.pose_enc_stages:
            return self._stage(prediction.pose_enc, known, counted)
        return stage_mean(
            [self._stage(stage, known, counted) for stage in prediction.pose_enc_stages], self.stage_decay
        )

    def _stage(self, pose_enc: Tensor, known: Tensor, counted: Tensor) -> Tensor:
        translation, quaternion, fov = pose_enc.split([3, 4, 2], -1)
        known_translation, known_quaternion, known_fov = known.split([3, 4, 2], -1)
        # q and -q are one rotation: be compared with the nearer.
        opposite = (quaternion.detach() * known_quaternion).sum(-1, keepdim=True) < 0
        known_quaternion = torch.where(opposite, -known_quaternion, known_quaternion)
        error = (
            self.translation * robust_error(translation, known_translation, self.error, self.delta)
            + self.rotation * robust_error(quaternion, known_quaternion, self.error, self.delta)
            + self.field_of_view * robust_error(fov, known_fov, self.error, self.delta)
        )  # (B, S)
        return torch.where(counted[:, None], error, 0).sum() / (counted.sum() * error.shape[1]).clamp(min=1)
