"""Signs that a window has gone wrong."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from streamvggt.geometry.camera import invert_pose
from streamvggt.geometry.similarity import rotation_vector
from streamvggt.stream.windows.joint import Joint
from streamvggt.stream.windows.sight import Sight


@dataclass(frozen=True)
class Health:
    """What a healthy window and a good joint look like. All bounds are wide: they are for collapse, not for noise.

    min_inliers: share of points that agree in a joint.
    max_residual: median distance of the points of a joint, share of their depth.
    max_turn: degrees between the two windows' cameras of a frame.
    max_scale_spread: factor between the scales of the frames of a joint; more is a window that drifts in scale.
    max_scale: factor between two windows' scales, either way.
    max_step: of the camera from frame to frame, in typical depths, and
    max_step_ratio: of that step to the usual ones; both must be exceeded.
    max_look_away: turn of the camera from frame to frame, degrees; with max_step_ratio, too.
    min_conf_share: of a frame's confidence above its least, 1, of that of the frames before.
    max_depth_jump: factor between a frame's typical depth and that of the frames before, either way.
    """

    min_inliers: float = 0.2
    max_residual: float = 0.3
    max_turn: float = 30.0
    max_scale_spread: float = 2.0
    max_scale: float = 20.0
    max_step: float = 1.0
    max_step_ratio: float = 10.0
    max_look_away: float = 60.0
    min_conf_share: float = 0.05
    max_depth_jump: float = 5.0

    def of_joint(self, joint: Joint) -> str | None:
        """What is wrong with a joint, in words; None: nothing."""
        if joint.by == "pose":
            return "no points to align"
        assert joint.inlier_share is not None and joint.residual is not None
        scale = joint.old_from_new.scale.item()
        if joint.inlier_share < self.min_inliers:
            return f"only {joint.inlier_share:.0%} of the points agree"
        if joint.residual > self.max_residual:
            return f"points are {joint.residual:.0%} of their depth apart"
        if joint.turn > self.max_turn:
            return f"cameras are turned by {joint.turn:.0f}°"
        if joint.scale_spread > self.max_scale_spread:
            return f"scale drifts by a factor of {joint.scale_spread:.1f} within the overlap"
        if not 1 / self.max_scale < scale < self.max_scale:
            return f"scale jumps by a factor of {scale:.3g}"
        return None

    def of_frame(self, sight: Sight, before: Sequence[Sight]) -> str | None:
        """What is wrong with a frame, in words; None: nothing.

        Args:
            before: the latest healthy frames of the same window, oldest first.
        """
        if not sight.is_finite:
            return "not finite"
        if not before:
            return None
        usual_conf = statistics.median(earlier.typical_confidence for earlier in before)
        if sight.typical_confidence < self.min_conf_share * usual_conf:
            return f"confidence falls to {sight.typical_confidence / usual_conf:.0%}"
        usual_depth = statistics.median(earlier.typical_depth or 0.0 for earlier in before)
        if sight.typical_depth is None or usual_depth == 0:
            return None
        jump = sight.typical_depth / usual_depth
        if not 1 / self.max_depth_jump < jump < self.max_depth_jump:
            return f"depth jumps by a factor of {jump:.3g}"
        if len(before) < 2:
            return None
        way = torch.stack([earlier.cam_from_world for earlier in (*before, sight)])
        steps = invert_pose(way)[:, :, 3].diff(dim=0).norm(dim=-1)
        turns = torch.rad2deg(rotation_vector(way[1:, :, :3] @ way[:-1, :, :3].mT).norm(dim=-1))
        step, usual_step = steps[-1].item(), steps[:-1].median().item()
        turn, usual_turn = turns[-1].item(), turns[:-1].median().item()
        if step > self.max_step * usual_depth and step > self.max_step_ratio * usual_step:
            return f"the camera jumps by {step / usual_depth:.1f} times the depth"
        if turn > self.max_look_away and turn > self.max_step_ratio * usual_turn:
            return f"the camera turns by {turn:.0f}° at once"
        return None
