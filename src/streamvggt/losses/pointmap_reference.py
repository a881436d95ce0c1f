"""Point-map criteria of the reference fine-tuning code. Use `streamvggt.losses.multitask` for training.

The criteria are derived from DUSt3R (arXiv 2312.14132) and CUT3R (arXiv 2501.12387). Point maps and poses are divided
by the mean distance of the points, weighted by the predicted confidence. The predicted pose is interpreted as
camera-to-world with quaternion w, x, y, z, which differs from the pose encoding of VGGT. The clamped pose error has no
gradient, so the poses of a VGGT network are not trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix
from streamvggt.losses.criterion import Criterion, has_target
from streamvggt.losses.target import Target
from streamvggt.losses.terms import confidence_weighted_error, masked_mean, robust_error
from streamvggt.prediction import Prediction

MIN_SCALE = 1e-3  # smallest divisor; samples at this value have no valid scale


class PointmapLossReference(Criterion):
    """Loss 2·mean over views of (confidence·error - α·log confidence) + 5·min(pose error, 0.3).

    Args:
        points, camera: Weights of the two terms.
        alpha: Weight of the confidence term.
        max_pose_error: Upper bound of the pose error.
        keep_metric: Divide predictions of metric samples by the scale of the target instead of their own.
        sky_error: Error at sky pixels.
        convert_pose: Convert the pose encoding to the form that the criterion expects. The reference implementation
            does not convert it.
    """

    def __init__(
        self,
        *,
        points: float = 2.0,
        camera: float = 5.0,
        alpha: float = 0.2,
        max_pose_error: float = 0.3,
        keep_metric: bool = True,
        sky_error: float = 2.0,
        convert_pose: bool = False,
    ):
        self.weights = {"camera": camera, "points": points}
        self.alpha, self.max_pose_error = alpha, max_pose_error
        self.keep_metric, self.sky_error, self.convert_pose = keep_metric, sky_error, convert_pose

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads to run."""
        # Points and their confidence determine the scale of the poses, so they are always required.
        return ("camera", "points") if self.weights["camera"] else ("points",)

    def terms(self, prediction: Prediction, target: Target) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the weighted terms "points" and "camera", and errors per view as details."""
        if not has_target("points", prediction, target):
            return {}, {}
        errors = pointmap_errors(
            prediction,
            target,
            keep_metric=self.keep_metric,
            sky_error=self.sky_error,
            convert_pose=self.convert_pose,
        )
        confident = errors.view_means(confidence_weighted_error(errors.points, prediction.points_conf, self.alpha))
        terms = {"points": self.weights["points"] * confident.mean()}
        details = by_view("points", errors.view_means(errors.points)) | by_view("conf", confident)
        if self.weights["camera"] and errors.pose is not None:
            terms["camera"] = self.weights["camera"] * errors.pose.clamp(max=self.max_pose_error)
            details["pose"] = errors.pose
        return terms, details


class PointmapTestPublished(Criterion):
    """Sum of the mean point errors per view in the unit of the target, before and after matching the spread.

    Args:
        convert_pose: See `PointmapLossReference`. The pose error is only logged.
    """

    heads = ("camera", "points")

    def __init__(self, *, convert_pose: bool = False):
        self.convert_pose = convert_pose

    def terms(self, prediction: Prediction, target: Target) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the summed point errors before and after matching the spread, and errors per view as details."""
        if not has_target("points", prediction, target):
            return {}, {}
        how = {"keep_scale": True, "convert_pose": self.convert_pose}
        plain = pointmap_errors(prediction, target, **how)
        spread = pointmap_errors(prediction, target, same_spread=True, **how)
        means, spread_means = plain.view_means(plain.points), spread.view_means(spread.points)
        details = by_view("points", means) | by_view("points_same_spread", spread_means)
        if plain.pose is not None:
            details["pose"] = plain.pose
        return {"points": means.sum(), "points_same_spread": spread_means.sum()}, details


@dataclass(frozen=True)
class PointmapErrors:
    """Result of `pointmap_errors`.

    Attributes:
        points: Distance of predicted and ground-truth points after division by their divisors. (B, S, H, W)
        counted: Pixels to average over. Bool (B, S, H, W)
        pose: Error of translation and quaternion, a scalar. None: prediction or target has no poses.
        target_factor, prediction_factor: Divisors of the points. (B,)
    """

    points: Tensor
    counted: Tensor
    pose: Tensor | None
    target_factor: Tensor
    prediction_factor: Tensor

    def view_means(self, values: Tensor) -> Tensor:
        """Average the counted pixels of each view over all samples. (B, S, H, W) → (S,)"""
        views = zip(values.unbind(1), self.counted.unbind(1), strict=True)
        return torch.stack([masked_mean(value, counted) for value, counted in views])


def pointmap_errors(
    prediction: Prediction,
    target: Target,
    *,
    keep_metric: bool = True,
    keep_scale: bool = False,
    sky_error: float = 0.0,
    same_spread: bool = False,
    convert_pose: bool = False,
) -> PointmapErrors:
    """Compute the errors of points and poses after dividing prediction and target by their scales.

    Args:
        prediction, target: Prediction and target with points and confidence.
        keep_metric: Divide predictions of metric samples by the scale of the target.
        keep_scale: Do not divide.
        sky_error: Error at sky pixels without ground truth. 0: ignore these pixels.
        same_spread: Also match the spread of the points around their median: rescale the prediction if `keep_scale`,
            otherwise divide both by their spreads.
        convert_pose: See `PointmapLossReference`.
    """
    gt_points, points, conf = target.prediction.points, prediction.points, prediction.points_conf
    valid = target.valid_like(points)
    nobody = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    camera_only = nobody if target.camera_only is None else target.camera_only
    metric = nobody if target.is_metric is None or not keep_metric else target.is_metric
    gt_points = torch.where(valid[..., None], gt_points, 0)

    if keep_scale:
        factor = true_factor = torch.ones_like(points[:, 0, 0, 0, 0])
    else:
        weights = conf.detach().log().clamp(min=1e-3) * valid
        true_factor = weighted_mean_norm(gt_points, weights)
        factor = torch.where(metric, true_factor, weighted_mean_norm(points, weights))

    pose_error = None
    if prediction.pose_enc is not None and target.prediction.pose_enc is not None:
        pose = published_pose(prediction.pose_enc) if convert_pose else prediction.pose_enc[..., :7]
        gt_pose = published_pose(target.prediction.pose_enc)
        factors = factor, true_factor
        if not keep_scale:
            true_size, size = (weighted_mean_norm(p[..., :3], torch.ones_like(p[..., 0])) for p in (gt_pose, pose))
            size = torch.where(metric, true_size, size)
            factors = torch.where(camera_only, size, factor), torch.where(camera_only, true_size, true_factor)
        pose_error = published_pose_error(pose, gt_pose, *factors)

    points = points / factor[:, None, None, None, None]
    gt_points = gt_points / true_factor[:, None, None, None, None]
    if same_spread:
        true_spread, spread = median_spread(gt_points, valid), median_spread(points, valid).clamp(1e-3, 1e3)
        points = points * ((true_spread if keep_scale else 1) / spread)[:, None, None, None, None]
        gt_points = gt_points if keep_scale else gt_points / true_spread[:, None, None, None, None]

    error = robust_error(points, gt_points, "l2")
    counted = valid
    if sky_error > 0 and target.sky is not None:
        only_sky = target.sky & ~valid
        error, counted = torch.where(only_sky, sky_error, error), valid | only_sky
    counted = counted & ~camera_only[:, None, None, None]
    return PointmapErrors(error, counted, pose_error, true_factor, factor)


def weighted_mean_norm(vectors: Tensor, weights: Tensor) -> Tensor:
    """Compute the weighted mean length of vectors per sample, ≥ `MIN_SCALE`. (B, ..., 3), (B, ...) → (B,)"""
    lengths = torch.where(weights > 0, torch.linalg.vector_norm(vectors, dim=-1), 0)
    size = (lengths * weights).flatten(1).sum(1) / (weights.flatten(1).sum(1) + 1e-8)
    return size.clamp(min=MIN_SCALE)


def median_spread(points: Tensor, valid: Tensor) -> Tensor:
    """Compute the median distance of the valid points of each sample from their median, without gradient.

    Args:
        points: Points. (B, S, H, W, 3)
        valid: Valid pixels. Bool (B, S, H, W)

    Returns:
        Distances. 1 for samples without valid points. The median of an even count is the lower one. (B,)
    """
    valid = valid.flatten(1)  # (B, pixels)
    sample = torch.where(valid[..., None], points.detach().flatten(1, 3), torch.nan)  # (B, pixels, 3)
    centered = sample - sample.nanmedian(1, keepdim=True).values
    spreads = torch.linalg.vector_norm(centered, dim=-1).nanmedian(1).values
    return torch.where(valid.any(1), spreads, 1)


def published_pose(pose_enc: Tensor) -> Tensor:
    """Convert a pose encoding to the form of the reference criterion.

    Args:
        pose_enc: Camera-from-world pose encoding. (..., 9)

    Returns:
        Camera-to-world translation and quaternion w, x, y, z with w ≥ 0. (..., 7)
    """
    translation, quaternion, _ = pose_enc.split([3, 4, 2], -1)
    cam_from_world = torch.cat([matrix_from_quaternion(quaternion), translation[..., None]], -1)
    world_from_cam = invert_pose(cam_from_world)
    return torch.cat([world_from_cam[..., 3], quaternion_from_matrix(world_from_cam[..., :3]).roll(1, -1)], -1)


def published_pose_error(pose: Tensor, gt_pose: Tensor, factor: Tensor, true_factor: Tensor) -> Tensor:
    """Compute the mean error of translations, divided by the factors, plus the mean error of quaternions.

    Args:
        pose, gt_pose: Output of `published_pose`. (B, S, 7)
        factor, true_factor: Divisors of predicted and ground-truth translations. Samples with a divisor of at most
            `MIN_SCALE` are skipped. (B,)
    """
    (translation, quaternion), (true_translation, true_quaternion) = (p.split([3, 4], -1) for p in (pose, gt_pose))
    translation, true_translation = translation / factor[:, None, None], true_translation / true_factor[:, None, None]
    error = robust_error(translation, true_translation, "l2") + robust_error(quaternion, true_quaternion, "l2")
    has_scale = (factor > MIN_SCALE) & (true_factor > MIN_SCALE)
    return masked_mean(error, has_scale[:, None].expand_as(error))


def by_view(name: str, values: Tensor) -> dict[str, Tensor]:
    """Name the values of each view "name/1", "name/2", …"""
    return {f"{name}/{view}": value for view, value in enumerate(values, 1)}
