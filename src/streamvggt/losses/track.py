"""The tracks' share of a loss, for teachers and measurements alike."""

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
    """Distance of tracked points, cross entropy of their visibility, and of their confidence.

    The confidence is taught to be the probability that the track is right, so it cannot be made small for free.

    weight: of this term in the total; 0: the head is not run.
    distance: in pixels: "l2" Euclidean, "l1" |Δx| + |Δy|.
    visibility, confidence: weights within this term, beside the distance's 1.
    correct_threshold_px: a track nearer than this (Euclidean) to the target is right. Pixels
    weight_by_teacher_conf: points count by the target's confidence in them, if it has one.
    visible_only: the distance counts where the target sees the point, of points that it sees in the first frame
        (measured tracks are unknown elsewhere).
    iteration_decay: as in `CameraTerm` (VGGT: 0.8). None: only the last step counts.
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
        """The unweighted scalar."""
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
    """Of two probabilities, elementwise; least where they are equal, NaN where `probability` is.

    PyTorch ends the program at NaN, on a GPU without a way back; a training counts such steps and skips them.
    """
    inside = probability.nan_to_num(0.5).clamp(1e-6, 1 - 1e-6)
    entropy = binary_cross_entropy(inside, target.to(inside.dtype), reduction="none")
    return torch.where(probability.isnan(), probability, entropy)
