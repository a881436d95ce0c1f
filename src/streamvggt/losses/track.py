"""Track loss, for distillation and for supervision with ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from streamvggt.losses.target import Target
from streamvggt.losses.terms import iteration_mean, sample_mean
from streamvggt.prediction import Prediction


@dataclass(frozen=True)
class TrackTerm:
    """Distance of tracked points, and cross entropy of their visibility and confidence.

    The target of the confidence is whether the track is correct, so that low confidence does not reduce the loss.

    Attributes:
        weight: Weight of this term in the total loss. 0: the track head is not run.
        distance: Distance in pixels: "l2" (Euclidean) or "l1" (|Δx| + |Δy|).
        visibility, confidence: Weights of the cross entropies relative to the distance.
        correct_threshold_px: Maximum Euclidean distance in pixels of a correct track.
        weight_by_teacher_conf: Weight points by the confidence of the target, if available.
        visible_only: Use the distance only where the target is visible, for points visible in the first frame, because
            ground-truth tracks are undefined elsewhere.
        iteration_decay: See `CameraTerm` (VGGT: 0.8). None: supervise the last iteration only.
    """

    weight: float
    distance: Literal["l1", "l2"] = "l2"
    visibility: float = 1.0
    confidence: float = 1.0
    correct_threshold_px: float = 3.0
    weight_by_teacher_conf: bool = True
    visible_only: bool = False
    iteration_decay: float | None = None

    def __call__(self, prediction: Prediction, target: Target) -> Tensor:
        """Return the loss, a scalar without `weight`."""
        known = target.prediction
        followed = torch.ones_like(known.tracks[..., 0])  # (B, S, K) weights of the points
        if self.weight_by_teacher_conf and known.track_conf is not None:
            followed = followed * known.track_conf
        seen = followed
        if self.visible_only and known.visibility is not None:
            visible = known.visibility > 0.5
            followed = followed * visible[:, :1]
            seen = followed * visible

        last_only = self.iteration_decay is None or not prediction.tracks_list
        stages = [prediction.tracks] if last_only else list(prediction.tracks_list)
        order = {"l1": 1, "l2": 2}[self.distance]
        known_tracks = torch.where(seen[..., None] > 0, known.tracks, 0)
        distances = [
            torch.linalg.vector_norm(torch.where(seen[..., None] > 0, tracks, 0) - known_tracks, ord=order, dim=-1)
            for tracks in stages
        ]  # (B, S, K) each
        loss = iteration_mean([sample_mean(distance, seen) for distance in distances], self.iteration_decay or 1.0)

        if self.visibility and known.visibility is not None and prediction.visibility is not None:
            loss = loss + self.visibility * sample_mean(
                cross_entropy(prediction.visibility, known.visibility), followed
            )
        if self.confidence and prediction.track_conf is not None:
            right = (
                torch.linalg.vector_norm(prediction.tracks.detach() - known_tracks, dim=-1) < self.correct_threshold_px
            )
            loss = loss + self.confidence * sample_mean(cross_entropy(prediction.track_conf, right), seen)
        return loss


def cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    """Compute the elementwise binary cross entropy of two probabilities. NaN where `probability` is NaN.

    PyTorch's cross entropy aborts at NaN, on a GPU with an unrecoverable device error. The trainer counts and skips
    steps with NaN.
    """
    inside = probability.nan_to_num(0.5).clamp(1e-6, 1 - 1e-6)
    entropy = binary_cross_entropy(inside, target.to(inside.dtype), reduction="none")
    return torch.where(probability.isnan(), probability, entropy)
