"""The point-map criteria of the released fine-tuning code, exactly; `streamvggt.losses.multitask` is what to use.

They stem from DUSt3R and CUT3R: point maps and poses are divided by the mean distance of the points, both by the
prediction's own confidence. The predicted pose is read as camera-to-world with quaternion w, x, y, z, which is not how
VGGT says it, and the clip of the pose error takes its gradient away: with a VGGT network the poses learn nothing.
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

MIN_SCALE = 1e-3  # the smallest factor; a sample that has no more has no scale


class PointmapLossReference(Criterion):
    """2·mean over views of (confidence·error - α·log confidence) + 5·min(pose error, 0.3).

    keep_metric: do not divide predictions of metric samples by their own size.
    sky_error: the error that is charged where there is sky.
    convert_pose: turn the network's pose into the form that the criterion expects before comparing; the released code
        does not.
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
        # Points and their confidence give the poses' scale, so they are needed in any case.
        return ("camera", "points") if self.weights["camera"] else ("points",)

    def terms(self, prediction: Prediction, target: Target) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
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
    """Mean point error of each view in the target's unit, and the same after giving the prediction its spread; added.

    convert_pose: as in `PointmapLossReference`; the pose error is only logged.
    """

    heads = ("camera", "points")

    def __init__(self, *, convert_pose: bool = False):
        self.convert_pose = convert_pose

    def terms(self, prediction: Prediction, target: Target) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
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
    """What `pointmap_errors` finds.

    points: distance of predicted and true points, both divided by their factor. (B, S, H, W)
    counted: which of them count. Bool (B, S, H, W)
    pose: translation's and quaternion's error, or None if either side has no poses. Scalar
    target_factor, prediction_factor: what the points were divided by. (B,)
    """

    points: Tensor
    counted: Tensor
    pose: Tensor | None
    target_factor: Tensor
    prediction_factor: Tensor

    def view_means(self, values: Tensor) -> Tensor:
        """Mean of a map's counted pixels in each view, of all samples together: (B, S, H, W) → (S,)."""
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
    """Errors of points and poses after dividing each side by its size.

    keep_metric: predictions of metric samples are divided by the target's size.
    keep_scale: nothing is divided.
    sky_error: the error where there is sky and no measurement; 0: these pixels do not count.
    same_spread: then make the predicted points' spread about their median the same: by rescaling the prediction
        if `keep_scale`, else by dividing both sides by their own.
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
            true_size = weighted_mean_norm(gt_pose[..., :3], torch.ones_like(gt_pose[..., 0]))
            size = weighted_mean_norm(pose[..., :3], torch.ones_like(pose[..., 0]))
            size = torch.where(metric, true_size, size)
            factors = torch.where(camera_only, size, factor), torch.where(camera_only, true_size, true_factor)
        pose_error = published_pose_error(pose, gt_pose, *factors)

    points = points / factor[:, None, None, None, None]
    gt_points = gt_points / true_factor[:, None, None, None, None]
    if same_spread:
        true_spread, spread = median_spread(gt_points, valid), median_spread(points, valid).clamp(1e-3, 1e3)
        if keep_scale:
            points = points * (true_spread / spread)[:, None, None, None, None]
        else:
            points = points / spread[:, None, None, None, None]
            gt_points = gt_points / true_spread[:, None, None, None, None]

    error = robust_error(points, gt_points, "l2")
    counted = valid
    if sky_error > 0 and target.sky is not None:
        only_sky = target.sky & ~valid
        error, counted = torch.where(only_sky, sky_error, error), valid | only_sky
    counted = counted & ~camera_only[:, None, None, None]
    return PointmapErrors(error, counted, pose_error, true_factor, factor)


def weighted_mean_norm(vectors: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean length of each sample's vectors: (B, ..., 3), (B, ...) → (B,), at least `MIN_SCALE`."""
    lengths = torch.where(weights > 0, torch.linalg.vector_norm(vectors, dim=-1), 0)
    size = (lengths * weights).flatten(1).sum(1) / (weights.flatten(1).sum(1) + 1e-8)
    return size.clamp(min=MIN_SCALE)


def median_spread(points: Tensor, valid: Tensor) -> Tensor:
    """Median distance of each sample's valid points from their median, a constant: (B, S, H, W, 3) → (B,).

    Medians of an even number are the lower one; a sample without valid points gets 1.
    """
    spreads = torch.ones_like(points[:, 0, 0, 0, 0])
    for b, mask in enumerate(valid):
        if mask.any():
            sample = points[b].detach()[mask]  # (pixels, 3)
            spreads[b] = torch.linalg.vector_norm(sample - sample.median(0).values, dim=-1).median()
    return spreads


def published_pose(pose_enc: Tensor) -> Tensor:
    """The network's pose as the released criterion writes it: camera-to-world T, w, x, y, z with w ≥ 0.

    (..., 9) → (..., 7)
    """
    translation, quaternion, _ = pose_enc.split([3, 4, 2], -1)
    cam_from_world = torch.cat([matrix_from_quaternion(quaternion), translation[..., None]], -1)
    world_from_cam = invert_pose(cam_from_world)
    return torch.cat([world_from_cam[..., 3], quaternion_from_matrix(world_from_cam[..., :3]).roll(1, -1)], -1)


def published_pose_error(pose: Tensor, gt_pose: Tensor, factor: Tensor, true_factor: Tensor) -> Tensor:
    """Mean length of the differences of translations, in units of the factors, and of quaternions.

    Args:
        pose, gt_pose: as from `published_pose`. (B, S, 7)
        factor, true_factor: samples where either is no more than `MIN_SCALE` are left out. (B,)
    """
    (translation, quaternion), (true_translation, true_quaternion) = (p.split([3, 4], -1) for p in (pose, gt_pose))
    translation, true_translation = translation / factor[:, None, None], true_translation / true_factor[:, None, None]
    error = robust_error(translation, true_translation, "l2") + robust_error(quaternion, true_quaternion, "l2")
    has_scale = (factor > MIN_SCALE) & (true_factor > MIN_SCALE)
    return masked_mean(error, has_scale[:, None].expand_as(error))


def by_view(name: str, values: Tensor) -> dict[str, Tensor]:
    return {f"{name}/{view}": value for view, value in enumerate(values, 1)}
