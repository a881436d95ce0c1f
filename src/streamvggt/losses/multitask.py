"""Supervised loss with ground truth, as in the training of VGGT (arXiv 2503.11651; fine-tuning code of July 2025)."""

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
    masked_mean,
    normal_errors,
    normals_valid,
    robust_error,
    zero_invalid,
)
from streamvggt.losses.track import TrackTerm

MAX_ERROR = 100.0  # in scene units; larger errors are treated as invalid annotations and give no gradient
MIN_PIXELS = 100  # minimum number of valid pixels per batch
MIN_NORMALS = 10  # minimum number of valid normals per batch
MIN_DEPTH = 1e-4  # in scene units, for the logarithm
MIN_QUANTILE_PIXELS = 1000  # batches with at most this many pixels are not trimmed


@dataclass(frozen=True)
class SupervisedMapTerm(MapTerm):
    """Error of a depth or point map against ground truth: weighted error, plain error, and slope or normal error.

    All valid pixels of a batch have equal weight.

    Attributes:
        weight: Weight of this term in the total loss. 0: the head is not run.
        gamma, alpha: See `confidence_weighted_error`.
        gradient: Additional error: "slope" (differences of neighboring pixels), surface "normal" or "none".
        strides: Pixel strides of the additional error, which is averaged over the strides.
        weight_gradient_by_conf: Apply `confidence_weighted_error` to the additional error, with the confidence of the
            right or lower pixel (slopes) or of the pixel itself (normals).
        error_quantile: Quantile of the batch above which errors are ignored as outliers. None: keep all.
        log: Compare logarithms, for relative errors of depth.

    Raises:
        ValueError: If `gradient` is unknown.

    Reference: VGGT, arXiv 2503.11651, Sec. 3.4.
    """

    weight: float
    gamma: float = 1.0
    alpha: float = 0.2
    gradient: Literal["slope", "normal", "none"] = "none"
    strides: Sequence[int] = (1,)
    weight_gradient_by_conf: bool = False
    error_quantile: float | None = 0.98
    log: bool = False

    def __post_init__(self):
        if self.gradient not in ("slope", "normal", "none"):
            raise ValueError(f"gradient is {self.gradient!r}: expected 'slope', 'normal' or 'none'")

    def __call__(self, maps: MapPair) -> dict[str, Tensor]:
        """Return the scalars "conf", "regression" and, if selected, "gradient", without `weight`."""
        # Use masks. Boolean indexing has data-dependent shapes and causes a host-device synchronization.
        valid = maps.valid & (maps.valid.sum() >= MIN_PIXELS)
        conf = torch.where(valid, maps.conf, 1)
        values = maps.prediction, maps.target
        if self.log:
            values = tuple(torch.where(valid[..., None], value, 1).clamp(min=MIN_DEPTH).log() for value in values)
        prediction, target = (zero_invalid(value, valid) for value in values)
        error = robust_error(prediction, target, "l2")
        confident = confidence_weighted_error(error, conf, self.alpha, self.gamma)
        losses = {
            "conf": trimmed_mean(confident, valid, self.error_quantile),
            "regression": trimmed_mean(error, valid, self.error_quantile),
        }
        if self.gradient != "none":
            at_stride = self._slope_error if self.gradient == "slope" else self._normal_error
            errors = [at_stride(*(m[:, :, ::s, ::s] for m in (prediction, conf, target, valid))) for s in self.strides]
            losses["gradient"] = sum(errors) / len(errors)
        return losses

    def _slope_error(self, prediction: Tensor, conf: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        (along_x, pairs_x), (along_y, pairs_y) = finite_differences(prediction - target, valid)
        error_x, error_y = (along.abs().mean(-1).clamp(max=MAX_ERROR) for along in (along_x, along_y))
        if self.weight_gradient_by_conf:
            error_x = confidence_weighted_error(error_x, conf[..., :, 1:], self.alpha, self.gamma)
            error_y = confidence_weighted_error(error_y, conf[..., 1:, :], self.alpha, self.gamma)
        total = torch.where(pairs_x, error_x, 0).sum() + torch.where(pairs_y, error_y, 0).sum()
        return total / valid.sum().clamp(min=1)

    def _normal_error(self, prediction: Tensor, conf: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        entries = normals_valid(valid)  # (B, S, 4, H, W)
        entries = entries & (entries.sum() >= MIN_NORMALS)
        error = normal_errors(prediction, target)
        if self.weight_gradient_by_conf:
            error = confidence_weighted_error(error, conf[:, :, None], self.alpha, self.gamma)
        return masked_mean(error, entries)


CAMERA = CameraTerm(weight=5.0, error="l1", min_valid_pixels=101)
DEPTH = SupervisedMapTerm(weight=1.0, gradient="slope", strides=(1, 2, 4, 8))
POINTS = SupervisedMapTerm(weight=1.0, gradient="normal", strides=(1, 2, 4))
TRACK = TrackTerm(weight=0.0, distance="l1", weight_by_teacher_conf=False, visible_only=True, iteration_decay=0.8)


class MultiTaskLoss(SumOfTerms):
    """Supervised loss of cameras, depth, points, tracks and further heads. Skips outputs without ground truth.

    Prediction and target are not normalized. The target defines the output unit of the network (VGGT: the mean distance
    of the valid points of a sequence from the first camera).

    Reference: VGGT, arXiv 2503.11651, Sec. 3.4.
    """

    def __init__(
        self,
        *,
        camera: CameraTerm | None = CAMERA,
        depth: SupervisedMapTerm | None = DEPTH,
        points: SupervisedMapTerm | None = POINTS,
        track: TrackTerm | None = TRACK,
        **others,
    ):
        super().__init__(camera=camera, depth=depth, points=points, track=track, **others)


def trimmed_mean(values: Tensor, counts: Tensor, error_quantile: float | None) -> Tensor:
    """Compute the mean of the values below their quantile, each clamped to `MAX_ERROR`.

    Args:
        values: Errors. (...)
        counts: Mask of the values to use. Bool (...)
        error_quantile: Quantile in [0, 1]. None: keep all values.

    Returns:
        Scalar. 0 if the mask is empty. Up to `MIN_QUANTILE_PIXELS` values are not trimmed.
    """
    values = values.clamp(max=MAX_ERROR)
    if error_quantile is None:
        return masked_mean(values, counts)
    number = counts.sum()
    exact = torch.float32 if values.device.type == "mps" else torch.float64  # MPS has no float64
    rank = (error_quantile * (number - 1).to(exact)).round().long().clamp(min=0)
    in_order = torch.where(counts, values.detach(), torch.inf).flatten().sort().values
    below = counts & (values < in_order.gather(0, rank[None]))
    is_trimmed = (number > MIN_QUANTILE_PIXELS) & below.any()
    return masked_mean(values, torch.where(is_trimmed, below, counts))
